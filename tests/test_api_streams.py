"""Streams over HTTP and over a socket: numbered lines, answers that tell where to go on, and who may send."""

import asyncio
import json

import pytest
from channels.testing import WebsocketCommunicator
from django.test import Client

from auditweb.dumps.models import Dump, State
from auditweb.teams import keys
from sessions_app.models import Session
from tests.test_sockets import aside, release
from tests.test_streams import post, speech

pytestmark = pytest.mark.django_db

API = "/api/v1/streams/"


@pytest.fixture
def producer(key_client):
    return key_client("ingest")


def send(client, name, first, *lines, **options):
    query = "".join(f"&{key}={value}" for key, value in options.items())
    body = b"".join(line + b"\n" for line in lines)
    return client.post(f"{API}{name}/lines?first={first}{query}", body, content_type="application/x-ndjson")


def error(response):
    said = response.json()["error"]
    return response.status_code, said["code"], said["detail"]


def test_lines_are_stored_when_the_answer_comes_and_sent_again_without_harm(producer):
    answer = send(producer, "voice-7", 1, speech(1), post(2))
    session = Session.objects.get()
    bus = session.status_bus
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted_through": 2,
        "duplicates": 0,
        "sessions": [{"id": session.public_id, "url": f"/sessions/{session.public_id}/"}],
        "status_buses": [{"id": bus.public_id, "url": f"/status/{bus.public_id}/"}],
    }
    assert send(producer, "voice-7", 1, speech(1), post(2), speech(3)).json()["duplicates"] == 2
    assert producer.get(f"{API}voice-7").json()["accepted_through"] == 3
    assert session.events.count() == 3


def test_what_is_refused_says_where_to_go_on(producer):
    assert error(send(producer, "s", 5, speech(1))) == (409, "gap", {"expected": 1})
    assert not Dump.objects.exists(), "a refused beginning leaves no empty stream"
    send(producer, "s", 1, speech(1))
    assert error(send(producer, "s", 1, speech(9))) == (409, "differs", {"line": 1})
    assert error(send(producer, "s", "x", speech(1)))[:2] == (400, "bad_request")
    assert error(producer.post(f"{API}s/lines", b"{}", content_type="application/x-ndjson"))[:2] == (400, "invalid")
    assert error(send(producer, "s", 2, *[b"{}"] * 1001))[:2] == (413, "too_large")
    assert error(send(producer, "s", 2, b"x" * 2**20))[:2] == (413, "too_large")
    assert error(send(producer, "t", 1, speech(1), zone="Nowhere/Land"))[:2] == (400, "invalid")
    assert error(send(producer, "n" * 201, 1, speech(1)))[:2] == (400, "invalid")
    assert producer.get(f"{API}missing").status_code == 404


def test_the_options_count_when_the_stream_is_made(producer):
    send(producer, "a", 1, speech(1), session="call-7", zone="Europe/Paris", title="The call", bus="office")
    send(producer, "b", 1, speech(2), session="call-7")
    send(producer, "a", 2, speech(3), session="another")
    session = Session.objects.get()
    assert (session.key, session.last_seq) == ("call-7", 3)
    dump = Dump.objects.get(stream="a")
    assert (dump.zone, dump.name, dump.bus_name) == ("Europe/Paris", "The call", "office")


def test_a_heartbeat_and_the_end(producer):
    send(producer, "s", 1, speech(1))
    assert producer.post(f"{API}s/heartbeat").json() == {"accepted_through": 1}
    assert Session.objects.get().heard_at is not None
    assert producer.post(f"{API}s/end").json() == {"accepted_through": 1}
    assert not Session.objects.get().live
    assert Dump.objects.get().state == State.DONE
    said = producer.post(f"{API}s/provisional", {"role": "nobody", "text": "x"}, content_type="application/json")
    assert error(said)[:2] == (400, "invalid")


def test_it_takes_the_scope_ingest(key_client, victor_client, alice_client, bob_client):
    assert send(key_client("read"), "s", 1, speech(1)).status_code == 403
    assert send(Client(), "s", 1, speech(1)).status_code == 401
    assert send(victor_client, "s", 1, speech(1)).status_code == 403
    assert send(alice_client, "s", 1, speech(1)).status_code == 200
    assert bob_client.get(f"{API}s").status_code == 404
    assert send(bob_client, "s", 1, speech(7)).status_code == 200  # a stream of the same name in another team
    assert Dump.objects.filter(stream="s").count() == 2


# --- over a socket -----------------------------------------------------------------------------------------------


class Producer:
    """An agent at the other end of a socket."""

    def __init__(self, communicator):
        self.communicator = communicator

    async def hear(self):
        output = await self.communicator.receive_output(timeout=20)
        return output["code"] if output["type"] == "websocket.close" else json.loads(output["text"])

    async def say(self, **message):
        await self.communicator.send_json_to(message)
        return await self.hear()


@pytest.fixture
async def connect(team):
    from auditweb.asgi import application

    opened = []

    async def make(path="/ws/streams/voice-7/", scopes=("ingest",)):
        _, text = await aside(keys.create, team, "test", scopes)
        headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {text}".encode())]
        communicator = WebsocketCommunicator(application, path, headers)
        opened.append(communicator)
        assert (await communicator.connect(timeout=20))[0]
        return Producer(communicator)

    yield make
    for communicator in opened:
        await communicator.disconnect()
    await release()


@pytest.mark.django_db(transaction=True)
async def test_a_socket_takes_the_same_lines_and_answers_each_message(connect):
    producer = await connect("/ws/streams/voice-7/?title=The%20call")
    assert await producer.hear() == {"type": "accepted", "accepted_through": 0}
    said = await producer.say(first=1, lines=[speech(1).decode(), "{bad"])
    assert (said["type"], said["accepted_through"], len(said["sessions"])) == ("accepted", 2, 1)
    assert (await producer.say(first=1, lines=[speech(1).decode()]))["duplicates"] == 1
    assert await producer.say(first=9, lines=["{}"]) == {"type": "refused", "code": "gap", "expected": 3}
    assert await producer.say(first=1, lines=["{}"]) == {"type": "refused", "code": "differs", "line": 1}
    assert await producer.say(heartbeat=True) == {"type": "accepted", "accepted_through": 2}
    assert await producer.say(end=True) == {"type": "ended", "accepted_through": 2}
    dump = await aside(Dump.objects.get)
    assert (dump.name, dump.state, dump.bad_line_count) == ("The call", State.DONE, 1)
    again = await connect()
    assert await again.hear() == {"type": "accepted", "accepted_through": 2}


@pytest.mark.django_db(transaction=True)
async def test_a_producer_that_is_quick_is_slowed_down_and_not_sent_away(connect):
    producer = await connect()
    await producer.hear()
    for n in range(1, 251):
        await producer.communicator.send_json_to({"heartbeat": True} if n % 50 else {"first": n // 50, "lines": ["{}"]})
    said = [await producer.hear() for _ in range(250)]
    assert (said[-1]["type"], said[-1]["accepted_through"]) == ("accepted", 5)


@pytest.mark.django_db(transaction=True)
async def test_a_socket_of_the_wrong_kind_is_closed_with_its_reason(connect):
    assert await (await connect(scopes=("read",))).hear() == 4403
    assert await (await connect("/ws/streams/voice-7/?zone=Nowhere/Land")).hear() == 4400
    producer = await connect()
    await producer.hear()
    assert await producer.say(first=1, lines=["one\ntwo"]) == 1008


@pytest.mark.django_db(transaction=True)
async def test_a_stream_that_is_imported_again_asks_for_patience(connect):
    producer = await connect()
    await producer.hear()
    await producer.say(first=1, lines=["{}"])
    await aside(Dump.objects.update, state=State.QUEUED)
    for message in ({"first": 2, "lines": ["{}"]}, {"heartbeat": True}, {"end": True}):
        said = await producer.say(**message)
        assert (said["type"], said["code"]) == ("refused", "busy")
    await aside(Dump.objects.update, state=State.LIVE)
    assert (await producer.say(first=2, lines=["{}"]))["accepted_through"] == 2


@pytest.mark.django_db(transaction=True)
async def test_a_key_that_is_revoked_closes_the_socket(connect, monkeypatch):
    from auditweb.dumps import consumers
    from auditweb.teams.models import ApiKey

    monkeypatch.setattr(consumers, "STANDING_SECONDS", 0.1)
    producer = await connect()
    await producer.hear()
    await aside(lambda: keys.revoke(ApiKey.objects.get()))
    async with asyncio.timeout(20):
        assert await producer.hear() == 4403


# --- to who watches ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_what_is_said_so_far_reaches_watchers_and_is_kept_nowhere(producer, connect, team, alice):
    from tests.test_sockets import Watcher

    await aside(send, producer, "voice-7", 1, speech(1))
    session = await aside(Session.objects.get)
    reader = await connect(f"/ws/sessions/{session.public_id}/", scopes=("read",))
    watcher = Watcher(reader.communicator)
    await watcher.rows_to(1)

    def so_far():
        said = {"role": "user", "text": "I would like"}
        return producer.post(f"{API}voice-7/provisional", said, content_type="application/json").status_code

    assert await aside(so_far) == 200
    await watcher.hear(lambda: watcher.of("provisional"), "what is said so far")
    assert watcher.of("provisional") == [{"type": "provisional", "role": "user", "text": "I would like"}]
    assert (await aside(Session.objects.get)).last_seq == 1


# --- the lane of producers (auditweb/lane.py) ----------------------------------------------------------------------


@pytest.fixture
def lane(team):
    """``await lane(name, first, *lines)`` → (status, headers, JSON) as an ASGI server gets them, sent with one key."""
    from auditweb.asgi import application

    async def post(name, first, *lines, key="", query=""):
        sent = []
        messages = iter([{"type": "http.request", "body": b"\n".join(lines) + b"\n", "more_body": False}])

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": f"{API}{name}/lines", "raw_path": f"{API}{name}/lines".encode(), "root_path": "",
            "query_string": f"first={first}{query}".encode(), "client": ("127.0.0.1", 1), "server": ("testserver", 80),
            "headers": [(b"host", b"testserver"), (b"authorization", f"Bearer {key}".encode())],
        }  # fmt: skip
        await application(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])

    return post


@pytest.mark.django_db(transaction=True)
async def test_lines_under_way_go_the_short_way_and_all_else_the_usual_one_with_the_same_answers(lane, team):
    from auditweb.dumps import stream_api
    from auditweb.live.threads import writers

    _, key = await aside(keys.create, team, "agent", ("ingest",))
    short, usual = [], stream_api.usual

    def counted(*args):
        short.append(None)
        short[-1] = usual(*args)
        return short[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_api, "usual", counted)
        status, first_headers, _ = await lane("voice-7", 1, speech(1), key=key)
        assert status == 200
        await lane("voice-7", 2, speech(2), key=key)
        status, headers, said = await lane("voice-7", 2, speech(2), speech(3), key=key)
        assert short[-1] is not None, "the short way was taken"
        assert (status, said["accepted_through"], said["duplicates"]) == (200, 3, 1)
        assert headers == first_headers | {b"Content-Length": headers[b"Content-Length"]}
        assert headers[b"Cache-Control"] == b"no-store"
        for ask, answer in (
            ({"first": 9, "lines": [speech(9)]}, (409, "gap")),
            ({"first": 1, "lines": [speech(9)]}, (409, "differs")),
            ({"first": "x", "lines": [speech(9)]}, (400, "bad_request")),
            ({"first": 1, "lines": [speech(1)], "key": "awk_" + "0" * 64}, (401, "authentication_failed")),
            ({"first": 1, "lines": [speech(1)], "query": "&team=nobody"}, (404, "not_found")),
        ):
            status, _, said = await lane(
                "voice-7", ask["first"], *ask["lines"], key=ask.get("key", key), query=ask.get("query", "")
            )
            assert (status, said["error"]["code"]) == answer
        await aside(lambda: keys.revoke(keys.find(key)))
        assert (await lane("voice-7", 4, speech(4), key=key))[0] == 401, "revoked at once"
    assert (await aside(Session.objects.get)).last_seq == 3

    def close():
        from django.db import connection

        connection.close()

    for _ in range(8):
        writers.submit(close).result()
    await release()
