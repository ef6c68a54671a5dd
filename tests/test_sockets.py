"""Live sockets: what is committed anywhere reaches whoever may see it, and nobody else."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings as configured
from django.db import connection, transaction

from auditweb import log
from auditweb.live import bell, hub

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 20  # generous: these machines are shared
ROOT = Path(__file__).resolve().parent.parent


def say(session, *texts):
    """Append one event per text, as an import does."""
    from sessions_app.models import EVENT_COLUMNS, Event

    base = dict.fromkeys(EVENT_COLUMNS, "") | {
        "at_us": None, "sort_us": 0, "duration_ms": None, "cut": None, "dump_id": 0, "line": 1,
        "ts_quality": "missing", "kind": "speech", "lane": "user", "role": "user",
    }  # fmt: skip
    rows = [tuple({**base, "text": text}[name] for name in EVENT_COLUMNS) for text in texts]
    with transaction.atomic():
        return log.append(session, Event, EVENT_COLUMNS, rows)


async def aside(call, *args, **kwargs):
    """Run database work in a thread of its own that leaves no connection open."""

    def run():
        try:
            return call(*args, **kwargs)
        finally:
            connection.close()

    return await asyncio.to_thread(run)


async def release():
    """Close the connection of channels' thread, which a communicator keeps open: no server drops a database in use."""
    await sync_to_async(lambda: connection.close())()


ANOTHER_PROCESS = """
    import sys
    from django.conf import settings
    settings.DATABASES["default"]["NAME"] = sys.argv[1]
    import django
    django.setup()
    from sessions_app.models import Session
    from tests.test_sockets import say
    session = Session.objects.get(pk=int(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        say(session, *line.split())
        print("done", flush=True)
"""


class Other:
    """Another process that appends what it is told."""

    def __init__(self, session):
        command = [sys.executable, "-c", textwrap.dedent(ANOTHER_PROCESS)]
        name = str(configured.DATABASES["default"]["NAME"])
        self.process = subprocess.Popen(
            [*command, name, str(session.pk)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def say(self, *texts):
        self.process.stdin.write(" ".join(texts) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.wait(SECONDS)
        self.process.stdout.close()


class Watcher:
    """A browser that follows a log: keeps every message, acknowledges every row."""

    def __init__(self, communicator, mute=False):
        self.communicator, self.mute = communicator, mute
        self.said, self.closed = [], None

    async def hear(self, done, what, seconds=SECONDS):
        """Read messages until *done()*."""
        async with asyncio.timeout(seconds):
            while not done():
                assert self.closed is None, f"closed with {self.closed} before: {what}"
                output = await self.communicator.receive_output(timeout=seconds)
                if output["type"] == "websocket.close":
                    self.closed = output["code"]
                    continue
                message = json.loads(output["text"])
                self.said.append(message)
                if message["type"] == "entries" and not self.mute:
                    await self.communicator.send_json_to({"ack": message["entries"][-1]["seq"]})

    async def rows_to(self, seq, seconds=SECONDS):
        await self.hear(lambda: self.seqs[-1:] == [seq], f"row {seq}", seconds)

    async def close_code(self, seconds=SECONDS):
        await self.hear(lambda: self.closed is not None, "the close", seconds)
        return self.closed

    def of(self, kind):
        return [message for message in self.said if message["type"] == kind]

    @property
    def rows(self):
        return [row for message in self.of("entries") for row in message["entries"]]

    @property
    def seqs(self):
        return [row["seq"] for row in self.rows]


@pytest.fixture
def session(team):
    from sessions_app.models import Session

    return Session.objects.create(team=team, key="k", title="A call")


@pytest.fixture
async def watch(signed_in):
    """``await watch(path, user=alice)`` → a Watcher whose handshake was accepted."""
    from auditweb.sockets import websocket

    opened = []

    async def open_socket(path, user=None, key=None, mute=False, client=None):
        headers = [(b"host", b"testserver")]
        if key:
            headers.append((b"authorization", f"Bearer {key}".encode()))
        else:
            headers.append((b"origin", b"http://testserver"))
        if user is not None:
            client = await aside(signed_in, user)
        if client is not None:
            cookie = client.cookies[configured.SESSION_COOKIE_NAME].value
            headers.append((b"cookie", f"{configured.SESSION_COOKIE_NAME}={cookie}".encode()))
        communicator = WebsocketCommunicator(websocket, path, headers)
        opened.append(communicator)
        accepted, _ = await communicator.connect(timeout=SECONDS)
        assert accepted
        return Watcher(communicator, mute)

    yield open_socket
    for communicator in opened:
        await communicator.disconnect(timeout=SECONDS)
    await release()


def path_of(session, after=0):
    return f"/ws/sessions/{session.public_id}/?after={after}"


# --- what arrives ------------------------------------------------------------------------------------------------


async def test_live_rows_are_the_rows_of_a_reload(alice, session, watch):
    from sessions_app import timeline

    await aside(say, session, "one", "two", "three")
    start, middle = await watch(path_of(session), alice), await watch(path_of(session, after=2), alice)
    await start.rows_to(3)
    await middle.rows_to(3)
    await aside(say, session, "four")
    await start.rows_to(4)
    await middle.rows_to(4)
    assert middle.seqs == [3, 4]
    stored = await aside(timeline.rows_after, session.pk, 0, 100)
    assert start.rows == json.loads(timeline.encode(stored))


async def test_a_status_bus_is_followed_the_same_way(alice, team, watch):
    from status_app import feed
    from status_app.models import ENTRY_COLUMNS, StatusBus, StatusEntry

    def post():
        row = dict.fromkeys(ENTRY_COLUMNS, "") | {
            "at_us": 1_700_000_000_000_000, "sort_us": 0, "cut": None, "dump_id": 0, "line": 1, "ts_quality": "aware",
            "ts_text": "2023-11-14T22:13:20+00:00", "agent": "scout", "action": "search", "status": "completed",
        }  # fmt: skip
        with transaction.atomic():
            log.append(bus, StatusEntry, ENTRY_COLUMNS, [tuple(row.values())])

    bus = await aside(StatusBus.objects.create, team=team, name="main")
    await aside(post)
    watcher = await watch(f"/ws/status/{bus.public_id}/", alice)
    await watcher.rows_to(1)
    await aside(post)
    await watcher.rows_to(2)
    stored = await aside(feed.rows_after, bus.pk, 0, 10)
    same = ("seq", "ts", "agent_id", "action", "status", "detail", "metadata")
    assert [[row[k] for k in same] for row in watcher.rows] == [[row[k] for k in same] for row in stored]
    assert watcher.rows[0]["age_ms"] > 0


async def test_a_status_bus_is_followed_by_its_name_as_the_events_of_roomkit(alice, bob, team, watch):
    from status_app import posts
    from status_app.models import StatusBus

    def post(*actions):
        entries = ({"agent_id": "scout", "action": a, "status": "ok", "metadata": {"n": 1}} for a in actions)
        return posts.append(team, "our office", "", posts.read(b"\n".join(json.dumps(e).encode() for e in entries)))

    await aside(post, "a", "b", "c")
    bus = await aside(StatusBus.objects.get)
    plain = await watch("/ws/status/our%20office/", alice)
    events = await watch("/ws/status/our%20office/?after=1&as=status_posted", alice)
    await plain.rows_to(3)
    await events.hear(lambda: len(events.of("status_posted")) == 2, "two events")
    told = [(event["seq"], event["data"]) for event in events.of("status_posted")]
    names = ("ts", "agent_id", "action", "status", "detail", "metadata")
    assert told == [(row["seq"], {name: row[name] for name in names}) for row in plain.rows[1:]]
    await aside(post, "d")
    await hub.hub().told(bus.live_key, 4, SECONDS)  # what `wait=1` waits for
    assert not events.communicator.output_queue.empty() and not plain.communicator.output_queue.empty()
    await events.hear(lambda: events.of("status_posted")[-1]["seq"] == 4, "the new one")
    assert await (await watch("/ws/status/our%20office/", bob)).close_code() == 4404


async def test_appends_of_threads_and_of_another_process_arrive_once_and_in_order(alice, session, watch):
    other = await asyncio.to_thread(Other, session)
    watchers = [await watch(path_of(session), alice), await watch(path_of(session), alice)]

    def write(name):
        try:
            for number in range(25):
                say(session, f"{name}-{number}", f"{name}-{number}b")
        finally:
            connection.close()

    def tell():
        for number in range(25):
            other.say(f"other-{number}", f"other-{number}b")

    session.last_seq = 0
    with ThreadPoolExecutor(4) as threads:
        loop = asyncio.get_running_loop()
        writing = [loop.run_in_executor(threads, write, name) for name in ("a", "b", "c")]
        writing.append(loop.run_in_executor(threads, tell))
        await asyncio.gather(*(watcher.rows_to(200) for watcher in watchers), *writing)
    await asyncio.to_thread(other.end)
    for watcher in watchers:
        assert watcher.seqs == list(range(1, 201))
        texts = [row["text"] for row in watcher.rows]
        assert len(set(texts)) == 200
        for name in ("a", "b", "c", "other"):  # every writer's own order is kept
            mine = [text for text in texts if text.startswith(f"{name}-")]
            assert mine == [f"{name}-{number}{half}" for number in range(25) for half in ("", "b")]


async def test_a_commit_of_another_process_rings_here_without_the_poll(alice, session, watch, settings):
    if not (settings.SQLITE or settings.REDIS_URL):
        settings.LIVE_POLL_SECONDS = 0.2  # PostgreSQL alone has no doorbell
    else:
        settings.LIVE_POLL_SECONDS = 300
    other = await asyncio.to_thread(Other, session)
    watcher = await watch(path_of(session), alice)
    await watcher.hear(lambda: watcher.of("ping"), "the first ping")
    delays = []
    for number in range(1, 6):
        began = time.monotonic()
        await asyncio.to_thread(other.say, f"n{number}")
        await watcher.rows_to(number)
        delays.append(time.monotonic() - began)
    await asyncio.to_thread(other.end)
    assert sorted(delays)[2] < 1


async def test_a_lost_ring_only_delays(alice, session, watch, settings, monkeypatch):
    settings.LIVE_POLL_SECONDS = 0.05
    settings.SQLITE = False  # no data_version
    monkeypatch.setattr(bell, "_ring", lambda key, note, kind="": None)
    watcher = await watch(path_of(session), alice)
    await watcher.hear(lambda: watcher.of("ping"), "the first ping")
    await aside(say, session, "nobody rang")
    await watcher.rows_to(1)


async def test_thirty_sockets_that_come_back_cost_a_few_reads(alice, session, watch, monkeypatch, signed_in):
    from sessions_app.consumers import TimelineConsumer

    reads, rows = [], TimelineConsumer.source.rows
    monkeypatch.setattr(TimelineConsumer.source, "rows", lambda *args: (reads.append(args), rows(*args))[1])
    await aside(say, session, *(f"t{number}" for number in range(700)))
    client = await aside(signed_in, alice)
    watchers = [await watch(path_of(session, after=200), client=client) for _ in range(30)]
    await asyncio.gather(*(watcher.rows_to(700, 60) for watcher in watchers))
    assert all(watcher.seqs == list(range(201, 701)) for watcher in watchers)
    assert len(reads) <= 15  # alone, each would take three


async def test_a_socket_that_acknowledges_nothing_is_held_at_the_window(alice, session, watch):
    await aside(say, session, *(f"t{number}" for number in range(900)))
    mute, well = await watch(path_of(session), alice, mute=True), await watch(path_of(session), alice)
    await well.rows_to(900)
    await mute.rows_to(250)
    await aside(say, session, "more")
    await well.rows_to(901)
    while not await mute.communicator.receive_nothing(timeout=0.3):
        assert (await mute.communicator.receive_json_from())["type"] != "entries"
    mute.mute = False
    await mute.communicator.send_json_to({"ack": 250})
    await mute.rows_to(901)
    assert mute.seqs == list(range(1, 902))


async def test_deleted_events_are_a_gap_and_a_deleted_session_is_the_end(alice, session, watch):
    from sessions_app.models import Event

    await aside(say, session, "one", "two", "three", "four")
    await aside(Event.objects.filter(id__range=log.id_range(session.pk, 1, 3)).delete)
    watcher = await watch(path_of(session), alice)
    await watcher.rows_to(4)
    assert watcher.of("gap") == [{"type": "gap", "from": 2, "to": 3}]
    assert watcher.seqs == [1, 4]
    await aside(type(session).objects.filter(pk=session.pk).delete)
    assert await watcher.close_code() == 4404
    assert watcher.said[-1] == {"type": "deleted"}


async def test_the_end_of_a_session_and_a_new_revision_are_told(alice, session, watch):
    from django.utils import timezone

    sessions = type(session).objects.filter(pk=session.pk)
    await aside(sessions.update, live=True)
    watcher = await watch(path_of(session), alice)
    await watcher.hear(lambda: watcher.of("state"), "the state")
    await aside(sessions.update, live=False, ended_at=timezone.now())
    await watcher.hear(lambda: len(watcher.of("state")) == 2, "the end")
    await aside(sessions.update, revision=7)
    await watcher.hear(lambda: watcher.of("revision"), "the revision")
    first, second = watcher.of("state")
    assert (first["live"], first["quiet"], first["stale"], first["ended_at"]) == (True, False, False, None)
    assert second["live"] is False
    assert second["ended_at"].endswith("Z")
    assert watcher.of("revision") == [{"type": "revision", "revision": 7}]


# --- who may watch -----------------------------------------------------------------------------------------------


async def test_a_stranger_hears_the_same_as_for_a_session_that_is_missing(bob, other_team, session, watch):
    foreign = await watch(path_of(session), bob)
    missing = await watch("/ws/sessions/0123456789abcdefABCDEF/", bob)
    assert await foreign.close_code() == await missing.close_code() == 4404
    assert foreign.said == missing.said == []


async def test_nobody_signed_in_hears_4401(session, watch):
    watcher = await watch(path_of(session))
    assert await watcher.close_code() == 4401
    assert watcher.said == []


@pytest.mark.parametrize("path", ["/ws/sessions/short/", "/ws/sessions/%00/", "/ws/else/", "/"])
async def test_an_address_that_is_none_is_missing(path, alice, team, watch):
    watcher = await watch(path, alice)
    assert await watcher.close_code() == 4404


@pytest.mark.parametrize("after", ["-1", "x", "4294967297", "1.5", "9" * 5000, "%D9%A3", ""])
async def test_a_place_that_is_none_is_refused(after, alice, session, watch):
    watcher = await watch(path_of(session, after), alice)
    if after == "":
        await aside(say, session, "one")
        await watcher.rows_to(1)  # no place given: from the start
    else:
        assert await watcher.close_code() == 4400


async def test_a_key_needs_the_scope_read(team, session, watch):
    from auditweb.teams import keys

    _, ingest = await aside(keys.create, team, "feeder", ["ingest"])
    _, read = await aside(keys.create, team, "reader", ["read"])
    await aside(say, session, "one")
    assert await (await watch(path_of(session), key=ingest)).close_code() == 4403
    assert await (await watch(path_of(session), key="awk_" + "0" * 64)).close_code() == 4401
    watcher = await watch(path_of(session), key=read)
    await watcher.rows_to(1)


def _leave_the_team(user, client, team):
    team.memberships.filter(user=user).delete()


def _log_out(user, client, team):
    client.logout()


def _disable(user, client, team):
    type(user).objects.filter(pk=user.pk).update(is_active=False)


def _change_the_password(user, client, team):
    user.set_password("another-long-phrase")
    user.save()


@pytest.mark.parametrize("act", [_leave_the_team, _log_out, _disable, _change_the_password])
async def test_access_that_ends_closes_the_socket(act, victor, team, session, watch, signed_in, monkeypatch, alice):
    monkeypatch.setattr(hub, "PING_SECONDS", 0.3)
    client = await aside(signed_in, victor)
    # A cookie header of its own: signing out empties the client's jar.
    watcher, witness = await watch(path_of(session), client=client), await watch(path_of(session), alice)
    await watcher.hear(lambda: len(watcher.of("ping")) >= 2, "it may stay")
    await aside(act, victor, client, team)
    assert await watcher.close_code() == 4403
    await aside(say, session, "in private")
    await witness.rows_to(1)
    assert watcher.rows == []


async def test_a_revoked_key_closes_its_sockets(team, session, watch, monkeypatch):
    from auditweb.teams import keys

    monkeypatch.setattr(hub, "PING_SECONDS", 0.3)
    key, text = await aside(keys.create, team, "reader", ["read"])
    watcher = await watch(path_of(session), key=text)
    await watcher.hear(lambda: watcher.of("ping"), "it may stay")
    await aside(keys.revoke, key)
    assert await watcher.close_code() == 4403


# --- what clients send -------------------------------------------------------------------------------------------


NO_MESSAGES = [
    "", "{", "[]", "7", '{"ack": "1"}', '{"ack": -1}', '{"ack": true}', '{"ack": 1.5}', '{"ack": 99999999999}',
    '{"note": "' + "x" * 17_000 + '"}', "[" * 9000, '{"a":' * 3000, '{"note": "\ud800"}',
]  # fmt: skip


@pytest.mark.parametrize("text", NO_MESSAGES, ids=range(len(NO_MESSAGES)))
async def test_what_is_no_message_closes_the_socket(text, alice, session, watch):
    watcher = await watch(path_of(session), alice)
    await watcher.communicator.send_input({"type": "websocket.receive", "text": text})
    assert await watcher.close_code() == 1008


async def test_binary_messages_and_floods_close_the_socket(alice, session, watch):
    binary, flood = await watch(path_of(session), alice), await watch(path_of(session), alice)
    await binary.communicator.send_to(bytes_data=b'{"ack": 1}')
    assert await binary.close_code() == 1008
    for _ in range(150):
        await flood.communicator.send_json_to({"ack": 0})
    assert await flood.close_code() == 1008


async def test_messages_of_a_later_client_are_passed_over(alice, session, watch):
    watcher = await watch(path_of(session), alice)
    await watcher.communicator.send_json_to({"wave": "hello"})
    await aside(say, session, "one")
    await watcher.rows_to(1)


async def test_when_the_server_stops_sockets_are_told_to_come_back(alice, session, signed_in):
    from auditweb.sockets import websocket

    client = await aside(signed_in, alice)
    cookie = f"{configured.SESSION_COOKIE_NAME}={client.cookies[configured.SESSION_COOKIE_NAME].value}".encode()
    headers = [(b"host", b"testserver"), (b"origin", b"http://testserver"), (b"cookie", cookie)]
    incoming, sent = asyncio.Queue(), []
    incoming.put_nowait({"type": "websocket.connect"})
    scope = WebsocketCommunicator(websocket, path_of(session), headers).scope

    async def send(message):
        sent.append(message)

    serving = asyncio.create_task(websocket(scope, incoming.get, send))
    async with asyncio.timeout(SECONDS):
        while not any(message["type"] == "websocket.send" for message in sent):
            await asyncio.sleep(0.01)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await release()
    assert sent[-1] == {"type": "websocket.close", "code": 1012}


# --- through daphne ----------------------------------------------------------------------------------------------


def test_another_process_feeds_a_browser_through_daphne(tmp_path):
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    from tests.site import site

    def dump(name, *texts):
        lines = [
            {"ts": f"2026-03-01T10:00:{n:02}+00:00", "type": "speech", "role": "user", "content": text,
             "duration_ms": None, "metadata": {}}
            for n, text in enumerate(texts)
        ]  # fmt: skip
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    with site("--no-worker") as server:
        key = json.loads(
            server.manage("create_api_key", "--team", "default", "--scopes", "read", "--name", "watcher", "--json")
        )
        first = server.import_file(dump("first.jsonl", "one", "two"), "--session", "call")
        public_id = first["dumps"][0]["sessions"][0]["id"]
        headers = {"Authorization": f"Bearer {key['key']}"}
        url = server.url.replace("http", "ws") + f"/ws/sessions/{public_id}/?after=0"
        texts, codes = [], []

        def follow():
            with connect(url, additional_headers=headers, open_timeout=SECONDS) as socket:
                try:
                    while True:
                        message = json.loads(socket.recv(timeout=60))
                        if message["type"] == "entries":
                            texts.extend(row["text"] for row in message["entries"])
                            socket.send(json.dumps({"ack": message["entries"][-1]["seq"]}))
                except ConnectionClosed as e:
                    codes.append(e.rcvd.code if e.rcvd else None)

        following = threading.Thread(target=follow)
        following.start()
        deadline = time.monotonic() + 60
        while texts != ["one", "two"] and time.monotonic() < deadline:
            time.sleep(0.02)
        server.import_file(dump("second.jsonl", "three", "four"), "--session", "call")
        while len(texts) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert texts == ["one", "two", "three", "four"]
        server.terminate()
        following.join(SECONDS)
        assert codes == [1012]


def test_readers_that_never_read_cost_a_bounded_amount_even_when_they_say_that_they_did(tmp_path):
    from websockets.sync.client import connect

    from tests.site import site
    from tests.test_server import resident_mib

    count = 20_000
    with open(tmp_path / "long.jsonl", "w") as f:
        for n in range(count):
            entry = {"type": "speech", "role": "user", "duration_ms": None, "metadata": {}}
            f.write(json.dumps({"ts": "2026-03-01T10:00:00+00:00", "content": f"{n} " + "x" * 1900, **entry}) + "\n")
    with site("--no-worker") as server, contextlib.ExitStack() as stack:
        words = ["--team", "default", "--scopes", "read", "--name", "watcher", "--json"]
        key = json.loads(server.manage("create_api_key", *words))["key"]
        imported = server.import_file(tmp_path / "long.jsonl", "--session", "long")
        path = f"/ws/sessions/{imported['dumps'][0]['sessions'][0]['id']}/?after={count - 4900}"
        port = int(server.url.rpartition(":")[2])

        def follow():
            seqs = []
            url = server.url.replace("http", "ws") + path
            with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, open_timeout=SECONDS) as follower:
                while not seqs or seqs[-1] < count:
                    message = json.loads(follower.recv(timeout=60))
                    if message["type"] == "entries":
                        seqs += [row["seq"] for row in message["entries"]]
                        follower.send(json.dumps({"ack": seqs[-1]}))
            return seqs

        def never_read():
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", "Upgrade: websocket"]
            lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}=="]
            sock.sendall("\r\n".join([*lines, "", ""]).encode())
            assert sock.recv(12) == b"HTTP/1.1 101"
            return sock

        follow()
        before = resident_mib(server.process.pid)
        mute = [never_read() for _ in range(20)]  # 9 MB are waiting for each
        for seq in range(count - 4900, count, 250):
            said = json.dumps({"ack": seq}).encode()
            for sock in mute:
                sock.sendall(bytes([0x81, 0x80 | len(said), 0, 0, 0, 0]) + said)
            time.sleep(0.15)
        assert follow() == list(range(count - 4900 + 1, count + 1))
        assert resident_mib(server.process.pid) - before < 48


async def test_what_is_said_right_after_a_line_does_not_take_its_ring_away(alice, session, watch, settings):
    settings.LIVE_POLL_SECONDS = 120
    watcher = await watch(path_of(session), alice)
    await watcher.hear(lambda: watcher.of("presence"), "the greeting is over")

    def both():
        with transaction.atomic():
            say(session, "a line")
            bell.tell(session.live_key, {"type": "provisional", "role": "user", "text": "and"})

    await aside(both)
    await watcher.rows_to(1)
    await watcher.hear(lambda: watcher.of("provisional"), "what is said so far")
