"""Files of agents that run → streams: what is written is stored and shown a moment later.

A file is one stream, named by its real path; the file that takes its place after a rotation, or what is written anew
into it, is the next part (parts.py). The streams themselves are all that is remembered: a file goes on where its stream
ends. So neither a restart nor a second follower of the same file loses or doubles a line.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection

from auditweb import formats
from auditweb.dumps import jobs, parts, store, streams
from auditweb.dumps.models import Dump, State
from auditweb.dumps.parts import Part, Sibling
from auditweb.dumps.tailing import Cut, Endless, Identity, Places, Tail
from auditweb.formats import containers
from auditweb.teams.models import Team

logger = logging.getLogger("auditweb.follow")

POLL_SECONDS = 0.1
LINES = 1000  # of one file that are stored together; the others wait meanwhile
BATCH_BYTES = 4 * 2**20
LINGER_SECONDS = 10.0  # a file whose place another one took is read until it was quiet for so long
OLD_SECONDS = 3600  # so long after its last change a file is read, but its producer is not said to be there
TELL_SECONDS = 10  # between two words on how many lines were read
AWAY_SECONDS = 1  # between two tries while the database is away
HEARTBEAT_SECONDS = (5.0, 20.0)  # a stream is stale after 30
HEARTBEATS = 20  # per second, that they keep the database from nothing better

# Seconds after which a file is looked at again that was left alone because …
BUSY = 2.0  # … another process works with its dump
UNREADABLE = 5.0
FAULTY = 60.0  # … of an error of ours
NEVER = float("inf")


class Refused(Exception):
    """A file from which no lines can be read; the message says why."""


class File(msgspec.Struct, eq=False):
    """A file that is followed, and the part that its lines go to: without a dump as long as there is no line."""

    path: str
    stem: str
    number: int
    base: int
    tail: Tail
    dump: Dump | None = None
    stored: int = 0  # lines
    size: int = 0  # when it was found
    grew: float = 0.0  # time.monotonic() of its last change
    heard: float = 0.0  # time.monotonic() of the last line or heartbeat
    old: bool = False
    cut: bool = False

    @property
    def stream(self) -> str:
        return parts.name_of(self.stem, self.number, self.base)


class Aside(msgspec.Struct):
    """A file that is left alone until a time (time.monotonic()), and then as long as it has this size; -1 = any.

    A file that is shorter than this size is looked at at once.
    """

    until: float
    size: int
    why: str


class Follower:
    """Appends what grows in the files that *paths* name to streams of *team*.

    *session*, *bus*, *zone*: as for ``streams.open``. *end_after*: seconds of quiet after which a stream has ended.
    """

    def __init__(
        self,
        team: Team,
        paths: list[str],
        *,
        session: str = "",
        bus: str = "",
        zone: str = "",
        end_after: float | None = None,
        linger: float = LINGER_SECONDS,
    ):
        self.team = team
        self.places = Places(paths)
        self.options: dict[str, Any] = {"session": session, "bus": bus, "zone": zone}
        self.end_after = end_after
        self.linger = linger
        self.files: dict[Identity, File] = {}
        self.aside: dict[Identity, Aside] = {}
        self.ended: dict[Identity, tuple[int, int]] = {}  # size and time of change of files whose stream has ended
        self._streams: dict[Identity, str] | None = None  # which file was read into which
        self._read: dict[str, int] = {}  # lines of files that were not told of yet
        self._told = time.monotonic()

    # All files

    def run(self, stop: threading.Event, once: bool = False) -> None:
        """Follow until *stop* is set; *once*: until all that is there now is stored."""
        away = False
        if once:
            self.linger = 0
        try:
            while not stop.is_set():
                try:
                    more = self.round(stop)
                except jobs.AWAY as e:
                    if not away:
                        logger.warning("the database is away, waiting for it: %s", str(e).strip())
                    away = True
                    connection.close()
                    stop.wait(AWAY_SECONDS)
                    continue
                if away:
                    logger.warning("the database is back")
                    away = False
                if not more:
                    if once and not self._waits():
                        break
                    stop.wait(POLL_SECONDS)
                self._tell(TELL_SECONDS)
        finally:
            self._tell(0)
            self.close()

    def close(self) -> None:
        """Let go of all files. Their streams stay as they are: the next follower goes on with them."""
        for file in self.files.values():
            file.tail.close()
        self.files.clear()

    def round(self, stop: threading.Event | None = None) -> bool:
        """Look at every file once and store what is new, of each up to one batch; whether there was anything.

        Raises jobs.AWAY; the next round goes on.
        """
        more = False
        named: set[Identity] = set()
        for path in self.places.files():
            try:
                found = os.stat(path)
            except OSError:
                continue
            identity = (found.st_dev, found.st_ino)
            if identity in named or (stop is not None and stop.is_set()):
                continue
            named.add(identity)
            file = self.files.get(identity)
            if file is None or not file.tail.is_read(found) or file.cut or self._is_over(file, path):
                more |= self._carefully(identity, path, partial(self._look, path, found))
        if stop is not None and stop.is_set():
            return False
        for identity, file in list(self.files.items()):
            if identity not in named:
                more |= self._carefully(identity, file.path, partial(self._look_at_unnamed, file))
        for identity in [one for one in (*self.aside, *self.ended) if one not in named]:
            self.aside.pop(identity, None)
            self.ended.pop(identity, None)
        self._beat()
        return more

    def _waits(self) -> bool:
        """Whether a file is left alone only for a moment."""
        soon = time.monotonic() + BUSY
        return any(aside.size < 0 and aside.until < soon for aside in self.aside.values())

    def _carefully(self, identity: Identity, path: str, look: Callable[[], bool]) -> bool:
        """What *look* says. What goes wrong with one file is said, and keeps nobody from the others."""
        try:
            return look()
        except jobs.AWAY:
            raise
        except Refused as e:
            size = _size(path)  # its beginning decides: as long as it is short it may become another
            self._leave(identity, path, str(e), 0 if size < formats.SNIFF_BYTES else NEVER, size)
        except Endless:
            self._leave(identity, path, f"a line of more than {_longest():,} bytes; the file is left alone", NEVER)
        except (streams.Busy, streams.Differs, streams.Gap) as e:  # a second follower may be further
            self._leave(identity, path, f"{e}; looking again", BUSY)
        except (store.Refused, store.Gone) as e:
            self._leave(identity, path, f"{e}; the file is left alone until this command starts again", NEVER)
        except OSError as e:
            self._leave(identity, path, e.strerror or str(e), UNREADABLE)
        except Exception as e:
            logger.exception("%s: an error of auditweb", path)
            self._leave(identity, path, f"{type(e).__name__}; looking again in a minute", FAULTY)
        return True

    def _leave(self, identity: Identity, path: str, why: str, seconds: float, size: int = -1) -> None:
        if (file := self.files.pop(identity, None)) is not None:
            file.tail.close()
        before = self.aside.get(identity)
        self.aside[identity] = Aside(time.monotonic() + seconds, size, why)
        if before is None or before.why != why:
            logger.warning("%s: %s", path, why)

    # One file

    def _look(self, path: str, found: os.stat_result) -> bool:
        """Store what is new in the file that *path* names; whether there was anything."""
        identity = (found.st_dev, found.st_ino)
        file = self.files.get(identity)
        if file is None:
            if self.ended.get(identity) == (found.st_size, found.st_mtime_ns) or self._stays_aside(identity, found):
                return False
            file = self._begin(path)
            if file is None:
                return False
        if self._feed(file):
            return True
        if self._is_over(file, path):
            self._end(file)
        return False

    def _stays_aside(self, identity: Identity, found: os.stat_result) -> bool:
        aside = self.aside.get(identity)
        if aside is None or found.st_size < aside.size:
            return False
        return time.monotonic() < aside.until or found.st_size == aside.size

    def _look_at_unnamed(self, file: File) -> bool:
        """The same for a file that was renamed or deleted: its producer may still have it open, as we do."""
        if self._feed(file):
            return True
        over = os.path.exists(file.path) or not file.tail.stat().st_nlink
        if over and time.monotonic() - file.grew >= self.linger:
            self._finish(file)
        elif self._is_over(file, file.path):
            self._end(file)
        return False

    def _is_over(self, file: File, path: str) -> bool:
        """Whether the stream of *file*, of which nothing is new, has ended."""
        if file.old:
            return True
        quiet = time.monotonic() - file.grew
        if self.end_after is not None and quiet >= self.end_after:
            return True
        return path != file.path and quiet >= self.linger and os.path.exists(file.path)

    def _feed(self, file: File, found: os.stat_result | None = None) -> bool:
        """Store one batch of what is new in *file*; whether there was anything."""
        read = False
        if not file.cut:
            try:
                read = file.tail.look(found)
            except Cut:
                logger.info("%s: cut off or written anew", file.path)
                file.cut = True
        if read and file.tail.position > file.size:
            file.grew, file.old = time.monotonic(), False
        lines = file.tail.head(LINES, BATCH_BYTES)
        if lines:
            self._store(file, lines)
        elif file.cut:
            self._cut(file)
            return True
        return read or bool(lines)

    def _store(self, file: File, lines: list[bytes], newline: bool = True) -> None:
        if file.dump is None:
            known = parts.of_path(self.team, file.stem) if not file.base else []
            if (part := parts.that_begins(file.tail, known)) is not None:  # a second follower was faster
                file.number = part.number
            elif any(part.number == file.number for part in known):
                file.number = known[-1].number + 1
            file.dump = streams.open(self.team, file.stream, title=os.path.basename(file.path), **self.options)
        try:
            taken = streams.append(file.dump, file.stored + 1, lines, newline)
        except store.TooLarge:
            if not file.stored:
                raise
            logger.info("%s: its dump is full with line %d, the next one is in another", file.path, file.stored)
            streams.end(file.dump)
            file.number, file.base, file.dump, file.stored = file.number + 1, file.tail.offset, None, 0
            return self._store(file, lines, newline)
        except store.NotReceiving:
            dump = store.present(file.dump)
            if dump.newlines < dump.lines:  # a second follower took the last line before its newline came
                raise streams.Differs(dump.lines) from None
            raise
        file.stored += len(lines)
        file.heard = time.monotonic()
        if newline:
            file.tail.drop(len(lines))
        else:
            file.tail.drop_unfinished()
        self._read[file.path] = self._read.get(file.path, 0) + len(lines) - taken.duplicates
        for number, line in enumerate(lines, file.stored - len(lines) + 1):
            if len(line) > settings.MAX_LINE_BYTES:
                logger.warning("%s: line %d has %d bytes, too many; quarantined", file.path, number, len(line))
        file.dump = parts.remember(taken.dump, file.tail.identity)
        self._known()[file.tail.identity] = file.stream
        return None

    def _known(self) -> dict[Identity, str]:
        if self._streams is None:
            self._streams = parts.remembered(self.team)
        return self._streams

    def _end(self, file: File) -> None:
        """The producer of *file* is done, as it seems. It is looked at from outside only; more lines open it again."""
        found = file.tail.stat()
        self._take_unfinished(file)
        if file.dump is not None:
            self._end_stream(file.dump, file.path, "quiet for long")
        self._let_go(file)
        self.ended[file.tail.identity] = (found.st_size, found.st_mtime_ns)

    def _finish(self, file: File) -> None:
        """Nothing will come from *file* any more: end its stream with what there is."""
        while lines := file.tail.head(LINES, BATCH_BYTES):
            self._store(file, lines)
        self._take_unfinished(file)
        if file.dump is not None:
            self._end_stream(file.dump, file.path, "the old file is read to its end")
        self._let_go(file)

    def _take_unfinished(self, file: File) -> None:
        if last := file.tail.unfinished:
            self._store(file, [last], newline=False)

    def _end_stream(self, dump: Dump, path: str, why: str) -> None:
        lines = streams.end(dump)
        self._tell(0)
        logger.info("%s: %s, its stream has ended with line %d", path, why, lines)

    def _let_go(self, file: File) -> None:
        file.tail.close()
        self.files.pop(file.tail.identity, None)

    def _cut(self, file: File) -> None:
        """*file* was written anew: its stream ends, unless it was copied before and the copy has more of it."""
        anew = None if _is_named(file) else file.tail.anew()  # which otherwise is found by its name
        try:
            if file.dump is None or self._drain_copy(self._part(file), file.path) is None:
                self._finish(file)
            else:
                self._let_go(file)
            if anew is not None:
                known = parts.of_path(self.team, file.stem)
                if (part := parts.that_begins(anew, known)) is not None:
                    self._follow(_continued(file.path, part, anew))
                else:
                    self._follow(File(file.path, file.stem, known[-1].number + 1 if known else 1, 0, anew))
                anew = None
        finally:
            if anew is not None:
                anew.close()

    def _part(self, file: File) -> Part:
        assert file.dump is not None
        return Part(file.stem, file.number, file.base, store.present(file.dump))

    # Which stream a file belongs to

    def _begin(self, path: str) -> File | None:
        """Follow the file that *path* names now; None when that is followed already."""
        tail = Tail.open(path, _longest())
        try:
            if tail.identity in self.files:
                tail.close()
                return None
            file = self._place(path, tail)
        except BaseException:
            tail.close()
            raise
        self._follow(file)
        if file.stored:
            logger.info("%s: following; %d lines are stored", path, file.stored)
        else:
            logger.info("%s: found, following from its beginning", path)
        return file

    def _follow(self, file: File) -> None:
        found = file.tail.stat()
        age = max(0.0, time.time() - found.st_mtime)
        file.size, file.old = found.st_size, age > OLD_SECONDS
        file.grew, file.heard = time.monotonic() - age, time.monotonic()
        self.files[file.tail.identity] = file
        self.aside.pop(file.tail.identity, None)
        self.ended.pop(file.tail.identity, None)

    def _place(self, path: str, tail: Tail) -> File:
        """Where the lines of the file behind *tail* go. Raises Refused for what no lines can be read from."""
        stem = parts.stem_of(path)
        self._settle_before(stem)
        known = parts.of_path(self.team, stem)
        if not known:
            if (renamed := self._renamed(tail)) is not None:
                return _continued(path, renamed, tail)
            _check(tail)
            return File(path, stem, 1, 0, tail)
        *earlier, newest = known
        for part in earlier:
            if part.dump.state == State.LIVE:  # nobody has followed it to its end
                self._drain_rest(part, path, tail.identity)
        if not self._is_elsewhere(newest, path, tail.identity) and newest.begins(tail):
            for replaced in [file for file in self.files.values() if file.stream == newest.dump.stream]:
                self._let_go(replaced)  # by a copy of itself
            return _continued(path, newest, tail)
        _check(tail)
        between = self._drain_rotated(newest, path, tail.identity)
        logger.info("%s: rotated, or another file now", path)
        return File(path, stem, newest.number + between + 1, 0, tail)

    def _settle_before(self, stem: str) -> None:
        """Whatever files of the same path have that are no part yet becomes the part before the next one."""
        for file in [file for file in self.files.values() if file.stem == stem]:
            self._carefully(file.tail.identity, file.path, partial(self._feed, file))
        for file in [file for file in self.files.values() if file.stem == stem and file.dump is None]:
            identity, more = file.tail.identity, True
            while more and file.dump is None and self.files.get(identity) is file:
                more = self._carefully(identity, file.path, partial(self._feed, file))
            if file.dump is None and self.files.get(identity) is file:
                self._finish(file)

    def _renamed(self, tail: Tail) -> Part | None:
        """The stream that the file behind *tail* was read into when it had another name."""
        name = self._known().get(tail.identity)
        part = parts.of_stream(self.team, name) if name else None
        return part if part is not None and part.begins(tail) else None

    def _is_elsewhere(self, part: Part, path: str, identity: Identity) -> bool:
        """Whether the file of *part* is another than the one with *identity*, and is still there."""
        for other, file in self.files.items():
            if file.stream == part.dump.stream and other != identity:
                return file.tail.stat().st_nlink > 0
        if part.identity is None or part.identity == identity:
            return False
        return any(one.identity == part.identity for one in parts.siblings(path))

    def _drain_rotated(self, part: Part, path: str, identity: Identity) -> int:
        """Read the rest of *part*, whose file is not the one with *identity* that *path* names now, and the files that
        had this name in between; how many those are."""
        followed = next((file for file in self.files.values() if file.stream == part.dump.stream), None)
        rest = None if followed else self._drain_rest(part, path, identity)
        if followed:
            since = followed.tail.stat().st_mtime_ns
        elif rest:
            since = rest.changed
        else:
            heard = part.dump.heartbeat_at
            since = int(heard.timestamp() * 1e9) if heard else time.time_ns()
        between = 0
        for one in parts.siblings(path):
            if one.changed >= since and one.identity != identity and parts.is_rotated(one.path, path):
                between += self._drain_unread(part, part.number + between + 1, path, one)
        return between

    def _drain_rest(self, part: Part, path: str, identity: Identity) -> Sibling | None:
        """Read the rest of *part* from where it is now, but for the file with *identity*; None when it is gone."""
        if any(file.stream == part.dump.stream for file in self.files.values()):
            return None
        for one in parts.siblings(path):
            if one.identity == part.identity != identity and self._drain(part, path, one):
                return one
        if (copy := self._drain_copy(part, path)) is None and part.dump.state == State.LIVE:
            self._end_stream(part.dump, path, "its file is gone")
        return copy

    def _drain_copy(self, part: Part, path: str) -> Sibling | None:
        """Read the rest of *part* from a copy of its file beside *path*; None when there is none."""
        named = set(self.places.files())
        for one in parts.siblings(path):
            if parts.is_rotated(one.path, path) and one.path not in named and self._drain(part, path, one):
                return one
        return None

    def _drain(self, part: Part, path: str, rest: Sibling) -> bool:
        """Read what *rest* has beyond *part*; False when that is not how it begins."""
        try:
            tail = Tail.open(rest.path, _longest())
        except OSError:
            return False
        if tail.identity in self.files or not part.begins(tail):
            tail.close()
            return False
        self._follow(_continued(path, part, tail))
        logger.info("%s: rotated, the old file is %s now", path, os.path.basename(rest.path))
        return True

    def _drain_unread(self, part: Part, number: int, path: str, unread: Sibling) -> bool:
        try:
            tail = Tail.open(unread.path, _longest())
        except OSError:
            return False
        try:
            known = parts.of_path(self.team, part.stem)
            if tail.identity in self.files or not tail.stat().st_size or parts.that_begins(tail, known):
                raise Refused("It is empty, or a part already.")
            _check(tail)
        except Refused:
            tail.close()
            return False
        self._follow(File(path, part.stem, number, 0, tail))
        logger.info("%s: %s had this name in between, it is read, too", path, os.path.basename(unread.path))
        return True

    # What is said

    def _beat(self) -> None:
        """Let it be known of quiet files that somebody still looks at them."""
        live = [file for file in self.files.values() if file.dump is not None and not file.old and not file.cut]
        least, most = HEARTBEAT_SECONDS
        every = min(most, max(least, len(live) / HEARTBEATS))
        now = time.monotonic()
        for file in live:
            if now - file.heard >= every and file.dump is not None:
                file.heard = now
                try:
                    if file.tail.stat().st_nlink:
                        streams.heartbeat(file.dump)
                except (store.Refused, store.Gone, OSError):
                    pass  # the next line meets the same, and says so

    def _tell(self, every: float) -> None:
        if time.monotonic() - self._told >= every:
            for path, lines in self._read.items():
                if lines:
                    logger.info("%s: %d lines read", path, lines)
            self._read.clear()
            self._told = time.monotonic()


def _continued(path: str, part: Part, tail: Tail) -> File:
    """The file behind *tail*, which begins with *part*, as one that goes on behind it."""
    tail.seek(part.end)
    if not part.closed:
        return File(path, part.stem, part.number, part.base, tail, part.dump, part.dump.lines)
    if tail.bytes_at(part.end, 1) == b"\n":  # that of the line which was taken without one
        tail.seek(part.end + 1)
    return File(path, part.stem, part.number + 1, tail.offset, tail)


def _check(tail: Tail) -> None:
    """Raise Refused for a file that an import would refuse, or would take apart before it reads lines."""
    head = tail.bytes_at(0, formats.SNIFF_BYTES)
    if not head:
        return
    if reason := formats.sniff(head):
        raise Refused(f"{reason} It is left alone.")
    if containers.kind(head):
        raise Refused("There is not one JSON object per line. It is left alone; import it when it is complete.")


def _is_named(file: File) -> bool:
    """Whether its path still names *file*."""
    try:
        found = os.stat(file.path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == file.tail.identity


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _longest() -> int:
    """Bytes of a line that are held in memory: more than can be read, so that such a line is kept and quarantined."""
    return 4 * settings.MAX_LINE_BYTES
