"""Imports survive their workers: claimed once, resumed where they stopped, cancelled, retried, deleted."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.db import connection

from auditweb.dumps import jobs, sinks, store
from auditweb.dumps.models import BadLine, Dump, DumpChunk, Upload
from sessions_app.models import Event, Session, ToolCall, Turn
from status_app.models import StatusBus, StatusEntry

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parent.parent


def upload(team, data: bytes, name="a.jsonl") -> Dump:
    dump = store.begin(team, name, len(data))
    for offset in range(0, len(data), 4 * 2**20):
        store.append_bytes(dump, offset, data[offset : offset + 4 * 2**20])
    return store.finish(dump)[0]


def encode(**entry) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def speech(n: int, text="hello") -> bytes:
    at = f"2026-01-01T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}+00:00"
    role = "user" if n % 2 else "assistant"
    return encode(ts=at, type="speech", role=role, content=f"{text} {n}", duration_ms=None, metadata={})


def test_one_dump_is_claimed_by_one_worker(team):
    dump = upload(team, speech(1))
    claimed = []
    threads = [
        threading.Thread(target=lambda: (claimed.append(jobs.claim(dump.pk)), connection.close())) for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len([c for c in claimed if c is not None]) == 1


def test_a_worker_that_lost_its_lease_commits_nothing(team, monkeypatch):
    dump = upload(team, b"".join(speech(i) for i in range(30)))
    monkeypatch.setattr(jobs, "BATCH", 10)

    def taken_over(d):
        Dump.objects.filter(pk=d.pk).update(lease_token="somebody else")

    assert jobs.run(dump.pk, progress=taken_over) is False
    assert Event.objects.count() == 10
    dump.refresh_from_db()
    assert (dump.lines, dump.state) == (10, "importing")


def test_a_dump_that_kills_its_worker_is_given_up_after_three_starts(team, settings):
    dump = upload(team, speech(1))
    for _ in range(settings.MAX_ATTEMPTS):
        assert jobs.claim(dump.pk) is not None
        Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    assert jobs.claim(dump.pk) is None
    dump.refresh_from_db()
    assert dump.state == "failed"
    assert "died 3 times" in dump.error
    assert jobs.retry(dump)
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.events) == ("done", 1)


def test_the_sweeper_finds_what_no_message_named(team, monkeypatch):
    woken = []
    monkeypatch.setattr(jobs, "wake", lambda d: woken.append(d.pk))
    queued, held = upload(team, speech(1)), upload(team, speech(2))
    done = upload(team, speech(3))
    jobs.run(done.pk)
    jobs.claim(held.pk)
    assert jobs.sweep() == 1
    assert woken == [queued.pk]
    Dump.objects.filter(pk=held.pk).update(lease_until=time.time() - 1)
    assert jobs.sweep() == 2


def test_a_cancelled_import_stops_at_once_and_keeps_what_it_has(team, monkeypatch):
    dump = upload(team, b"".join(speech(i) for i in range(30)))
    monkeypatch.setattr(jobs, "BATCH", 10)
    assert jobs.run(dump.pk, progress=lambda d: jobs.cancel(d)) is False
    dump.refresh_from_db()
    assert (dump.state, dump.lines, Event.objects.count()) == ("cancelled", 10, 10)
    assert not jobs.cancel(dump)
    assert jobs.retry(dump)
    jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, Event.objects.count()) == ("done", 30)


def test_an_error_of_ours_ends_the_dump_and_says_where(team, monkeypatch):
    dump = upload(team, speech(1))

    class Broken:
        name, order = "broken", 99

        def store(self, dump, batch, state):
            raise ZeroDivisionError("a fault")

    monkeypatch.setattr(sinks, "all_sinks", lambda: [Broken()])
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert dump.state == "failed"
    assert "after line 0" in dump.error and "ZeroDivisionError" in dump.error
    assert Event.objects.count() == 0


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "no lines"),
        (b"\n \n", "no lines"),
        (b"<!DOCTYPE html><html><body>502</body></html>", "HTML"),
        (b"\x89PNG\r\n\x1a\n\0\0", "PNG"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"ts,type,content\n2026,speech,hi\n", "CSV"),
    ],
)
def test_what_is_no_dump_is_refused_with_a_sentence(team, head, says):
    dump = upload(team, head)
    jobs.run(dump.pk)
    dump.refresh_from_db()
    assert dump.state == "failed"
    assert says.lower() in dump.error.lower()
    assert not Session.objects.exists()


def test_bad_lines_are_listed_and_their_bytes_found(team):
    data = speech(1) + b"not json\n\n" + b'{"ts": "2026-01-01T00:00:02Z", "cut' + b"\n" + speech(2)
    dump = upload(team, data)
    jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.lines, dump.events, dump.blank_lines, dump.bad_line_count) == (5, 2, 1, 2)
    bad = list(dump.bad_lines.order_by("line"))
    assert [b.line for b in bad] == [2, 4]
    assert store.read(dump, bad[0].offset, bad[0].size) == b"not json\n"
    assert store.line(dump, 4).endswith(b'"cut')


def test_deleting_a_dump_leaves_no_orphan(team, import_sample):
    dump = import_sample("roomkit_mixed/session_status_tool.jsonl", team=team)
    jobs.delete(dump)
    for model in (Dump, Upload, DumpChunk, BadLine, Session, Event, Turn, ToolCall, StatusBus, StatusEntry):
        assert not model.objects.exists(), model


def test_deleting_one_of_two_dumps_leaves_a_gap_that_is_never_filled(team):
    def add(data, name):
        dump = store.begin(team, name, len(data), session_key="shared")
        store.append_bytes(dump, 0, data)
        dump = store.finish(dump)[0]
        jobs.run(dump.pk)
        return dump

    first = add(speech(1) + speech(2), "one.jsonl")
    add(speech(3), "two.jsonl")
    jobs.delete(first)
    session = Session.objects.get()
    assert [e.seq for e in session.events] == [3]
    assert (session.last_seq, session.event_count, session.turn_count) == (3, 1, 1)
    add(speech(4), "three.jsonl")
    session.refresh_from_db()
    assert [e.seq for e in session.events] == [3, 4]


WORKER = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditweb.settings")
import django
from django.conf import settings
django.setup()
settings.DATABASES["default"]["NAME"] = sys.argv[2]
from django.db import connections
connections["default"].settings_dict["NAME"] = sys.argv[2]
from auditweb.dumps import jobs
print("started", flush=True)
jobs.run(int(sys.argv[1]), progress=lambda d: print(d.lines, flush=True))
"""


def start_worker(dump: Dump) -> subprocess.Popen:
    name = str(connection.settings_dict["NAME"])
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(dump.pk), name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_three_times_in_200_000_lines_every_row_is_there_once(team, settings):
    total = 200_000
    at, call = "2026-01-02T00:00:00+00:00", {"agent_id": "a", "status": "ok", "metadata": {}}
    tool = encode(ts=at, tool_name="t", arguments={}, result="r", duration_ms=1.5, **call)
    post = encode(ts=at, action="x", detail="d", **call)
    block = b"".join(speech(i) for i in range(1, 9)) + tool + post
    dump = upload(team, block * (total // 10))
    shares = sorted(random.uniform(0.02, 0.95) for _ in range(3))
    print("killed at", shares)  # shown when this fails
    for share in shares:
        worker = start_worker(dump)
        for line in worker.stdout:
            if line.strip().isdigit() and int(line) >= share * total:
                break
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        dump.refresh_from_db()
        assert dump.state == "importing"
        assert share * total <= dump.lines <= total
        assert Event.objects.count() == dump.lines
        Dump.objects.filter(pk=dump.pk).update(lease_until=0)  # the lease would run out by itself
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    session = dump.sessions.get()
    assert (dump.state, dump.lines, dump.events, dump.bad_line_count) == ("done", total, total, 0)
    assert session.last_seq == session.event_count == session.events.count() == total
    assert session.events.values("line").distinct().count() == total
    assert (session.user_turns, session.assistant_turns) == (total * 4 // 10, total * 4 // 10)
    assert session.tool_calls == total // 10 == ToolCall.objects.count()
    assert session.tool_ms == pytest.approx(1.5 * total / 10)
    assert Turn.objects.count() == session.turn_count == total * 8 // 10
    assert dump.status_buses.get().entry_count == total // 10 == StatusEntry.objects.count()


def test_after_a_bulk_the_database_knows_how_large_its_tables_are(team, import_sample, monkeypatch):
    monkeypatch.setattr(jobs, "BULK", 50)
    import_sample("roomkit_session/support_call_60.jsonl")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT reltuples FROM pg_class WHERE relname = 'sessions_app_event'")
        else:
            cursor.execute("SELECT MAX(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = 'sessions_app_event'")
        assert cursor.fetchone()[0] == 60
