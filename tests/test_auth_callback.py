"""AUDITWEB_AUTH_CALLBACK: the operator's own function decides beside keys and sign-in, and only a clear yes is one."""

import asyncio
import json
import threading
import urllib.error
import urllib.request

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.core.checks import run_checks
from django.db import connection
from django.test import Client

from auditweb.dumps.models import Dump
from auditweb.sockets import websocket
from auditweb.teams import callback, keys
from auditweb.teams.models import ApiKey, AuditRecord
from tests.site import site, until

LINE = b'{"ts":"2026-03-01T10:00:00+00:00","type":"speech","role":"user","content":"hello","duration_ms":null}\n'
FULL = {"team": "red", "scopes": ["ingest", "read"], "name": "desk 7"}
SECRET = "sesame-91"

asked: list[dict] = []
answer: list = [None]


async def guard(context):
    """Answers what the test laid down; an exception is raised, an event waited for."""
    asked.append(context)
    says = answer[0]
    if isinstance(says, Exception):
        raise says
    if isinstance(says, asyncio.Event):
        await says.wait()
    return says


loops = set()


async def by_header(context):
    """What an operator writes: the own gateway has checked the caller and says which desk it is.

    Refuses when it does not always run in the same event loop, where it may keep a client of its own.
    """
    loops.add(asyncio.get_running_loop())
    if len(loops) > 1:
        return None
    desk = context["headers"].get("x-desk")
    return {"team": "default", "scopes": ["ingest", "read"], "name": f"desk {desk}"} if desk else None


def not_async(context):
    return {}


@pytest.fixture(autouse=True)
def guarded(settings):
    settings.AUTH_CALLBACK = f"{__name__}:guard"
    asked.clear()
    answer[0] = None


def put(client=None, name="x.jsonl", **headers):
    return (client or Client()).put(f"/api/v1/dumps/{name}", LINE, "application/x-ndjson", headers=headers)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


# --- HTTP ----------------------------------------------------------------------------------------------------------


def test_it_is_told_who_asks_for_what_and_nobody_is_known_to_it_by_a_secret(team, alice_client):
    answer[0] = {}
    key = keys.create(team, "ci", ["ingest"])[1]
    for client, headers in ((Client(), bearer(key)), (alice_client, {})):
        path = "/api/v1/dumps/x.jsonl?zone=UTC&zone=Europe%2FParis"
        assert client.put(path, LINE, "text/plain", headers=headers | {"X-Desk": "7"}).status_code < 300
    by_key, by_person = asked
    assert (by_key["user"], by_key["key"]) == (None, "ci")
    assert (by_person["user"], by_person["key"]) == ("alice", None)
    assert by_key["headers"]["x-desk"] == "7"
    expected = {"kind": "http", "path": "/api/v1/dumps/x.jsonl", "method": "PUT", "client": "127.0.0.1"}
    assert expected.items() <= by_key.items()
    assert by_key["query"] == {"zone": "Europe/Paris"}


def test_a_no_refuses_also_who_has_a_good_key_or_is_signed_in(team, alice_client):
    key = keys.create(team, "ci", ["ingest", "read"])[1]
    for refused in (put(**bearer(key)), put(alice_client), put()):
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "authentication_failed"
    assert not Dump.objects.exists()
    assert len(asked) == 3


def test_reading_is_nothing_that_it_is_asked_about(team, alice_client):
    assert alice_client.get("/api/v1/sessions/").status_code == 200
    assert Client().get("/api/v1/sessions/").status_code == 401
    assert not asked


def test_who_has_neither_key_nor_sign_in_acts_for_the_team_that_it_names(team, other_team):
    answer[0] = FULL
    assert put().status_code == 202
    assert put(name="y.jsonl", **bearer("a.token.of.another.kind")).status_code == 200
    dump = Dump.objects.get()
    assert (dump.team, dump.created_by.is_service) == (team, True)
    key = ApiKey.objects.get()
    assert (key.name, key.user) == ("desk 7", dump.created_by)
    assert not dump.created_by.has_usable_password()
    made = AuditRecord.objects.get(action="create_key")
    assert (made.team, json.loads(made.detail)) == (team, {"by": "callback"})
    answer[0] = FULL | {"name": "desk 8"}
    put(name="z.jsonl")
    assert ApiKey.objects.count() == 2


def test_it_may_do_no_more_than_the_scopes_of_this_answer(team):
    answer[0] = FULL
    assert put().status_code == 202
    answer[0] = FULL | {"scopes": ["read"]}
    refused = put(name="y.jsonl")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope")


def test_a_name_that_an_owner_revoked_stays_out(team, alice, caplog):
    answer[0] = FULL
    put()
    keys.revoke(ApiKey.objects.get(), by=alice)
    assert put(name="y.jsonl").status_code == 401
    assert "'desk 7' was revoked in the team red" in caplog.text
    assert not ApiKey.objects.exists()


def test_a_revoked_key_of_ours_is_not_made_good(team):
    answer[0] = FULL
    key, text = keys.create(team, "ci", ["ingest"])
    keys.revoke(key)
    assert put(**bearer(text)).status_code == 401
    assert not asked


def test_a_page_of_another_site_cannot_ride_on_what_only_the_callback_knows(team):
    answer[0] = FULL
    assert put(Origin="https://evil.example").status_code == 401
    assert put(Origin="null").status_code == 401
    assert put(Origin="http://testserver").status_code == 202


@pytest.mark.parametrize(
    "says",
    [
        ValueError(SECRET), {}, [], True, "red", FULL | {"team": "green"}, FULL | {"team": None}, FULL | {"name": " "},
        FULL | {"scopes": []}, FULL | {"scopes": ["admin"]}, FULL | {"scopes": [[]]}, FULL | {"scopes": "ingest"},
        FULL | {"team": "re\0d"}, FULL | {"name": 7},
    ],
)  # fmt: skip
def test_anything_but_a_clear_yes_is_a_no_and_the_log_says_so_without_what_was_sent(team, says, caplog):
    answer[0] = says
    assert put(**{"X-Secret": SECRET, "Authorization": f"Bearer {SECRET}"}).status_code == 401
    (line,) = [record.getMessage() for record in caplog.records if record.name == callback.__name__]
    assert "/api/v1/dumps/x.jsonl" in line
    assert SECRET not in caplog.text


def test_silence_is_a_no(team, monkeypatch, caplog):
    monkeypatch.setattr(callback, "ANSWER_SECONDS", 0.05)
    answer[0] = asyncio.Event()
    assert put().status_code == 401
    assert "TimeoutError" in caplog.text


# --- sockets -------------------------------------------------------------------------------------------------------


def with_sockets(test):
    return pytest.mark.django_db(transaction=True)(pytest.mark.usefixtures("_connections_end")(test))


@pytest.fixture
async def _connections_end():
    """The shared thread of sync_to_async keeps its connection, and no server drops a database in use."""
    yield
    await sync_to_async(lambda: connection.close())()


OWN = (b"origin", b"http://testserver:8000")


@pytest.fixture
def path(team, import_bytes):
    return f"/ws/sessions/{import_bytes(LINE).sessions.get().public_id}/"


@pytest.fixture
def cookie(alice, settings):
    client = Client()
    client.force_login(alice, backend=settings.AUTHENTICATION_BACKENDS[0])
    return (b"cookie", f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}".encode())


async def opened(path, *headers):
    """(socket, None once it hears of the log; or its close code; 403 before the handshake)."""
    socket = WebsocketCommunicator(websocket, path, [(b"host", b"testserver:8000"), *headers])
    if not (await socket.connect(timeout=20))[0]:
        return socket, 403
    message = await socket.receive_output(timeout=20)
    return socket, message["code"] if message["type"] == "websocket.close" else None


@with_sockets
async def test_every_socket_is_asked_about_and_a_no_closes_it(path, team, cookie):
    key = (await sync_to_async(keys.create)(team, "k", ["read"]))[1]
    by_key = (b"authorization", f"Bearer {key}".encode())
    told = [{"user": None, "key": None}, {"user": "alice", "key": None}, {"user": None, "key": "k"}]
    for headers, who in zip(([], [OWN, cookie], [by_key]), told, strict=True):
        socket, code = await opened(path, *headers)
        assert code == 4401
        await socket.disconnect()
        assert {"kind": "websocket", "path": path, "method": "GET", **who}.items() <= asked.pop().items()
    answer[0] = {}
    for headers, expected in (([], 4401), ([OWN], 4401), ([OWN, cookie], None), ([by_key], None)):
        socket, code = await opened(path, *headers)
        assert code == expected, headers
        await socket.disconnect()


@with_sockets
async def test_a_program_without_a_key_follows_what_its_team_sees(path, other_team):
    for more, expected in (({}, None), ({"team": "blue"}, 4404), ({"scopes": ["ingest"]}, 4403), ({"name": ""}, 4401)):
        answer[0] = FULL | more
        socket, code = await opened(path)
        assert code == expected, more
        await socket.disconnect()


@with_sockets
async def test_a_cookie_without_an_origin_makes_nobody_of_its_person(path, cookie):
    answer[0] = {}
    socket, code = await opened(path, cookie)
    assert (code, asked[0]["user"]) == (4401, None)
    await socket.disconnect()
    answer[0] = FULL
    socket, code = await opened(path, (b"origin", b"http://evil.example"), cookie)
    assert code == 403


@with_sockets
async def test_an_open_socket_is_asked_about_again_and_closed_by_a_no(path, monkeypatch):
    monkeypatch.setattr(callback, "ASK_AGAIN_SECONDS", 0.05)
    answer[0] = FULL
    socket, code = await opened(path)
    assert code is None
    while len(asked) < 3:
        await asyncio.sleep(0.01)
    answer[0] = None
    while (message := await socket.receive_output(timeout=20))["type"] != "websocket.close":
        pass
    assert message["code"] == 4403
    await socket.disconnect()
    count = len(asked)
    await asyncio.sleep(0.3)
    assert len(asked) == count, "nobody is there to be asked about"


# --- a running server ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["no.such.module:guard", f"{__name__}:nothing", f"{__name__}:not_async", "guard", ":"])
def test_a_function_that_is_none_is_refused_at_the_start(settings, name):
    settings.AUTH_CALLBACK = name
    (found,) = [problem for problem in run_checks() if problem.id == "auditweb.E007"]
    assert name in found.msg


def test_through_daphne_a_program_without_a_key_sends_and_follows():
    from websockets.sync.client import connect

    with site("--no-worker", AUDITWEB_AUTH_CALLBACK=f"{__name__}:by_header") as server:

        def send(desk, first):
            url = f"{server.url}/api/v1/streams/call/lines?first={first}&session=call"
            request = urllib.request.Request(url, LINE, {"X-Desk": desk} if desk else {}, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=20) as answered:
                    return json.load(answered)
            except urllib.error.HTTPError as e:
                return e.code

        assert send("", 1) == 401
        session = send("7", 1)["sessions"][0]["id"]
        url = server.url.replace("http", "ws") + f"/ws/sessions/{session}/"
        seqs: list[int] = []

        def follow(socket):
            for text in socket:
                seqs.extend(row["seq"] for row in json.loads(text).get("entries", ()))

        with connect(url, additional_headers={"X-Desk": "8"}) as socket:
            threading.Thread(target=follow, args=[socket], daemon=True).start()
            assert send("7", 2)["accepted_through"] == 2
            until(lambda: seqs == [1, 2], "both lines")
