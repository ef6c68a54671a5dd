"""A stream: takes lines from a running agent at once, and sees to it that the server gets them.

Keeps for itself the threads. Two of them, so that a server that does not answer keeps no line from the disk: one writes
what was handed in to the spool, one sends what the spool holds. The thread of the agent only puts lines into a queue.
"""

import atexit
import logging
import math
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from auditweb_client.lines import cleaned, encoded, lost_entry, shortened
from auditweb_client.sender import LONGEST_WAIT, NAME_LENGTH, Later, Sender
from auditweb_client.server import Server
from auditweb_client.spool import LINE_BYTES, Spool, default_root, let_go_of_all

log = logging.getLogger("auditweb_client")

GATHER_SECONDS = 0.03  # between the beginnings of two requests: what comes meanwhile goes together
HEARTBEAT_SECONDS = 5.0  # of silence; a page shows a session as stale after 30
PROVISIONAL_SECONDS = 0.15  # between two looks of watchers at an utterance that is not over
ABANDONED_SECONDS = 60.0  # between two looks for spools of processes that are gone
GIVE_UP_SECONDS = 300.0  # without any success, until the next look
QUEUE_BYTES = 16 * 2**20
NOTE_BYTES = 4096  # beyond the limit of the spool, for the line that tells what it could not take
EXIT_SECONDS = 5.0  # that the end of the process may take, all streams together

_open: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """Numbered lines on their way to the auditweb server at *url* (``AUDITWEB_URL``), with *key* (``AUDITWEB_KEY``).

    *agent*: what the name of the stream begins with. *name*: the whole name instead, if a later process shall go on
    with the stream. *session*: id or key of the session that the lines go to, by default one of their own.
    *bus*: name of the status log that status lines go to. *zone*: of times without one. *title*: what people see.
    *spool*: directory of spools (``AUDITWEB_SPOOL``); *spool_bytes*: what all in it may take together.
    *lost*: the entry that says how many lines are missing.

    Only the constructor raises, ValueError for an address that cannot be. Everything else returns at once, whatever
    the server or the disk do; troubles are told to the logger ``auditweb_client``.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        agent: str = "agent",
        name: str = "",
        session: str = "",
        bus: str = "",
        zone: str = "",
        title: str = "",
        spool: Path | str | None = None,
        spool_bytes: int = 64 * 2**20,
        queue_lines: int = 10_000,
        lost: Callable[[int], dict[str, Any]] = lost_entry,
    ):
        url = url or os.environ.get("AUDITWEB_URL", "")
        if not url:
            raise ValueError("the address of the auditweb server is missing: give url or set AUDITWEB_URL")
        self.server = Server(url, key or os.environ.get("AUDITWEB_KEY", ""))
        self._asked = _name(name)
        self._agent = _name(agent) or "agent"
        self._options = {"session": session, "bus": bus, "zone": zone, "title": title}
        self._root, self._spool_bytes = Path(spool) if spool else default_root(), spool_bytes
        self._queue_lines, self._lost_entry = queue_lines, lost
        self._begin()
        _open.add(self)

    @property
    def bus(self) -> str:
        """The name of the status log that status lines go to."""
        return self._options["bus"]

    def _begin(self) -> None:
        """The state of a stream of which this process has sent nothing yet."""
        self.lost = 0
        self._lock = threading.Lock()  # of the queue; held for a moment only
        self._queue: deque[bytes | int] = deque()  # a number: so many lines are missing here
        self._queued_bytes = self._missing = 0
        self._writing = threading.Lock()  # of who moves lines from the queue to the spool
        self._untold = 0  # lines that are missing there and that no line tells of yet
        self._pid = os.getpid()
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._own_name = self._asked or f"{self._agent} {started} {secrets.token_hex(3)}"
        self._sender: Sender | None = None
        self._provisional: dict[str, str] = {}
        self._arrived, self._ready = threading.Event(), threading.Event()  # for the writer, for the sender
        self._wake, self._closing, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._hurry_until = 0.0
        self._threads: list[threading.Thread] = []
        self._finisher: threading.Thread | None = None
        self._losing = False  # and it was logged

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The name of the stream at the server."""
        return self._sender.name if self._sender else self._own_name

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that the stream feeds, as far as the server told: ``[{"id", "url"}]``."""
        return list(self._sender.sessions) if self._sender else []

    @property
    def accepted(self) -> int:
        """How many lines of this stream the server has."""
        return self._sender.acked if self._sender else 0

    def send(self, line: str | bytes) -> None:
        """Have *line* sent, one JSON object; it is on its way when this returns."""
        try:
            data = cleaned(line)
            if not data.strip():
                return
            if len(data) > LINE_BYTES:
                data = shortened(data, LINE_BYTES)
            self._provisional.clear()  # the line ends what was being said
            if not self._put(data):
                self._overflow(data)
            self._arrived.set()
            self._run()
        except Exception:
            log.exception("a line was not taken")

    def provisional(self, role: str, text: str) -> None:
        """Show watchers what *role* (``user``, ``assistant``) has said so far; nothing of it is kept."""
        if text and role in ("user", "assistant"):
            self._provisional[role] = text
            self._ready.set()

    def flush(self, timeout: float = EXIT_SECONDS) -> bool:
        """Wait until the server has every line; whether it has them after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while not self._is_through():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def spill(self) -> None:
        """Write what is in the queue to the spool, unless that is being done; returns when it is written."""
        try:
            if self._writing.acquire(blocking=False):
                try:
                    self._write()
                finally:
                    self._writing.release()
        except Exception:
            log.exception("the spool was not written")

    def close(self, timeout: float = EXIT_SECONDS) -> bool:
        """Send what is left and tell the server that the stream has ended; whether that was done in *timeout* seconds.

        What could not be sent stays in the spool for the next process. A line after this opens the stream again.
        """
        try:
            deadline = time.monotonic() + timeout
            self._begin_to_close(deadline)
            return self._wait_for_end(deadline)
        except Exception:
            log.exception("the stream was not closed")
            return False

    def _begin_to_close(self, deadline: float) -> None:
        self._hurry_until = deadline
        for event in (self._closing, self._arrived, self._ready, self._wake):
            event.set()

    def _wait_for_end(self, deadline: float) -> bool:
        if not self._threads:
            self.spill()
            return self._is_through()
        return self._closed.wait(max(0.0, deadline - time.monotonic()))

    def _is_failing(self) -> bool:
        return self._sender is not None and self._sender.failing

    def _is_through(self) -> bool:
        with self._lock:
            if self._queue or self._missing:
                return False
        if self._writing.locked() or self._untold:
            return False
        return self._sender is None or self._sender.waiting == 0

    # The thread of the agent.

    def _put(self, data: bytes) -> bool:
        with self._lock:
            if len(self._queue) >= self._queue_lines or self._queued_bytes + len(data) > QUEUE_BYTES:
                return False
            if self._missing:
                self._queue.append(self._missing)
                self._missing = 0
            self._queue.append(data)
            self._queued_bytes += len(data)
            return True

    def _overflow(self, data: bytes) -> None:
        """The queue is full: move it to the spool ourselves, or do without the line if the disk hangs just now."""
        self.spill()
        if not self._put(data):
            with self._lock:
                self._missing += 1
            self._count_lost(1)

    def _count_lost(self, count: int) -> None:
        self.lost += count
        if not self._losing:
            self._losing = True
            log.warning("%s loses lines: its spool of %d bytes is full", self.name, self._spool_bytes)

    def _run(self) -> None:
        """See to it that the threads run."""
        if self._threads:
            return
        with self._lock:
            if self._threads:
                return
            self._closing.clear()
            self._closed.clear()
            stop = threading.Event()
            writer = threading.Thread(target=self._write_loop, args=(stop,), name="auditweb-spool", daemon=True)
            sender = threading.Thread(target=self._send_loop, args=(stop,), name="auditweb-send", daemon=True)
            self._threads = [writer, sender]
            try:
                writer.start()
                sender.start()
            except RuntimeError:  # the interpreter is about to end and starts no thread any more
                stop.set()
                self._threads = []
        if not self._threads:
            self.spill()

    # The thread that writes.

    def _write_loop(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._arrived.wait()
            self._arrived.clear()
            try:
                with self._writing:
                    self._write()
            except Exception:
                log.exception("the spool was not written")

    def _write(self) -> None:
        """Move the queue to the spool, in order; ``_writing`` is held."""
        with self._lock:
            items, self._queued_bytes = list(self._queue), 0
            self._queue.clear()
            if self._missing:
                items.append(self._missing)
                self._missing = 0
        if not items and not self._untold:
            return
        sender = self._sender or self._start()
        lines: list[bytes] = []
        for item in items:
            if isinstance(item, int):
                self._append(sender.spool, lines)
                self._untold += item
                lines = []
            else:
                lines.append(item)
        self._append(sender.spool, lines)
        if sender.waiting:
            self._ready.set()

    def _append(self, spool: Spool, lines: list[bytes]) -> None:
        """Write *lines*, before them how many are missing; what there is no room for is missing too."""
        if untold := self._untold:
            note = encoded(self._lost_entry(untold))
            if not spool.append([note], NOTE_BYTES if self._closing.is_set() and not lines else 0):
                self._untold += len(lines)
                self._count_lost(len(lines))
                return
            self._untold, self._losing = 0, False
            log.warning("%s has lost %d lines", self.name, untold)
        taken = spool.append(lines)
        if taken < len(lines):
            self._untold = len(lines) - taken
            self._count_lost(self._untold)

    def _start(self) -> Sender:
        """The sender of a new spool, or of that which an earlier process left of a stream with this chosen name."""
        owner = {"url": self.server.url, "key": self.server.fingerprint}
        spool = None
        if self._asked:
            spool = next(Spool.abandoned(self._root, self._spool_bytes, owner, self._asked), None)
        if spool is None:
            about = {**owner, "asked": self._asked, "stream": self._own_name, "options": self._options}
            spool = Spool(self._root, {**about, "shift": None if self._asked else 0}, self._spool_bytes)
        self._sender = Sender(spool, self.server)
        return self._sender

    # The thread that sends.

    def _send_loop(self, stop: threading.Event) -> None:
        begun = shown = looked = -math.inf
        said = time.monotonic()
        while not stop.is_set():
            self._ready.clear()
            now = time.monotonic()
            try:
                sender = self._sender
                if sender is not None and now >= looked + ABANDONED_SECONDS:
                    looked = now
                    self._look_for_abandoned(stop)
                if sender is not None and sender.waiting:
                    if now < begun + GATHER_SECONDS:
                        time.sleep(begun + GATHER_SECONDS - now)
                    begun = said = time.monotonic()
                    sender.push()
                    if self._untold:
                        self._arrived.set()  # there may be room again
                elif self._closing.is_set():
                    self._finish(stop)
                elif sender is None:
                    self._ready.wait()
                elif self._provisional and now >= shown + PROVISIONAL_SECONDS:
                    shown = said = now
                    for role in list(self._provisional):  # a line may end what is being said meanwhile
                        if text := self._provisional.pop(role, ""):
                            sender.provisional(role, text)
                elif now >= said + HEARTBEAT_SECONDS:
                    said = now
                    sender.heartbeat()
                else:
                    wait = said + HEARTBEAT_SECONDS - now
                    self._ready.wait(shown + PROVISIONAL_SECONDS - now if self._provisional else wait)
            except Later as later:
                self._pause(later.seconds)
            except Exception:
                log.exception("lines were not sent")
                self._pause(LONGEST_WAIT)

    def _pause(self, seconds: float) -> None:
        if time.monotonic() < self._hurry_until:
            seconds = min(seconds, 0.25)
        self._wake.wait(seconds)
        self._wake.clear()

    def _finish(self, stop: threading.Event) -> None:
        """Everything was sent and the stream is to be closed. Raises Later."""
        with self._writing:
            self._write()
        sender = self._sender
        if sender is not None:
            if sender.waiting:
                return
            sender.end()
        with self._writing:
            if sender is not None:
                if sender.waiting:
                    return
                sender.spool.remove()
                sender.server.close()
            with self._lock:
                if self._queue or self._missing:
                    return
                self._threads = []
                stop.set()
                self._closed.set()
        self._arrived.set()

    def _look_for_abandoned(self, stop: threading.Event) -> None:
        if self._finisher is None or not self._finisher.is_alive():
            self._finisher = threading.Thread(
                target=self._finish_abandoned, args=(stop,), name="auditweb-abandoned", daemon=True
            )
            self._finisher.start()

    def _finish_abandoned(self, stop: threading.Event) -> None:
        """Send what processes that are gone have left in this directory."""
        try:
            owner = {"url": self.server.url, "key": self.server.fingerprint}
            for spool in Spool.abandoned(self._root, self._spool_bytes, owner):
                sender = Sender(spool, self.server.again())
                try:
                    log.info("an earlier process left %d lines of %s", sender.waiting, sender.name)
                    self._send_all(sender, stop)
                finally:
                    spool.release()
                    sender.server.close()
        except Exception:
            log.exception("lines of an earlier process were not sent")

    def _send_all(self, sender: Sender, stop: threading.Event) -> None:
        given_up = time.monotonic() + GIVE_UP_SECONDS
        while not stop.is_set() and time.monotonic() < given_up:
            try:
                if not sender.waiting:
                    sender.end()
                    return sender.spool.remove()
                sender.push()
                given_up = time.monotonic() + GIVE_UP_SECONDS
            except Later as later:
                stop.wait(later.seconds)
            stop.wait(GATHER_SECONDS)  # what happens now goes first

    def _leave_to_parent(self) -> None:
        """After a fork, in the child: spool, lock and connection are the parent's, and so is what it has not sent."""
        if self._sender is not None:
            self._sender.spool.release()
        self.server, self._asked = self.server.again(), ""
        self._begin()


def _name(text: str) -> str:
    """*text* as (part of) a name that the server takes."""
    clean = "".join("_" if c == "/" or not c.isprintable() else c for c in text)
    return clean.strip()[: NAME_LENGTH - 50]


def _close_all() -> None:
    """At the end of the process: a server that was away anyway is waited for no longer than a second."""
    now = time.monotonic()
    deadlines = {stream: now + (1.0 if stream._is_failing() else EXIT_SECONDS) for stream in _open if stream._threads}
    for stream, deadline in deadlines.items():
        stream._begin_to_close(deadline)
    for stream, deadline in deadlines.items():
        stream._wait_for_end(deadline)


def _after_fork() -> None:
    for stream in list(_open):
        stream._leave_to_parent()
    let_go_of_all()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
