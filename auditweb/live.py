"""Doorbell and catch-up: whoever watches a log hears that it grew, and reads on from where they stand.

Keeps for itself how a commit becomes known to this process (SQLite's ``data_version``, a ring over the channel layer,
or a look every ``LIVE_POLL_SECONDS``), that readers at the same place share one read and one encoding, and how far a
reader may fall behind. Knows no model by name: a consumer brings its own.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import parse_qs, quote
from weakref import WeakKeyDictionary

import msgspec
from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import connection

logger = logging.getLogger(__name__)

GROUP = "auditweb.logs"
MAX_SEQ = 2**32

BELL_SECONDS = 0.025  # between two questions for SQLite's data_version, 3 µs each
GATHER_SECONDS = 0.05  # the first event of a quiet stream goes at once, what follows is gathered this long
PING_SECONDS = 4.0  # with a tick of an eighth: every socket hears from us, and access is asked again, within 5 s
REJOIN_SECONDS = 3600  # a layer forgets its members after a day, or when Redis was flushed
KEEP_SECONDS = 60  # a database file may be replaced by a restored one under our open connection
LAYER_SECONDS = 3  # most that joining the layer may take: a frozen Redis answers never

FRAME_ROWS = 250  # frames also end at multiples of it, so that readers who catch up from different places soon share
FRAME_BYTES = 512 * 1024
FRAMES_KEPT = 8  # per log, for those who stand a little behind the others
WINDOW_EVENTS = 256
WINDOW_BYTES = 2**20
SKIP_BEYOND = 5000  # a reader further behind than this fetches what it needs by REST
SKIP_TO = 200
STALLED_SECONDS = 60  # a reader that acknowledges nothing for so long comes back when it is awake

MESSAGE_BYTES = 16 * 1024
MESSAGES_PER_SECOND = 100

# Close codes.
MALFORMED, SIGNED_OUT, REVOKED, NOT_FOUND = 4400, 4401, 4403, 4404
POLICY, RESTART, TRY_LATER = 1008, 1012, 1013


def key_of(kind: str, pk: int) -> str:
    """The name of a log on the doorbell: ``session:12``, ``statusbus:3``."""
    return f"{kind}:{pk}"


# --- ringing -----------------------------------------------------------------------------------------------------


def announce(key: str) -> None:
    """Tell every process that the log *key* changed. Carries no content; a lost ring costs one poll, never an event.

    Returns at once: a thread of its own talks to Redis, so a frozen one delays no writer. Without Redis there is
    nothing to do: SQLite's ``data_version`` is the doorbell across processes.
    """
    if settings.REDIS_URL:
        _ringer.ring(key)


class _Ringer:
    """Hands rings to the channel layer from one daemon thread per process; many rings of one log become one."""

    def __init__(self):
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ring(self, key: str) -> None:
        self._keys.put(key)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()  # kept, because the layer keeps one connection per loop
        silent = False
        while True:
            keys = {self._keys.get()}
            with contextlib.suppress(queue.Empty):
                while True:
                    keys.add(self._keys.get_nowait())
            try:
                for key in keys:
                    loop.run_until_complete(_ring(key))
                silent = False
            except Exception as e:  # the log is committed; watchers find it by polling
                if not silent:
                    logger.warning("the doorbell is silent, watchers poll: %r", e)
                silent = True


async def _ring(key: str) -> None:
    async with asyncio.timeout(LAYER_SECONDS):
        await get_channel_layer().group_send(GROUP, {"type": "log.grew", "log": key})


_ringer = _Ringer()


def _new_ringer() -> None:
    global _ringer
    _ringer = _Ringer()


os.register_at_fork(after_in_child=_new_ringer)  # threads do not survive a fork


# --- watching ----------------------------------------------------------------------------------------------------


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

    texts: list[str]
    last: int  # the place behind it
    events: int
    size: int  # bytes of their JSON


class Refused(Exception):
    """This socket may not stay; ``code`` is its close code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


_encode = msgspec.json.encode


def _text(kind: str, **fields: Any) -> str:
    return _encode({"type": kind, **fields}).decode()


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
            texts.append(_text("gap", **{"from": last + 1, "to": row["seq"] - 1}))
        run.append(encoded)
        last, size, count = row["seq"], size + len(encoded), count + 1
    close_run()
    if not more and last < head.last_seq:
        texts.append(_text("gap", **{"from": last + 1, "to": head.last_seq}))
        last = head.last_seq
    return Frame(texts, last, count, size)


class Feed:
    """One watched log in one process."""

    def __init__(self, hub: "Hub", source: Source, pk: int, head: Head):
        self.hub, self.source, self.pk, self.head = hub, source, pk, head
        self.readers: set[Reader] = set()
        self.gone = False
        self._frames: dict[int, asyncio.Task[Frame]] = {}

    def saw(self, head: Head | None) -> None:
        """Take in what a look found (None: deleted) and wake the readers if it is news."""
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
            self._wake()
        elif any(reader.cursor == before.last_seq for reader in self.readers):
            # Nearly everybody stands at the old head: wake them once, when their frame is ready.
            self.frame(before.last_seq).add_done_callback(lambda _: self._wake())
        else:
            self._wake()

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

    def _wake(self) -> None:
        for reader in self.readers:
            reader.wake()

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
    """One socket at its place in a log. ``run`` sends until it is refused; the rest only wakes it."""

    def __init__(self, feed: Feed, after: int, send: Callable[[str], Awaitable[None]], who: Hashable, standing):
        self.feed, self.cursor = feed, after
        self.who, self.standing = who, standing
        self.due = asyncio.get_running_loop().time() + PING_SECONDS
        self._send = send
        self._awake = asyncio.Event()
        self._unacked: deque[tuple[int, int, int]] = deque()  # last seq, entries, bytes of each frame
        self._events = self._bytes = 0  # their sums
        self._full_since: float | None = None
        self._waits_for: asyncio.Task | None = None
        self._ping = True  # says at once that the reader is in, and how far the log is
        self._revision = feed.head.revision
        self._state: dict | None = None
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
        self.cursor = max(self.cursor, seq)
        self.wake()

    def beat(self, now: float, refused: int) -> None:
        """Time for a ping; *refused* is the close code when the socket may stay no longer."""
        self.due = now + PING_SECONDS
        self._ping = True
        self._refused = refused
        if not refused and self._full_since is not None and now - self._full_since > STALLED_SECONDS:
            self._refused = TRY_LATER
        self.wake()

    async def run(self) -> None:
        """Send what happens until the log is gone or access is; raises Refused then."""
        feed = self.feed
        while True:
            self._awake.clear()
            if feed.gone or self._refused == NOT_FOUND:
                await self._send(_text("deleted"))
                raise Refused(NOT_FOUND)
            if self._refused:
                raise Refused(self._refused)
            head = feed.head
            if self._ping:
                self._ping = False
                await self._send(_text("ping", last_seq=head.last_seq, revision=head.revision))
            if self._revision != head.revision:
                self._revision = head.revision
                await self._send(_text("revision", revision=head.revision))
            if await self._advance(head):
                continue
            if self._state != head.state:
                self._state = head.state
                await self._send(_text("state", **head.state or {}))
            await self._awake.wait()

    async def _advance(self, head: Head) -> bool:
        """Send one frame if there is one and the window takes it; whether there may be another."""
        behind = head.last_seq - self.cursor
        if behind <= 0 or self._full_since is not None:
            return False
        if behind > SKIP_BEYOND:
            skip_to = head.last_seq - SKIP_TO
            await self._send(_text("skipped", **{"from": self.cursor + 1, "to": skip_to}))
            self.cursor = max(self.cursor, skip_to)
            return True
        task = self.feed.frame(self.cursor)
        if not task.done():
            if self._waits_for is not task:
                self._waits_for = task
                task.add_done_callback(lambda _: self.wake())
            return False
        frame = task.result()
        full = self._events + frame.events > WINDOW_EVENTS or self._bytes + frame.size > WINDOW_BYTES
        if full and self._unacked:  # a frame of its own may be larger than the window
            self._full_since = asyncio.get_running_loop().time()
            return False
        self.cursor = frame.last
        if frame.events:
            self._unacked.append((frame.last, frame.events, frame.size))
            self._events += frame.events
            self._bytes += frame.size
        for text in frame.texts:
            if self._refused:  # while a slow client let us wait
                break
            await self._send(text)
        return True


class Hub:
    """All watched logs of one event loop: one doorbell, one look for all heads, one read per place.

    Rests while nobody watches.
    """

    def __init__(self):
        self._feeds: dict[str, Feed] = {}
        self._rung = asyncio.Event()
        self._tasks: list[asyncio.Task] = []
        self._asking: dict[Hashable, asyncio.Future] = {}
        self._in_trouble = False
        # Not database_sync_to_async: it puts all sockets into one thread, and one slow query stops them all.
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="hub")

    async def ask(self, call: Callable, *args: Any) -> Any:
        """The result of a blocking database call, made in one of the hub's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _with_database, call, *args)

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
    ) -> Reader:
        """A reader of the log *pk* who has everything up to *after*; ``run`` it, and ``leave`` at the end.

        *standing* blocks and returns the close code when the reader may stay no longer, else 0; it is asked once for
        all readers with the same *who*. A place behind the end (the log was restored from a backup) becomes the end.
        """
        key = key_of(source.kind, pk)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self, source, pk, head)
        reader = Reader(feed, min(after, max(head.last_seq, feed.head.last_seq)), send, who, standing)
        feed.readers.add(reader)
        if not self._tasks:
            self._tasks = [asyncio.create_task(work()) for work in self._works()]
        self._rung.set()  # what was committed since *head* was read
        return reader

    def leave(self, reader: Reader) -> None:
        feed = reader.feed
        feed.readers.discard(reader)
        key = key_of(feed.source.kind, feed.pk)
        if not feed.readers and self._feeds.get(key) is feed:
            del self._feeds[key]
            feed.close()
        if not self._feeds:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    def _works(self):
        yield self._watch
        yield self._beat
        if settings.SQLITE:
            yield self._hear_sqlite
        if settings.REDIS_URL:
            yield self._hear_layer

    # -- looking

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pause = GATHER_SECONDS
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.LIVE_POLL_SECONDS):
                    await self._rung.wait()
            self._rung.clear()
            began = loop.time()
            try:
                await self._look()
                self._in_trouble, pause = False, GATHER_SECONDS
            except Exception as e:
                self.trouble(e)
                pause = min(2.0, pause * 2)
            await asyncio.sleep(began + pause - loop.time())

    async def _look(self) -> None:
        of_source: dict[Source, list[Feed]] = {}
        for feed in self._feeds.values():
            of_source.setdefault(feed.source, []).append(feed)
        for source, feeds in of_source.items():
            for start in range(0, len(feeds), 500):
                some = feeds[start : start + 500]
                heads = await self.ask(source.heads, [feed.pk for feed in some])
                for feed in some:
                    feed.saw(heads.get(feed.pk))

    # -- doorbells

    async def _hear_sqlite(self) -> None:
        """Ring when any connection, of this process or another, has committed."""
        loop = asyncio.get_running_loop()
        uri = f"file:{quote(str(settings.DATABASES['default']['NAME']))}?mode=ro"
        silent = False
        while True:
            try:
                # timeout 0: this runs in the event loop and may never wait for a lock
                with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as db:
                    seen, until = None, loop.time() + KEEP_SECONDS
                    while loop.time() < until:
                        (version,) = db.execute("PRAGMA data_version").fetchone()
                        if version != seen:
                            seen, silent = version, False
                            self._rung.set()
                        await asyncio.sleep(BELL_SECONDS)
            except sqlite3.Error as e:  # polling goes on meanwhile
                if not silent:
                    logger.warning("no doorbell from SQLite, polling goes on: %s", e)
                silent = True
                await asyncio.sleep(1)

    async def _hear_layer(self) -> None:
        """Ring when a watched log is named on the channel layer."""
        pause, silent = 1.0, False
        # A Redis client that is connecting may swallow a cancellation: it is looked for, or this would never end.
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling
        while not cancelled():
            channel = None
            try:
                layer = get_channel_layer()
                async with asyncio.timeout(LAYER_SECONDS):
                    channel = await layer.new_channel("hub.")
                    await layer.group_add(GROUP, channel)
                self._rung.set()
                pause, silent = 1.0, False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REJOIN_SECONDS):
                        while not cancelled():
                            message = await layer.receive(channel)
                            if message.get("log") in self._feeds:
                                self._rung.set()
            except Exception as e:
                if cancelled():
                    return
                if not silent:
                    logger.warning("no doorbell from the channel layer, polling goes on: %r", e)
                silent = True
                await asyncio.sleep(pause)
                pause = min(30.0, pause * 2)
            finally:
                if channel is not None:
                    with contextlib.suppress(Exception):
                        async with asyncio.timeout(LAYER_SECONDS):
                            await layer.group_discard(GROUP, channel)

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


_opened = threading.local()


def _with_database(call: Callable, *args: Any) -> Any:
    """Call, and give the connection back: to a pool at once; on SQLite later, opening costs more than a read."""
    if connection.connection is None:
        _opened.at = time.monotonic()
    keep = False
    try:
        result = call(*args)
        keep = connection.vendor == "sqlite" and time.monotonic() - _opened.at < KEEP_SECONDS
        return result
    finally:
        if not keep:
            connection.close()


# --- sockets -----------------------------------------------------------------------------------------------------


class _Said(msgspec.Struct):
    ack: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | None = None


_hear = msgspec.json.Decoder(_Said).decode


class _Models:
    """The logs of one model as a Source: heads by one query, rows by the consumer's function."""

    def __init__(self, model, state_fields: Sequence[str], rows: Callable[[int, int, int], list[dict]]):
        self.kind, self.rows = model._meta.model_name, rows
        self._model, self._state_fields = model, tuple(state_fields)

    def heads(self, ids: Sequence[int]) -> dict[int, Head]:
        return dict(self.of(self._model._default_manager.filter(pk__in=ids)))

    def of(self, queryset):
        """(primary key, Head) of each log in *queryset*."""
        for pk, last_seq, revision, *state in queryset.values_list("pk", "last_seq", "revision", *self._state_fields):
            yield pk, Head(last_seq, revision, dict(zip(self._state_fields, state, strict=True)) if state else None)


class LogConsumer(AsyncConsumer):
    """``…/<public_id>/?after=<seq>``: a log from there on, for whoever may see it, as long as they may.

    A subclass says which ``model`` (a Log with ``public_id`` whose manager has ``visible_to``), which of its fields are
    its ``state_fields`` (told as a ``state`` message), and brings two functions that block: ``rows(pk, after, limit)``,
    called once for all readers, and ``still_signed_in(scope)``. Closes 4401 not signed in, 4404 foreign or missing,
    4403 access taken back or scope missing, 4400 ``after`` is no seq, 1008 a message that we do not take, 1012 the
    server stops, 1013 try again later.
    """

    model: Any
    state_fields: Sequence[str] = ()
    rows: Callable[[int, int, int], list[dict]]
    still_signed_in: Callable[[dict], bool]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.source = _Models(cls.model, cls.state_fields, cls.rows)

    async def __call__(self, scope, receive, send):
        # Not channels' own dispatch: it takes a channel of the layer (a dead Redis would refuse the handshake and end
        # the socket) and goes through the one shared database thread for every message.
        self.scope, self._receive, self.base_send = scope, receive, send
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})  # before any refusal: a browser sees close codes of open sockets only
        reader = None
        try:
            reader = await self._join()
            await self._serve(reader)
        except Refused as e:
            await self._close(e.code)
            await self._drain()
        except OSError:  # some servers raise when the client left while we spoke
            pass
        except asyncio.CancelledError:
            await self._close(RESTART)
            raise
        finally:
            if reader is not None:
                reader.leave()

    async def _join(self) -> Reader:
        after = (parse_qs(self.scope["query_string"].decode("latin-1")).get("after") or ["0"])[-1]
        if not (after.isascii() and after.isdigit() and len(after) <= 10 and int(after) <= MAX_SEQ):
            raise Refused(MALFORMED)
        joined = hub()
        try:
            pk, head = await joined.ask(self._admit)
        except Refused:
            raise
        except Exception as e:
            joined.trouble(e)
            raise Refused(TRY_LATER) from e
        who = (self.source.kind, pk, self._identity())
        return joined.join(self.source, pk, head, int(after), self._send_text, who, lambda: self._standing(pk))

    def _admit(self) -> tuple[int, Head]:
        if not self.scope["user"].is_authenticated or not self.still_signed_in(self.scope):
            raise Refused(SIGNED_OUT)
        if (key := self.scope["auth"]) is not None and not key.has_scope("read"):
            raise Refused(REVOKED)
        found = next(self.source.of(self._visible()), None)
        if found is None:
            raise Refused(NOT_FOUND)
        return found

    def _standing(self, pk: int) -> int:
        if self.still_signed_in(self.scope) and self._visible().exists():
            return 0
        return REVOKED if self.model.objects.filter(pk=pk).exists() else NOT_FOUND

    def _visible(self):
        public_id = self.scope["url_route"]["kwargs"]["public_id"]
        return self.model.objects.visible_to(self.scope["user"]).filter(public_id=public_id)

    def _identity(self) -> Hashable:
        if (key := self.scope["auth"]) is not None:
            return "key", key.pk
        return "session", self.scope["session"].session_key

    async def _serve(self, reader: Reader) -> None:
        """Until the client leaves; Refused when we end it."""
        tasks = [asyncio.create_task(reader.run()), asyncio.create_task(self._listen(reader))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, reader: Reader) -> None:
        loop = asyncio.get_running_loop()
        second, heard = 0.0, 0
        while (message := await self._receive())["type"] != "websocket.disconnect":
            if loop.time() - second >= 1:
                second, heard = loop.time(), 0
            heard += 1
            text = message.get("text")
            if text is None or heard > MESSAGES_PER_SECOND:
                raise Refused(POLICY)
            try:
                raw = text.encode()
                if len(raw) > MESSAGE_BYTES:
                    raise Refused(POLICY)
                said = _hear(raw)
            except (ValueError, RecursionError) as e:  # msgspec's errors are ValueErrors, that of a lone surrogate too
                raise Refused(POLICY) from e
            if said.ack is not None:
                reader.ack(said.ack)

    async def _send_text(self, text: str) -> None:
        await self.base_send({"type": "websocket.send", "text": text})

    async def _close(self, code: int) -> None:
        with contextlib.suppress(Exception):  # the client is gone already
            await self.base_send({"type": "websocket.close", "code": code})

    async def _drain(self) -> None:
        """Wait until the client has closed too: daphne expects an application as long as there is a connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (await self._receive())["type"] != "websocket.disconnect":
                    pass
