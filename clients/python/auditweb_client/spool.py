"""The lines of one stream that the server may still ask for, in files that outlive the process.

Keeps for itself the layout of a spool directory, one directory a stream:

    <time>-<random>/lock           held by the process that writes; the system lets it go when that process dies
    <time>-<random>/about.json     server, name and options of the stream; no key
    <time>-<random>/<n>.lines      lines from number n on, each with its newline

What was written is in the hands of the operating system, so it survives the end of the process, not a loss of power.
When the disk refuses, lines stay in memory for a while.
"""

import contextlib
import io
import json
import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

log = logging.getLogger("auditweb_client")

LINE_BYTES = 2**20 - 1  # the server takes 1 MiB a request, newline included
SEGMENT_BYTES = 2 * 2**20  # a file is removed when the server has all of its lines
MEMORY_BYTES = 8 * 2**20  # at most, when no file can be written
LOOK_AGAIN_SECONDS = 5  # between two looks at how much other streams hold of a full directory

_held: set[int] = set()  # descriptors of the locks of this process


class Spool:
    """Numbered lines of one stream, appended at the end and forgotten from the front; safe between threads.

    ``about`` is what the next process must know to go on; ``first`` and ``last`` are the numbers of the lines held.
    """

    def __init__(self, root: Path | None, about: dict[str, Any], limit: int):
        self.about = about
        self.root, self.limit = root, limit
        self._lock = threading.RLock()
        self._segment_bytes = max(1, min(SEGMENT_BYTES, limit // 4))
        self._segments: list[_Segment] = []
        self._next = 1
        self._place = (0, 0)  # number of a line and its offset in its segment: where reading goes on
        self._others, self._looked = 0, 0.0
        self._directory: Path | None = None
        self._lock_file: int | None = None

    @classmethod
    def abandoned(cls, root: Path, limit: int, owner: dict[str, str], asked: str | None = None) -> Iterator["Spool"]:
        """Spools that no process holds any more, oldest first, each held by us from then on.

        Only those whose ``about`` says the same as *owner*: lines must not reach another server or another team. With
        *asked* only those of streams with that chosen name. A line that was cut in the middle is cut off.
        """
        with contextlib.suppress(OSError):
            for directory in sorted(path for path in root.iterdir() if path.is_dir()):
                spool = cls._taken_over(directory, limit, owner, asked)
                if spool is not None:
                    yield spool

    @classmethod
    def _taken_over(cls, directory: Path, limit: int, owner: dict[str, str], asked: str | None) -> "Spool | None":
        try:
            held = _hold(directory / "lock", new=False)
        except OSError:
            return None  # of a living process, or not ours to read
        spool = cls(directory.parent, {}, limit)
        spool._directory, spool._lock_file = directory, held
        try:
            spool.about = json.loads((directory / "about.json").read_bytes())
        except FileNotFoundError:  # its process died while it removed it
            spool.remove()
            return None
        except (OSError, ValueError):
            spool.release()
            return None
        wanted = owner if asked is None else {**owner, "asked": asked}
        if _is_about(spool.about) and all(spool.about.get(name) == value for name, value in wanted.items()):
            with contextlib.suppress(OSError, ValueError):
                spool._recover()
                return spool
        spool.release()
        return None

    @property
    def first(self) -> int:
        """Number of the oldest line that is held; one more than ``last`` when there is none."""
        with self._lock:
            return self._segments[0].first if self._segments else self._next

    @property
    def last(self) -> int:
        with self._lock:
            return self._next - 1

    def append(self, lines: Sequence[bytes], beyond: int = 0) -> int:
        """Take *lines* (none with a newline), as many as there is room for; how many those were.

        *beyond*: bytes that they may take in excess of the limit.
        """
        with self._lock:
            taken = 0
            while taken < len(lines):
                segment = self._open_segment()
                room, data, count = self._room() + beyond, bytearray(), 0
                for line in islice(lines, taken, None):
                    if len(data) + len(line) + 1 > room or len(data) >= self._segment_bytes:
                        break
                    data += line + b"\n"
                    count += 1
                if not count:
                    break
                if segment.append(bytes(data), count):
                    taken += count
                    self._next += count
                else:
                    self._to_memory(segment)
            return taken

    def read(self, number: int, most: int, most_bytes: int) -> list[bytes]:
        """Lines from *number* on without their newlines: at most *most*, and *most_bytes* unless one alone has more."""
        with self._lock:
            for segment in self._segments:
                if segment.first <= number < segment.first + segment.count:
                    break
            else:
                return []
            known, offset = self._place
            if known != number or number == segment.first:
                offset = segment.offset(number)
            data = segment.read(offset, max(most_bytes, 1))
            end = data.rfind(b"\n") + 1
            if not end:
                data = segment.read(offset, LINE_BYTES + 1)
                end = data.find(b"\n") + 1
            lines = data[:end].split(b"\n")[:-1][:most]
            self._place = (number + len(lines), offset + sum(map(len, lines)) + len(lines))
            return lines

    def forget(self, through: int) -> None:
        """The server has the lines up to *through*: files that hold nothing else are removed."""
        with self._lock:
            while self._segments:
                segment = self._segments[0]
                is_last = len(self._segments) == 1
                if segment.first + segment.count - 1 > through or (is_last and not segment.full):
                    return
                if segment.path is not None:
                    self.save(through=segment.first + segment.count - 1)
                self._segments.pop(0).remove()

    def save(self, **changes: Any) -> None:
        """Change what the next process is told."""
        with self._lock:
            self.about |= changes
            if self._directory is not None:
                self._write_about(self._directory)

    def remove(self) -> None:
        """The server has everything: leave nothing behind. A line appended later begins a new directory."""
        with self._lock:
            while self._segments:
                self._segments.pop().remove()
            self._place = (0, 0)
            self.about["through"] = self._next - 1
            directory, self._directory = self._directory, None
            if directory is not None:
                names = [directory / "about.json", *_glob(directory, "*.lines"), directory / "about.new"]
                for path in [*names, directory / "lock"]:
                    with contextlib.suppress(OSError):
                        path.unlink()
            self._let_go()
            if directory is not None:
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def release(self) -> None:
        """Close all files and leave them to whoever comes next, also after a fork: another process holds them then."""
        with contextlib.suppress(OSError):
            while self._segments:
                self._segments.pop().close()
        self._let_go()

    def _let_go(self) -> None:
        held, self._lock_file = self._lock_file, None
        if held is not None:
            _held.discard(held)
            with contextlib.suppress(OSError):
                os.close(held)

    def _room(self) -> int:
        """Bytes that may be written before the directory of all spools has reached the limit."""
        own = sum(segment.size for segment in self._segments)
        now = time.monotonic()
        if not self._looked or (own + self._others >= self.limit and now > self._looked + LOOK_AGAIN_SECONDS):
            self._looked, self._others = now, self._of_others()
        in_memory = sum(segment.size for segment in self._segments if segment.path is None)
        if self._segments and self._segments[-1].path is None:
            return min(MEMORY_BYTES, self.limit) - in_memory
        return self.limit - own - self._others

    def _of_others(self) -> int:
        if self.root is None:
            return 0
        total = 0
        for path in _glob(self.root, "*/*.lines"):
            if path.parent != self._directory:
                with contextlib.suppress(OSError):
                    total += path.stat().st_size
        return total

    def _open_segment(self) -> "_Segment":
        if self._segments and not self._segments[-1].full:
            return self._segments[-1]
        path = None
        try:
            if self.root is not None:
                path = self._own_directory(self.root) / f"{self._next:012}.lines"
            segment = _Segment(path, self._next, self._segment_bytes)
        except OSError as e:
            log.warning("no spool file in %s, lines stay in memory: %s", self.root, e)
            segment = _Segment(None, self._next, self._segment_bytes)
        self._segments.append(segment)
        return segment

    def _to_memory(self, segment: "_Segment") -> None:
        """The disk took nothing more of *segment*: what comes next stays in memory until it takes something again."""
        segment.full = True
        if not segment.count:
            self._segments.remove(segment)
            segment.remove()
        self._segments.append(_Segment(None, self._next, self._segment_bytes))

    def _own_directory(self, root: Path) -> Path:
        while self._directory is None:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory = root / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
            directory.mkdir(mode=0o700)
            try:
                self._lock_file = _hold(directory / "lock", new=True)
            except BlockingIOError:  # somebody who looks for abandoned ones was between making it and holding it
                continue
            self._write_about(directory)
            self._directory = directory
        return self._directory

    def _write_about(self, directory: Path) -> None:
        new = directory / "about.new"
        new.write_text(json.dumps(self.about))
        new.replace(directory / "about.json")

    def _recover(self) -> None:
        """Read the files of a process that is gone. Numbers have no gap, or sending would never go on."""
        assert self._directory is not None
        number, lost = None, 0
        for path in sorted(_glob(self._directory, "*.lines")):
            segment = _Segment(path, int(path.stem), self._segment_bytes, new=False)
            if number is not None and segment.first != number:
                lost += segment.first - number
                segment.renumber(number)
            if segment.count:
                number = segment.first + segment.count
                self._segments.append(segment)
            else:
                segment.remove()
        if number is not None:
            self._next = number
        elif isinstance(through := self.about.get("through"), int):
            self._next = through + 1
        if lost:
            log.warning("%d lines of %s were in memory only and are lost", lost, self.about.get("stream"))


class _Segment:
    """Lines from number ``first`` on: in the file *path*, or in memory without one."""

    def __init__(self, path: Path | None, first: int, limit: int, new: bool = True):
        self.path, self.first, self.limit = path, first, limit
        self.count = self.size = 0
        self.full = not new
        self._file: io.FileIO | io.BytesIO
        if path is None:
            self._file = io.BytesIO()
            return
        self._file = open(os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0), 0o600), "r+b", 0)  # noqa: SIM115
        if not new:
            data = self._file.read()
            self.size = data.rfind(b"\n") + 1
            self.count = data.count(b"\n")
            if self.size != len(data):
                self._file.truncate(self.size)

    def append(self, data: bytes, count: int) -> bool:
        """Whether *data*, *count* whole lines, could be written; nothing of it is there when not."""
        try:
            self._file.seek(self.size)
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as e:
            log.warning("%s cannot be written, lines stay in memory: %s", self.path, e)
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            return False
        self.size += len(data)
        self.count += count
        self.full = self.size >= self.limit
        return True

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(min(size, self.size - offset))
        return data or b""

    def offset(self, number: int) -> int:
        """Where line *number* begins."""
        data, offset = self.read(0, self.size) if number > self.first else b"", 0
        for _ in range(number - self.first):
            offset = data.index(b"\n", offset) + 1
        return offset

    def renumber(self, first: int) -> None:
        assert self.path is not None
        self.first = first
        self.path = self.path.rename(self.path.with_name(f"{first:012}.lines"))

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            if self.path is not None:
                self.path.unlink()


def _glob(directory: Path, pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(directory.glob(pattern))
    return []


def _hold(path: Path, new: bool) -> int:
    """A descriptor that holds the lock *path* until it is closed or the process ends. Raises OSError."""
    held = os.open(path, os.O_RDWR | (os.O_CREAT if new else 0), 0o600)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(held, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    _held.add(held)
    return held


def let_go_of_all() -> None:
    """In a forked child: locks are the parent's, and would outlive it here."""
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


def _is_about(told: Any) -> bool:
    return isinstance(told, dict) and isinstance(told.get("stream"), str) and isinstance(told.get("options"), dict)


def default_root() -> Path:
    """Where spools are by default: ``AUDITWEB_SPOOL``, else among the state of this account, else a temporary place."""
    if told := os.environ.get("AUDITWEB_SPOOL"):
        return Path(told)
    with contextlib.suppress(OSError, RuntimeError):  # no home, or none that can be written
        state = os.environ.get("XDG_STATE_HOME")
        root = (Path(state) if state else Path.home() / ".local/state") / "auditweb-client"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    return Path(tempfile.gettempdir()) / f"auditweb-client-{os.getuid() if hasattr(os, 'getuid') else 'spool'}"
