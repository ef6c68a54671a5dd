"""The package for agents: whatever the server, the disk or the process do, every line arrives once and in order."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from auditweb_client import Stream, lines, sender, spool, stream
from auditweb_client.xerxes import AuditCollector

from tests.conftest import SAMPLES
from tests.desk import Desk, refused
from tests.site import ROOT, until

PACKAGE = ROOT / "clients/python"


@pytest.fixture
def desk():
    running = Desk()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    """Waits between tries are short: what is tested is that they end well."""
    monkeypatch.setattr(sender, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(sender, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(sender, "HOPELESS_WAIT", 0.1)
    monkeypatch.setattr(stream, "GATHER_SECONDS", 0.005)


@pytest.fixture
def open_stream(desk, tmp_path):
    """``open_stream(**options)`` → a Stream to the desk, its spool in ``tmp_path / "spool"``."""
    opened = []

    def open_one(**options):
        opened.append(Stream(**{"url": desk.url, "key": "k", "agent": "voice", "spool": tmp_path / "spool", **options}))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close(0)


def entry(number: int, **more) -> str:
    return json.dumps({"n": number, **more})


def numbers(found) -> list[int]:
    return [line["n"] for line in found if "n" in line]


def run_agent(script: str, desk: Desk, spool: Path, *, check=True) -> subprocess.CompletedProcess:
    """A process of its own in which ``s`` is a Stream; *script* uses it."""
    start = "import os, signal, sys, time\nfrom auditweb_client import Stream\n"
    start += f"s = Stream({desk.url!r}, 'k', agent='voice', spool={str(spool)!r})\n"
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([sys.executable, "-c", start + script], env=env, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_lines_arrive_once_and_in_order_and_leave_nothing_behind(desk, open_stream, tmp_path):
    one = open_stream(session="call-7", bus="house")
    for n in range(2500):
        one.send(entry(n))
    assert one.close(20)
    assert numbers(desk.lines()) == list(range(2500))
    assert desk.ended == [one.name] and one.name.startswith("voice 20")
    assert desk.options[one.name] == {"first": "1", "session": "call-7", "bus": "house"}
    assert one.sessions[0]["id"] == f"of {one.name}"
    assert not list((tmp_path / "spool").iterdir())
    one.send(entry(2500))  # said after the end: the stream goes on
    assert one.close(20)
    assert numbers(desk.lines()) == list(range(2501))


def test_whatever_happens_to_requests_every_line_is_there_once(desk, open_stream):
    chance = random.Random(7)
    busy = (503, {"Retry-After": "0"}, {"error": {"code": "busy"}})
    faults = ["cut", "mute", busy, (429, {}, {}), (507, {}, {}), (502, {}, {}), (403, {}, {}), (413, {}, {})]
    desk.misbehave = lambda number: chance.choice(faults) if number < 60 and number % 3 else None
    one = open_stream()
    for n in range(1000):
        one.send(entry(n, text="x" * chance.randrange(300)))
        if n % 20 == 0:
            time.sleep(0.005)  # many requests instead of one
    assert one.close(30)
    assert numbers(desk.lines()) == list(range(1000))
    assert len(desk.streams) == 1


def test_a_server_that_is_away_costs_the_agent_nothing(desk, open_stream, caplog):
    desk.stop()
    one = open_stream()
    for n in range(300):
        one.send(entry(n))
    assert not one.flush(0.3)
    again = Desk(desk.port)
    try:
        one.send(entry(300))
        assert one.flush(20)
        assert numbers(again.lines()) == list(range(301))
        assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 2, "gone and back, each told once"
    finally:
        one.close(20)
        again.stop()


def test_retry_after_is_heeded(desk, open_stream):
    times = []

    def busy_once(number):
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, {"error": {"code": "rate_limited"}}) if number == 0 else None

    desk.misbehave = busy_once
    one = open_stream()
    one.send(entry(1))
    assert one.flush(20)
    assert times[1] - times[0] >= 1


def test_lines_that_the_server_has_lost_are_sent_again(desk, open_stream):
    one = open_stream()
    for n in range(10):
        one.send(entry(n))
    assert one.flush(20)
    del desk.streams[one.name][4:]  # a back-up was restored
    one.send(entry(10))
    assert one.close(20)
    assert numbers(desk.lines()) == list(range(11))


def test_a_stream_that_is_taken_goes_on_under_another_name_in_the_same_session(desk, open_stream, caplog):
    one = open_stream()
    one.send(entry(1))
    assert one.flush(20)
    desk.streams[one.name].append(b'{"somebody": "else"}')
    first = one.name
    one.send(entry(2))
    one.send(entry(3))
    assert one.close(20)
    assert numbers(desk.lines(first + " ~")) == [2, 3]
    assert desk.options[one.name]["session"] == f"of {first}"
    assert len([r for r in caplog.records if "goes on as" in r.message]) == 1


def test_a_chosen_name_is_gone_on_with(desk, open_stream):
    for n in (1, 2):
        one = open_stream(name="the door")
        one.send(entry(n))
        assert one.close(20)
    assert numbers(desk.lines("the door")) == [1, 2]
    assert len(desk.streams) == 1
    two, three = open_stream(name="the door"), open_stream(name="the door")  # two at once do not mix
    for n, stream_ in ((3, two), (4, three), (5, two), (6, three)):
        stream_.send(entry(n))
        assert stream_.flush(20)
    assert two.close(20) and three.close(20)
    assert sorted(numbers(desk.lines("the door"))) == [1, 2, 3, 4, 5, 6]


def test_what_a_killed_process_left_is_sent_by_the_next_one(desk, open_stream, tmp_path):
    desk.misbehave = lambda number: (503, {}, {}) if number else None  # the first request is taken, then none
    killed = run_agent(
        "s.send('{\"n\": 0}'); s.flush(20)\n"
        "for n in range(1, 200): s.send('{\"n\": %d}' % n)\n"
        "while s._queue or s._writing.locked(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
        desk,
        tmp_path / "spool",
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (left,) = (tmp_path / "spool").glob("*/*.lines")
    with left.open("ab") as file:
        file.write(b'{"n": 200, "cut in the mid')
    other = open_stream(key="of another team")
    other.send(entry(900))
    desk.misbehave = lambda number: None
    assert other.close(20)
    assert numbers(desk.lines()) == [0, 900], "lines go to nobody else's team"
    one = open_stream()
    one.send(entry(1000))
    until(lambda: len(desk.ended) == 2, "the end of the stream of the killed process")
    assert one.close(20)
    assert numbers(desk.lines()) == [*range(200), 900, 1000]
    until(lambda: not list((tmp_path / "spool").iterdir()), "an empty spool")


def test_the_end_of_a_process_ends_its_streams_and_a_fork_has_one_of_its_own(desk, tmp_path):
    run_agent(
        "s.send('{\"n\": 1}')\n"
        "if os.fork() == 0:\n"
        "    s.send('{\"n\": 2}')\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "s.send('{\"n\": 3}')",
        desk,
        tmp_path / "spool",
    )
    assert sorted(map(len, desk.streams.values())) == [1, 2]
    assert sorted(numbers(desk.lines())) == [1, 2, 3]
    assert sorted(desk.ended) == sorted(desk.streams)
    assert not list((tmp_path / "spool").iterdir())


def test_a_full_spool_counts_what_it_drops_and_says_so(desk, open_stream, caplog):
    desk.misbehave = lambda number: (503, {}, {})
    one = open_stream(spool_bytes=20_000, queue_lines=50)
    for n in range(1000):
        one.send(entry(n, text="x" * 80))
    until(lambda: not one._queue and not one._writing.locked(), "the queue written")
    assert 0 < one.lost < 1000
    desk.misbehave = lambda number: None
    assert one.flush(20)
    one.send(entry(1000))
    assert one.close(20)
    found = desk.lines()
    notes = [line for line in found if line.get("type") == "lost"]
    assert len(numbers(found)) + one.lost == 1001
    assert numbers(found) == sorted(set(numbers(found)))
    assert sum(note["metadata"]["lost_lines"] for note in notes) == one.lost
    assert all(f"{note['metadata']['lost_lines']} line" in note["content"] for note in notes)
    assert "loses lines" in caplog.text and f"has lost {notes[0]['metadata']['lost_lines']} lines" in caplog.text


def test_without_a_disk_lines_stay_in_memory(desk, open_stream, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no directory")
    one = open_stream(spool=tmp_path / "file/spool")
    full = open_stream()
    for n in range(3):
        full.send(entry(n))
        assert full.flush(20)

        def no_space(self, data, count, append=spool._Segment.append):
            return append(self, data, count) if self.path is None else False

        monkeypatch.setattr(spool._Segment, "append", no_space)
    for n in range(500):
        one.send(entry(n))
    assert one.close(20) and full.close(20)
    assert numbers(desk.lines(one.name)) == list(range(500))
    assert numbers(desk.lines(full.name)) == [0, 1, 2]


def test_files_of_the_spool_go_as_the_server_has_them(desk, open_stream, tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 1000)
    one = open_stream()
    for n in range(200):
        one.send(entry(n, text="x" * 50))
    assert one.flush(20)
    assert sum(path.stat().st_size for path in (tmp_path / "spool").glob("*/*.lines")) < 2500
    del desk.streams[one.name][10:]  # more than is kept here
    one.send(entry(200))
    assert one.close(20)
    assert numbers(desk.lines()) == [*range(10), 200]


def test_a_file_that_is_gone_costs_its_own_lines_only(tmp_path):
    owner = {"url": "http://x", "key": "k"}
    left = spool.Spool(tmp_path, {**owner, "stream": "s", "options": {}}, 400)  # files of 100 bytes
    assert left.append([b"%09d" % n for n in range(1, 31)]) == 30
    left.release()
    names = sorted(path.name for path in tmp_path.glob("*/*.lines"))
    assert names == ["000000000001.lines", "000000000011.lines", "000000000021.lines"]
    next(tmp_path.glob("*/000000000011.lines")).unlink()
    (found,) = spool.Spool.abandoned(tmp_path, 400, owner)
    assert (found.first, found.last) == (1, 20)
    assert [int(line) for n in (1, 11) for line in found.read(n, 100, 1000)] == [*range(1, 11), *range(21, 31)]
    assert not list(spool.Spool.abandoned(tmp_path, 400, owner)), "it is held"
    found.remove()
    assert not list(tmp_path.iterdir())


def test_an_idle_stream_says_that_it_is_there(desk, open_stream, monkeypatch):
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    one = open_stream()
    one.send(entry(1))
    until(lambda: [what for what, *_ in desk.asked].count("heartbeat") > 2, "heartbeats")
    del desk.streams[one.name][:]  # nobody says anything, and yet the loss is found
    until(lambda: numbers(desk.lines()) == [1], "the line that the server had lost")


def test_what_is_being_said_never_follows_the_line_that_ends_it(desk, open_stream, monkeypatch):
    monkeypatch.setattr(stream, "PROVISIONAL_SECONDS", 0.01)
    one = open_stream()
    one.send(entry(0))
    assert one.flush(20)
    for n in range(1, 30):
        for part in range(5):
            one.provisional("user", f"{n} {part}")
            time.sleep(0.004)
        one.send(entry(n))
    assert one.close(20)
    assert len(desk.said) > 20
    for role, text, lines_before in desk.said:
        assert role == "user" and int(text.split()[0]) >= lines_before


def test_long_and_odd_lines_keep_their_numbers(desk, open_stream):
    one = open_stream()
    one.send('{"n": 1,\n "text": "in two lines"}\n')
    one.send(b"  \n")
    one.send(entry(2, picture="x" * 3_000_000))
    one.send(object())  # type: ignore[arg-type]
    one.send(entry(3))
    assert one.flush(20)
    # A proxy before the server takes less than the server.
    proxied = desk.answer

    def small(what, name, query, body):
        return (413, {}) if len(body) > 200_000 else proxied(what, name, query, body)

    desk.answer = small
    one.send(entry(4, picture="x" * 500_000))
    one.send(entry(5))
    assert one.close(20)
    found = desk.lines()
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert found[0]["text"] == "in two lines"
    assert "3000000 characters" in found[1]["picture"] and "500000 characters" in found[3]["picture"]
    assert lines.shortened(b"x" * 9000, 500) == lines.shortened(b"x" * 9000, 500)


def test_a_stream_that_takes_nothing_more_goes_on_under_another_name(desk, open_stream):
    one = open_stream()
    one.send(entry(1))
    assert one.flush(20)
    taken, first = desk.answer, one.name
    desk.answer = lambda what, name, *rest: refused("closed") if name == first else taken(what, name, *rest)
    one.send(entry(2))
    assert one.close(20)
    assert numbers(desk.lines()) == [1, 2]


def test_xerxes_events_are_the_lines_of_its_own_sink(desk, tmp_path):
    path = SAMPLES / "xerxes/real_runtime.jsonl"

    class Event:
        def __init__(self, line):
            self.to_dict = lambda: json.loads(line)

    collector = AuditCollector(desk.url, "k", spool=tmp_path / "spool")
    collector.emit("no event")  # is told to the log, and breaks nothing
    for line in path.read_bytes().splitlines():
        collector.emit(Event(line))
    collector.flush()
    assert collector.close(20)
    assert desk.streams[collector.stream.name] == path.read_bytes().splitlines()


def test_the_package_needs_the_standard_library_only():
    script = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); import auditweb_client, auditweb_client.xerxes"
    script += "; assert not {'roomkit', 'pydantic', 'websockets', 'django'} & set(sys.modules)"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, timeout=60)


def test_an_address_that_cannot_be_is_told_at_once(monkeypatch):
    monkeypatch.delenv("AUDITWEB_URL", raising=False)
    for url in (None, "localhost:8000", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="address"):
            Stream(url, "k")
