"""Read again: by other rules, from the quarantine, after a crash while an archive was unpacked, after a full disk."""

import gzip
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys

import psycopg
import pytest
from django.db import OperationalError, connection

from auditweb import formats
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, DumpChunk, Layer, Unpacked
from auditweb.formats import containers
from auditweb.formats.record import BadLine as BadLineError
from auditweb.teams.models import AuditRecord
from sessions_app import projection
from sessions_app.models import Event, Session
from status_app.models import StatusBus
from tests.test_concurrency import assert_nothing_is_left, assert_whole, said, upload
from tests.test_containers import zipped
from tests.test_ingest import SAMPLES, snapshot
from tests.test_jobs import ROOT, encode, speech

pytestmark = pytest.mark.django_db(transaction=True)

HOUR_MS = 3_600_000


def reread(dump: Dump) -> Dump:
    jobs.run(dump.pk)
    return Dump.objects.get(pk=dump.pk)


# Other rules


def test_a_dump_imported_again_keeps_the_addresses_of_its_sessions(team, import_bytes):
    data = said(60) + b"not json\n"
    dump = import_bytes(data)
    session, bus = dump.sessions.get(), dump.status_buses.get()
    jobs.reimport(dump)
    assert (Event.objects.count(), Dump.objects.get().lines, Session.objects.get().pk) == (0, 0, session.pk)
    dump = reread(dump)
    assert (dump.state, dump.lines, dump.events, dump.bad_line_count) == ("done", 61, 60, 1)
    again = dump.sessions.get()
    assert (again.public_id, again.key) == (session.public_id, session.key)
    assert again.last_seq == 120  # numbers are not used again
    assert dump.status_buses.get().public_id == bus.public_id
    for name in (
        "event_count",
        "user_turns",
        "assistant_turns",
        "tool_calls",
        "tool_ms",
        "kinds",
        "first_us",
        "last_us",
    ):
        assert getattr(again, name) == getattr(session, name), name
    assert_whole(team)
    jobs.delete(dump)
    assert_nothing_is_left()


def test_a_dump_imported_again_goes_into_the_session_that_is_told(team, import_bytes):
    first = import_bytes(said(20), "one.jsonl")
    second = import_bytes(said(30, "there"), "two.jsonl")
    target = first.sessions.get()
    jobs.reimport(second, session=target.public_id)
    second = reread(second)
    assert second.session_key == target.key
    assert Session.objects.get().pk == target.pk
    assert Session.objects.get().event_count == 50
    jobs.reimport(second, session="")
    second = reread(second)
    assert sorted(s.event_count for s in Session.objects.all()) == [20, 30]
    assert_whole(team)


def test_a_dump_imported_again_elsewhere_leaves_the_session_that_others_feed(team, import_bytes):
    line = '{"ts": "2026-01-01T10:00:0%d+00:00", "type": "speech", "role": "user", "content": "x"}\n'
    first = import_bytes((line % 1).encode(), "a.jsonl", session_key="shared")
    second = import_bytes((line % 2).encode(), "b.jsonl", session_key="shared")
    jobs.reimport(second, session="alone")
    jobs.run(second.pk)
    assert [(s.key, s.event_count, list(s.dumps.all())) for s in Session.objects.order_by("pk")] == [
        ("shared", 1, [first]),
        ("alone", 1, [second]),
    ]


def test_session_ids_join_dumps_only_when_told(team, import_bytes):
    lines = (SAMPLES / "xerxes/multi_session_interleaved.jsonl").read_bytes().splitlines(keepends=True)
    one = import_bytes(b"".join(lines[:50]), "one.jsonl", join=True)
    two = import_bytes(b"".join(lines[50:]), "two.jsonl")
    assert not {s.pk for s in one.sessions.all()} & {s.pk for s in two.sessions.all()}
    jobs.reimport(two, join=True)
    two = reread(two)
    shared = {s.key for s in one.sessions.all()} & {s.key for s in two.sessions.all()}
    assert shared == {"sess-a", "sess-b"}
    assert_whole(team)


def test_a_zone_that_nobody_told_is_inferred_again(team, import_sample):
    dump = import_sample("roomkit_session/v058_tiny_toronto.jsonl", zone="Asia/Tokyo")
    assert (dump.zone, dump.zone_source) == ("Asia/Tokyo", "told")
    jobs.reimport(dump)
    assert (reread(dump).zone, reread(dump).zone_source) == ("Asia/Tokyo", "told")
    jobs.reimport(dump, zone="")
    assert (reread(dump).zone, reread(dump).zone_source) == ("-04:00", "inferred")


def test_an_offset_moves_all_times_and_zero_moves_them_back(team, import_bytes):
    dump = import_bytes(said(10))
    session = dump.sessions.get()
    jobs.tell(dump, offset_ms=HOUR_MS)
    moved = Session.objects.get()
    assert moved.first_us - session.first_us == HOUR_MS * 1000
    assert moved.revision > session.revision and moved.last_seq == session.last_seq
    assert dump.status_buses.get().first_us - StatusBus.objects.get().first_us == 0
    jobs.tell(dump, offset_ms=0, stamp="start")
    dump.refresh_from_db()
    assert (dump.offset_ms, dump.stamp, Session.objects.get().first_us) == (0, "start", session.first_us)
    assert_whole(team)


@pytest.mark.parametrize("rule", [{"zone": "Mars/Olympus"}, {"offset_ms": 10**15}, {"stamp": "middle"}])
def test_a_rule_that_makes_no_sense_changes_nothing(team, import_bytes, rule):
    dump = import_bytes(said(10))
    before = snapshot(team)
    for change in (jobs.tell, jobs.reimport):
        with pytest.raises(ValueError, match=r"zone|offset|start"):
            change(dump, **rule)
    assert snapshot(team) == before


def test_what_runs_is_not_imported_again(team):
    dump, _ = upload(team, said(10))
    jobs.claim(dump.pk)
    dump.refresh_from_db()
    for change in (jobs.reimport, lambda d: jobs.tell(d, stamp="end")):
        with pytest.raises(store.Refused, match="imported"):
            change(dump)


def test_rules_come_in_by_page_and_by_api(alice_client, import_bytes):
    dump = import_bytes(said(10))
    api, page = f"/api/v1/dumps/{dump.public_id}", f"/dumps/{dump.public_id}"
    told = alice_client.patch(api, {"offset_ms": -5, "stamp": "end"}, content_type="application/json").json()
    assert (told["offset_ms"], told["stamp"], told["zone"]) == (-5, "end", dump.zone)
    for wrong in ({"stamp": "middle"}, {"offset_ms": "x"}, {"zone": "Mars"}, {"offset_ms": 10**18}):
        assert alice_client.patch(api, wrong, content_type="application/json").status_code == 400
        assert alice_client.post(f"{api}/reimport", wrong, content_type="application/json").status_code == 400
    again = alice_client.post(f"{api}/reimport", {"session": "calls", "join": True}, content_type="application/json")
    assert (again.status_code, again.json()["state"], again.json()["session"]) == (202, "queued", "calls")
    assert alice_client.post(f"{api}/reimport", {}, content_type="application/json").status_code == 409
    jobs.run(dump.pk)
    form = {"zone": "", "offset_ms": "250", "stamp": "start"}
    assert alice_client.post(f"{page}/zone/", form).status_code == 302
    dump.refresh_from_db()
    assert (dump.offset_ms, dump.stamp, dump.zone_source) == (250, "start", "")
    wrong = alice_client.post(f"{page}/zone/", {"offset_ms": "soon"})
    assert wrong.status_code == 400 and "whole number" in wrong.content.decode()
    assert alice_client.post(f"{page}/reimport/", {**form, "session": ""}).status_code == 302
    dump = reread(dump)
    assert (dump.state, dump.session_key, dump.join) == ("done", "", False)
    assert AuditRecord.objects.filter(action="reimport", target_id=dump.public_id).count() == 2


# The quarantine


@pytest.fixture
def older_parser(monkeypatch):
    """``older_parser(word)``: a parser that cannot read lines with *word*; a second call with None takes it away."""
    present = formats.read_line

    def install(word):
        def read_line(raw, *args):
            if word and word in raw:
                raise BadLineError("this version cannot read it")
            return present(raw, *args)

        monkeypatch.setattr(formats, "read_line", read_line)

    return install


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("roomkit_mixed/session_status_tool.jsonl", b'"tool_name"'),
        ("roomkit_mixed/session_and_status.jsonl", b"pending"),
        ("roomkit_session/v058_tiny_toronto.jsonl", b'"speech"'),
        ("roomkit_session/appended_two_runs.jsonl", b'"barge_in"'),
        ("xerxes/multi_session_interleaved.jsonl", b"tool_call_attempt"),
        ("agent_framework/trace-260320_115602.jsonl", b"user_input"),
    ],
)
def test_lines_that_can_be_read_now_take_their_place(team, other_team, import_sample, older_parser, name, word):
    older_parser(word)
    dump = import_sample(name)
    hidden = dump.bad_line_count
    assert hidden > 0 and jobs.retry_bad_lines(dump) == 0
    older_parser(None)
    assert jobs.retry_bad_lines(dump) == hidden
    dump.refresh_from_db()
    one = import_sample(name, team=other_team)
    for field in ("lines", "blank_lines", "bad_line_count", "events", "records", "naive_lines", "zone", "zone_source"):
        assert getattr(dump, field) == getattr(one, field), field
    mine, theirs = by_time(team), by_time(other_team)
    assert mine == theirs
    for session in Session.objects.filter(team=team):
        projection.rebuild(session)
    assert by_time(team) == mine
    assert jobs.retry_bad_lines(dump) == 0


def by_time(team) -> list:
    """What readers see: each session's events in display order, and what is counted."""
    found = []
    for session in Session.objects.filter(team=team).order_by("first_us", "title"):
        names = ("event_count", "user_turns", "assistant_turns", "tool_calls", "tools", "kinds", "first_us", "last_us")
        counts = (*(getattr(session, name) for name in names), round(session.tool_ms, 3))
        columns = ("line", "at_us", "sort_us", "kind", "lane", "text", "status", "duration_ms", "ts_quality")
        events = list(session.events.order_by("sort_us", "line", "id").values_list(*columns))
        found.append((events, counts))
    for bus in StatusBus.objects.filter(team=team):
        rows = list(bus.entries.order_by("sort_us", "line").values_list("line", "at_us", "sort_us", "action", "status"))
        found.append((rows, bus.entry_count, bus.levels, bus.agents, bus.first_us, bus.last_us))
    return found


def test_the_quarantine_is_read_again_by_page_and_by_api(alice_client, import_bytes, older_parser):
    older_parser(b"secret words")
    dump = import_bytes(speech(1) + speech(2, "secret words") + b"broken\n" + speech(3, "secret words") + speech(4))
    url = f"/api/v1/dumps/{dump.public_id}/bad-lines/retry"
    assert alice_client.post(url).json() == {"read": 0, "left": 3}
    older_parser(None)
    assert alice_client.post(url).json() == {"read": 2, "left": 1}
    assert [e.text for e in Event.objects.order_by("sort_us")] == [
        "hello 1", "secret words 2", "secret words 3", "hello 4",
    ]  # fmt: skip
    answer = alice_client.post(f"/dumps/{dump.public_id}/bad-lines/retry/", follow=True)
    assert "None of these lines" in answer.content.decode()
    Dump.objects.update(state="importing")
    assert alice_client.post(url).status_code == 409


# Archives and crashes

UNPACKER = """
import os, signal, sys
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from auditweb.dumps import jobs, store
hold, left = jobs._hold, [int(sys.argv[3])]
def dying(dump):
    hold(dump)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
jobs._hold = dying
store.PART_BYTES = 2 * store.CHUNK_BYTES
jobs.run(int(sys.argv[2]))
print("alive")
"""


@pytest.mark.parametrize("kind", ["gzip", "zip", "array"])
def test_a_worker_that_is_killed_while_it_unpacks_leaves_nothing_half(team, kind):
    lines = b"".join(speech(n, os.urandom(40).hex()) for n in range(12_000))
    data = {
        "gzip": lambda: gzip.compress(lines),
        "zip": lambda: zipped({"a.jsonl": lines, "b.jsonl": said(5)}),
        "array": lambda: b"[" + lines.replace(b"\n", b",\n").rstrip(b",\n") + b"]",
    }[kind]()
    dump, _ = upload(team, data)
    for number in sorted(random.sample(range(2, 6), 2)):  # the import itself begins after the sixth
        print("killed at", number)  # shown when this fails
        command = [sys.executable, "-c", UNPACKER, str(connection.settings_dict["NAME"]), str(dump.pk), str(number)]
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
        killed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        dump.refresh_from_db()
        assert (dump.state, dump.lines, Event.objects.count()) == ("importing", 0, 0)
        Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    assert jobs.run(dump.pk)
    for member in store.members(Dump.objects.get(pk=dump.pk)):
        jobs.run(member.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.lines, dump.events, dump.unpacked) == ("done", 12_000, 12_000, Unpacked.WHOLE)
    assert b"".join(store.pieces(dump)) == lines
    assert b"".join(store.received(dump)) == data
    assert Dump.objects.count() == (2 if kind == "zip" else 1)
    chunks = DumpChunk.objects.filter(dump=dump, layer=Layer.LINES)
    assert sum(chunks.values_list("size", flat=True)) == len(lines)


def test_an_archive_that_is_cancelled_while_it_unpacks_stops(team, monkeypatch):
    dump, _ = upload(team, gzip.compress(said(5000)))
    monkeypatch.setattr(store, "PART_BYTES", 100_000)
    gunzip = containers.gunzip

    def cancelling(*args):
        for number, piece in enumerate(gunzip(*args)):
            if number == 1:
                jobs.cancel(dump)
            yield piece

    monkeypatch.setattr(containers, "gunzip", cancelling)
    assert jobs.run(dump.pk) is False
    dump.refresh_from_db()
    assert (dump.state, dump.unpacked, Event.objects.count()) == ("cancelled", "", 0)
    monkeypatch.setattr(containers, "gunzip", gunzip)
    assert jobs.retry(dump)
    assert reread(dump).lines == 5000


# A full disk


@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk_is_507_and_a_busy_one_503(alice_client, monkeypatch, full):
    def fail(*args):
        error = OperationalError("no space")
        if connection.vendor == "postgresql":
            error.__cause__ = psycopg.errors.DiskFull("full") if full else psycopg.errors.LockNotAvailable("busy")
        else:
            error.__cause__ = sqlite3.OperationalError("full")
            error.__cause__.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(store, "append_bytes", fail)
    answer = alice_client.put("/api/v1/dumps/a.jsonl", speech(1), content_type="application/octet-stream")
    assert answer.status_code == (507 if full else 503)
    assert answer.json()["error"]["code"] == ("storage_full" if full else "unavailable")
    assert answer["Retry-After"]
    monkeypatch.setattr(Dump.objects.__class__, "visible_to", fail)
    alice_client.raise_request_exception = False
    assert alice_client.get("/dumps/").status_code == (507 if full else 503)


def test_a_database_without_room_says_so_itself(tmp_path):
    """What SQLite raises when it is full, not what we think it does."""
    if connection.vendor != "sqlite":
        return
    from auditweb.errors import _is_full

    full = sqlite3.connect(tmp_path / "small.sqlite3")
    full.execute("PRAGMA max_page_count = 4")
    full.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError) as refused:
        full.execute("INSERT INTO t VALUES (?)", ["x" * 10**6])
    error = OperationalError("full")
    error.__cause__ = refused.value
    assert _is_full(error)
    full.close()


def test_a_line_of_another_sort_beside_the_posts_is_no_obstacle_for_a_new_zone(team, import_bytes, older_parser):
    """A post that waits in the quarantine, and could be read now, has no entry whose time could change."""
    post = {"ts": "2026-01-01T00:00:00+00:00", "agent_id": "a", "status": "ok", "metadata": {}, "detail": "d"}
    lines = [encode(**post, action=f"number {n}") for n in range(4)]
    older_parser(b"number 1")
    dump = import_bytes(b"".join(lines))
    older_parser(None)
    jobs.tell(dump, offset_ms=1000)
    assert [e.action for e in StatusBus.objects.get().entries.order_by("line")] == ["number 0", "number 2", "number 3"]
    assert len(json.dumps(dump.records)) > 2
