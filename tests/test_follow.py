"""Files that grow: followed line by line, whatever becomes of the file, its follower and the database."""

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest
from django.core.cache import cache
from django.db import connection, transaction
from django.db import connections as all_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import following, jobs, parts, store, streams
from auditweb.dumps.following import Follower
from auditweb.dumps.models import Dump
from sessions_app.models import Session
from tests.site import ROOT, until
from tests.test_append import add, facts
from tests.test_ingest import SAMPLES
from tests.test_jobs import speech
from tests.test_streamed_equals_imported import Kill, told

pytestmark = pytest.mark.django_db(transaction=True)

FOLLOW = """
import sys
import django
django.setup()
from django.core.management import call_command
from django.db import connections
for alias in connections:
    connections.settings[alias]["NAME"] = sys.argv[1]
call_command("follow", *sys.argv[2:])
"""


def write(path: Path, data: bytes, mode: str = "ab") -> None:
    with path.open(mode) as file:
        file.write(data)


def caught_up(*followers: Follower) -> None:
    """Let *followers* look until there is nothing new for any of them."""
    for follower in followers:
        while follower.round() or follower._waits():
            pass
        follower.round()


@pytest.fixture
def follow(team):
    """``follow(path, …)`` → a Follower of team red that is closed at the end."""
    made = []

    def make(*paths, **options) -> Follower:
        follower = Follower(team, [str(path) for path in paths], **{"linger": 0, **options})
        made.append(follower)
        return follower

    yield make
    for follower in made:
        follower.close()


def stored(team) -> dict[str, bytes]:
    """The bytes of every stream, by its name without its directory, in the order in which they began."""
    dumps = Dump.objects.filter(team=team).order_by("pk")
    return {os.path.basename(dump.stream): b"".join(store.pieces(dump)) for dump in dumps}


def states(team) -> dict[str, str]:
    return {os.path.basename(dump.stream): dump.state for dump in Dump.objects.filter(team=team).order_by("pk")}


def test_lines_are_in_the_session_as_they_are_written_and_with_the_bytes_that_they_have(team, follow, tmp_path):
    path = tmp_path / "call.jsonl"
    follower = follow(tmp_path)
    caught_up(follower)
    odd = b'{"ts": "2026-01-01T00:00:00Z", "type": "speech", "role": "user", "content": "\xff\xc3"}\r\n'
    write(path, speech(1) + odd + b"\n" + speech(2)[:20])
    caught_up(follower)
    session = Session.objects.get()
    assert (session.title, session.live, session.event_count) == ("call", True, 1)
    write(path, speech(2)[20:] + b"no line\0\n")
    caught_up(follower)
    session.refresh_from_db()
    assert session.event_count == 2
    assert stored(team) == {"call.jsonl": path.read_bytes()}
    dump = Dump.objects.get()
    assert (dump.stream, dump.lines, dump.blank_lines, dump.bad_line_count) == (str(path), 5, 1, 2)


CASES = [
    "dirty/all_formats_concatenated.jsonl",
    "roomkit_mixed/v058_session_and_status_paris.jsonl",
    "xerxes/multi_session_interleaved.jsonl",
    "dirty/truncated_last_line.jsonl",
    "dirty/crlf.jsonl",
    "dirty/invalid_utf8_line.jsonl",
]
FATES = ("nothing", "looked at", "killed", "killed before the commit", "killed after the commit", "database away")


@pytest.mark.parametrize("name", CASES)
def test_a_file_written_in_any_pieces_with_any_deaths_is_the_file_that_was_imported(
    name, team, other_team, tmp_path, monkeypatch
):
    data = (SAMPLES / name).read_bytes()
    imported = add(other_team, data, Path(name).name)
    expected = told(other_team, [imported]), facts(imported)
    append, number = streams.append, count()
    fate = "nothing"

    def dying(*args):
        with transaction.atomic():
            taken = append(*args)
            if fate == "killed before the commit":
                raise Kill
            if fate == "database away":
                raise jobs.AWAY[0]
        if fate == "killed after the commit":
            raise Kill
        return taken

    monkeypatch.setattr(streams, "append", dying)
    monkeypatch.setattr(following, "LINES", 7)
    monkeypatch.setattr(Follower, "_carefully", lambda self, identity, path, look: look())

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=st.lists(st.tuples(st.integers(1, max(2, len(data) // 8)), st.sampled_from(FATES)), max_size=20))
    def check(steps):
        nonlocal fate
        directory = tmp_path / str(next(number))
        directory.mkdir()
        path = directory / Path(name).name
        follower, at = Follower(team, [str(directory)]), 0
        for size, fate in [*steps, (len(data), "looked at")]:
            write(path, data[at : at + size])
            at += size
            if fate == "nothing":
                continue
            try:
                caught_up(follower)
            except Kill:
                cache.clear()
            except jobs.AWAY:
                continue  # the same follower looks again
            if fate.startswith("killed"):
                follower.close()
                follower = Follower(team, [str(directory)])
        follower.close()
        Follower(team, [str(path)], end_after=0).run(threading.Event(), once=True)
        try:
            dump = Dump.objects.get(team=team)
            assert (dump.state, b"".join(store.pieces(dump))) == ("done", data)
            assert facts(dump) == expected[1]
            assert told(team, [dump]) == expected[0]
        finally:
            for dump in Dump.objects.filter(team=team):
                jobs.delete(dump)

    check()


class Log:
    """A log file with its producer and its rotation; ``said`` is all that was ever written."""

    def __init__(self, path: Path):
        self.path, self.said, self.number, self.clock = path, b"", 0, time.time_ns() - 10**12
        self.seen = False  # whether anybody has read a line of the file that the path names now
        self.file = path.open("ab", buffering=0)
        self.speak(20)

    def speak(self, size: int) -> None:
        """Write some lines, or only a part of one when *size* is small."""
        data = b""
        while len(data) < size:
            self.number += 1
            data += speech(self.number)
        self.write(data[:size] if size < 10 else data)

    def write(self, data: bytes) -> None:
        self.said += data
        self.file.write(data)
        self.touch(self.file.fileno())

    def touch(self, file) -> None:
        self.clock += 10**9  # files that one tick of the kernel's clock made would have no order
        os.utime(file, ns=(self.clock, self.clock))

    def finish_line(self) -> None:
        if not self.said.endswith(b"\n"):
            self.write(b'"%d"}\n' % self.number)  # no two lines are the same: files are known by their bytes

    def shift(self) -> Path:
        kept = sorted(self.path.parent.glob(self.path.name + ".*"), key=lambda p: -int(p.suffix[1:]))
        for path in kept:
            path.rename(path.with_suffix(f".{int(path.suffix[1:]) + 1}"))
        return Path(f"{self.path}.1")

    def rotate(self, late: int) -> None:
        """A new file; the producer takes note of it only after it has written *late* bytes."""
        self.path.rename(self.shift())
        new = self.path.open("ab", buffering=0)
        if late:
            self.speak(late)
        self.finish_line()
        self.file.close()
        self.file, self.seen = new, False

    def copy_and_truncate(self) -> None:
        self.finish_line()
        copy = self.shift()
        shutil.copyfile(self.path, copy)
        self.touch(copy)
        self.file.truncate(0)
        self.seen = False


DEEDS = st.one_of(
    st.tuples(st.just("speak"), st.integers(1, 2000)),
    st.tuples(st.just("rotate"), st.sampled_from([0, 3, 300])),
    st.tuples(st.just("copy and truncate"), st.integers(0, 1)),
    st.tuples(st.just("look"), st.integers(0, 1)),
    st.tuples(st.just("die"), st.integers(0, 1)),
)


def test_rotated_and_truncated_files_lose_and_double_nothing_for_two_followers_that_die(team, tmp_path, monkeypatch):
    monkeypatch.setattr(following, "LINES", 5)
    monkeypatch.setattr(following, "BUSY", 0.01)
    number = count()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(deeds=st.lists(DEEDS, max_size=16))
    def check(deeds):
        path = tmp_path / str(next(number)) / "app.log"
        path.parent.mkdir()
        log = Log(path)
        followers = [Follower(team, [str(path)], linger=0) for _ in range(2)]
        caught_up(followers[0])
        for deed, n in deeds:
            if deed == "speak":
                log.speak(n)
            elif deed == "rotate":
                log.rotate(n)
            elif deed == "copy and truncate":
                log.finish_line()
                if not log.seen:  # a copy of a file is known by what was read of the file
                    caught_up(followers[n])
                log.copy_and_truncate()
            elif deed == "look":
                caught_up(followers[n])
                log.seen |= b"\n" in path.read_bytes()
            else:
                followers[n].close()
                followers[n] = Follower(team, [str(path)], linger=0)
        log.finish_line()
        caught_up(*followers)
        for follower in followers:
            follower.close()
        found = sorted(map(parts.part_of, Dump.objects.filter(team=team)), key=lambda part: part.number)
        try:
            assert b"".join(b"".join(store.pieces(part.dump)) for part in found) == log.said
            assert {part.stem for part in found} == {str(path)}
        finally:
            for part in found:
                jobs.delete(part.dump)

    check()


def test_a_rotated_file_ends_its_stream_with_a_last_line_as_it_is(team, follow, tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, speech(1) + speech(2)[:-9])
    follower = follow(path)
    caught_up(follower)
    path.rename(tmp_path / "a.jsonl.1")
    caught_up(follower)
    write(tmp_path / "a.jsonl.1", speech(2)[-9:] + b'{"no": "end"')  # nothing took its place: it still is the one
    caught_up(follower)
    write(path, speech(3))
    caught_up(follower)
    assert stored(team) == {"a.jsonl": speech(1) + speech(2) + b'{"no": "end"', "a.jsonl#2": speech(3)}
    assert states(team) == {"a.jsonl": "done", "a.jsonl#2": "live"}
    assert list(Session.objects.order_by("pk").values_list("live", "event_count")) == [(False, 2), (True, 1)]


def test_a_copy_that_takes_the_place_of_its_file_goes_on_with_it(team, follow, tmp_path):
    path, copy = tmp_path / "a.jsonl", tmp_path / "a.new"
    write(path, speech(1))
    follower = follow(path)
    caught_up(follower)
    write(copy, speech(1) + speech(2))
    copy.replace(path)
    caught_up(follower)
    write(path, speech(3))
    caught_up(follower)
    assert stored(team) == {"a.jsonl": speech(1) + speech(2) + speech(3)}
    assert states(team) == {"a.jsonl": "live"}


def test_a_file_that_gets_another_name_that_is_followed_too_stays_one(team, follow, tmp_path):
    write(tmp_path / "a.jsonl", speech(1))
    first = follow(tmp_path)
    caught_up(first)
    (tmp_path / "a.jsonl").rename(tmp_path / "a.1.jsonl")
    write(tmp_path / "a.1.jsonl", speech(2))
    for follower in (first, follow(tmp_path)):
        caught_up(follower)
    write(tmp_path / "a.jsonl", speech(3))
    caught_up(first, follow(tmp_path))
    assert stored(team) == {"a.jsonl": speech(1) + speech(2), "a.jsonl#2": speech(3)}


def test_a_stream_ends_when_its_file_was_quiet_for_long_and_goes_on_with_it(team, follow, tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, speech(1) + speech(2)[:-1])
    follower = follow(path, end_after=0)
    caught_up(follower)
    assert stored(team) == {"a.jsonl": (speech(1) + speech(2))[:-1]}
    assert states(team) == {"a.jsonl": "done"}
    size = path.stat().st_size
    write(path, b"\n" + speech(3))
    caught_up(follower)
    assert stored(team)[f"a.jsonl#2+{size + 1}"] == speech(3)
    write(path, speech(4))
    caught_up(follow(path, end_after=1000))
    assert stored(team)[f"a.jsonl#2+{size + 1}"] == speech(3) + speech(4)
    assert list(states(team).values()) == ["done", "live"]


def test_nobody_is_said_to_be_there_who_wrote_hours_ago(team, follow, tmp_path, monkeypatch):
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", (0.0, 0.0))
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    for path in (old, new):
        write(path, speech(1))
    os.utime(old, (time.time() - 7200,) * 2)
    follower = follow(tmp_path)
    caught_up(follower)
    assert states(team) == {"new.jsonl": "live", "old.jsonl": "done"}
    heard = Dump.objects.get(name="new.jsonl").heartbeat_at
    caught_up(follower)
    assert Dump.objects.get(name="new.jsonl").heartbeat_at > heard
    write(old, speech(2))
    caught_up(follower)
    assert states(team) == {"new.jsonl": "live", "old.jsonl": "live"}


def test_what_holds_no_lines_is_left_alone_until_it_does(team, follow, tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(speech(1)))
    (tmp_path / "b.jsonl").write_text("[\n" + json.dumps({"type": "speech"}) + "\n]\n")
    (tmp_path / "c.log").write_text("starting up\n")
    (tmp_path / "d.jsonl").mkdir()
    os.mkfifo(tmp_path / "e.log")
    (tmp_path / "f.log").write_bytes(b"")
    follower = follow(tmp_path)
    caught_up(follower)
    assert stored(team) == {}
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert (
        "gzip" in said and "no JSON object" in said and "no regular file" in said and "one JSON object per line" in said
    )
    write(tmp_path / "c.log", speech(1))
    write(tmp_path / "f.log", speech(2))
    caught_up(follower)
    assert stored(team) == {"c.log": b"starting up\n" + speech(1), "f.log": speech(2)}


def test_long_lines_are_quarantined_and_endless_ones_left(team, follow, tmp_path, settings, caplog):
    settings.MAX_LINE_BYTES = 2000
    path = tmp_path / "a.jsonl"
    write(path, speech(1) + speech(2, "x" * 3000) + speech(3))
    follower = follow(path)
    caught_up(follower)
    write(path, b"x" * 9000)
    caught_up(follower)
    write(path, b"\n" + speech(4))
    caught_up(follower)
    assert stored(team) == {"a.jsonl": speech(1) + speech(2, "x" * 3000) + speech(3)}
    assert [bad.line for bad in Dump.objects.get().bad_lines.all()] == [2]
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "quarantined" in said and "more than 8,000 bytes" in said


def test_a_full_dump_goes_on_in_another(team, follow, tmp_path, settings):
    settings.MAX_DUMP_BYTES = 1000
    path = tmp_path / "a.jsonl"
    for n in range(20):
        write(path, speech(n))
        caught_up(follow(path))
    assert len(stored(team)) > 1
    assert b"".join(stored(team).values()) == path.read_bytes()
    assert all(len(data) <= 1000 for data in stored(team).values())


def test_a_deleted_dump_stays_deleted_while_the_command_runs(team, follow, tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, speech(1))
    follower = follow(path)
    caught_up(follower)
    jobs.delete(Dump.objects.get())
    write(path, speech(2))
    caught_up(follower)
    assert stored(team) == {}


def test_names_that_cannot_be_those_of_streams_get_one_that_can(team, follow, tmp_path):
    odd = [os.fsencode(tmp_path) + b"/caf\xe9\n.jsonl", os.fsencode(tmp_path) + b"/a#2.jsonl"]
    (tmp_path / ("d" * 200)).mkdir()
    odd.append(os.fsencode(tmp_path / ("d" * 200) / "c.jsonl"))
    for n, name in enumerate(odd):
        with open(name, "wb") as file:
            file.write(speech(n))
    follower = follow(tmp_path, tmp_path / ("d" * 200))
    caught_up(follower)
    caught_up(follow(tmp_path, tmp_path / ("d" * 200)))
    assert sorted(stored(team).values()) == [speech(0), speech(1), speech(2)]
    assert all(len(dump.stream) <= 180 for dump in Dump.objects.all())


def test_a_database_that_is_away_is_waited_for(team, tmp_path, monkeypatch, caplog):
    """On SQLite another process holds the lock for longer than one waits; PostgreSQL ends the connection."""
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.1)
    monkeypatch.setattr(following, "AWAY_SECONDS", 0.1)
    path, stop = tmp_path / "a.jsonl", threading.Event()

    def run():
        Follower(team, [str(path)]).run(stop)
        all_connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        write(path, speech(1))
        until(lambda: stored(team), "the first line")
        if connection.vendor == "sqlite":
            with sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None) as other:
                other.execute("BEGIN IMMEDIATE")
                write(path, speech(2))
                until(lambda: "waiting for it" in caplog.text, "the follower to wait")
                other.execute("ROLLBACK")
            other.close()
        else:
            with psycopg.connect(
                **{k: v for k, v in connection.get_connection_params().items() if k != "pool"}
            ) as other:
                mine = connection.connection.info.backend_pid
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                other.execute(ended + "AND pid NOT IN (%s, pg_backend_pid())", [mine])
            write(path, speech(2))
        until(lambda: stored(team) == {"a.jsonl": speech(1) + speech(2)}, "the second line")
        assert "the database is back" in caplog.text
    finally:
        stop.set()
        thread.join()


def test_the_command_survives_kill_and_stops_when_told(team, tmp_path):
    path = tmp_path / "logs" / "call.jsonl"
    path.parent.mkdir()
    command = [sys.executable, "-c", FOLLOW, str(connection.settings_dict["NAME"])]
    command += [str(tmp_path / "logs"), "--team", "red", "--session", "call 7", "--zone", "Europe/Paris"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}

    def start():
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)

    said = b""
    for first, how in ((0, signal.SIGKILL), (500, signal.SIGTERM)):
        process = start()
        write(path, b"".join(speech(n) for n in range(first, first + 499)) + speech(first + 499)[:-5])
        until(lambda lines=first + 400: sum(map(len, stored(team).values())) > lines * 100, "most of the lines")
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
        assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 0), err
        said += err
        write(path, speech(first + 499)[-5:])
    once = subprocess.run([*command, "--once", "--end-after", "0"], cwd=ROOT, env=environment, check=True, timeout=60)
    assert once.returncode == 0
    assert stored(team) == {"call.jsonl": path.read_bytes()}
    session = Session.objects.get()
    assert (session.key, session.event_count, session.live) == ("call 7", 1000, False)
    assert b"call.jsonl: found" in said and b"lines read" in said and b"Traceback" not in said
