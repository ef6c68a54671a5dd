"""How fast one caller may go on: 429 with a time to wait, told to the owners, and never met by honest use."""

import json
import secrets
import subprocess
import sys
import time

import pytest
import time_machine
from django.core.cache import cache
from django.test import Client

from auditweb import outage, throttles
from auditweb.dumps.models import Dump
from auditweb.teams import keys
from auditweb.teams.models import AuditRecord
from tests.site import ROOT

pytestmark = pytest.mark.django_db

NOBODY = "redis://127.0.0.1:1/0"  # no server listens on port 1
LINE = b'{"ts":"2026-01-01T10:00:00Z","type":"speech","role":"user","content":"x","duration_ms":null,"metadata":{}}\n'


@pytest.fixture(autouse=True)
def own_counters(settings):
    """Other tests, in other processes too, may count for callers with the same keys."""
    own = {**settings.CACHES["default"], "KEY_PREFIX": secrets.token_hex(8)}
    settings.CACHES = {"default": own}


@pytest.fixture
def minute():
    """The clock stands, ten seconds after the start of a minute."""
    with time_machine.travel(time.time() // 60 * 60 + 10, tick=False) as clock:
        yield clock


@pytest.fixture
def limits(settings):
    """``limits(search=2)``: these, and none for anything else."""

    def limit(**chosen):
        settings.RATES = dict.fromkeys(settings.RATES, 0) | chosen

    return limit


@pytest.fixture
def program(team):
    """``program("read")`` → a client with a key of its own with these scopes, its ``key`` beside it."""

    def make(*scopes, of=None):
        key, text = keys.create(of or team, f"key {secrets.token_hex(3)}", scopes)
        client = Client(headers={"Authorization": f"Bearer {text}"})
        client.key = key
        return client

    return make


def statuses(client, times, path="/api/v1/sessions/", **query):
    return [client.get(path, query).status_code for _ in range(times)]


def test_more_than_the_share_of_a_minute_is_a_429_that_says_how_long_to_wait(program, limits, minute):
    limits(requests=3)
    client = program("read")
    assert statuses(client, 4) == [200, 200, 200, 429]
    answer = client.get("/api/v1/sessions/")
    assert answer.headers["Retry-After"] == "50"
    assert answer.json()["error"] == {
        "code": "rate_limited",
        "message": "More than 3 requests in a minute. Try again in 50 seconds.",
        "detail": {"kind": "requests", "limit": 3, "retry_after": 50},
    }
    minute.shift(49)
    assert client.get("/api/v1/sessions/").headers["Retry-After"] == "1"
    minute.shift(1)
    assert statuses(client, 4) == [200, 200, 200, 429]


def test_every_caller_has_a_share_of_its_own(program, alice_client, victor_client, limits, minute):
    limits(requests=1)
    for client in (program("read"), program("read"), alice_client, victor_client):
        assert statuses(client, 2) == [200, 429]


def test_the_keys_of_a_team_have_a_share_together(program, other_team, limits, minute, monkeypatch):
    monkeypatch.setattr(throttles, "TEAM", 2)
    limits(requests=2)
    assert [statuses(program("read"), 2) for _ in range(3)] == [[200, 200], [200, 200], [429, 429]]
    assert statuses(program("read", of=other_team), 1) == [200]


@pytest.mark.parametrize(
    "kind, method, path",
    [
        ("requests", "get", "sessions/"),
        ("requests", "get", "sessions/{session}/timeline"),
        ("requests", "get", "dumps/{dump}"),
        ("requests", "get", "schema/"),
        ("search", "get", "sessions/?q=x"),
        ("search", "get", "sessions/{session}/timeline?q=x"),
        ("search", "get", "dumps/?q=x"),
        ("export", "get", "sessions/{session}/export"),
        ("export", "get", "dumps/{dump}/original"),
        ("ingest", "put", "dumps/x.jsonl"),
        ("ingest", "post", "dumps/{dump}/cancel"),
        ("ingest", "delete", "dumps/zzzzzzzzzzzzzzzzzzzzzz"),
    ],
)
def test_each_kind_of_request_is_counted_for_itself(program, import_bytes, limits, minute, kind, method, path):
    dump = import_bytes(LINE)
    path = "/api/v1/" + path.format(dump=dump.public_id, session=dump.sessions.get().public_id)
    client = program("read", "ingest")

    def ask():
        answer = getattr(client, method)(path)
        assert not answer.streaming or b"".join(answer.streaming_content)
        return answer.status_code

    limits(**{other: 1 for other in throttles.COUNTED if other not in (kind, "ingest_bytes")})
    assert 429 not in [ask() for _ in range(3)]
    limits(**{kind: 1})
    for _ in range(3):
        last = ask()
    assert last == 429


def test_bytes_are_counted_and_the_slice_that_crosses_the_line_still_passes(program, limits, minute):
    limits(ingest_bytes=10)
    client = program("ingest", "read")
    begun = client.post("/api/v1/dumps/", {"name": "x", "size": 30}, content_type="application/json").json()["id"]

    def send(offset, data):
        return client.put(f"/api/v1/dumps/{begun}/bytes?offset={offset}", data, content_type="application/octet-stream")

    assert send(0, b"12345678").status_code == 200
    assert send(8, b"12345678").status_code == 200
    refused = send(16, b"1")
    assert (refused.status_code, refused.json()["error"]["detail"]["kind"]) == (429, "ingest_bytes")
    assert client.put("/api/v1/dumps/y.jsonl", LINE, content_type="text/plain").status_code == 429
    assert Dump.objects.get().size == 16
    minute.shift(60)
    assert send(16, b"1").json() == {"received": 17}


def test_no_limit_is_no_limit_and_nobody_else_is_counted(program, client, limits, minute):
    limits()
    assert statuses(program("read"), 20) == [200] * 20
    limits(requests=1)
    assert statuses(client, 5) == [401] * 5


def test_the_pages_fetches_and_a_loop_of_uploads_never_meet_the_limits(alice_client, program, import_bytes, minute):
    session = import_bytes(LINE * 200).sessions.get()
    scrolled = statuses(alice_client, 100_000 // 200, f"/api/v1/sessions/{session.public_id}/timeline", seqs="1-3")
    assert set(scrolled) == {200}
    sender = program("ingest")
    sent = [sender.put(f"/api/v1/dumps/{n}.jsonl", LINE + b"%d" % n, content_type="text/plain") for n in range(100)]
    assert {answer.status_code for answer in sent} == {202}


def test_refusals_are_told_to_the_owners_once_an_hour_with_their_number(program, alice_client, limits, minute):
    limits(requests=1, search=1)
    client = program("read")
    assert b"too fast" not in alice_client.get("/team/").content
    statuses(client, 8)
    (record,) = AuditRecord.objects.filter(action="rate_limited")
    assert (record.actor, record.target_id, record.result) == (client.key.user, client.key.public_id, "denied")
    assert json.loads(record.detail) == {"kind": "requests", "refused": 1}
    statuses(client, 2, q="x")
    minute.shift(3600)
    statuses(client, 2)
    told = [json.loads(r.detail) for r in AuditRecord.objects.filter(action="rate_limited").order_by("id")]
    assert told[1:] == [{"kind": "search", "refused": 1}, {"kind": "requests", "refused": 7}]
    assert b"too fast" in alice_client.get("/team/").content
    assert b"rate_limited" in alice_client.get("/team/audit/").content


def test_a_forgetful_cache_does_not_tell_twice_within_the_hour(program, limits, minute):
    limits(requests=1)
    client = program("read")
    for _ in range(3):
        statuses(client, 3)
        cache.clear()
    assert AuditRecord.objects.filter(action="rate_limited").count() == 1


def test_a_person_who_is_too_fast_is_recorded_by_name(victor_client, alice_client, limits, minute):
    limits(search=1)
    assert statuses(victor_client, 2, q="x") == [200, 429]
    record = AuditRecord.objects.get(action="rate_limited")
    assert (record.actor_name, record.target_name) == ("victor", "victor")
    limits()
    assert b"rate_limited" in alice_client.get("/team/audit/").content


@pytest.mark.parametrize("path", ["/", "/search/"])
def test_searches_on_pages_are_counted_with_those_of_the_api(alice_client, limits, minute, path):
    limits(search=2)
    assert statuses(alice_client, 5, path) == [200] * 5
    assert statuses(alice_client, 1, path, q="x") == statuses(alice_client, 1, q="x") == [200]
    page = alice_client.get(path, {"q": "x"})
    assert (page.status_code, page.headers["Retry-After"]) == (429, "50")
    assert b"More than 2 searches in a minute." in page.content
    assert statuses(Client(), 3, path, q="x") == [302] * 3


def test_while_redis_is_away_a_process_counts_for_itself(program, limits, minute, settings, monkeypatch):
    monkeypatch.setattr(outage, "redis", outage.Outage())
    settings.CACHES = {
        "default": {
            "BACKEND": "auditweb.outage.Cache",
            "LOCATION": NOBODY,
            "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
            "KEY_PREFIX": secrets.token_hex(8),
        }
    }
    limits(requests=2)
    assert statuses(program("read"), 3) == [200, 200, 429]
    assert outage.redis.lasts


@pytest.mark.redis
def test_processes_count_together_where_there_is_redis(program, limits, minute, settings):
    limits(requests=5)
    client = program("read")
    assert statuses(client, 3) == [200] * 3
    name = f"rate:requests:caller:{client.key.user_id}:{int(time.time() // 60)}"
    script = (
        "import sys, django; from django.conf import settings; "
        "settings.CACHES['default']['KEY_PREFIX'] = sys.argv[1]; django.setup(); "
        "from auditweb.throttles import _counted; print(_counted(sys.argv[2], 2, 120))"
    )
    prefix = settings.CACHES["default"]["KEY_PREFIX"]
    done = subprocess.run(
        [sys.executable, "-c", script, prefix, name], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "5"
    assert statuses(client, 1) == [429]
