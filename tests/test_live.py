"""The hub: readers of a log get everything once and in order, whatever the doorbell, the database or the others do."""

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditweb.live import bell, hub, socket
from auditweb.live.hub import Head


class Shelf:
    """Logs in memory, and how often they were asked for."""

    kind = "book"

    def __init__(self, pages=0, text="x"):
        self.logs = {1: list(range(1, pages + 1))}
        self.last, self.revision, self.state, self.text = pages, 0, None, text
        self.reads, self.away = [], False

    def write(self, count=1):
        for _ in range(count):
            self.last += 1
            self.logs[1].append(self.last)

    def heads(self, ids):
        if self.away:
            raise OSError("away")
        return {pk: Head(self.last, self.revision, self.state) for pk in ids if pk in self.logs}

    def rows(self, pk, after, limit):
        self.reads.append(after)
        if self.away:
            raise OSError("away")
        return [{"seq": seq, "text": self.text} for seq in self.logs[pk] if seq > after][:limit]


class Ear:
    """What a reader was sent; acknowledges as a browser does unless it is *mute*."""

    def __init__(self, shelf, after=0, mute=False, **kwargs):
        self.said, self.mute, self.refused = [], mute, None
        head = Head(shelf.last, shelf.revision, shelf.state)
        self.reader = hub.hub().join(shelf, 1, head, after, self.hear, **kwargs)
        self.task = asyncio.create_task(self.run())

    async def run(self):
        try:
            await self.reader.run()
        except socket.Refused as e:
            self.refused = e.code
        finally:
            self.reader.leave()

    async def hear(self, text):
        message = json.loads(text)
        self.said.append(message)
        if message["type"] == "entries" and not self.mute:
            self.reader.ack(message["entries"][-1]["seq"])

    def of(self, kind):
        return [message for message in self.said if message["type"] == kind]

    @property
    def seqs(self):
        return [row["seq"] for message in self.of("entries") for row in message["entries"]]


async def until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(settings):
    settings.LIVE_POLL_SECONDS = 0.02


@asynccontextmanager
async def listening(*ears):
    try:
        yield ears
    finally:
        for ear in ears:
            ear.task.cancel()
        await asyncio.gather(*(ear.task for ear in ears), return_exceptions=True)


async def test_a_reader_gets_everything_from_its_place_on_once_and_in_order():
    shelf = Shelf(700)
    async with listening(Ear(shelf), Ear(shelf, after=333), Ear(shelf, after=700)) as (first, middle, end):
        await until(lambda: first.seqs[-1:] == middle.seqs[-1:] == [700], "caught up")
        shelf.write(20)
        await until(lambda: all(ear.seqs and ear.seqs[-1] == 720 for ear in (first, middle, end)), "the new ones")
        assert first.seqs == list(range(1, 721))
        assert middle.seqs == list(range(334, 721))
        assert end.seqs == list(range(701, 721))


async def test_what_follows_a_quiet_time_is_read_once_for_all_readers():
    shelf = Shelf(10)
    ears = [Ear(shelf, after=10) for _ in range(40)]
    async with listening(*ears):
        await until(lambda: all(ear.of("ping") for ear in ears), "all are in")
        shelf.write(3)
        await until(lambda: all(ear.seqs == [11, 12, 13] for ear in ears), "the new ones")
        assert len(shelf.reads) <= 3  # one per look that saw a part of them


async def test_a_storm_of_readers_that_come_back_costs_a_few_reads():
    shelf = Shelf(900)
    ears = [Ear(shelf, after=400 - number % 3) for number in range(30)]
    async with listening(*ears):
        await until(lambda: all(ear.seqs and ear.seqs[-1] == 900 for ear in ears), "all caught up")
        for number, ear in enumerate(ears):
            assert ear.seqs == list(range(401 - number % 3, 901))
        assert len(shelf.reads) <= 6  # one per place, then all stand at the same multiples


async def test_a_reader_that_stalls_stops_at_the_window_and_costs_the_others_nothing():
    shelf = Shelf(2000)
    async with listening(Ear(shelf, mute=True), Ear(shelf)) as (mute, well):
        await until(lambda: well.seqs and well.seqs[-1] == 2000, "the other one caught up")
        assert 0 < len(mute.seqs) <= hub.WINDOW_EVENTS
        before = len(shelf.reads)
        for _ in range(20):
            shelf.write(5)
            await asyncio.sleep(0.06)
        await until(lambda: well.seqs[-1] == 2100, "the other one goes on")
        assert well.seqs == list(range(1, 2101))
        assert len(mute.seqs) <= hub.WINDOW_EVENTS
        assert len(shelf.reads) - before <= 45  # what the other one causes; nothing is read for the stalled one


async def test_a_reader_that_acknowledges_again_gets_everything_once():
    shelf = Shelf(1500)
    async with listening(Ear(shelf, mute=True)) as (ear,):
        await until(lambda: len(ear.seqs) >= 250, "the window is full")
        ear.mute = False
        ear.reader.ack(ear.seqs[-1])
        await until(lambda: ear.seqs[-1] == 1500, "the rest")
        assert ear.seqs == list(range(1, 1501))


async def test_the_window_also_counts_bytes():
    shelf = Shelf(400, text="x" * 20_000)
    async with listening(Ear(shelf, mute=True)) as (ear,):
        await until(lambda: len(ear.of("entries")) >= 2, "the window is full")
        shelf.write()
        await asyncio.sleep(0.2)
        sizes = [sum(len(json.dumps(row)) for row in message["entries"]) for message in ear.of("entries")]
        assert max(sizes) <= hub.FRAME_BYTES * 1.05
        assert sum(sizes) <= hub.WINDOW_BYTES * 1.05


async def test_one_row_larger_than_a_frame_and_the_window_still_arrives():
    shelf = Shelf(3, text="x" * (hub.WINDOW_BYTES + 1))
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs == [1, 2, 3], "all of them")


async def test_a_reader_far_behind_is_told_what_it_skips():
    shelf = Shelf(hub.SKIP_BEYOND + 1000)
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs and ear.seqs[-1] == shelf.last, "the end")
        assert ear.of("skipped") == [{"type": "skipped", "from": 1, "to": shelf.last - hub.SKIP_TO}]
        assert ear.seqs == list(range(shelf.last - hub.SKIP_TO + 1, shelf.last + 1))


async def test_a_reader_that_stalls_for_long_is_sent_away_to_come_back(monkeypatch):
    monkeypatch.setattr(hub, "PING_SECONDS", 0.1)
    monkeypatch.setattr(hub, "STALLED_SECONDS", 0.3)
    shelf = Shelf(600)
    async with listening(Ear(shelf, mute=True), Ear(shelf)) as (mute, well):
        await until(lambda: mute.refused is not None, "it is sent away")
        assert mute.refused == socket.TRY_LATER
        assert well.refused is None


async def test_seqs_that_are_no_more_are_gaps():
    shelf = Shelf(12)
    shelf.logs[1] = [3, 4, 7, 8, 9]
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: len(ear.of("gap")) == 3, "the gaps")
        told = [(m["type"], m.get("from"), m.get("to")) for m in ear.said if m["type"] in ("gap", "entries")]
        entries = ("entries", None, None)
        assert told == [("gap", 1, 2), entries, ("gap", 5, 6), entries, ("gap", 10, 12)]
        assert ear.seqs == [3, 4, 7, 8, 9]
        shelf.write()
        await until(lambda: ear.seqs[-1] == 13, "it goes on behind the gap")


@given(st.sets(st.integers(1, 60)), st.integers(0, 59), st.integers(1, 40))
def test_a_frame_tells_of_every_seq_between_its_ends_exactly_once(seqs, after, limit):
    last = max(seqs | {after + 1})
    rows = [{"seq": seq} for seq in sorted(seqs) if seq > after][:limit]
    frame = hub.frame_of(rows, after, Head(last, 0), more=len(rows) == limit)
    told = []
    for message in map(json.loads, frame.texts):
        if message["type"] == "gap":
            told += range(message["from"], message["to"] + 1)
        else:
            told += (row["seq"] for row in message["entries"])
    assert told == list(range(after + 1, frame.last + 1))
    assert frame.last > after
    assert frame.events == len(rows)
    assert frame.last == last or len(rows) == limit


async def test_a_deleted_log_says_so_and_ends():
    shelf = Shelf(2)
    async with listening(Ear(shelf), Ear(shelf, after=2)) as ears:
        await until(lambda: ears[0].seqs == [1, 2], "caught up")
        del shelf.logs[1]
        await until(lambda: all(ear.refused for ear in ears), "both end")
        assert [ear.refused for ear in ears] == [socket.NOT_FOUND, socket.NOT_FOUND]
        assert all(ear.said[-1] == {"type": "deleted"} for ear in ears)


async def test_revision_and_state_are_told_when_they_change():
    shelf = Shelf(2)
    shelf.state = {"live": True, "ended_at": None}
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.of("state"), "the state at the start")
        assert ear.of("revision") == []
        shelf.revision = 4
        await until(lambda: ear.of("revision"), "the revision")
        shelf.state = {"live": False, "ended_at": "2026-01-02T03:04:05Z"}
        await until(lambda: len(ear.of("state")) == 2, "the end of the session")
        assert ear.of("revision") == [{"type": "revision", "revision": 4}]
        assert [m["live"] for m in ear.of("state")] == [True, False]
        shelf.write()
        await until(lambda: ear.seqs == [1, 2, 3], "the next one")
        assert ear.of("entries")[-1]["revision"] == 4
        assert ear.of("entries")[-1]["last_seq"] == 3


async def test_a_database_that_is_away_is_waited_for_and_pings_go_on(monkeypatch):
    monkeypatch.setattr(hub, "PING_SECONDS", 0.1)
    shelf = Shelf(5)
    shelf.away = True
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: len(ear.of("ping")) >= 4, "pings meanwhile")
        assert ear.seqs == []
        shelf.away = False
        shelf.write(2)
        await until(lambda: ear.seqs == [1, 2, 3, 4, 5, 6, 7], "everything, once")


async def test_access_is_asked_once_for_all_sockets_of_one_person_and_its_end_closes_them(monkeypatch):
    monkeypatch.setattr(hub, "PING_SECONDS", 0.2)
    shelf, asked, allowed = Shelf(1), [], {"alice": 0, "bob": 0}

    def standing(who):
        def ask():
            asked.append(who)
            return allowed[who]

        return ask

    names = ["alice"] * 10 + ["bob"]
    ears = [Ear(shelf, who=name, standing=standing(name)) for name in names]
    async with listening(*ears):
        await until(lambda: all(len(ear.of("ping")) >= 3 for ear in ears), "pings")
        assert asked.count("alice") <= 2 * asked.count("bob")
        allowed["bob"] = socket.REVOKED
        await until(lambda: ears[-1].refused, "bob is out")
        assert ears[-1].refused == socket.REVOKED
        assert [ear.refused for ear in ears[:-1]] == [None] * 10


async def test_an_answer_about_access_that_does_not_come_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(hub, "PING_SECONDS", 0.1)
    shelf, stuck = Shelf(1), threading.Event()
    ears = [Ear(shelf, who="stuck", standing=lambda: stuck.wait(60) and 0), Ear(shelf)]
    try:
        async with listening(*ears):
            await until(lambda: all(len(ear.of("ping")) >= 4 for ear in ears), "pings for both")
            shelf.write()
            await until(lambda: all(ear.seqs == [1, 2] for ear in ears), "entries for both")
    finally:
        stuck.set()


def test_every_socket_is_heard_from_and_asked_about_within_five_seconds():
    assert hub.PING_SECONDS * (1 + 1 / 8 + 1 / 8) <= 5


async def test_a_place_behind_the_end_becomes_the_end():
    shelf = Shelf(3)
    async with listening(Ear(shelf, after=90)) as (ear,):
        shelf.write()
        await until(lambda: ear.seqs == [4], "what comes next")


async def test_a_client_that_fetched_ahead_is_not_sent_that_again():
    shelf = Shelf(600)
    async with listening(Ear(shelf, mute=True)) as (ear,):
        await until(lambda: len(ear.seqs) == 250, "the window is full")
        ear.mute = False
        ear.reader.ack(590)
        await until(lambda: ear.seqs[-1] == 600, "the rest")
        assert ear.seqs == [*range(1, 251), *range(591, 601)]


async def test_nothing_runs_while_nobody_watches():
    shelf = Shelf(3)

    def ours():
        return [task for task in asyncio.all_tasks() if task.get_coro().cr_code.co_filename == hub.__file__]

    async with listening(Ear(shelf), Ear(shelf)) as ears:
        await until(lambda: all(ear.seqs for ear in ears), "caught up")
        assert ours()
    await until(lambda: not ours(), "all tasks have ended")
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs == [1, 2, 3], "it starts again")


NOBODY = "redis://127.0.0.1:1/0"  # no server listens on port 1


@pytest.fixture
def redis_away(settings):
    settings.REDIS_URL = NOBODY
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [NOBODY]}}
    }


def test_announcing_never_waits_for_redis(redis_away):
    began = time.monotonic()
    for number in range(1000):
        bell._ringer.ring(bell.key_of("book", number))
    assert time.monotonic() - began < 0.5


async def test_without_redis_readers_live_on_polling(redis_away, settings):
    settings.SQLITE = False
    shelf = Shelf(1)
    async with listening(Ear(shelf)) as (ear,):
        shelf.write()
        await until(lambda: ear.seqs == [1, 2], "found by polling")


@pytest.mark.redis
async def test_a_ring_over_redis_is_heard_without_waiting_for_the_poll(settings):
    settings.LIVE_POLL_SECONDS = 120
    settings.SQLITE = False
    shelf = Shelf(1)
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs == [1], "caught up")

        def rang():  # the first rings may come before the subscription
            bell._ringer.ring(bell.key_of("book", 1))
            return ear.seqs == [1, 2]

        shelf.write()
        await until(rang, "the ring is heard")


@pytest.mark.redis
async def test_a_flushed_redis_leaves_nobody_in_silence(settings):
    import redis

    shelf = Shelf(1)
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs == [1], "caught up")
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            await asyncio.to_thread(client.client_kill_filter, _type="pubsub")
        shelf.write()
        await until(lambda: ear.seqs == [1, 2], "found all the same")


async def test_only_the_log_that_was_rung_is_looked_at(settings):
    settings.LIVE_POLL_SECONDS = 120
    shelves = [Shelf(1), Shelf(1)]
    shelves[1].kind = "scroll"
    asked = []
    for shelf in shelves:
        shelf.heads = lambda ids, shelf=shelf: asked.append(shelf.kind) or Shelf.heads(shelf, ids)
    async with listening(*map(Ear, shelves)) as (book, scroll):
        await until(lambda: book.seqs == scroll.seqs == [1], "caught up")
        await asyncio.sleep(3 * hub.GATHER_SECONDS)
        asked.clear()
        shelves[0].write()
        shelves[1].write()
        hub.hub().ring("book:1")
        await until(lambda: book.seqs == [1, 2], "the one that was rung")
        assert (set(asked), scroll.seqs) == ({"book"}, [1])


async def test_who_listens_to_rings_hears_which_logs_and_when_to_look_at_all(settings):
    settings.LIVE_POLL_SECONDS = 120
    heard = []
    hub.hub().on_rings(heard.append)
    try:
        await until(lambda: None in heard, "the first look at everything")

        def rings():  # into a round in which everything is looked at anyway, when the doorbell has just begun
            hub.hub().ring("book:1")
            hub.hub().ring("book:2")
            return {"book:1", "book:2"} in heard

        await until(rings, "both in one round")
    finally:
        hub.hub().off_rings(heard.append)


async def test_what_is_in_no_log_is_told_and_forgotten():
    shelf = Shelf(1)
    async with listening(Ear(shelf)) as (ear,):
        await until(lambda: ear.seqs == [1], "caught up")
        hub.hub().ring("book:1", '{"type": "provisional", "role": "user", "text": "I wo"}')
        await until(lambda: ear.of("provisional"), "what is said so far")
    async with listening(Ear(shelf)) as (late,):
        await until(lambda: late.seqs == [1], "caught up")
        assert not late.of("provisional")


class Line:
    """A connection that takes ready frames until it is *busy*."""

    def __init__(self):
        self.frames, self.busy = [], False

    def write(self, frame):
        if not self.busy:
            self.frames.append(frame)
        return not self.busy

    @property
    def seqs(self):
        return [row["seq"] for frame in self.frames for m in unframed(frame) for row in m.get("entries", [])]


def unframed(data):
    """The messages in frames of a WebSocket as a server writes them."""
    messages = []
    while data:
        assert data[0] == 0x81
        size, start = data[1], 2
        if size in (126, 127):
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        messages.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return messages


@pytest.mark.parametrize("text", ["x", "x" * 300, "x" * 70_000])
async def test_a_reader_who_keeps_up_is_written_to_directly_and_one_who_does_not_loses_nothing(text):
    shelf, line = Shelf(3, text), Line()
    async with listening(Ear(shelf, after=3, write=line.write)) as (ear,):
        await until(lambda: ear.of("ping"), "in")
        shelf.write(2)
        await until(lambda: line.seqs == [4, 5], "written to the connection")
        line.busy = True
        shelf.write(2)
        await until(lambda: ear.seqs == [6, 7], "sent the slow way")
        line.busy = False
        shelf.write()
        await until(lambda: line.seqs == [4, 5, 8], "written to the connection again")
        assert ear.seqs == [6, 7]


@pytest.mark.django_db(transaction=True)
async def test_people_of_all_processes_who_watch_a_log_are_told_of_each_other():
    shelf = Shelf(1)
    other = hub.Hub()
    async with listening(Ear(shelf, name="alice"), Ear(shelf)) as (alice, program):
        await until(lambda: alice.of("presence"), "herself")
        assert alice.of("presence") == [{"type": "presence", "people": ["alice"]}]
        await other.ask(hub.presence.say, "another process", {"book:1": {"bob"}})
        hub.hub().ring("book:1", json.dumps(hub.presence.CHANGED, separators=(",", ":")))
        await until(lambda: len(alice.of("presence")) > 1, "the other one")
        assert alice.of("presence")[-1]["people"] == program.of("presence")[-1]["people"] == ["alice", "bob"]
        await other.ask(hub.presence.say, "another process", {"book:1": set()})
        hub.hub().ring("book:1", json.dumps(hub.presence.CHANGED, separators=(",", ":")))
        await until(lambda: alice.of("presence")[-1]["people"] == ["alice"], "he left")
