"""Status logs over HTTP, the schema and its page."""

import json

import pytest
from django.core.management import call_command

from auditweb.teams.models import AuditRecord
from status_app import feed
from status_app.api import BusBody, BusDetail, EntryBody

API = "/api/v1/status/"

pytestmark = pytest.mark.django_db


@pytest.fixture
def bus(import_sample):
    return import_sample("roomkit_status/five_levels.jsonl").status_buses.get()


def posts(sample, name):
    return [json.loads(raw) for raw in sample(name).read_bytes().splitlines()]


def as_posted(row):
    return {name: row[name] for name in ("ts", "agent_id", "action", "status", "detail", "metadata")}


def test_a_log_says_what_was_counted(alice_client, bus, sample):
    (listed,) = alice_client.get(API).json()["items"]
    one = alice_client.get(f"{API}{bus.public_id}/").json()
    assert set(listed) == set(BusBody().fields)
    assert set(one) == set(BusDetail().fields)
    assert listed == {name: one[name] for name in listed}
    assert one["entries"] == len(posts(sample, "roomkit_status/five_levels.jsonl")) == sum(one["levels"].values())
    assert one["dumps"] == [bus.dumps.get().public_id]


def test_recent_entries_come_by_time_oldest_first_as_they_were_posted(alice_client, import_sample, sample):
    name = "roomkit_status/burst_out_of_order.jsonl"
    bus = import_sample(name).status_buses.get()
    ordered = sorted(posts(sample, name), key=lambda post: post["ts"])
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


@pytest.mark.parametrize("part", ["", "entries", "recent", "recent.txt", "summary.txt"])
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
        "summary.txt": ["style"],
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
