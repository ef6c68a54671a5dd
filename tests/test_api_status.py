"""Status logs over HTTP, the schema and its page."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from auditweb.dumps import store
from auditweb.teams import keys
from auditweb.teams.models import AuditRecord, Membership
from status_app import feed, posts
from status_app.api import BusBody, BusDetail, EntryBody
from status_app.bus_api import Posted
from status_app.models import PostKey, StatusBus

API = "/api/v1/status/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def bus(import_sample):
    return import_sample("roomkit_status/five_levels.jsonl").status_buses.get()


def posted_in(sample, name):
    return [json.loads(raw) for raw in sample(name).read_bytes().splitlines()]


def as_posted(row):
    return {name: row[name] for name in ("ts", "agent_id", "action", "status", "detail", "metadata")}


def test_a_log_says_what_was_counted(alice_client, bus, sample):
    (listed,) = alice_client.get(API).json()["items"]
    one = alice_client.get(f"{API}{bus.public_id}/").json()
    assert set(listed) == set(BusBody().fields)
    assert set(one) == set(BusDetail().fields)
    assert listed == {name: one[name] for name in listed}
    assert one["entries"] == len(posted_in(sample, "roomkit_status/five_levels.jsonl")) == sum(one["levels"].values())
    assert one["dumps"] == [bus.dumps.get().public_id]


def test_recent_entries_come_by_time_oldest_first_as_they_were_posted(alice_client, import_sample, sample):
    name = "roomkit_status/burst_out_of_order.jsonl"
    bus = import_sample(name).status_buses.get()
    ordered = sorted(posted_in(sample, name), key=lambda post: post["ts"])
    answer = alice_client.get(f"{API}{bus.public_id}/recent", {"n": 25}).json()
    assert set(answer["entries"][0]) == set(EntryBody().fields)
    assert [as_posted(row) for row in answer["entries"]] == ordered[-25:]
    assert len(alice_client.get(f"{API}{bus.public_id}/recent").json()["entries"]) == 10
    everything = alice_client.get(f"{API}{bus.public_id}/recent", {"n": 10**9}).json()["entries"]
    assert [as_posted(row) for row in everything] == ordered[-feed.MAX_ROWS :]
    some = ordered[3]
    query = {"n": 500, "agent_id": some["agent_id"], "status": some["status"]}
    given = alice_client.get(f"{API}{bus.public_id}/recent", query).json()["entries"]
    expected = [p for p in ordered if (p["agent_id"], p["status"]) == (some["agent_id"], some["status"])]
    assert [as_posted(row) for row in given] == expected


def test_the_age_of_an_entry_is_counted_by_the_server(bus, monkeypatch):
    newest = feed.recent(bus, 1)[0]
    at_us = bus.entries.get(pk=bus.pk * 2**32 + newest["seq"]).at_us
    monkeypatch.setattr(feed.time, "time_ns", lambda: (at_us + 4_321_000) * 1000)
    assert feed.recent(bus, 1)[0]["age_ms"] == pytest.approx(4321, abs=1)
    bus.entries.update(at_us=None)
    assert {row["age_ms"] for row in feed.rows_after(bus.pk, 0, 100)} == {None}


def test_entries_by_seq_in_both_directions(alice_client, import_sample):
    bus = import_sample("roomkit_status/many_700.jsonl").status_buses.get()

    def page(**query):
        return alice_client.get(f"{API}{bus.public_id}/entries", query).json()

    there, after = [], 0
    while entries := page(after=after, limit=300)["entries"]:
        there += [row["seq"] for row in entries]
        after = there[-1]
    assert there == list(range(1, bus.last_seq + 1))
    assert [row["seq"] for row in page(before=10, limit=3)["entries"]] == [7, 8, 9]
    assert page(before=10, limit=3)["more"] is True
    assert page(before=4, limit=3)["more"] is False
    assert page(before=0)["entries"] == page(before=1)["entries"] == page(after=10**12)["entries"] == []
    assert page(limit=10)["more"] is True
    assert page(after=1, before=9)["error"]["code"]
    assert [row["seq"] for row in feed.rows_after(bus.pk, 690, 5)] == [691, 692, 693, 694, 695]


def test_integers_that_readers_would_round_come_as_text(alice_client, import_bytes):
    post = {"ts": "2026-01-01T00:00:00+00:00", "agent_id": "a", "action": "b", "status": "ok", "detail": ""}
    dump = import_bytes(json.dumps(post | {"metadata": {"big": 2**70, "edge": 2**53, "minus": -(2**60)}}).encode())
    (row,) = feed.rows_after(dump.status_buses.get().pk, 0, 10)
    assert row["metadata"] == {"big": str(2**70), "edge": 2**53, "minus": str(-(2**60))}
    assert alice_client.get(f"{API}{dump.status_buses.get().public_id}/recent").status_code == 200


@pytest.mark.parametrize("name", ["five_levels", "orchestration", "burst_out_of_order"])
def test_the_texts_are_the_producers_own(alice_client, import_sample, sample, name):
    bus = import_sample(f"roomkit_status/{name}.jsonl").status_buses.get()

    def text(part):
        answer = alice_client.get(f"{API}{bus.public_id}/{part}")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        return b"".join(answer.streaming_content).strip()

    assert text("summary.txt") == sample(f"roomkit_status/{name}.summary.txt").read_bytes().strip()
    assert text("recent.txt") == sample(f"roomkit_status/{name}.recent_text.txt").read_bytes().strip()


@pytest.mark.parametrize("part", ["", "entries", "recent", "recent.txt", "guard", "summary.txt"])
def test_a_foreign_log_is_as_missing_as_one_that_never_was(bob_client, client, victor_client, bus, part):
    answers = [bob_client.get(f"{API}{i}/{part}") for i in (bus.public_id, "0" * 22, "x", "%00")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert client.get(f"{API}{bus.public_id}/{part}").status_code == 401
    assert not AuditRecord.objects.filter(action="view").exists()
    seen = victor_client.get(f"{API}{bus.public_id}/{part}")
    assert (seen.status_code, bool(b"".join(seen) if seen.streaming else seen.content)) == (200, True)
    assert AuditRecord.objects.filter(action="view", target_id=bus.public_id).count() == 1


def test_the_stranger_sees_no_foreign_log_in_his_list(bob_client, bus):
    assert bob_client.get(API).json()["items"] == []


@pytest.mark.parametrize("odd", ["x", "-1", "9" * 5000, "\0", "%", "[]", "🙂"])
def test_no_odd_value_breaks_anything(alice_client, bus, odd):
    alice_client.raise_request_exception = False
    for part, names in {
        "entries": ["after", "before", "limit"], "recent": ["n", "agent_id", "status"], "recent.txt": ["n", "style"],
        "summary.txt": ["style"], "guard": ["window", "agent_id"],
    }.items():  # fmt: skip
        for name in names:
            answer = alice_client.get(f"{API}{bus.public_id}/{part}", {name: odd})
            assert not answer.streaming or b"".join(answer.streaming_content)
            assert answer.status_code in (200, 400), (part, name)


def test_the_schema_is_valid_and_names_every_address_once(tmp_path):
    path = tmp_path / "schema.json"
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", "--file", str(path))
    schema = json.loads(path.read_text())
    assert "/api/v1/sessions/{id}/timeline" in schema["paths"]
    assert "/api/v1/sessions/{id}/timeline/" not in schema["paths"]
    for address, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), (address, method)


def test_schema_and_docs_are_for_people_who_signed_in(client, alice_client):
    assert client.get("/api/v1/schema/").status_code == 401
    assert client.get("/api/v1/docs/").status_code == 302
    assert alice_client.get("/api/v1/schema/").status_code == 200
    page = alice_client.get("/api/v1/docs/").content.decode()
    assert "<style" not in page
    assert page.count("<script") == page.count("<script src=")
    assert (
        alice_client.get("/api/v1/docs/", {"script": ""}).headers["Content-Type"].startswith("application/javascript")
    )


def test_an_address_that_is_none_is_a_404_in_the_shape_of_the_api(alice_client):
    answer = alice_client.get("/api/v1/nothing/")
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"code", "message", "detail"}


# Posting -----------------------------------------------------------------------------------------------------------

POST = {"agent_id": "exec", "action": "open", "status": "ok", "detail": "done", "metadata": {"n": 1}}


def put(client, bus, *entries, **options):
    """The answer to posting *entries*, one as JSON, more as NDJSON; options: query parameters, and ``key``."""
    headers = {"Idempotency-Key": options.pop("key")} if "key" in options else {}
    query = "&".join(f"{name}={value}" for name, value in options.items())
    data = b"\n".join(entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in entries)
    return client.post(f"{API}{bus}/?{query}", data, content_type="application/x-ndjson", headers=headers)


def stored(name="office"):
    return feed.rows_after(StatusBus.objects.get(name=name).pk, 0, 1000)


def error(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["detail"]


@pytest.fixture
def poster(team):
    """A client with a key that may only ingest."""
    return Client(headers={"Authorization": f"Bearer {keys.create(team, 'agents', ['ingest'])[1]}"})


def test_agents_post_without_clocks_to_a_log_that_is_made_for_them(poster, alice_client):
    before = datetime.now(UTC)
    answer = put(poster, "office", POST)
    assert answer.status_code == 202
    assert set(answer.json()) == set(Posted().fields)
    assert (answer.json()["accepted_through"], answer.json()["duplicates"]) == (1, 0)
    assert put(poster, "office", POST | {"agent_id": "voice"}, POST, wait=1).status_code == 201
    rows = stored()
    assert [(row["seq"], row["agent_id"]) for row in rows] == [(1, "exec"), (2, "voice"), (3, "exec")]
    assert answer.json()["entries"] == [{"seq": 1, "ts": rows[0]["ts"]}]
    assert before <= datetime.fromisoformat(rows[0]["ts"]) <= datetime.now(UTC)
    assert as_posted(rows[0]) == POST | {"ts": rows[0]["ts"]}
    assert alice_client.get(f"{API}office/recent").json()["entries"][0]["seq"] == 1
    (dump,) = StatusBus.objects.get().dumps.all()
    assert (dump.stream, dump.state, dump.bad_line_count) == ("status:office", "live", 0)


def test_what_comes_with_a_time_is_kept_as_it_came(poster):
    written = (
        b'{"ts": "2026-01-01T10:00:00+00:00", "agent_id":"a", "action":"b", "status":"later", "metadata":{"x":1.50}}'
    )
    pretty = json.dumps(POST, indent=2).encode()
    assert put(poster, "office", written).status_code == put(poster, "office", pretty).status_code == 202
    first, second = stored()
    assert (first["ts"], first["status"], first["detail"]) == ("2026-01-01T10:00:00+00:00", "later", "")
    assert as_posted(second) == POST | {"ts": second["ts"]}
    assert store.line(StatusBus.objects.get().dumps.get(), 1) == written


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"nonsense", b'{"agent_id":"a","action":"b"}', json.dumps(POST | {"ts": None}).encode(),
     json.dumps(POST | {"content": "x", "type": "speech"}).encode(), json.dumps(POST | {"status": ""}).encode(),
     json.dumps(POST).encode() + b"\n\n" + json.dumps(POST).encode(), b"\xff", b"[" * 10_000,
     b"\n".join([json.dumps(POST).encode()] * 1001)],
)  # fmt: skip
def test_what_is_no_post_is_refused_whole(poster, body):
    assert error(put(poster, "office", body))[:2] == (400, "invalid")
    assert not StatusBus.objects.exists()


def test_numbered_posts_come_once_whatever_is_sent_again(poster):
    def numbered(first, *actions, **more):
        return put(poster, "office", *(POST | {"action": a} for a in actions), producer="host 1", first=first, **more)

    assert numbered(1, "a", "b").json()["accepted_through"] == 2
    again = numbered(1, "a", "b", "c")  # stamped by the server: yet the same posts
    assert (again.status_code, again.json()["accepted_through"], again.json()["duplicates"]) == (202, 3, 2)
    assert [entry["seq"] for entry in again.json()["entries"]] == [1, 2, 3]
    assert error(numbered(5, "e")) == (409, "gap", {"expected": 4})
    assert error(numbered(2, "other")) == (409, "differs", {"line": 2})
    assert numbered(2, "b").json() | {"duplicates": 1} == numbered(2, "b").json()
    assert put(poster, "office", POST, producer="host:2", first=1).json()["accepted_through"] == 1
    assert [row["action"] for row in stored()] == ["a", "b", "c", "open"]
    streams = sorted(StatusBus.objects.get().dumps.values_list("stream", flat=True))
    assert streams == ["status:office:host 1", "status:office:host%3A2"]


def test_a_key_makes_a_retry_harmless(poster, monkeypatch):
    first = put(poster, "office", POST, POST, key="k1")
    assert put(poster, "office", POST, key="k2").status_code == 202
    again = put(poster, "office", POST, POST, key="k1")
    assert again.json() == first.json() | {"duplicates": 2}
    assert error(put(poster, "office", POST, key="k1")) == (409, "differs", {"key": "k1"})
    assert put(poster, "home", POST, key="k1").status_code == 202, "a key counts in its log"
    assert put(poster, "office", POST, key="k1", first=1).status_code == 400
    assert put(poster, "office", POST, key="k" * 201).status_code == 400
    assert len(stored()) == 3
    PostKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert put(poster, "office", POST, key="k1").json()["entries"][0]["seq"] == 4
    assert PostKey.objects.count() == 1, "old keys go"


@pytest.mark.django_db(transaction=True)
def test_the_same_request_several_times_at_once_is_stored_once(team):
    lines = posts.read(json.dumps(POST).encode())

    def in_a_thread(post, *rest):
        try:
            return post(team, "office", *rest)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        once = [pool.submit(in_a_thread, posts.append_once, "", "k", b"x", lines) for _ in range(3)]
        # Each stamped at another moment, as they came to the server.
        same = [
            pool.submit(in_a_thread, posts.append_numbered, "host", 1, posts.read(json.dumps(POST).encode()))
            for _ in range(3)
        ]
        assert len({tuple(entry["seq"] for entry in one.result().entries) for one in once}) == 1
        assert len({tuple(entry["seq"] for entry in one.result().entries) for one in same}) == 1
    assert len(stored()) == 2


def test_names_and_ids_of_other_teams_lead_nowhere(poster, bob_client, alice_client, bus):
    assert put(poster, bus.public_id, POST).json()["id"] == bus.public_id
    assert bus.entries.count() == 18
    assert put(poster, "office", POST).status_code == 202
    assert bob_client.get(f"{API}office/recent").status_code == 404
    made = put(bob_client, bus.public_id, POST).json()  # what does not exist for him is made, in his own team
    assert StatusBus.objects.get(public_id=made["id"]).team.slug == "blue"
    assert (
        put(bob_client, "office", POST).json()["id"] != StatusBus.objects.get(name="office", team__slug="red").public_id
    )
    assert bus.entries.count() == 18
    assert put(Client(), "office", POST).status_code == 401


def test_viewers_and_keys_that_only_read_post_nothing(victor_client, team, bus):
    reader = Client(headers={"Authorization": f"Bearer {keys.create(team, 'r', ['read'])[1]}"})
    assert put(victor_client, "office", POST).status_code == put(reader, bus.public_id, POST).status_code == 403
    assert not StatusBus.objects.filter(name="office").exists()


def test_a_name_that_several_teams_have_needs_the_team(alice_client, poster, alice, other_team):
    Membership.objects.create(team=other_team, user=alice, role="owner")
    other = Client(headers={"Authorization": f"Bearer {keys.create(other_team, 'agents', ['ingest'])[1]}"})
    put(poster, "office", POST)
    put(other, "office", POST, POST)
    assert alice_client.get(f"{API}office/").status_code == 400
    assert alice_client.get(f"{API}office/", {"team": "blue"}).json()["entries"] == 2
    assert alice_client.get(f"{API}office/", {"team": "nobody"}).status_code == 404


def test_the_guard_tells_what_was_completed_a_moment_ago(alice_client, poster):
    def guard(**query):
        return alice_client.get(f"{API}office/guard", query).json()

    put(poster, "office", POST)
    assert guard() == {"completed": False, "window": 5, "age_ms": None, "seq": None, "agent_id": None}
    put(poster, "office", POST | {"status": "completed", "ts": "2026-01-01T00:00:00Z"})
    assert (guard()["completed"], guard()["seq"], guard()["age_ms"] > 0) == (False, 2, True)
    put(poster, "office", POST | {"status": "completed", "agent_id": "voice"})
    found = guard(window=3600)
    assert (found["completed"], found["seq"], found["agent_id"], found["window"]) == (True, 3, "voice", 3600)
    assert guard(window=3600, agent_id="exec") == guard(agent_id="exec") | {"window": 3600, "age_ms": ANY}
    ahead = datetime.now(UTC) + timedelta(minutes=1)
    put(poster, "office", POST | {"status": "completed", "ts": ahead.isoformat()})
    assert (guard()["completed"], guard()["age_ms"], guard()["seq"]) == (True, 0, 4), "a clock that is ahead"
    assert alice_client.get(f"{API}office/guard", {"window": "soon"}).status_code == 400


def test_the_recent_text_is_what_roomkit_returns_to_the_byte(alice_client, bus, sample, team):
    def text(of, **query):
        return b"".join(alice_client.get(f"{API}{of}/recent.txt", query).streaming_content)

    golden = sample("roomkit_status/five_levels.recent_text.txt").read_bytes()
    assert text(bus.public_id) == golden.removesuffix(b"\n")
    StatusBus.objects.create(team=team, name="quiet")
    assert text("quiet") == b"No activity yet."
