"""Many at once: uploads, imports, deletions, frozen and killed workers. Nothing is lost, doubled or left behind."""

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import psycopg
import pytest
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import jobs, sinks, store
from auditweb.dumps.models import BadLine, Dump, DumpChunk, Upload
from sessions_app import projection
from sessions_app.models import Event, Session, Summary, ToolCall, Turn
from status_app import ingest as status_ingest
from status_app.models import StatusBus, StatusEntry
from tests.site import site, until
from tests.test_ingest import SAMPLES, one_batch, snapshot
from tests.test_jobs import ROOT, encode, speech

pytestmark = pytest.mark.django_db(transaction=True)

WORKER = """
import os, signal, sys
import django
django.setup()
from django.conf import settings
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[2]
from auditweb.dumps import jobs, sinks
jobs.BATCH = int(sys.argv[3])
stop_at, die_in = int(sys.argv[4]), sys.argv[5]

def progress(dump):
    print(dump.lines, flush=True)
    if stop_at and dump.lines >= stop_at > dump.lines - jobs.BATCH:
        os.kill(os.getpid(), signal.SIGSTOP)

def dying(call, number):
    def run(*args):
        result = call(*args)
        os.kill(os.getpid(), number)
        return result
    return run

if die_in == "retime":
    last = sinks.all_sinks()[-1]
    last.retime = dying(last.retime, signal.SIGKILL)
elif die_in == "store":
    last = sinks.all_sinks()[-1]
    last.store = dying(last.store, signal.SIGSTOP)
elif die_in == "end":
    jobs._end = dying(lambda *args: None, signal.SIGKILL)
print(jobs.run(int(sys.argv[1]), progress), flush=True)
"""


@contextlib.contextmanager
def worker(dump: Dump, batch=100, stop_at=0, die_in="", **env):
    """A process that imports *dump*; it stops itself between two batches at line *stop_at*, or dies in a function."""
    arguments = [str(dump.pk), str(connection.settings_dict["NAME"]), str(batch), str(stop_at), die_in]
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings", **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_stopped(process) -> bool:
    with open(f"/proc/{process.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def at_once(calls) -> list:
    """What each of *calls* gives, run in threads that start together; raises what one of them raised."""
    barrier = threading.Barrier(len(calls))
    given_back: list = [None] * len(calls)

    def run(number, call):
        try:
            barrier.wait(20)
            given_back[number] = call()
        except BaseException as e:
            given_back[number] = e
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    for one in given_back:
        if isinstance(one, BaseException):
            raise one
    return given_back


def in_thread(call):
    return at_once([call])[0]


def upload(team, data: bytes, name="a.jsonl", **told) -> tuple[Dump, bool]:
    dump = store.begin(team, name, len(data), **told)
    for offset in range(0, len(data), 2**20):
        store.append_bytes(dump, offset, data[offset : offset + 2**20])
    return store.finish(dump)


def said(count: int, word="hello") -> bytes:
    """Speech, tool calls and posts in turns."""
    lines = []
    for n in range(count):
        at = f"2026-01-01T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}+00:00"
        call = {"agent_id": word, "status": "ok", "metadata": {}}
        if n % 5 == 3:
            lines.append(encode(ts=at, tool_name=word, arguments={}, result="r", duration_ms=1.5, **call))
        elif n % 5 == 4:
            lines.append(encode(ts=at, action="x", detail="d", **call))
        else:
            lines.append(speech(n, word))
    return b"".join(lines)


def assert_nothing_is_left() -> None:
    models = (Dump, Upload, DumpChunk, BadLine, Session, Event, Turn, ToolCall, Summary, StatusBus, StatusEntry)
    assert {m.__name__: m.objects.count() for m in models} == {m.__name__: 0 for m in models}


def assert_whole(team) -> None:
    """Numbers rise, each line is there once, and everything derived is what a rebuild derives."""
    before = snapshot(team)
    for session in Session.objects.filter(team=team):
        seqs = [e.seq for e in session.events]
        assert seqs == sorted(set(seqs)) and (not seqs or seqs[-1] <= session.last_seq)
        for dump in session.dumps.all():
            lines = list(session.events.filter(dump=dump).values_list("line", flat=True))
            assert lines == sorted(set(lines))
        projection.rebuild(session)
    for bus in StatusBus.objects.filter(team=team):
        status_ingest.recount(bus)
    assert snapshot(team) == before


# Receiving


def test_the_same_bytes_from_five_at_once_are_imported_once(team):
    data = said(2000)
    found = at_once([lambda: upload(team, data) for _ in range(5)])
    assert len({dump.pk for dump, _ in found}) == 1
    assert sorted(duplicate for _, duplicate in found) == [False, True, True, True, True]
    dump = found[0][0]
    again = []
    jobs.run(dump.pk, progress=lambda d: again.append(upload(team, data)))
    assert again and all(d.pk == dump.pk and duplicate for d, duplicate in again)
    assert (Upload.objects.count(), Dump.objects.count(), Event.objects.count()) == (1, 1, 2000)
    assert sum(DumpChunk.objects.values_list("size", flat=True)) == len(data)


def test_the_same_file_sent_by_five_clients_at_once_gets_one_id(team, alice, signed_in):
    data = said(50)
    clients = [signed_in(alice) for _ in range(5)]

    def send(client):
        return client.put("/api/v1/dumps/a.jsonl", data, content_type="application/octet-stream")

    answers = at_once([lambda c=c: send(c) for c in clients])
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 200, 202]
    assert len({a.json()["id"] for a in answers}) == 1
    assert (Upload.objects.count(), Dump.objects.count()) == (1, 1)


SENDER = """
import sys
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from auditweb.dumps import store
from auditweb.teams.models import Team
data = sys.stdin.buffer.read()
dump = store.begin(Team.objects.get(slug="red"), "a.jsonl")
store.append_bytes(dump, 0, data)
dump, duplicate = store.finish(dump)
print(dump.pk, duplicate)
"""


def test_the_same_bytes_from_three_processes_are_kept_once(team):
    data = said(1000)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", SENDER, str(connection.settings_dict["NAME"])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    senders = [subprocess.Popen(command, cwd=ROOT, env=env, **pipes) for _ in range(3)]
    said_so = at_once([lambda p=p: p.communicate(data, timeout=60)[0].split() for p in senders])
    assert len({pk for pk, _ in said_so}) == 1
    assert sorted(duplicate for _, duplicate in said_so) == [b"False", b"True", b"True"]
    assert sum(DumpChunk.objects.values_list("size", flat=True)) == len(data)


def once_hashed(monkeypatch, also) -> None:
    """Call *also* when all bytes of a dump were read for the first time."""
    original, pending = store.pieces, [also]

    def pieces(*args):
        yield from original(*args)
        if pending:
            pending.pop()()

    monkeypatch.setattr(store, "pieces", pieces)


def test_two_calls_that_finish_one_dump_both_hear_that_it_is_queued(team, monkeypatch):
    dump = store.begin(team, "a.jsonl")
    store.append_bytes(dump, 0, said(10))
    found = []
    once_hashed(monkeypatch, lambda: found.append(store.finish(dump)))
    found.append(store.finish(dump))
    assert [(d.pk, d.state, duplicate) for d, duplicate in found] == [(dump.pk, "queued", False)] * 2


def test_two_calls_that_finish_a_duplicate_both_hear_which_was_first(team, monkeypatch):
    first, _ = upload(team, said(10))
    dump = store.begin(team, "b.jsonl")
    store.append_bytes(dump, 0, said(10))
    found = []
    once_hashed(monkeypatch, lambda: found.append(store.finish(dump)))
    found.append(store.finish(dump))
    assert [(d.pk, duplicate) for d, duplicate in found] == [(first.pk, True)] * 2


def test_a_slice_that_arrives_while_the_dump_is_finished_is_not_lost(team, monkeypatch):
    upload(team, said(10))
    dump = store.begin(team, "b.jsonl")
    store.append_bytes(dump, 0, said(10))
    once_hashed(monkeypatch, lambda: store.append_bytes(dump, len(said(10)), b"{}\n"))
    with pytest.raises(store.NotReceiving, match="changed"):
        store.finish(dump)
    assert store.finish(dump)[0].size == len(said(10)) + 3


def test_asking_again_whether_a_dump_is_finished_is_harmless_in_every_later_state(team):
    dump, _ = upload(team, b"")
    jobs.run(dump.pk)
    assert store.finish(dump)[0].state == "failed"
    assert jobs.retry(dump) and jobs.cancel(dump)
    assert store.finish(dump)[0].state == "cancelled"


def test_bytes_for_a_dump_that_was_deleted_are_refused_as_for_a_missing_one(team):
    dump = store.begin(team, "a.jsonl")
    jobs.delete(dump)
    for call in (
        lambda: store.append_bytes(dump, 0, b"{}\n"),
        lambda: store.finish(dump),
        lambda: jobs.delete(dump),
        lambda: jobs.tell(dump, "UTC"),
    ):
        with pytest.raises(store.Gone):
            call()


def test_uploads_and_deletions_of_the_same_bytes_in_any_order_leave_nothing_odd(team):
    data = said(20)

    def send():
        for _ in range(12):
            with contextlib.suppress(store.Gone):
                upload(team, data)

    def remove():
        for _ in range(40):
            for dump in Dump.objects.exclude(sha256=""):
                with contextlib.suppress(store.Gone):
                    jobs.delete(dump)

    at_once([send, send, send, remove])
    for dump in Dump.objects.all():
        jobs.delete(dump)
    assert_nothing_is_left()


def test_two_clients_that_send_the_slices_of_one_dump_at_once_make_it_whole(team):
    data = os.urandom(600_000)
    dump = store.begin(team, "a.jsonl", len(data))

    def send():
        offset = 0
        while offset < len(data):
            try:
                offset = store.append_bytes(dump, offset, data[offset : offset + 70_000])
            except store.WrongOffset as e:
                offset = e.expected

    at_once([send, send])
    dump, _ = store.finish(dump)
    assert b"".join(store.pieces(dump)) == data
    assert dump.sha256 == hashlib.sha256(data).hexdigest()


def test_a_dump_without_bytes_is_told_why_it_failed(team):
    dump, _ = upload(team, b"")
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.error) == ("failed", "The file has no lines.")


def test_an_upload_that_nobody_finished_is_dropped_after_a_day_without_bytes(team, settings):
    settings.ABANDONED_SECONDS = 100
    forgotten, slow, finished = (store.begin(team, f"{n}.jsonl") for n in range(3))
    for dump in (forgotten, slow, finished):
        store.append_bytes(dump, 0, speech(dump.pk))
    store.finish(finished)
    before = Dump.objects.get(pk=slow.pk).created_at
    long_ago = before - jobs.timedelta(seconds=101)
    Dump.objects.update(created_at=long_ago, heartbeat_at=long_ago, lease_until=time.time() + 60)
    store.append_bytes(slow, slow.size + len(speech(slow.pk)), b"{}\n")
    assert jobs.sweep() == 0
    assert set(Dump.objects.values_list("pk", flat=True)) == {slow.pk, finished.pk}
    assert (Upload.objects.count(), DumpChunk.objects.filter(dump_id=forgotten.pk).count()) == (2, 0)
    jobs.cancel(slow)
    Dump.objects.update(created_at=long_ago, heartbeat_at=long_ago)
    jobs.retry(slow)
    jobs.sweep()
    assert Dump.objects.filter(pk=slow.pk, state="receiving").exists()


def test_dropping_a_dump_never_reads_all_events(team):
    dump = store.begin(team, "a.jsonl")
    with CaptureQueriesContext(connection) as queries:
        store.drop_bytes(dump)
    asked = [q["sql"] for q in queries if "_event" in q["sql"] or "statusentry" in q["sql"]]
    assert asked == []


# Importing


def test_four_dumps_in_one_session_and_on_one_bus_imported_at_once_make_one_sequence(team):
    told = {"session_key": "shared", "bus_name": "posts"}
    dumps = [upload(team, said(1500, f"word{n}"), f"{n}.jsonl", **told)[0] for n in range(4)]
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(dump, batch=60)) for dump in dumps]
        printed = at_once([lambda p=p: p.communicate(timeout=120)[0].split()[-1] for p in workers])
    assert printed == ["True"] * 4  # none of them was told that the database is locked, or that it is in a deadlock
    session, bus = Session.objects.get(), StatusBus.objects.get()
    assert [e.seq for e in session.events.only("id")] == list(range(1, 6001))
    assert [e.seq for e in bus.entries.only("id")] == list(range(1, 1201))
    assert session.status_bus == bus
    assert (session.last_seq, session.event_count, bus.entry_count) == (6000, 6000, 1200)
    assert {dump.pk for dump in session.dumps.all()} == {dump.pk for dump in dumps}
    assert_whole(team)


def test_a_worker_that_froze_past_its_lease_stores_nothing_when_it_wakes(team):
    dump, _ = upload(team, said(1000))
    with worker(dump, stop_at=300, AUDITWEB_LEASE_SECONDS="2") as frozen:
        until(lambda: is_stopped(frozen), "the worker stops itself")
        assert jobs.claim(dump.pk) is None
        until(lambda: jobs.run(dump.pk), "the lease runs out", 20)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.communicate(timeout=60)[0].split()[-1] == "False"
    dump.refresh_from_db()
    assert (dump.state, dump.lines, dump.events) == ("done", 1000, 1000)
    assert [e.seq for e in dump.sessions.get().events.only("id")] == list(range(1, 1001))
    assert dump.status_buses.get().entry_count == 200
    assert_whole(team)


@pytest.mark.postgres
def test_nobody_waits_for_a_worker_that_froze_inside_its_transaction(team):
    dump, _ = upload(team, said(100))
    with worker(dump, batch=1000, die_in="store", AUDITWEB_LEASE_SECONDS="2") as frozen:
        until(lambda: is_stopped(frozen), "the worker stops itself")
        time.sleep(2.1)  # its lease
        started = time.monotonic()
        assert jobs.run(dump.pk) is False
        assert time.monotonic() - started < 5
        frozen.send_signal(signal.SIGCONT)
        assert frozen.communicate(timeout=60)[0].split()[-1] == "True"
    assert Event.objects.count() == 100


NAIVE = SAMPLES / "roomkit_mixed/v058_session_and_status_paris.jsonl"


@pytest.mark.parametrize("die_in", ["retime", "end"])
def test_killed_while_the_zone_is_settled_it_ends_the_same(die_in, team, import_sample, monkeypatch):
    monkeypatch.setattr(jobs, "GUESS_LINES", 0)
    whole = import_sample("roomkit_mixed/v058_session_and_status_paris.jsonl", team=team)
    assert whole.zone_source == "inferred"
    expected = snapshot(team)
    jobs.delete(whole)
    dump, _ = upload(team, NAIVE.read_bytes(), NAIVE.name)
    jobs_of = "import auditweb.dumps.jobs as j; j.GUESS_LINES = 0\n"
    monkeypatch.setattr(sys.modules[__name__], "WORKER", WORKER.replace("jobs.BATCH =", jobs_of + "jobs.BATCH ="))
    with worker(dump, batch=7, die_in=die_in) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    dump.refresh_from_db()
    assert (dump.state, dump.zone_source) == ("importing", "" if die_in == "retime" else "inferred")
    Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.zone, dump.attempts) == ("done", whole.zone, 1)
    assert snapshot(team) == expected


def test_settling_times_for_longer_than_the_lease_is_no_death(team, settings, monkeypatch):
    settings.LEASE_SECONDS = 1.5
    dump, _ = upload(team, NAIVE.read_bytes())
    monkeypatch.setattr(jobs, "GUESS_LINES", 0)
    last, begun, done, taken = sinks.all_sinks()[-1], threading.Event(), threading.Event(), []
    retime = last.retime

    def slowly(d):
        time.sleep(3)
        retime(d)

    end = jobs._end

    def end_late(*args):
        time.sleep(0.5)
        end(*args)

    monkeypatch.setattr(last, "retime", slowly)
    monkeypatch.setattr(jobs, "_end", end_late)

    def others():
        begun.wait(20)
        while not done.is_set():
            taken.append(jobs.claim(dump.pk))
            time.sleep(0.05)

    def import_it():
        try:
            return jobs.run(dump.pk, progress=lambda d: begun.set())
        finally:
            begun.set()
            done.set()

    assert at_once([import_it, others])[0] is True
    dump.refresh_from_db()
    assert (dump.state, [t for t in taken if t]) == ("done", [])


def test_a_killed_worker_of_a_site_is_replaced_and_its_import_goes_on(tmp_path):
    total = 120_000
    data = said(total)
    with site() as running:
        key = json.loads(running.manage("create_api_key", "--team", "default", "--scopes", "ingest,read", "--json"))

        def call(method, path, body=b"", kind="application/octet-stream"):
            headers = {"Authorization": f"Bearer {key['key']}", "Content-Type": kind}
            request = urllib.request.Request(running.url + "/api/v1/" + path, body or None, headers, method=method)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        told = json.dumps({"name": "big.jsonl", "size": len(data)}).encode()
        begun = call("POST", "dumps/", told, "application/json")
        address = f"dumps/{begun['id']}"
        for offset in range(0, len(data), 4 * 2**20):
            call("PUT", f"{address}/bytes?offset={offset}", data[offset : offset + 4 * 2**20])
        call("POST", f"{address}/finish")
        share = random.uniform(0.1, 0.6)
        print("killed at", share)
        until(lambda: call("GET", address + "/")["lines"] >= share * total, "some lines are imported")
        os.kill(running.worker_pid(), signal.SIGKILL)
        killed_at, stopped_at = time.monotonic(), call("GET", address + "/")["lines"]
        assert share * total <= stopped_at < total
        until(lambda: call("GET", address + "/")["lines"] > stopped_at, "the import goes on", 40)
        went_on = time.monotonic() - killed_at
        dump = until(lambda: (d := call("GET", address + "/"))["state"] == "done" and d, "the import ends", 60)
        assert went_on <= 20, went_on
        assert (dump["lines"], dump["events"], dump["bad_lines"]) == (total, total, 0)
        (session,) = dump["sessions"]
        answer = call("GET", f"sessions/{session['id']}/timeline?after_index={total - 200}&limit=200")
        rows = answer["entries"] if "entries" in answer else answer["items"]
        assert [row["line"] for row in rows] == list(range(total - 199, total + 1))
        assert [row["seq"] for row in rows] == list(range(total - 199, total + 1))


# Deleting, cancelling, zones


def test_a_dump_that_is_deleted_while_it_is_imported_leaves_nothing(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 20)
    for moment in (20, 60, 100):
        dump, _ = upload(team, said(100) + b"broken\n")

        def delete(d, moment=moment):
            if d.lines >= moment:
                in_thread(lambda: jobs.delete(Dump.objects.get(pk=d.pk)))
                d.lines = -(10**9)

        assert jobs.run(dump.pk, progress=delete) is False
        assert_nothing_is_left()


def test_deleting_one_dump_while_another_of_its_session_is_imported_keeps_the_other_whole(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 15)
    for _ in range(5):
        told = {"session_key": "shared", "bus_name": "posts"}
        first, _ = upload(team, said(60), "one.jsonl", **told)
        jobs.run(first.pk)
        second, _ = upload(team, said(300, "other"), "two.jsonl", **told)
        at_once([lambda f=first: jobs.delete(f), lambda s=second: jobs.run(s.pk)])
        until(lambda s=second: jobs.run(s.pk) or Dump.objects.get(pk=s.pk).state not in ("queued", "importing"), "done")
        second.refresh_from_db()
        assert (second.state, second.error) == ("done", "")
        session, bus = Session.objects.get(), StatusBus.objects.get()
        assert Event.objects.count() == session.event_count == 300
        assert StatusEntry.objects.count() == bus.entry_count == 60
        assert session.status_bus == bus
        assert_whole(team)
        jobs.delete(second)
        assert_nothing_is_left()


@pytest.mark.postgres
@pytest.mark.parametrize("model", [Session, StatusBus])
def test_a_log_that_vanishes_between_finding_and_locking_it_is_made_again(model, team, monkeypatch):
    told = {"session_key": "shared", "bus_name": "posts"}
    first, _ = upload(team, said(60), "one.jsonl", **told)
    jobs.run(first.pk)
    lines = said(60, "other").splitlines(keepends=True)
    posts = b"".join(line for line in lines if b'"action"' in line)
    second, _ = upload(team, b"".join(lines) if model is Session else posts, "two.jsonl", **told)
    manager = model._default_manager
    original, pending = manager.get_or_create, [first]

    def get_or_create(**kwargs):
        found = original(**kwargs)
        if pending and kwargs.get("key", kwargs.get("name")) in told.values():
            dump = pending.pop()
            in_thread(lambda: jobs.delete(dump))
        return found

    monkeypatch.setattr(manager, "get_or_create", get_or_create)
    assert jobs.run(second.pk)
    second.refresh_from_db()
    assert (second.state, second.error, pending) == ("done", "", [])
    assert Event.objects.count() == (60 if model is Session else 0)
    assert StatusBus.objects.get().entry_count == StatusEntry.objects.count() == 12


def test_a_session_whose_first_log_of_posts_is_deleted_points_to_the_one_that_is_left(team):
    first, _ = upload(team, said(20), "one.jsonl", session_key="shared")
    jobs.run(first.pk)
    second, _ = upload(team, said(25, "there"), "two.jsonl", session_key="shared")
    jobs.run(second.pk)
    assert Session.objects.get().status_bus == first.status_buses.get()
    jobs.delete(first)
    assert Session.objects.get().status_bus == second.status_buses.get()


def test_cancel_and_retry_answer_truly_in_every_state(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 10)
    dump = store.begin(team, "a.jsonl")
    store.append_bytes(dump, 0, said(30))
    assert not jobs.retry(dump)
    assert jobs.cancel(dump) and not jobs.cancel(dump)
    with pytest.raises(store.NotReceiving):
        store.finish(dump)
    assert jobs.retry(dump)
    dump, _ = store.finish(dump)
    assert jobs.cancel(dump)
    assert jobs.run(dump.pk) is False
    assert jobs.retry(dump) and not jobs.retry(dump)
    # cancelled and tried again between two batches of a worker: the old worker must not go on
    assert jobs.run(dump.pk, progress=lambda d: jobs.cancel(d) and jobs.retry(d)) is False
    assert Event.objects.count() == 10
    assert jobs.run(dump.pk)
    assert not jobs.cancel(dump) and not jobs.retry(dump)
    assert [e.line for e in Event.objects.order_by("id")] == list(range(1, 31))


ZONED = [
    "roomkit_mixed/v058_session_and_status_paris.jsonl",
    "roomkit_session/v058_dst_fall_back_toronto.jsonl",
    "dirty/mixed_timezones.jsonl",
    "dirty/timestamps_zoo.jsonl",
]


@pytest.mark.parametrize("name", ZONED)
def test_a_zone_told_before_within_or_after_the_import_gives_the_same_times(name, team, import_sample, monkeypatch):
    data = (SAMPLES / name).read_bytes()
    # Posts without a zone, without a time, and with a number that looks like a time once it is text.
    for stamp in ('"2026-11-01T01:30:00"', "null", "202601011120000", '"2026-11-01T01:10:00"'):
        data += b'{"ts": %s, "agent_id": "a", "action": "go", "status": "ok", "detail": ""}\n' % stamp.encode()
    before, _ = upload(team, data, zone="America/Toronto")
    assert jobs.run(before.pk)
    expected = snapshot(team)
    jobs.delete(before)

    after, _ = upload(team, data)
    assert jobs.run(after.pk)
    jobs.tell(after, "Asia/Tokyo")
    jobs.tell(after, "America/Toronto")
    assert snapshot(team) == expected
    jobs.delete(after)

    monkeypatch.setattr(jobs, "BATCH", 5)
    within, _ = upload(team, data, zone="Asia/Tokyo")
    jobs.run(within.pk, progress=lambda d: jobs.cancel(d))
    jobs.tell(within, "America/Toronto")
    assert jobs.retry(within)
    assert jobs.run(within.pk)
    assert snapshot(team) == expected


def test_a_zone_is_not_changed_under_a_running_import(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 10)
    dump, _ = upload(team, said(30))
    refused = []

    def tell(d):
        with pytest.raises(store.Refused, match="being imported"):
            in_thread(lambda: jobs.tell(Dump.objects.get(pk=d.pk), "Asia/Tokyo"))
        refused.append(d.lines)

    assert jobs.run(dump.pk, progress=tell)
    assert refused == [10, 20, 30]


def test_what_the_first_lines_say_of_the_zone_is_corrected_by_the_rest(team, import_bytes, monkeypatch):
    def naive(hour, second):
        return encode(ts=f"2026-01-01T{hour:02d}:00:{second:02d}", type="speech", role="user", content="x")

    def aware(hour, second):
        return encode(ts=f"2026-01-01T{hour:02d}:00:{second:02d}+00:00", type="speech", role="user", content="x")

    data = aware(12, 0) + naive(13, 1) + aware(12, 2)
    data += b"".join(naive(14, n) + aware(12, n) for n in range(3, 40))
    monkeypatch.setattr(jobs, "GUESS_LINES", 3)
    guessed = import_bytes(data, team=team)
    assert (guessed.zone, guessed.zone_source) == ("+02:00", "inferred")
    expected = snapshot(team)
    jobs.delete(guessed)
    monkeypatch.setattr(jobs, "GUESS_LINES", 0)
    import_bytes(data, team=team)
    assert snapshot(team) == expected


# The database locked, full, away


HOLDER = """
import sys, time
import django
django.setup()
from django.db import connection, transaction
connection.settings_dict["NAME"] = sys.argv[1]
with transaction.atomic(), connection.cursor() as cursor:
    if connection.vendor == "postgresql":
        cursor.execute("LOCK TABLE dumps_dump IN ACCESS EXCLUSIVE MODE")
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def locked_database(seconds: float):
    """Another process holds the lock of all writers for so long."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", HOLDER, str(connection.settings_dict["NAME"])]
    holder = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    timer = threading.Timer(seconds, holder.stdin.close)
    try:
        assert holder.stdout.readline() == b"held\n"
        timer.start()
        yield
    finally:
        timer.cancel()
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_an_import_waits_while_another_process_holds_the_database(team):
    dump, _ = upload(team, said(100))
    with locked_database(10):
        started = time.monotonic()
        assert jobs.run(dump.pk)
        assert time.monotonic() - started > 8
    dump.refresh_from_db()
    assert (dump.state, dump.events) == ("done", 100)


def reconnect() -> None:
    """Let the next query open a connection with the options of now."""
    connection.close()
    if connection.vendor == "postgresql":
        connection.close_pool()


def test_an_import_that_waited_too_long_for_the_database_goes_on_later(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 10)
    dump, _ = upload(team, said(30))
    try:
        with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
            if connection.vendor == "sqlite":
                patch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)
            else:
                patch.setitem(connection.settings_dict["OPTIONS"], "options", "-c lock_timeout=200ms")
            reconnect()
            lock = [locked_database(60)]
            # From within the import: what follows the first batch finds the database locked.
            assert jobs.run(dump.pk, progress=lambda d: lock and stack.enter_context(lock.pop())) is False
            for _ in range(4):
                assert jobs.run(dump.pk) is False
    finally:
        reconnect()
    dump.refresh_from_db()
    assert (dump.state, dump.lines) == ("importing", 10)
    Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.events) == ("done", 30)


def raised(cause):
    error = OperationalError("the database says no")
    error.__cause__ = cause
    return error


def sqlite_error(code: int):
    cause = sqlite3.OperationalError("…")
    cause.sqlite_errorcode = code
    return cause


@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), True),
        (sqlite_error(sqlite3.SQLITE_ERROR), False),
        (psycopg.errors.DiskFull(), True),
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.errors.ProgramLimitExceeded(), False),
    ],
    ids=lambda value: getattr(value, "sqlstate", None) or str(getattr(value, "sqlite_errorcode", value)),
)
def test_a_database_that_is_full_or_away_is_waited_for_and_what_never_works_is_given_up(
    cause, passes, team, settings, monkeypatch
):
    dump, _ = upload(team, said(5))
    broken = SimpleNamespace(name="broken", order=99)

    def store_batch(*args):
        raise raised(cause)

    broken.store = store_batch
    with monkeypatch.context() as patch:
        patch.setattr(sinks, "all_sinks", lambda: [broken])
        for _ in range(settings.MAX_ATTEMPTS + 2):
            assert jobs.run(dump.pk) is False
            if not passes:
                Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    dump.refresh_from_db()
    assert dump.state == ("importing" if passes else "failed")
    if passes:
        assert (dump.lease_until, dump.attempts) == (0, 0)  # the sweeper may start it now
        assert jobs.run(dump.pk)
        assert Event.objects.count() == 5


def test_an_import_that_finds_the_disk_full_goes_on_when_there_is_space(team):
    if connection.vendor != "sqlite":
        return  # psycopg's DiskFull is among the causes above
    dump, _ = upload(team, said(3000))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # pages that earlier tests have left free would do for a while
        cursor.execute("PRAGMA page_count")
        (pages,) = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count={pages + 10}")
    assert jobs.run(dump.pk) is False
    connection.close()
    dump.refresh_from_db()
    assert (dump.state, dump.attempts, dump.lease_until) == ("importing", 0, 0)
    assert jobs.run(dump.pk)
    assert Event.objects.count() == 3000


def test_bytes_that_are_missing_are_an_error_and_not_the_end_of_the_file(team):
    dump, _ = upload(team, said(3000))
    assert dump.chunk_count > 1
    DumpChunk.objects.filter(dump=dump).order_by("-number").first().delete()
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert dump.state == "failed"
    assert 0 < dump.lines < 3000


# What is derived


LINES = st.sampled_from(
    [
        b'{"ts": "2026-01-01T10:00:00+00:00", "type": "speech", "role": "user", "content": "hi"}',
        b'{"ts": "2026-01-01T09:00:00", "type": "speech", "role": "assistant", "content": "well"}',
        b'{"ts": null, "type": "vision", "role": null, "content": "a cat"}',
        b'{"ts": "2026-01-01T10:00:05Z", "agent_id": "a", "tool_name": "t", "arguments": {}, "result": "r",'
        b' "status": "error", "duration_ms": 0.1}',
        b'{"ts": "2026-01-01T10:00:07+00:00", "agent_id": "b", "action": "go", "status": "ok", "detail": "d"}',
        b'{"ts": "2026-01-01T08:30:00", "agent_id": "c", "action": "go", "status": "failed", "detail": ""}',
        b'{"ts": "2026-01-02T10:00:00+00:00", "type": "session", "role": null, "content": "started",'
        b' "metadata": {"channel_id": "c1", "participant_id": "p1"}}',
        b'{"anything": 1}',
        b"not json",
        b"",
    ]
)
FILES = st.lists(st.lists(LINES, min_size=1, max_size=12), min_size=2, max_size=3)
STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=25)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=FILES, steps=STEPS, shared_bus=st.booleans(), gone=st.lists(st.integers(0, 2), max_size=2))
def test_any_interleaving_of_dumps_in_one_session_derives_what_a_rebuild_does(team, files, steps, shared_bus, gone):
    dumps = []
    for number, lines in enumerate(files):
        data = b"\n".join([*lines, b'{"dump": %d}' % number])  # a line that no other of them has
        told = {"session_key": "shared", "bus_name": "posts" if shared_bus else ""}
        dumps.append(upload(team, data, f"{number}.jsonl", **told)[0])
    keep = jobs.BATCH
    try:
        for number, size in steps:
            jobs.BATCH = size
            one_batch(dumps[number % len(dumps)])
        jobs.BATCH = 3
        while unfinished := list(Dump.objects.filter(state__in=["queued", "importing"])):
            for dump in unfinished:
                one_batch(dump)
    finally:
        jobs.BATCH = keep
    assert not Dump.objects.exclude(state="done").exists()
    session = Session.objects.get()
    expected = sum(1 for lines in files for raw in lines if raw not in (b"", b"not json")) + len(files)
    assert [e.seq for e in session.events] == list(range(1, expected + 1))
    for bus in StatusBus.objects.all():
        assert [e.seq for e in bus.entries] == list(range(1, bus.entry_count + 1))
    assert_whole(team)
    for number in gone:
        if dump := Dump.objects.filter(pk=dumps[number % len(dumps)].pk).first():
            jobs.delete(dump)
            assert_whole(team)
            assert Event.objects.count() == sum(Session.objects.values_list("event_count", flat=True))
    for dump in Dump.objects.all():
        jobs.delete(dump)
    assert_nothing_is_left()


def test_a_status_log_is_recounted_under_its_lock(team, monkeypatch):
    first, _ = upload(team, said(60), bus_name="posts")
    jobs.run(first.pk)
    second, _ = upload(team, said(400, "other"), bus_name="posts")
    count, this_thread, threads = status_ingest._count, threading.current_thread(), []

    def import_second():
        jobs.run(second.pk)
        connections.close_all()

    def count_slowly(bus, posts):
        if threading.current_thread() is this_thread and not threads:
            threads.append(threading.Thread(target=import_second))
            threads[0].start()
            threads[0].join(1)  # without a lock its posts would be stored by now, and counted over
        count(bus, posts)

    monkeypatch.setattr(status_ingest, "_count", count_slowly)
    bus = StatusBus.objects.get()
    status_ingest.recount(bus)
    threads[0].join(60)
    bus.refresh_from_db()
    assert bus.entry_count == bus.entries.count() == 92
    assert sum(bus.levels.values()) == 92


# What one file may cost


def test_huge_lines_are_read_or_put_aside_and_their_neighbours_are_imported(team, settings):
    limit = settings.MAX_LINE_BYTES
    frame = b'{"type": "note", "text": ""}'
    whole = frame.replace(b'""', b'"%s"' % (b"x" * (limit - len(frame))))
    assert len(whole) == limit
    lists = b'{"a": [' + b",".join([b"[]"] * 1_000_000) + b"]}"
    five_million = b"[" + b"[]," * 5_000_000 + b"[]]"
    dump, _ = upload(team, b"\n".join([b"{}", whole, lists, b"{}", five_million, b'{"last": 1}']))
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.lines, dump.events) == ("done", 6, 4)
    assert [b.line for b in dump.bad_lines.order_by("line")] == [3, 5]
    assert len(Event.objects.get(line=2).text) > limit - 100


def test_the_checkpoint_stays_small_whatever_the_lines_are(team):
    def stamp(n):
        zone = f"{'+-'[n % 2]}{n % 14:02d}:{n // 14 % 4 * 15:02d}"
        return f"2026-01-{1 + n // 1440 % 28:02d}T{n // 60 % 24:02d}:{n % 60:02d}:00{zone if n % 3 else ''}"

    lines = [encode(ts=stamp(n), type=f"kind{n}", content="x", agent_id=f"agent{n}", n=n) for n in range(5000)]
    lines += [encode(ts=stamp(n), agent_id=f"a{n}", action="x", status=f"s{n}", detail="") for n in range(3000)]
    dump, _ = upload(team, b"".join(lines) + b"{}\n" * 20_000)
    assert jobs.run(dump.pk)
    dump.refresh_from_db()
    assert dump.events == 28_000
    assert len(json.dumps(dump.checkpoint)) < 8192
    session = dump.sessions.get()
    for words in (session.kinds, session.agents, dump.status_buses.get().levels):
        assert len(words) <= 501
