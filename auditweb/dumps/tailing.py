"""Files that grow, as they look from outside: which there are, which whole lines are new, when a file begins anew.

Knows neither streams nor the database. It looks by itself (stat): what tells of changes differs from system to system,
and is silent on network drives.
"""

import fnmatch
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice

EDGE = 512  # bytes before the place where reading goes on: they tell a file that grew from one that was written anew
READ_BYTES = 4 * 2**20
RESCAN_SECONDS = 2  # between two looks into directories that seem unchanged: some drives tell the time in whole seconds
TICK_SECONDS = 0.05  # a directory that changed within it may change again without looking any different

Identity = tuple[int, int]  # device and inode


class Cut(Exception):
    """The file was cut off, or written anew, before the place where reading would go on."""


class Endless(Exception):
    """A line that is longer than anybody would read."""


class Tail:
    """An open file, read line by line as it grows.

    ``offset``: the byte behind the last line that was taken away with ``drop``; ``position``: where reading goes on.
    The file is read whatever it is called by now, and also when it has no name any more.
    """

    def __init__(self, fd: int, longest: int):
        """*longest*: bytes of a line that are held, see ``look``."""
        self.fd = fd
        found = os.fstat(fd)
        self.identity: Identity = (found.st_dev, found.st_ino)
        self.offset = 0
        self._longest = longest
        self._lines: deque[bytes] = deque()
        self._before = b""  # the last bytes before offset
        self._begin_line()
        self._seen: tuple[int, int] | None = None  # size and time of change of the file when all of it was read

    @classmethod
    def open(cls, path: str, longest: int) -> "Tail":
        """The file *path* from its beginning. Raises OSError, also for what is no regular file."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path} is no regular file")
        return cls(fd, longest)

    def anew(self) -> "Tail":
        """The same file from its beginning, whatever its name is now."""
        return Tail(os.dup(self.fd), self._longest)

    def seek(self, offset: int) -> None:
        """Go on at *offset*, where a line begins."""
        self.offset = offset
        start = max(0, offset - EDGE)
        self._before = os.pread(self.fd, offset - start, start)
        self._begin_line()

    def close(self) -> None:
        """Close the file; lines that were read already stay. Harmless the second time."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def stat(self) -> os.stat_result:
        return os.fstat(self.fd)

    def bytes_at(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def is_read(self, found: os.stat_result) -> bool:
        """Whether there is nothing to do about the file, of which stat says *found*."""
        return self._seen == (found.st_size, found.st_mtime_ns) and not self._lines

    def look(self, found: os.stat_result | None = None) -> bool:
        """Read on, a few MiB, unless lines wait or nothing changed; whether there was more. Raises Cut, Endless.

        *found*: what stat has just said of this file. After Cut what was read before is still there.
        """
        if self._lines:
            return False
        found = found or self.stat()
        if self.is_read(found):
            return False
        data = self._read_on() if found.st_size >= self.position else None
        if data is None:
            self._is_cut(found.st_size)
            data = self._read_on() or b""
        if self.position >= found.st_size:
            self._seen = (found.st_size, found.st_mtime_ns)
        return bool(data)

    def head(self, count: int, size: int) -> list[bytes]:
        """Up to *count* whole lines that wait, without their newlines, of *size* bytes together; one in any case."""
        taken: list[bytes] = []
        for line in islice(self._lines, count):
            size -= len(line) + 1
            if size < 0 and taken:
                break
            taken.append(line)
        return taken

    def drop(self, count: int) -> None:
        """Take the first *count* lines that wait away."""
        data = b"".join(self._lines.popleft() + b"\n" for _ in range(count))
        self.offset += len(data)
        self._before = (self._before + data)[-EDGE:]

    @property
    def unfinished(self) -> bytes:
        """What was read of a line whose newline has not come."""
        return b"".join(self._rest)

    def drop_unfinished(self) -> None:
        data = self.unfinished
        self.offset += len(data)
        self._before = (self._before + data)[-EDGE:]
        self._begin_line()

    def _begin_line(self) -> None:
        self._rest: list[bytes] = []
        self.position, self._edge = self.offset, self._before

    def _is_cut(self, size: int) -> None:
        """Raise Cut, unless only the line that was not finished is another one now, which is read again then."""
        start = self.offset - len(self._before)
        if size < self.offset or os.pread(self.fd, len(self._before), start) != self._before:
            raise Cut
        self._begin_line()

    def _read_on(self) -> bytes | None:
        """The next bytes, which are taken apart; None when those before them are not what they were."""
        edge = self._edge
        data = os.pread(self.fd, len(edge) + READ_BYTES, self.position - len(edge))
        if not data.startswith(edge):
            return None
        data = data[len(edge) :]
        self._edge = (edge + data[-EDGE:])[-EDGE:]
        self.position += len(data)
        first, *others = data.split(b"\n")
        self._rest.append(first)
        if others:
            self._lines.append(self.unfinished)
            self._lines.extend(others[:-1])
            self._rest = [others[-1]]
        if self.position - self.offset > self._longest and not self._lines:
            raise Endless
        return data


class Places:
    """The files that *paths* name: files, directories (their .jsonl and .log files) and patterns, also of such that
    are not there yet. Directories are read again only when they changed."""

    def __init__(self, paths: list[str]):
        self._paths = [os.path.abspath(path) for path in paths]
        self._changed: dict[str, int | None] = {}
        self._files: list[str] = []
        self._looked = 0.0
        self._again = True  # a directory changed too lately to tell

    def files(self) -> list[str]:
        """Their real paths, each once."""
        now = time.time()
        stale = self._again or not 0 <= now - self._looked < RESCAN_SECONDS
        if stale or any(_changed(place) != was for place, was in self._changed.items()):
            self._changed, self._looked = {}, now
            found = (os.path.realpath(file) for path in self._paths for file in self._named(path))
            self._files = list(dict.fromkeys(found))
            newest = max((at for at in self._changed.values() if at is not None), default=0)
            self._again = now - newest / 1e9 < TICK_SECONDS
        return self._files

    def _named(self, path: str) -> Iterator[str]:
        if os.path.isdir(path):
            yield from self._matching(path, ["*.jsonl"])
            yield from self._matching(path, ["*.log"])
        else:
            root, *parts = path.split(os.sep)
            yield from self._matching(root + os.sep, parts)

    def _matching(self, place: str, parts: list[str]) -> Iterator[str]:
        part, *rest = parts
        if part == "**":
            yield from self._matching(place, rest or ["*"])
            for entry in self._entries(place):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield from self._matching(entry.path, parts)
        elif not _is_pattern(part):
            path = os.path.join(place, part)
            if rest:
                yield from self._matching(path, rest)
            else:
                self._changed.setdefault(place, _changed(place))
                if os.path.lexists(path):
                    yield path
        else:
            for entry in self._entries(place):
                if fnmatch.fnmatchcase(entry.name, part) and (part[0] == "." or entry.name[0] != "."):
                    if rest and entry.is_dir():
                        yield from self._matching(entry.path, rest)
                    elif not rest and not entry.is_dir():
                        yield entry.path

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        self._changed.setdefault(place, _changed(place))  # before its names are read: a change meanwhile is seen later
        try:
            with os.scandir(place) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return []


def _is_pattern(part: str) -> bool:
    return any(character in part for character in "*?[")


def _changed(place: str) -> int | None:
    try:
        return os.stat(place).st_mtime_ns
    except OSError:
        return None
