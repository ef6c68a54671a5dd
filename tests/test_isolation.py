"""Who gets what from every address and socket: a stranger cannot tell what is ours from what does not exist.

A new route without a row here fails the first test.
"""

import re
from dataclasses import dataclass, field

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from auditweb.dumps import streams
from auditweb.dumps.models import Dump
from auditweb.sockets import websocket
from auditweb.teams import access, keys, timeout
from auditweb.teams.models import ApiKey, AuditRecord, Membership
from sessions_app.models import Event, Session
from status_app.models import StatusBus, StatusEntry

SECRET = "red-secret-7f3"
MISSING = "z" * 22
OURS = "the team's public id, or one that nobody has"
LOGIN, FINE = "to the sign-in page", "done, or refused for its content"
SAMPLE = "roomkit_mixed/session_status_tool.jsonl"


@dataclass
class Row:
    """What each caller gets: a status, LOGIN or FINE. ``stranger`` 200 means: a list without anything of ours."""

    method: str
    anonymous: int | str
    viewer: int | str
    owner: int | str
    stranger: int | str
    read_key: int | str
    ingest_key: int | str
    data: dict = field(default_factory=dict)


def page(method="get", **changes):
    return Row(**{"method": method, "anonymous": LOGIN, "viewer": 200, "owner": 200, "stranger": 404,
                  "read_key": LOGIN, "ingest_key": LOGIN, **changes})  # fmt: skip


def act(method="post", **changes):
    return page(method, **{"viewer": 403, "owner": FINE, **changes})


def api(method="get", **changes):
    return Row(**{"method": method, "anonymous": 401, "viewer": 200, "owner": 200, "stranger": 404,
                  "read_key": 200, "ingest_key": 403, **changes})  # fmt: skip


def api_act(method="post", **changes):
    return api(method, **{"viewer": 403, "owner": FINE, "read_key": 403, "ingest_key": FINE, **changes})


def for_all(status, method="get"):
    return Row(method, status, status, status, status, status, status)


TELLING = {"dump-list", "session-list", "api-dump-list", "api-session-list", "dump-detail"} | {
    "session-detail", "session-runs", "session-tools", "session-records", "live-wall",
}  # fmt: skip
NEW_DUMP = {"name": "x.jsonl", "size": 3, "team": OURS}
BOTH_KEYS = {"read_key": 200, "ingest_key": 200}
ROWS: dict[str, list[Row]] = {
    "healthz": [for_all(200)],
    "readyz": [for_all(FINE)],
    "metrics": [for_all(FINE)],
    "client-index": [for_all(200)],
    "client-wheel": [for_all(200)],
    # the account: nothing of a team, whoever asks
    "account_login": [for_all(FINE), for_all(FINE, "post")],
    "account_logout": [for_all(FINE), for_all(FINE, "post")],
    "account_inactive": [for_all(200)],
    "account_reauthenticate": [for_all(FINE), for_all(FINE, "post")],
    "account_change_password": [for_all(FINE), for_all(FINE, "post")],
    "account_set_password": [for_all(FINE), for_all(FINE, "post")],
    "sign-in-link": [for_all(404), for_all(404, "post")],
    # teams
    "member-list": [page(data={"team": OURS})],
    "member-add": [act(data={"team": OURS, "username": "eve", "role": "owner"})],
    "member-change": [act(data={"team": OURS, "username": "victor", "role": "owner"})],
    "member-remove": [act(data={"team": OURS, "username": "victor"})],
    "key-create": [act(data={"team": OURS, "name": "x", "scopes": ["read"]})],
    "key-revoke": [act(data={"team": OURS}), act()],
    "audit-log": [page(viewer=403, data={"team": OURS})],
    # dumps
    "dump-list": [page(stranger=200), page(data={"team": OURS})],
    "dump-detail": [page()],
    "dump-zone": [act(data={"zone": "Europe/Paris"})],
    "dump-reimport": [act(data={"zone": "Europe/Paris"})],
    "dump-anyway": [act()],
    "dump-bad-lines": [act()],
    "dump-cancel": [act()],
    "dump-retry": [act()],
    "dump-delete": [act("get", owner=200), act(data={"name": SECRET + ".jsonl"})],
    # status
    "status-list": [page(stranger=200), page(data={"team": OURS})],
    "status-detail": [page(), page(data={"fragment": "1", "after": "0"})],
    # sessions
    "session-list": [page(stranger=200), page(stranger=200, data={"q": SECRET[:5]}), page(data={"team": OURS})],
    "live-wall": [page(stranger=200), page(data={"team": OURS})],
    "demo-load": [act(data={"team": OURS})],
    "demo-remove": [act(data={"team": OURS})],
    "search": [page(stranger=200, data={"q": "invoice"}), page(stranger=200), page(data={"team": OURS, "q": "x"})],
    "session-detail": [page()],
    "session-event": [page(), page(data={"fragment": "1"})],
    "session-runs": [page()],
    "session-tools": [page(), page(data={"tool": SECRET[:5], "sort": "-duration"})],
    "session-records": [page()],
    "session-status": [page(), act(data={"bus": ""})],
    # API
    "api-schema": [api(stranger=200, ingest_key=200)],
    "api-docs": [page(stranger=200)],
    "api-dump-list": [
        api(stranger=200),
        api(data={"team": OURS}),
        api_act(data=NEW_DUMP),
    ],
    "api-dump-detail": [
        api(**BOTH_KEYS),
        api_act("patch", data={"zone": "Europe/Paris"}),
        api_act("delete"),
        # The last word of the address is a file name here: a stranger's file goes to the stranger's team.
        api_act("put", stranger=FINE),
    ],
    "api-dump-bytes": [api_act("put")],
    "api-dump-finish": [api_act()],
    "api-dump-cancel": [api_act()],
    "api-dump-retry": [api_act()],
    "api-dump-reimport": [api_act(data={"zone": "Europe/Paris"})],
    "api-dump-import-anyway": [api_act()],
    "api-dump-bad-lines-retry": [api_act()],
    "api-dump-bad-lines": [api()],
    "api-dump-original": [api()],
    # The word in the address is a stream's name within the team of the caller.
    "api-stream-detail": [api(viewer=403, read_key=403, ingest_key=200)],
    "api-stream-lines": [api_act(stranger=FINE)],
    "api-stream-heartbeat": [api_act()],
    "api-stream-provisional": [api_act(data={"role": "user", "text": "x"})],
    "api-stream-end": [api_act()],
    "api-session-list": [api(stranger=200), api(stranger=200, data={"q": SECRET[:5]}), api(data={"team": OURS})],
    "api-session-detail": [api()],
    "api-session-timeline": [api(), api(data={"seqs": "1,2"})],
    "api-session-matches": [api(), api(data={"q": "the"})],
    "api-session-outline": [api()],
    "api-session-turns": [api()],
    "api-session-tool-calls": [api()],
    "api-session-runs": [api()],
    "api-session-tasks": [api(), api(data={"status": "pending"})],
    "api-session-observations": [api()],
    "api-session-event": [api()],
    "api-session-status": [api(), api_act("patch", ingest_key=403, data={"bus": None})],
    "api-session-summary": [api()],
    "api-session-summary-text": [api()],
    "api-session-export": [api(data={"as": "original"}), api(data={"as": "jsonl"})],
    "api-search": [api(stranger=200, data={"q": "the"}), api(data={"q": "the", "team": OURS})],
    "api-status-list": [api(stranger=200), api(data={"team": OURS})],
    # A name that is no log's is that of a new one: a stranger's posts make a log of the stranger's team.
    "api-status-detail": [api(), api_act(stranger=FINE, data={"agent_id": "a", "action": "b", "status": "ok"})],
    "api-status-entries": [api()],
    "api-status-recent": [api()],
    "api-status-guard": [api()],
    "api-status-recent-text": [api()],
    "api-status-summary-text": [api()],
}


def walk(resolver=None, prefix=""):
    """(name, whole route, names of its parameters) of every address."""
    for pattern in (resolver or get_resolver()).url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield pattern.name, route, set(pattern.pattern.converters)
        else:
            yield from walk(pattern, route)


ROUTES = {name: (route, parameters) for name, route, parameters in walk()}
CASES = [
    pytest.param(name, row, id=f"{name}-{row.method}-{n}")
    for name in ROUTES
    for n, row in enumerate(ROWS.get((name or "").removesuffix("-too"), []))
]


def test_every_route_has_a_row():
    names = [name for name, _, _ in walk()]
    assert len(names) == len(set(names)), "two routes share a name, or have none"
    assert {name.removesuffix("-too") for name in names} == set(ROWS)


@pytest.fixture
def ours(team, import_bytes, sample):
    """kind → public id of something of team red."""
    dump = import_bytes(sample(SAMPLE).read_bytes(), f"{SECRET}.jsonl")
    assert dump.state == "done"
    stream = streams.open(team, SECRET)
    streams.append(stream, 1, [b"{}"])
    return {
        "streams": stream.stream,
        "dumps": dump.public_id,
        "sessions": dump.sessions.get().public_id,
        "status": dump.status_buses.get().public_id,
        "team": keys.create(team, SECRET, ["read"])[0].public_id,
        OURS: team.public_id,
    }


def address(name, ids):
    route, parameters = ROUTES[name]
    kind = route.removeprefix("api/v1/").split("/")[0]
    known = {"id": ids.get(kind), "public_id": ids.get(kind), "seq": 1, "token": "x" * 43}
    return reverse(name, kwargs={parameter: known[parameter] for parameter in parameters})


def ask(client, name, row, ids):
    path = address(name, ids)
    data = {field: ids[OURS] if value is OURS else value for field, value in row.data.items()}
    if row.method == "get" or not data:
        return getattr(client, row.method)(path, data or None)
    kind = "application/json" if name.startswith("api-") else None
    return getattr(client, row.method)(path, data, **({"content_type": kind} if kind else {}))


def told(response, *ids):
    """All that a client can tell from an answer, without what differs by itself and with *ids* made equal."""
    content = b"".join(response.streaming_content) if response.streaming else response.content
    content = re.sub(rb'(csrf-token" content|csrfmiddlewaretoken" value)="\w+"', b"", content)
    headers = {name: value for name, value in response.headers.items() if name not in ("Content-Length", "Set-Cookie")}
    text = f"{response.status_code} {sorted(headers.items())} {content!r}"
    for one in ids:
        text = text.replace(one, "ID")
    return text


def everything():
    """What is stored and must not change by a stranger's hand."""
    return [
        list(model.objects.order_by("pk").values_list())
        for model in (Dump, Session, StatusBus, Event, StatusEntry, Membership)
    ] + [list(ApiKey.objects.order_by("pk").values_list("pk", "scopes"))]


def check(response, expected, who):
    assert response.status_code < 500, who
    if response.streaming:  # read to its end, as a client does: a stream holds a cursor of the database
        response.streaming_content = [b"".join(response.streaming_content)]
    if expected == LOGIN:
        assert response.status_code == 302, who
        assert response.headers["Location"].startswith("/accounts/login/"), who
    elif expected == FINE:
        if response.status_code == 302:
            assert not response.headers["Location"].startswith("/accounts/login/?next=/api"), who
        assert response.status_code not in (401, 403), who
    else:
        assert response.status_code == expected, (who, response)


@pytest.mark.parametrize("name, row", CASES)
def test_everybody_gets_what_the_matrix_says(
    name, row, ours, team, other_team, alice_client, victor_client, bob_client
):
    def bearer(of, *scopes):
        return Client(headers={"Authorization": f"Bearer {keys.create(of, 'k', scopes)[1]}"})

    elsewhere = dict.fromkeys(ours, MISSING)
    blue_key = bearer(other_team, "ingest", "read", "review")
    read_key, ingest_key = bearer(team, "read"), bearer(team, "ingest")
    stored = everything()
    for who, client, expected in (
        ("anonymous", Client(), row.anonymous),
        ("stranger", bob_client, row.stranger),
        ("a stranger's key", blue_key, row.anonymous if row.anonymous == LOGIN else row.stranger),
        ("viewer", victor_client, row.viewer),
        ("a key that reads", read_key, row.read_key),
    ):
        real = ask(client, name, row, ours)
        check(real, expected, who)
        if who == "anonymous" or "stranger" in who:
            twin = ask(client, name, row, elsewhere)
            if expected != FINE:
                assert told(real, *ours.values(), MISSING) == told(twin, *ours.values(), MISSING), who
            assert SECRET not in told(real), who
        elif who == "viewer" and row.method == "get" and name in TELLING:
            assert SECRET in told(real), "else the test proves nothing"
        if row.method == "get" or expected in (401, 403, 404, LOGIN):
            assert everything() == stored, who
        else:
            stored = everything()
    # Last, because they may: the ones that change something.
    check(ask(ingest_key, name, row, ours), row.ingest_key, "a key that ingests")
    if not (name.startswith("api-") and row.ingest_key == FINE and row.method == "delete"):
        check(ask(alice_client, name, row, ours), row.owner, "owner")


def test_what_a_stranger_tries_changes_nothing(ours, bob_client, other_team):
    before = everything()
    for name in ROUTES:
        for row in ROWS[name.removesuffix("-too")]:
            if row.stranger == 404:
                ask(bob_client, name, row, ours)
    assert everything() == before


def test_a_refused_try_of_a_member_is_recorded_and_a_strangers_is_not(ours, victor_client, bob_client):
    for client in (victor_client, bob_client):
        client.delete(f"/api/v1/dumps/{ours['dumps']}")
        client.post(f"/dumps/{ours['dumps']}/cancel/")
    assert {record.actor_name for record in AuditRecord.objects.filter(result="denied")} == {"victor"}
    assert AuditRecord.objects.filter(result="denied").count() == 2


def test_an_api_call_with_a_cookie_needs_a_csrf_token(ours, alice):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    for method, path in (("post", "/api/v1/dumps/"), ("delete", f"/api/v1/dumps/{ours['dumps']}")):
        answer = getattr(client, method)(path, {"name": "x"}, content_type="application/json")
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "permission_denied"
    assert Dump.objects.filter(public_id=ours["dumps"]).exists()


# --- sockets -------------------------------------------------------------------------------------------------------

with_sockets = pytest.mark.django_db(transaction=True)  # other threads read


@pytest.fixture
def cookie_of(db, settings):
    """``cookie_of(alice)`` → the Cookie header of a browser in which she is signed in."""

    def make(user):
        client = Client()
        client.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
        return (b"cookie", f"{settings.SESSION_COOKIE_NAME}={client.session.session_key}".encode())

    return make


async def close_code(path, *headers, host=b"testserver:8000", scheme=None):
    """The close code of a socket: 403 before the handshake, None while it stays open."""
    communicator = WebsocketCommunicator(websocket, path, [(b"host", host), *headers])
    if scheme:
        communicator.scope["scheme"] = scheme
    connected, _ = await communicator.connect(timeout=20)
    if not connected:
        return 403
    try:
        while True:
            message = await communicator.receive_output(timeout=20)
            if message["type"] == "websocket.close":
                return message["code"]
            if message["type"] == "websocket.send":
                return None
    finally:
        await communicator.disconnect()


OWN = (b"origin", b"http://testserver:8000")


@with_sockets
@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.example", b"null", b"http://testserver:9999", b"http://testserver", b"https://testserver:8000",
        b"http://sub.testserver:8000", b"http://testserver:8000.evil.example", b"http://testserver:8000/x",
        b"http://evil@testserver:8000", b"", b"file://", b"http://[", b"http://testserver:x", b"\xff",
    ],
)  # fmt: skip
async def test_a_page_of_any_other_origin_gets_no_socket(origin, ours, alice, team, cookie_of):
    cookie = await sync_to_async(cookie_of)(alice)
    key = (await sync_to_async(keys.create)(team, "k", ["read"]))[1]
    path = f"/ws/sessions/{ours['sessions']}/"
    assert await close_code(path, (b"origin", origin), cookie) == 403
    assert await close_code(path, (b"origin", origin), (b"authorization", f"Bearer {key}".encode())) == 403


@with_sockets
async def test_the_own_origin_opens_and_a_program_needs_a_key(ours, alice, team, cookie_of):
    cookie = await sync_to_async(cookie_of)(alice)
    key, text = await sync_to_async(keys.create)(team, "k", ["read"])
    path, bearer = f"/ws/sessions/{ours['sessions']}/", (b"authorization", f"Bearer {text}".encode())
    assert await close_code(path, OWN, cookie) is None
    assert await close_code(path, cookie) == 403, "a cookie without an Origin"
    assert await close_code(path, bearer) is None
    assert await close_code(path, OWN, OWN, cookie) == 403, "two Origins"
    assert await close_code(path, (b"origin", b"http://evil.example:1"), cookie, host=b"evil.example:1") == 403
    await sync_to_async(keys.revoke)(key)
    assert await close_code(path, bearer, cookie) == 4401, "a bad key is not made good by a cookie"


@with_sockets
async def test_behind_a_proxy_only_the_public_address_counts(ours, alice, cookie_of, settings):
    settings.PUBLIC_URL, settings.ALLOWED_HOSTS = "https://audit.example.org", ["audit.example.org", "localhost"]
    cookie = await sync_to_async(cookie_of)(alice)
    path, host = f"/ws/sessions/{ours['sessions']}/", b"audit.example.org"
    for origin, code in (
        (b"https://audit.example.org", None),
        (b"https://audit.example.org:443", None),
        (b"http://audit.example.org", 403),
        (b"https://audit.example.org:8443", 403),
    ):
        assert await close_code(path, (b"origin", origin), cookie, host=host) == code
    assert await close_code(path, (b"origin", b"http://localhost:8000"), cookie, host=b"localhost:8000") is None


@with_sockets
async def test_strangers_find_no_socket_and_nobody_gets_a_traceback(ours, bob, other_team, team, cookie_of):
    cookie = await sync_to_async(cookie_of)(bob)
    ingest = (await sync_to_async(keys.create)(team, "k", ["ingest"]))[1]
    blue = (await sync_to_async(keys.create)(other_team, "k", ["read"]))[1]
    for kind in ("sessions", "status"):
        path, missing = f"/ws/{kind}/{ours[kind]}/", f"/ws/{kind}/{MISSING}/"
        assert await close_code(path, OWN, cookie) == await close_code(missing, OWN, cookie) == 4404
        assert await close_code(path, (b"authorization", f"Bearer {blue}".encode())) == 4404
        assert await close_code(path, OWN) == await close_code(missing, OWN) == 4401
        assert await close_code(path, (b"authorization", f"Bearer {ingest}".encode())) == 4403
    for path in ("/ws/", "/", "/ws/nothing/", f"/ws/sessions/{ours['sessions']}", "/ws/sessions/%00/"):
        assert await close_code(path, OWN, cookie) == 4404


def test_a_socket_learns_that_its_person_or_key_is_gone(alice, victor, team, signed_in):
    def scope(client, user):
        return {"user": user, "auth": None, "session": SessionStore(client.session.session_key)}

    client = signed_in(alice)
    mine = scope(client, alice)
    assert access.still_signed_in(mine)
    client.post("/accounts/logout/")
    assert not access.still_signed_in(mine)

    client = signed_in(alice)
    mine = scope(client, alice)
    session = client.session
    session[timeout.SEEN] -= 9 * 3600
    session.save()
    assert not access.still_signed_in(mine)

    mine = scope(signed_in(alice), alice)
    changed = type(alice).objects.get(pk=alice.pk)
    changed.set_password("something-else-entirely")
    changed.save()
    assert not access.still_signed_in(mine)

    mine = scope(signed_in(victor), victor)
    type(victor).objects.filter(pk=victor.pk).update(is_active=False)
    assert not access.still_signed_in(mine)

    key, _ = keys.create(team, "k", ["read"])
    mine = {"user": key.user, "auth": key}
    assert access.still_signed_in(mine)
    keys.revoke(ApiKey.objects.get(pk=key.pk))
    assert not access.still_signed_in(mine)
