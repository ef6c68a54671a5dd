"""The doorbell: how a commit becomes known to the processes that watch.

Keeps for itself what rings: on SQLite a row beside ``data_version``, elsewhere a message over the channel layer. A ring
names the log that changed, so that many running sessions do not wake each other; it never carries an entry of it. A
lost ring costs a poll, never an event.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from urllib.parse import quote

import msgspec
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import connection, transaction

from auditweb import metrics
from auditweb.live.threads import KEEP_SECONDS

logger = logging.getLogger(__name__)

GROUP = "auditweb.logs"

BELL_SECONDS = 0.025  # between two questions for SQLite's data_version, 3 µs each
REJOIN_SECONDS = 3600  # a layer forgets its members after a day, or when Redis was flushed
LAYER_SECONDS = 3  # most that joining the layer may take: a frozen Redis answers never
NO_BELL_SECONDS = 0.5  # PostgreSQL without Redis
RINGS_KEPT = 5000  # rows of the table; who missed so many looks at everything

Rung = Callable[[str | None, str], None]  # (key or None = anything may have changed, note)


def key_of(kind: str, pk: int) -> str:
    """The name of a log on the doorbell: ``session:12``, ``statusbus:3``."""
    return f"{kind}:{pk}"


# --- ringing -----------------------------------------------------------------------------------------------------


def announce(key: str) -> None:
    """Tell every process that the log *key* changed, once the transaction has committed.

    Returns at once: a thread of its own talks to Redis, so a frozen one delays no writer.
    """
    _ring(key, "")


def tell(key: str, message: dict) -> None:
    """Send *message* (with its ``type``) to whoever watches the log *key* now, once the transaction has committed.

    Nothing is kept and nothing promised: of several messages to one log in a moment the last may be all that arrives.
    """
    _ring(key, msgspec.json.encode(message).decode(), message["type"])


def _ring(key: str, note: str, kind: str = "") -> None:
    if settings.SQLITE:
        # In the transaction of what changed. The number of a replaced row is a new one, the highest so far. What is
        # told has a row of its own kind: it must not replace a ring that nobody has heard yet, nor that it.
        with connection.cursor() as cursor:
            cursor.execute("INSERT OR REPLACE INTO auditweb_ring (key, note) VALUES (%s, %s)", [f"{key} {kind}", note])
    elif settings.REDIS_URL:
        transaction.on_commit(lambda: _ringer.ring(key, note))


def forget_old_rings() -> None:
    """Drop the rings that nobody waits for any more."""
    if settings.SQLITE:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM auditweb_ring WHERE id < (SELECT max(id) FROM auditweb_ring) - %s", [RINGS_KEPT]
            )


class _Ringer:
    """Hands rings to the channel layer from one daemon thread per process; many rings of one log become one."""

    def __init__(self):
        self._rings: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ring(self, key: str, note: str = "") -> None:
        self._rings.put((key, note))
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        loop = asyncio.new_event_loop()  # kept, because the layer keeps one connection per loop
        silent = False
        while True:
            rings = {self._rings.get(): None}
            with contextlib.suppress(queue.Empty):
                while True:
                    rings[self._rings.get_nowait()] = None
            try:
                for key, note in rings:
                    loop.run_until_complete(_send(key, note))
                silent = False
            except Exception as e:  # the log is committed; watchers find it by polling
                if not silent:
                    logger.warning("the doorbell is silent, watchers poll: %r", e)
                silent = True


async def _send(key: str, note: str) -> None:
    async with asyncio.timeout(LAYER_SECONDS):
        await get_channel_layer().group_send(GROUP, {"type": "log.grew", "log": key, "note": note})


_ringer = _Ringer()


def _new_ringer() -> None:
    global _ringer
    _ringer = _Ringer()


os.register_at_fork(after_in_child=_new_ringer)  # threads do not survive a fork


# --- hearing -----------------------------------------------------------------------------------------------------


def poll_seconds() -> float:
    """How long watchers wait for a ring before they look by themselves."""
    has_bell = settings.SQLITE or settings.REDIS_URL
    return settings.LIVE_POLL_SECONDS if has_bell else min(NO_BELL_SECONDS, settings.LIVE_POLL_SECONDS)


def ears(rung: Rung):
    """The endless tasks that call *rung*, in the event loop, for every ring of this or another process."""
    if settings.SQLITE:
        yield _hear_sqlite(rung)
    elif settings.REDIS_URL:
        yield _hear_layer(rung)


async def _hear_sqlite(rung: Rung) -> None:
    loop = asyncio.get_running_loop()
    uri = f"file:{quote(str(settings.DATABASES['default']['NAME']))}?mode=ro"
    silent, last = False, -1
    while True:
        try:
            # timeout 0: this runs in the event loop and may never wait for a lock
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as db:
                seen, until = None, loop.time() + KEEP_SECONDS
                while loop.time() < until:
                    (version,) = db.execute("PRAGMA data_version").fetchone()
                    if version != seen:
                        last = _read_rings(db, last, rung)
                        seen, silent = version, False
                        metrics.doorbell_silent.set(0)
                    await asyncio.sleep(BELL_SECONDS)
        except sqlite3.Error as e:  # polling goes on meanwhile
            if not silent:
                logger.warning("no doorbell from SQLite, polling goes on: %s", e)
            silent = True
            metrics.doorbell_silent.set(1)
            await asyncio.sleep(1)


def _read_rings(db: sqlite3.Connection, last: int, rung: Rung) -> int:
    """Call *rung* for the rings after number *last* (-1: none was read yet); the number of the newest."""
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM auditweb_ring").fetchone()
    if last < 0 or newest < last or newest - last >= RINGS_KEPT:  # just begun; another database; too many
        rung(None, "")
        return newest
    for key, note in db.execute("SELECT key, note FROM auditweb_ring WHERE id > ? ORDER BY id", [last]):
        rung(key.partition(" ")[0], note)
    return newest


async def _hear_layer(rung: Rung) -> None:
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
            rung(None, "")
            pause, silent = 1.0, False
            metrics.doorbell_silent.set(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REJOIN_SECONDS):
                    while not cancelled():
                        message = await layer.receive(channel)
                        if key := message.get("log"):
                            rung(key, message.get("note") or "")
        except Exception as e:
            if cancelled():
                return
            if not silent:
                logger.warning("no doorbell from the channel layer, polling goes on: %r", e)
            silent = True
            metrics.doorbell_silent.set(1)
            await asyncio.sleep(pause)
            pause = min(30.0, pause * 2)
        finally:
            if channel is not None:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(LAYER_SECONDS):
                        await layer.group_discard(GROUP, channel)
