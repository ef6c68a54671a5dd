"""The hub: what grew is read once and handed to everybody who watches, in this process.

Keeps for itself that readers at the same place share one read and one encoding, how what comes close together is
gathered, and how far a reader may fall behind. Knows no model by name: a consumer brings its own.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec

from auditweb import metrics
from auditweb.ids import public_id
from auditweb.live import bell, presence
from auditweb.live.bell import key_of
from auditweb.live.socket import NOT_FOUND, TRY_LATER, Refused
from auditweb.live.threads import with_database

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.05  # the first event of a quiet stream goes at once, what follows is gathered this long
GREET_SECONDS = 0.5  # between two looks at who came and went
PING_SECONDS = 4.0  # with a tick of an eighth: every socket hears from us, and access is asked again, within 5 s

FRAME_ROWS = 250  # frames also end at multiples of it, so that readers who catch up from different places soon share
FRAME_BYTES = 512 * 1024
FRAMES_KEPT = 8  # per log, for those who stand a little behind the others
WINDOW_EVENTS = 256
WINDOW_BYTES = 2**20
SKIP_BEYOND = 5000  # a reader further behind than this fetches what it needs by REST
SKIP_TO = 200
STALLED_SECONDS = 60  # a reader that acknowledges nothing for so long comes back when it is awake


class Head(NamedTuple):
    """How far a log is: its last seq, its revision, and what else its watchers are told when it changes."""

    last_seq: int
    revision: int
    state: dict | None = None


class Source(Protocol):
    """One kind of log. Both functions block; the hub calls them in threads of its own."""

    kind: str

    def heads(self, ids: Sequence[int]) -> dict[int, Head]:
        """The heads of these logs in one query; a log that is missing was deleted."""

    def rows(self, pk: int, after: int, limit: int) -> list[dict]:
        """Rows with seq > *after*, oldest first, each a dict that has ``seq`` and can be JSON."""


class Frame(NamedTuple):
    """What follows a place in the log, encoded once for everybody who stands there."""

    first: int  # the place
    texts: list[str]
    wire: bytes  # the same as frames of a WebSocket, for connections that take those
    last: int  # the place behind it
    events: int
    size: int  # bytes of their JSON


Listener = Callable[[set[str] | None], None]

_encode = msgspec.json.encode
_CROWD = _encode(presence.CHANGED).decode()


def text_of(kind: str, **fields: Any) -> str:
    """A message to a reader."""
    return _encode({"type": kind, **fields}).decode()


def wire_of(text: bytes) -> bytes:
    """*text* as a frame of a WebSocket from a server (RFC 6455 section 5.2: unmasked, so it is the same for all)."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 2**16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


def frame_of(rows: Sequence[dict], after: int, head: Head, more: bool) -> Frame:
    """*rows* as messages: runs of entries, and a ``gap`` wherever seqs between *after* and the head are no more.

    *more*: the log may go on behind the last row, so nothing is known about what lies between it and the head.
    """
    texts: list[str] = []
    run: list[bytes] = []
    last, size, count = after, 0, 0
    last_seq = max(head.last_seq, rows[-1]["seq"] if rows else 0)
    tail = f'],"last_seq":{last_seq},"revision":{head.revision}}}'

    def close_run():
        if run:
            texts.append('{"type":"entries","entries":[' + b",".join(run).decode() + tail)
            run.clear()

    for row in rows:
        encoded = _encode(row)
        if count and size + len(encoded) > FRAME_BYTES:
            more = True
            break
        if row["seq"] > last + 1:
            close_run()
            texts.append(text_of("gap", **{"from": last + 1, "to": row["seq"] - 1}))
        run.append(encoded)
        last, size, count = row["seq"], size + len(encoded), count + 1
    close_run()
    if not more and last < head.last_seq:
        texts.append(text_of("gap", **{"from": last + 1, "to": head.last_seq}))
        last = head.last_seq
    wire = b"".join(wire_of(text.encode()) for text in texts)
    return Frame(after, texts, wire, last, count, size)


class Feed:
    """One watched log in one process."""

    def __init__(self, hub: "Hub", source: Source, pk: int, head: Head):
        self.hub, self.source, self.pk, self.head = hub, source, pk, head
        self.key = key_of(source.kind, pk)
        self.readers: set[Reader] = set()
        self.gone = False
        self.crowd: dict | None = None  # who watches, in all processes
        self._frames: dict[int, asyncio.Task[Frame]] = {}
        self._pushing = 0  # frames that are read to be handed to all who stand before them

    def saw(self, head: Head | None) -> None:
        """Take in what a look found (None: deleted) and tell the readers if it is news."""
        before = self.head
        if head is None:
            self.gone = True
        elif head == before:
            return
        else:
            self.head = head
            if head.revision != before.revision or head.last_seq < before.last_seq:
                self._frames.clear()
        if self.gone or self.head.last_seq <= before.last_seq:
            self.wake()
        elif self._pushing:
            pass  # what is on its way reaches everybody first, and goes on from there
        elif any(reader.cursor == before.last_seq for reader in self.readers):
            self._push_from(before.last_seq)  # nearly everybody stands at the old head
        else:
            self.wake()

    def frame(self, after: int) -> "asyncio.Task[Frame]":
        """What follows *after*, a place before the head; one read and one encoding for all who ask.

        Never fails (a database that is away is waited for), and always ends behind *after*.
        """
        task = self._frames.get(after)
        if task is None:
            task = self._frames[after] = asyncio.create_task(self._read(after, self.head))
            while len(self._frames) > FRAMES_KEPT:
                oldest = next(iter(self._frames))
                del self._frames[oldest]
        return task

    def close(self) -> None:
        for task in self._frames.values():
            task.cancel()
        self._frames.clear()

    def wake(self) -> None:
        for reader in self.readers:
            reader.wake()

    def _push_from(self, place: int) -> None:
        self._pushing += 1
        self.frame(place).add_done_callback(self._push)

    def _push(self, task: "asyncio.Task[Frame]") -> None:
        """Hand a frame to all who stand before it, in one go; who cannot take it like that is woken."""
        self._pushing -= 1
        if task.cancelled():
            return
        frame = task.result()
        if frame.last > self.head.last_seq:  # what was committed between the look and the read
            self.head = self.head._replace(last_seq=frame.last)
        for reader in self.readers:
            if not reader.push(frame):
                reader.wake()
        if frame.last < self.head.last_seq and any(reader.cursor == frame.last for reader in self.readers):
            self._push_from(frame.last)

    async def _read(self, after: int, head: Head) -> Frame:
        limit = FRAME_ROWS - after % FRAME_ROWS
        pause = 0.1
        while True:
            try:
                rows = await self.hub.ask(self.source.rows, self.pk, after, limit)
                return frame_of(rows, after, head, more=len(rows) >= limit)
            except Exception as e:
                self.hub.trouble(e)
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)


class Reader:
    """One socket at its place in a log. ``run`` sends until it is refused; the rest only wakes it.

    *write* takes frames of a WebSocket at once, or says (False) that the connection is not ready for more: with it a
    reader who keeps up costs a call for each frame and no task. *name*: the person behind the socket, "" for a program.
    """

    def __init__(
        self,
        feed: Feed,
        after: int,
        send: Callable[[str], Awaitable[None]],
        who: Hashable,
        standing: Callable[[], int],
        write: Callable[[bytes], bool] | None = None,
        name: str = "",
    ):
        self.feed, self.cursor = feed, after
        self.who, self.standing, self.name = who, standing, name
        self.due = asyncio.get_running_loop().time() + PING_SECONDS
        self._send, self._write = send, write
        self._awake = asyncio.Event()
        self._unacked: deque[tuple[int, int, int]] = deque()  # last seq, entries, bytes of each frame
        self._events = self._bytes = 0  # their sums
        self._full_since: float | None = None
        self._waits_for: asyncio.Task | None = None
        self._sending = False  # a frame is on its way through ``send``: nothing may pass it
        self._ping = True  # says at once that the reader is in, and how far the log is
        self._revision = feed.head.revision
        self._state: dict | None = None
        self._crowd: dict | None = None
        self._notes: list[str] = []
        self._refused = 0

    def wake(self) -> None:
        self._awake.set()

    def leave(self) -> None:
        self.feed.hub.leave(self)

    def ack(self, seq: int) -> None:
        """The client has everything up to *seq*, by us or by REST."""
        while self._unacked and self._unacked[0][0] <= seq:
            _, count, size = self._unacked.popleft()
            self._events -= count
            self._bytes -= size
            self._full_since = None
        if seq > self.cursor:
            self.cursor = seq
        if self.cursor < self.feed.head.last_seq:
            self.wake()

    def note(self, text: str) -> None:
        """Send a message that is in no log, as soon as may be; the newest ones count."""
        self._notes = [*self._notes[-3:], text]
        self.wake()

    def beat(self, now: float, refused: int) -> None:
        """Time for a ping; *refused* is the close code when the socket may stay no longer."""
        self.due = now + PING_SECONDS
        self._ping = True
        self._refused = refused
        if not refused and self._full_since is not None and now - self._full_since > STALLED_SECONDS:
            self._refused = TRY_LATER
        self.wake()

    def push(self, frame: Frame) -> bool:
        """Send *frame* at once if it is what comes next and connection and window take it; whether that was all."""
        if self.cursor != frame.first or self._write is None or self._sending or self._refused:
            return False
        if self._is_full(frame):
            return True  # an acknowledgement wakes it
        if not self._write(frame.wire):
            return False
        self._sent(frame)
        return True

    async def run(self) -> None:
        """Send what happens until the log is gone or access is; raises Refused then."""
        feed = self.feed
        while True:
            self._awake.clear()
            if feed.gone or self._refused == NOT_FOUND:
                await self._send(text_of("deleted"))
                raise Refused(NOT_FOUND)
            if self._refused:
                raise Refused(self._refused)
            head = feed.head
            if self._ping:
                self._ping = False
                await self._send(text_of("ping", last_seq=head.last_seq, revision=head.revision))
            if self._revision != head.revision:
                self._revision = head.revision
                await self._send(text_of("revision", revision=head.revision))
            if await self._advance(head):
                continue
            if self._state != head.state:
                self._state = head.state
                await self._send(text_of("state", **head.state or {}))
            if self._crowd != feed.crowd:
                self._crowd = feed.crowd
                await self._send(text_of("presence", **feed.crowd or {}))
            notes, self._notes = self._notes, []
            for note in notes:
                await self._send(note)
            await self._awake.wait()

    async def _advance(self, head: Head) -> bool:
        """Send one frame if there is one and the window takes it; whether there may be another."""
        behind = head.last_seq - self.cursor
        if behind <= 0 or self._full_since is not None:
            return False
        if behind > SKIP_BEYOND:
            skip_to = head.last_seq - SKIP_TO
            text = text_of("skipped", **{"from": self.cursor + 1, "to": skip_to})
            metrics.sent.skipped += skip_to - self.cursor
            self.cursor = skip_to
            await self._send(text)
            return True
        task = self.feed.frame(self.cursor)
        if not task.done():
            if self._waits_for is not task:
                self._waits_for = task
                task.add_done_callback(lambda _: self.wake())
            return False
        frame = task.result()
        if self._is_full(frame):
            return False
        self._sent(frame)
        self._sending = True
        try:
            for text in frame.texts:
                if self._refused:  # while a slow client let us wait
                    break
                await self._send(text)
        finally:
            self._sending = False
        return True

    def _is_full(self, frame: Frame) -> bool:
        full = self._events + frame.events > WINDOW_EVENTS or self._bytes + frame.size > WINDOW_BYTES
        if full and self._unacked:  # a frame of its own may be larger than the window
            if self._full_since is None:
                self._full_since = asyncio.get_running_loop().time()
            return True
        return False

    def _sent(self, frame: Frame) -> None:
        self.cursor = frame.last
        metrics.sent.frames += 1
        metrics.sent.entries += frame.events
        if frame.events:
            self._unacked.append((frame.last, frame.events, frame.size))
            self._events += frame.events
            self._bytes += frame.size


class Hub:
    """All watched logs of one event loop: one doorbell, one look for the heads that changed, one read per place.

    Rests while nobody watches.
    """

    def __init__(self):
        self.process = public_id()
        self._feeds: dict[str, Feed] = {}
        self._listeners: list[Listener] = []
        self._keys: set[str] = set()  # logs that were rung since the last look
        self._everything = False
        self._rung = asyncio.Event()
        self._tasks: list[asyncio.Task] = []
        self._asking: dict[Hashable, asyncio.Future] = {}
        self._crowded: set[str] = set()  # logs whose people changed, here or elsewhere
        self._farewell: asyncio.Task | None = None
        self._in_trouble = False
        # Not database_sync_to_async: it puts all sockets into one thread, and one slow query stops them all.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="hub")

    async def ask(self, call: Callable, *args: Any) -> Any:
        """The result of a blocking database call, made in one of the hub's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, with_database, call, *args)

    def trouble(self, error: Exception) -> None:
        """The database is away or locked: say so once; sockets live on and are served when it is back."""
        if not self._in_trouble:
            logger.warning("live readers wait for the database: %r", error)
        self._in_trouble = True

    def join(
        self,
        source: Source,
        pk: int,
        head: Head,
        after: int,
        send: Callable[[str], Awaitable[None]],
        who: Hashable = None,
        standing: Callable[[], int] = lambda: 0,
        write: Callable[[bytes], bool] | None = None,
        name: str = "",
    ) -> Reader:
        """A reader of the log *pk* who has everything up to *after*; ``run`` it, and ``leave`` at the end.

        *standing* blocks and returns the close code when the reader may stay no longer, else 0; it is asked once for
        all readers with the same *who*. A place behind the end (the log was restored from a backup) becomes the end.
        """
        key = key_of(source.kind, pk)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self, source, pk, head)
        place = min(after, max(head.last_seq, feed.head.last_seq))
        reader = Reader(feed, place, send, who, standing, write, name)
        feed.readers.add(reader)
        metrics.readers.labels(source.kind).inc()
        if name:
            self._crowded.add(key)
        self._work()
        self.ring(key)  # what was committed since *head* was read
        return reader

    def leave(self, reader: Reader) -> None:
        feed = reader.feed
        if reader in feed.readers:
            feed.readers.remove(reader)
            metrics.readers.labels(feed.source.kind).dec()
        if reader.name:
            self._crowded.add(feed.key)
        if not feed.readers and self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
            feed.close()
        self._rest()

    def on_rings(self, listener: Listener) -> None:
        """Call *listener* once in every round of gathering with the logs that were rung, None = look at everything."""
        self._listeners.append(listener)
        self._work()
        self.ring(None)

    def off_rings(self, listener: Listener) -> None:
        self._listeners.remove(listener)
        self._rest()

    async def told(self, key: str, seq: int, seconds: float) -> None:
        """Return when the readers of the log *key* here were sent all up to *seq*, at the latest in *seconds*."""
        feed = self._feeds.get(key)
        if feed is None:
            return
        self.ring(key)
        try:
            async with asyncio.timeout(seconds):
                while any(reader.cursor < seq for reader in feed.readers):
                    await asyncio.sleep(GATHER_SECONDS / 5)
        except TimeoutError:
            pass

    def ring(self, key: str | None, note: str = "") -> None:
        """The log *key* changed (None: any may have), or its readers are to be told *note*."""
        if key is None:
            self._everything = True
        elif note:
            return self._tell(key, note)
        else:
            self._keys.add(key)
        self._rung.set()

    def _tell(self, key: str, note: str) -> None:
        feed = self._feeds.get(key)
        if feed is None:
            return
        if note == _CROWD:
            self._crowded.add(key)
            return
        for reader in feed.readers:
            reader.note(note)

    def _work(self) -> None:
        if not self._tasks:
            works = [self._watch(), self._beat(), self._greet(), *bell.ears(self.ring)]
            self._tasks = [asyncio.create_task(work) for work in works]

    def _rest(self) -> None:
        if self._feeds or self._listeners:
            return
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        if self._crowded:
            self._farewell = asyncio.create_task(self._say(self._crowded))
            self._crowded = set()

    # -- looking

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pause = GATHER_SECONDS
        while True:
            try:
                async with asyncio.timeout(bell.poll_seconds()):
                    await self._rung.wait()
            except TimeoutError:
                self._everything = True
            self._rung.clear()
            keys, self._keys = None if self._everything else self._keys, set()
            self._everything = False
            began = loop.time()
            try:
                await self._look(keys)
                self._in_trouble, pause = False, GATHER_SECONDS
            except Exception as e:
                self.trouble(e)
                self._everything = True
                pause = min(2.0, pause * 2)
            for listener in self._listeners:
                listener(keys)
            await asyncio.sleep(began + pause - loop.time())

    async def _look(self, keys: set[str] | None) -> None:
        feeds = self._feeds.values() if keys is None else [self._feeds[key] for key in keys if key in self._feeds]
        of_source: dict[Source, list[Feed]] = {}
        for feed in feeds:
            of_source.setdefault(feed.source, []).append(feed)
        for source, group in of_source.items():
            for start in range(0, len(group), 500):
                some = group[start : start + 500]
                heads = await self.ask(source.heads, [feed.pk for feed in some])
                for feed in some:
                    feed.saw(heads.get(feed.pk))

    # -- heartbeat

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PING_SECONDS / 8)
            now = loop.time()
            due = [reader for feed in self._feeds.values() for reader in feed.readers if reader.due <= now]
            if not due:
                continue
            asks = {}
            for reader in due:
                if reader.who not in asks:
                    ask = self._asking.get(reader.who)
                    if ask is None:
                        ask = asyncio.ensure_future(self.ask(reader.standing))
                        ask.add_done_callback(_heed)
                    asks[reader.who] = ask
            await asyncio.wait(asks.values(), timeout=PING_SECONDS / 8)
            # Who got no answer is heard from all the same: with the database away nothing new can be read either.
            self._asking = {who: ask for who, ask in asks.items() if not ask.done()}
            answers = {}
            for who, ask in asks.items():
                if ask.done() and not ask.cancelled():
                    try:
                        answers[who] = ask.result()
                    except Exception as e:
                        self.trouble(e)
            for reader in due:
                reader.beat(now, answers.get(reader.who, 0))

    # -- who watches

    async def _greet(self) -> None:
        loop = asyncio.get_running_loop()
        again = loop.time() + presence.AGAIN_SECONDS
        while True:
            await asyncio.sleep(GREET_SECONDS)
            if loop.time() >= again:
                again = loop.time() + presence.AGAIN_SECONDS
                self._crowded |= {key for key, feed in self._feeds.items() if any(r.name for r in feed.readers)}
            if self._crowded:
                keys, self._crowded = self._crowded, set()
                await self._say(keys)

    async def _say(self, keys: set[str]) -> None:
        """Tell the other processes who watches these logs here, and the readers here who does anywhere."""
        feeds = {key: self._feeds.get(key) for key in keys}
        people = {key: {r.name for r in feed.readers if r.name} if feed else set() for key, feed in feeds.items()}
        try:
            await self.ask(presence.say, self.process, people)
            crowds = await self.ask(presence.of, list(keys))
        except Exception as e:  # said again with the next change, or in a while
            self.trouble(e)
            return
        for key, feed in feeds.items():
            if feed is not None and feed.crowd != crowds[key]:
                feed.crowd = crowds[key]
                feed.wake()


def _heed(ask: asyncio.Future) -> None:
    """Nobody may be left to look at a failure; asyncio would complain about that."""
    ask.cancelled() or ask.exception()


_hubs: "WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = WeakKeyDictionary()


def hub() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _hubs.get(loop)
    if found is None:
        found = _hubs[loop] = Hub()
    return found
