"""RoomKit's status bus in Redis → a stream of entries, with the bytes that RoomKit wrote.

RoomKit pushes an entry to the head of a list, which it keeps short, and publishes it on a channel. What is published
while nobody listens is gone, so the channel is only a doorbell here: what follows on what is stored is found in the
list. The lines have numbers: several relays of one bus compute the same ones, and whoever is late changes nothing.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import redis
from django.db import connection, transaction
from django.utils import timezone
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from auditweb.dumps import jobs, store, streams
from auditweb.dumps.models import Dump
from auditweb.teams.models import Team

logger = logging.getLogger("auditweb.relay")

GATHER_SECONDS = 0.02  # after a message: those that follow on its heels are read with it
LOOK_SECONDS = 2.0  # between two looks at the list that nobody asked for
HEARTBEAT_SECONDS = 5.0
AGAIN_SECONDS = 1.0  # after Redis or the database was away
CALL_SECONDS = 5.0  # for an answer of Redis
HEAD = 50  # entries that are read first
SURE = 10  # entries in common by which a few of the list are placed; else all of it is read
LINES = 1000  # that are stored together
KEPT = 500  # entries that RoomKit keeps, unless it is told otherwise
MAX_GAPS = 100  # remembered of one stream


class Relay:
    """Mirrors the status bus that RoomKit keeps in the Redis at *url* under *prefix*, on the bus *bus* of *team*."""

    def __init__(self, team: Team, url: str, prefix: str = "roomkit:status", bus: str = ""):
        """Raises ValueError for an address or a prefix that cannot be."""
        self.team = team
        self.url = url
        self.name = name_of(url, prefix)
        self.bus = bus or prefix
        self.list, self.channel = f"{prefix}:entries", f"{prefix}:events"
        self._number = 0  # of the stream that grows; 0 = not looked up
        self._dump: Dump | None = None
        self._stored: list[bytes] = []  # its last lines
        self._most = KEPT  # entries that the list had, at most
        self._heard = 0.0
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        """Follow the bus until *stop* is set. Whatever is away is waited for."""
        logger.info("mirroring %s on the status log %s", self.name.removeprefix("relay:"), self.bus)
        while not stop.is_set():
            try:
                with self._connected() as (client, channel):
                    self._listen(client, channel, stop)
            except (redis.RedisError, OSError) as e:
                self._complain("Redis is away, waiting for it", e)
            except jobs.AWAY as e:
                connection.close()
                self._complain("the database is away, waiting for it", e)
            except streams.Busy as e:
                self._complain("waiting", e)
            stop.wait(AGAIN_SECONDS)

    def _complain(self, what: str, error: Exception) -> None:
        if self._said != what:
            logger.warning("%s: %s", what, str(error).strip())
            self._said = what

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[redis.Redis, redis.client.PubSub]]:
        client = redis.Redis.from_url(
            self.url,
            socket_timeout=CALL_SECONDS,
            socket_connect_timeout=CALL_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        with client, client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(self.channel)
            yield client, channel

    def _listen(self, client: redis.Redis, channel: redis.client.PubSub, stop: threading.Event) -> None:
        due = 0.0
        while not stop.is_set():
            if time.monotonic() >= due:
                self.look(client)
                due = time.monotonic() + LOOK_SECONDS
                if self._said:
                    logger.warning("going on")
                    self._said = ""
            if channel.get_message(timeout=min(0.5, max(0.0, due - time.monotonic()))):
                _drain(channel)
                due = 0.0

    def look(self, client: redis.Redis) -> int:
        """Store what is new in the list; how many entries. Raises redis.RedisError, jobs.AWAY, streams.Busy."""
        while True:
            dump = self._open()
            try:
                return self._store(dump, self._new(client))
            except (streams.Differs, streams.Gap, store.Gone):  # another relay, or who deleted the dump, was faster
                self._number = 0
            except store.TooLarge:
                if dump is None or not dump.lines:
                    raise
                logger.info("the dump is full with line %d, the next entries are in another", dump.lines)
                streams.end(dump)
                self._dump = self._make(self._number + 1)

    # What is stored

    def _open(self) -> Dump | None:
        """The stream that grows; None before there is an entry."""
        if not self._number:
            self._number, self._dump, self._stored = 1, None, []
            while (dump := streams.find(self.team, self._stream(self._number))) is not None:
                self._dump = dump
                self._stored = (self._stored + streams.Tail(dump).last(2 * self._most))[-2 * self._most :]
                self._number += 1
            self._number = max(1, self._number - 1)
        return self._dump

    def _make(self, number: int) -> Dump:
        self._number = number
        return streams.open(self.team, self._stream(number), bus=self.bus, title=f"{self.bus} in Redis")

    def _stream(self, number: int) -> str:
        return self.name if number == 1 else f"{self.name}#{number}"

    def _store(self, dump: Dump | None, found: tuple[list[bytes], str]) -> int:
        new, gap = found
        if new:
            dump = dump or self._make(self._number)
            before = dump.lines
            for at in range(0, len(new), LINES):
                lines = new[at : at + LINES]
                dump = self._dump = streams.append(dump, before + at + 1, lines).dump
                self._stored = (self._stored + lines)[-2 * self._most :]
                if gap and not at:
                    logger.warning("%s (after line %d)", gap, before)
                    dump = self._dump = _mark(dump, before, gap)
            if dump.lines != before + len(new):  # another relay is further
                self._number = 0
            self._heard = time.monotonic()
        elif dump is not None and time.monotonic() - self._heard >= HEARTBEAT_SECONDS:
            streams.heartbeat(dump)
            self._heard = time.monotonic()
        return len(new)

    # What is in Redis

    def _new(self, client: redis.Redis) -> tuple[list[bytes], str]:
        """The entries that follow on what is stored, oldest first, and what may be missing before them."""
        entries, whole = self._entries(client, HEAD)
        fitting = overlaps(self._stored, entries)
        if not whole and (len(fitting) != 1 or fitting[0] < SURE):
            entries, _ = self._entries(client, 0)
            fitting = overlaps(self._stored, entries)
        known = fitting[0] if fitting else 0
        full = len(entries) >= self._most
        self._most = max(self._most, len(entries))
        if known or not entries:
            return entries[known:], ""
        if not self._stored:
            return entries, "the list is full: what was before is not known" if full else ""
        if full:
            return entries, "entries are missing: more of them came than the list keeps"
        return entries, "entries may be missing: the list was emptied"

    def _entries(self, client: redis.Redis, number: int) -> tuple[list[bytes], bool]:
        """The last *number* entries (0: all), oldest first, as lines; whether those are all that there are."""
        with client.pipeline(transaction=True) as pipeline:
            pipeline.lrange(self.list, 0, number - 1)
            pipeline.llen(self.list)
            newest, length = pipeline.execute()
        # Between the tokens of JSON a newline is as good as a space; within them there is none.
        return [entry.replace(b"\n", b" ") for entry in reversed(newest)], len(newest) >= length


def name_of(url: str, prefix: str) -> str:
    """The name of the stream: which Redis, which database, which prefix. Raises ValueError."""
    address = parse_url(url)
    place = address.get("path") or f"{address.get('host', 'localhost')}:{address.get('port', 6379)}"
    name = f"relay:{place}/{address.get('db', 0)}:{prefix}"
    if not prefix or "#" in prefix or len(name) > streams.NAME_LENGTH - 10 or not name.isprintable():
        raise ValueError("the prefix is missing, too long, or has characters that the name of a stream cannot have")
    return name


def overlaps(stored: list[bytes], entries: list[bytes]) -> list[int]:
    """How many of the first *entries* may be the last of *stored*, the most in front. Several only where the same
    entries repeat; then the most are right as long as the whole list does not consist of them."""
    most = min(len(stored), len(entries))
    return [number for number in range(most, 0, -1) if stored[-number:] == entries[:number]]


def _drain(channel: redis.client.PubSub) -> None:
    """Read the messages that come within GATHER_SECONDS; what they say is in the list."""
    until = time.monotonic() + GATHER_SECONDS
    while (left := until - time.monotonic()) > 0:
        channel.get_message(timeout=left)


def _mark(dump: Dump, after: int, why: str) -> Dump:
    """Remember that entries may be missing after line *after* of *dump*; its lines stay what they are."""
    with transaction.atomic():
        dump = store.present(dump, lock=True)
        gaps = dump.checkpoint.setdefault("gaps", [])
        if all(gap["after"] != after for gap in gaps):
            gaps.append({"after": after, "why": why, "at": timezone.now().isoformat()})
            del gaps[:-MAX_GAPS]
            dump.save(update_fields=["checkpoint"])
    return dump
