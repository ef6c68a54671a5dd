"""What lines come in: archives are unpacked, other shapes of JSON become one object per line.

Pure transforms over iterators of bytes. None of them holds more than a piece of its input and a piece of its output,
whatever the archive says about itself, so a bomb costs what its limits allow.
"""

import contextlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple

from .decode import BOM, decode, is_blank
from .record import BadLine

HEAD_BYTES = 64 * 2**10  # what is looked at to say what a file is
PIECE = 256 * 2**10  # the most bytes that one step of unpacking gives
FREE_BYTES = 128 * 2**20  # unpacked before the ratio counts: half a second of work, and one line repeated is no crime
MAX_MEMBERS = 1000  # of a zip archive; each becomes a dump
MAX_DIRECTORY_BYTES = 2 * 2**20  # of a zip archive: zipfile makes an object of every 46 bytes or more

ARCHIVES = ("gzip", "zip")
SHAPES = ("array", "objects", "sequence", "cr")
ONE_FILE = (".jsonl", ".ndjson", ".jsonlines", ".json", ".log")  # names of members that were meant as dumps


class Damaged(Exception):
    """The rest cannot be unpacked, or does not fit its check sum; what came before it can be used. A sentence."""


class TooMuch(Exception):
    """More than the limits allow: perhaps a bomb. A sentence."""


class Locked(Exception):
    """An archive that nobody unpacks here: encrypted, or packed in a way that is not supported. A sentence."""


class Limits(NamedTuple):
    """The most bytes that one archive may unpack to, and how many times its own size beyond ``FREE_BYTES``."""

    total: int
    ratio: int

    def check(self, taken: int, given: int) -> None:
        """Raise TooMuch when *given* bytes out of *taken* are too many."""
        if given > self.total:
            raise TooMuch(f"The archive unpacks to more than the {self.total:,} bytes that are allowed here.")
        if given > FREE_BYTES and given > self.ratio * taken:
            raise TooMuch(
                f"The archive unpacks to more than {self.ratio:,} times its size, as no log does; "
                "unpack it yourself and send the file if it is one."
            )


# What a file is


def look(content: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first ``HEAD_BYTES`` of *content*, and all of it."""
    head, seen = b"", []
    for piece in content:
        seen.append(piece)
        head += piece
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES], chain(seen, content)


_ARRAY = re.compile(rb"\[\s*(?:[{\]]|$)")  # "[2026-04-07 13:05] {" is a log prefix, "[1, 2]" a line like any other
_LINES = 20  # looked at one by one
_RS = b"\x1e"


def kind(head: bytes) -> str:
    """What the lines of a file that begins with *head* are in: one of ARCHIVES or SHAPES, "" when they are just lines.

    *head*: the first ``HEAD_BYTES`` of the file, or all of it.
    """
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    text = head.removeprefix(BOM).strip(b" \t\r\n\0")
    if text.startswith(_RS) and text[1:].lstrip(b" \t\r\n").startswith(b"{"):
        return "sequence"
    lines, good = first_lines(text)
    if not lines or good > len(lines) // 2:
        return ""
    if b"\n" not in text and b"\r" in text and any(map(_is_object, text.split(b"\r", _LINES)[:_LINES])):
        return "cr"
    if _ARRAY.match(text) and not _is_object(lines[0]):
        return "array"
    return "objects" if _is_spread(text, whole=len(head) < HEAD_BYTES) else ""


def first_lines(text: bytes) -> tuple[list[bytes], int]:
    """Up to twenty lines of *text* that are not blank, and how many of them are JSON objects."""
    lines = [line for line in text.split(b"\n", 4 * _LINES)[: 4 * _LINES] if not is_blank(line)][:_LINES]
    return lines, sum(map(_is_object, lines))


def _is_object(line: bytes) -> bool:
    try:
        decode(line)
    except BadLine:
        return False
    return True


def _is_spread(text: bytes, whole: bool) -> bool:
    """Whether the first JSON object of *text* goes on after its first line, or another one follows on that line."""
    if not text.startswith(b"{"):
        return False
    first, _, rest = text.partition(b"\n")
    if first.strip() == b"{":
        return rest.lstrip().startswith((b'"', b"}")) if rest else not whole
    try:
        decoded = text.decode("utf-8", "replace")
        _, end = json.JSONDecoder(parse_int=str).raw_decode(decoded)
    except (ValueError, RecursionError):
        return False
    return "\n" in decoded[:end] or decoded[end:].lstrip(" \t").startswith("{")


# gzip


def gunzip(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """What is in a gzip file: all its members, their check sums and lengths compared; zeros may follow them.

    Raises Damaged (after all that could be read) and TooMuch.
    """
    taken = given = members = 0
    unpacker = None
    for piece in pieces:
        taken += len(piece)
        data = piece
        while data:
            if unpacker is None:
                data = data.lstrip(b"\0") if members else data
                if not data:
                    break
                unpacker = _Unpacker(31)
            for out in unpacker.feed(data):
                given += len(out)
                limits.check(taken, given)
                yield out
            if unpacker.error:
                raise Damaged(_gzip_damage(unpacker, members, given))
            data = unpacker.left
            if unpacker.over:
                unpacker, members = None, members + 1
    if unpacker is not None:
        raise Damaged(f"The gzip archive ends in the middle; {given:,} bytes of what is in it could be read.")


def _gzip_damage(unpacker: "_Unpacker", members: int, given: int) -> str:
    if members and "header" in unpacker.error:
        return f"Something that is no gzip follows the gzip archive; {given:,} bytes could be read."
    if "check" in unpacker.error and "header" not in unpacker.error:
        return f"The gzip archive is damaged: what is in it does not fit its check sum ({given:,} bytes could be read)."
    return f"The gzip archive is damaged; {given:,} bytes of what is in it could be read."


class _Unpacker:
    """One deflated stream, in steps of at most PIECE bytes; gives all bytes before an error, which zlib alone drops."""

    def __init__(self, wbits: int):
        self._zlib = zlib.decompressobj(wbits)
        self.left = b""  # what follows the stream
        self.error = ""

    @property
    def over(self) -> bool:
        return self._zlib.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self.over:
            before = self._zlib.copy()
            try:
                out = self._zlib.decompress(data, PIECE)
            except zlib.error as e:
                self.error = str(e)
                yield from _up_to_error(before, data)
                return
            data = self._zlib.unconsumed_tail
            if out:
                yield out
            if not data and len(out) < PIECE:  # a full piece may have more behind it
                break
        self.left = self._zlib.unused_data


def _up_to_error(unpacker, data: bytes) -> Iterator[bytes]:
    """What *data* gives before the error that is in it, to the last byte."""
    while True:
        before = unpacker.copy()
        try:
            out = unpacker.decompress(data, 4096)
        except zlib.error:
            break
        if not out:
            return
        data = unpacker.unconsumed_tail
        yield out
    with contextlib.suppress(zlib.error):
        for at in range(len(data)):  # a check sum is compared some bytes after the last one that gives something
            if out := before.decompress(data[at : at + 1]):
                yield out


# zip


class Member(NamedTuple):
    """A file in a zip archive: its place in the directory (from 0), its name as written there, its size in bytes."""

    place: int
    name: str
    size: int


class Zip:
    """The directory of a zip archive, read at once, and its members, read as streams.

    *pieces(offset, size)* gives bytes of the archive, *size* is how many it has. Raises Damaged when there is no
    directory, TooMuch when it names more than the limits allow.
    """

    def __init__(self, size: int, pieces: Callable[[int, int], Iterator[bytes]], limits: Limits):
        self._size, self._pieces, self._limits = size, pieces, limits
        try:
            with zipfile.ZipFile(_View(size, pieces)) as archive:
                self._infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        except _UNREADABLE as e:
            raise Damaged("The zip archive is damaged or cut off: its directory cannot be read.") from e
        if len(self._infos) > MAX_MEMBERS:
            raise TooMuch(f"The archive holds {len(self._infos):,} files; {MAX_MEMBERS:,} are allowed here.")
        limits.check(size, sum(info.file_size for info in self._infos))

    def members(self, refusal: Callable[[bytes], str | None]) -> tuple[list[Member], list[dict[str, str]]]:
        """The members that are to be imported, and the others as ``{"name", "reason"}``.

        *refusal(head)* says why a file is no dump. A file that is named like a dump is one, whatever is in it: that it
        cannot be read must not pass unseen.
        """
        found, skipped = [], []
        for place, info in enumerate(self._infos):
            path = PurePosixPath(info.filename.replace("\\", "/"))
            if "__MACOSX" in path.parts or path.name.startswith("._"):
                reason: str | None = "A resource fork of macOS, not a file of its own."
            elif path.suffix.lower() in ONE_FILE:
                reason = None
            else:
                reason = self._why_not(place, refusal)
            if reason:
                skipped.append({"name": info.filename[:300], "reason": reason})
            else:
                found.append(Member(place, info.filename, info.file_size))
        return found, skipped

    def _why_not(self, place: int, refusal) -> str | None:
        try:
            head, _ = look(self.read(place))
        except (Locked, Damaged) as e:
            return str(e)
        return None if kind(head) in SHAPES else refusal(head)

    def read(self, place: int) -> Iterator[bytes]:
        """The content of a member; its length and check sum are compared. Raises Damaged at its end, and Locked."""
        info = self._infos[place]
        if info.flag_bits & 1:
            raise Locked("This file of the zip archive is encrypted; unpack it first.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Locked("This file of the zip archive is packed in a way that auditweb cannot read; unpack it first.")
        given = crc = 0
        for piece in self._content(info):
            piece = piece[: info.file_size - given]  # what is said to be there; the limits were held against that
            given += len(piece)
            crc = zlib.crc32(piece, crc)
            yield piece
            if given == info.file_size:
                break
        if given < info.file_size or crc != info.CRC:
            sums = "." if given < info.file_size else ", and they do not fit its check sum."
            raise Damaged(
                f"This file of the zip archive is damaged: {given:,} of {info.file_size:,} bytes could be read{sums}"
            )

    def _content(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        header = b"".join(self._pieces(info.header_offset, 30))
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            return
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + 30 + names
        packed = self._pieces(start, info.compress_size)
        if info.compress_type == zipfile.ZIP_STORED:
            yield from packed
            return
        unpacker = _Unpacker(-15)
        for piece in packed:
            yield from unpacker.feed(piece)
            if unpacker.over or unpacker.error:
                return


# What zipfile raises for directories that no program wrote.
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, EOFError, OSError, struct.error)


class _View(io.RawIOBase):
    """Bytes that lie elsewhere as the file that zipfile wants. Refuses to read a directory beyond all measure."""

    def __init__(self, size: int, pieces: Callable[[int, int], Iterator[bytes]]):
        super().__init__()
        self._size, self._pieces, self._at = size, pieces, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._at, self._size)[whence]
        if start + offset < 0:
            raise OSError("before the beginning")
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if size <= 0:
            return b""
        if size > MAX_DIRECTORY_BYTES:
            raise TooMuch(f"The directory of the archive has more than {MAX_DIRECTORY_BYTES:,} bytes.")
        data = b"".join(self._pieces(self._at, size))
        self._at += len(data)
        return data


# One object per line


def reshape(shape: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The objects of a JSON text as lines. *shape*: one of SHAPES.

    What is damaged becomes a line of its own that nobody can read, and its neighbours stay whole. Only what stands
    between objects is left out: white space, commas, the brackets of an array, record separators.
    """
    pieces = _without_bom(pieces)
    if shape == "cr":
        return _translated(pieces, bytes.maketrans(b"\r", b"\n"))
    if shape == "sequence":
        return _translated(_after_first(pieces), bytes.maketrans(b"\r\n\x1e", b"  \n"))
    return _Scanner(shape == "array").lines(pieces)


def _without_bom(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = iter(pieces)
    head = b""
    for piece in rest:
        head += piece
        if len(head) >= len(BOM):
            break
    yield head.removeprefix(BOM)
    yield from rest


def _after_first(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """*pieces* after the first record separator."""
    found = False
    for piece in pieces:
        if not found:
            _, separator, piece = piece.partition(_RS)
            found = bool(separator)
        yield piece


def _translated(pieces: Iterable[bytes], table: bytes) -> Iterator[bytes]:
    for piece in pieces:
        yield piece.translate(table)


_STRING = rb'"(?:[^"\\\r\n]++|\\[^\r\n])*+"'
# All up to the next bracket outside of strings, or to the quote of a string that does not end in this piece, or that
# is followed by what never follows a string: there the quotes are out of step. One step of Python for each bracket.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + _STRING + rb"(?=\s*+(?:[:,}\]]|\Z)))*+")
_ENDED = rb"(?=\s*+[:,}\]])"


def _object(depth: int) -> bytes:
    """A pattern for an object with up to *depth* containers in each other in it; "{" stands after ":" or in a list."""
    inner = rb"(?:" + _object(depth - 1) + rb"|" + _list(depth - 1) + rb")?+" if depth else b""
    return rb'\{(?:[^"{}\[\]:]++|' + _STRING + _ENDED + rb"|:\s*+" + inner + rb")*+\}"


def _list(depth: int) -> bytes:
    inner = rb"|" + _object(depth - 1) + rb"|" + _list(depth - 1) if depth else b""
    return rb'\[(?:[^"{}\[\]]++|' + _STRING + _ENDED + inner + rb")*+\]"


_USUAL = re.compile(_object(3))  # nearly every object, in one step: 1.2 to 1.6 x the speed of going by its brackets
_WHOLE_STRING = re.compile(_STRING)
_REST_OF_STRING = re.compile(rb'(?:[^"\\\r\n]++|\\[^\r\n])*+')
_BETWEEN = re.compile(rb"[\s,\x1e\0]*+")
_OTHER = re.compile(rb"(?:" + _STRING + rb'|[^"{}\[\],\r\n\x1e\0])++|["}\]]')
_NEXT_OBJECT = re.compile(rb'\}(?=[\s,]*+\{\s*+")|[\r\n](?=\s*+\{\s*+")')  # where an object surely begins
_INDENT = re.compile(rb"[ \t]*\r?\n([ \t]*)")
_ON_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
_DEEPEST = 10_000  # brackets; nothing that deep is read later, and the stack stays small
_HELD = 4096  # bytes that wait for the next piece where a piece ends at a bad place

_OPEN = {ord("}"): b"{", ord("]"): b"["}


class _Scanner:
    """Cuts a stream of JSON values into lines, by brackets and quotes alone."""

    def __init__(self, array: bool):
        self._array = array  # whether a "[" between objects opens a list of them
        self._inside = False  # of such a list
        self._stack = bytearray()  # opening brackets of the value that is being read
        self._before = b"\n"  # what came before this piece, back to a bracket, a text or a new line
        # How far the first object is indented, when that tells an object from what is in another one.
        self._margin: bytes | None = None
        self._first = True
        self._in_string = False
        self._hunting = False  # the quotes are out of step: all up to the next object is one broken line
        self._out: list[bytes] = []

    def lines(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        rest = b""
        for piece in pieces:
            rest = self._scan(rest + piece, last=False)
            if self._out:
                yield b"".join(self._out)
                self._out.clear()
        self._scan(rest, last=True)
        if self._stack:
            self._out.append(b"\n")
        yield b"".join(self._out)

    def _keep(self, data: bytes) -> None:
        self._out.append(data.translate(_ON_ONE_LINE) if b"\n" in data or b"\r" in data else data)

    def _end_line(self) -> None:
        self._out.append(b"\n")
        self._before = b""
        self._stack.clear()
        self._in_string = self._hunting = False

    def _scan(self, data: bytes, last: bool) -> bytes:
        """Take *data*; what of it must be seen again together with the piece after it."""
        at = 0
        while at < len(data):
            if self._hunting:
                at, waits = self._hunt(data, at, last)
            elif self._in_string:
                at, waits = self._string(data, at, last)
            elif self._stack:
                at, waits = self._value(data, at)
            else:
                at, waits = self._between(data, at, last)
            if waits:
                break
        return data[at:]

    def _between(self, data: bytes, at: int, last: bool) -> tuple[int, bool]:
        end = _BETWEEN.match(data, at).end()  # type: ignore[union-attr]  # it matches nothing at least
        self._before = (self._before + data[at:end])[-_HELD:]
        at = end
        if at == len(data):
            return at, False
        byte = data[at]
        if byte == 0x5B and self._array and not self._inside:
            self._inside, self._before = True, b"["
            return at + 1, False
        if byte == 0x5D and self._inside:
            self._inside, self._before = False, b"]"
            return at + 1, False
        if byte == 0x7B and (usual := _USUAL.match(data, at)) and not self._first:
            self._keep(usual[0])
            self._out.append(b"\n")
            self._before = b"}"
            return usual.end(), False
        if byte in b"{[":
            if self._first and byte == 0x7B:
                if len(data) - at < _HELD and not last:
                    return at, True
                self._first, self._margin = False, _margin(self._before, data, at)
            self._stack.append(byte)
            self._before = data[at : at + 1]
            self._out.append(self._before)
            return at + 1, False
        found = _OTHER.match(data, at)
        end = found.end() if found else len(data)
        if not last and end == len(data) and end - at < _HELD:
            return at, True  # it may go on
        self._keep(data[at:end].rstrip())
        self._end_line()
        return end, False

    def _value(self, data: bytes, at: int) -> tuple[int, bool]:
        """Up to the end of the value that is open, or of *data*."""
        begin, stack = at, self._stack
        while True:
            end = _TO_BRACKET.match(data, at).end()  # type: ignore[union-attr]
            if end == len(data):
                self._before = (self._before + data[at:end])[-_HELD:]
                self._keep(data[begin:])
                return end, False
            byte = data[end]
            if byte == 0x22:
                self._keep(data[begin : end + 1])
                self._before = b'"'
                self._hunting = _WHOLE_STRING.match(data, end) is not None
                self._in_string = not self._hunting
                return end + 1, False
            if byte in b"{[":
                if byte == 0x7B and self._begins_anew(data[at:end]):
                    # Whoever wrote the value that is open did not come to its end.
                    self._keep(data[begin:end].rstrip())
                    self._end_line()
                    return end, False
                stack.append(byte)
                if len(stack) > _DEEPEST:
                    self._keep(data[begin : end + 1])
                    self._end_line()
                    return end + 1, False
            elif byte == 0x5D and self._inside and b"[" not in stack:
                self._keep(data[begin:end].rstrip())  # the list ends within a value that does not
                self._end_line()
                return end, False
            elif (opened := stack.rfind(_OPEN[byte])) >= 0:
                del stack[opened:]
                if not stack:
                    self._keep(data[begin : end + 1])
                    self._end_line()
                    return end + 1, False
            self._before = data[end : end + 1]
            at = end + 1

    def _begins_anew(self, text: bytes) -> bool:
        """Whether a "{" behind *text* is the next object and none in the value that is open: no value stands there, or
        it stands where objects begin."""
        if not text.strip():
            text = self._before + text
        if text.rstrip()[-1:] not in ((b":",) if self._stack[-1] == 0x7B else (b"[", b",")):
            return True
        return self._margin is not None and b"\n" in text and text.rpartition(b"\n")[2] == self._margin

    def _string(self, data: bytes, at: int, last: bool) -> tuple[int, bool]:
        end = _REST_OF_STRING.match(data, at).end()  # type: ignore[union-attr]
        if end == len(data) or (data[end] == 0x5C and end + 1 == len(data) and not last):
            self._keep(data[at:end])
            return end, end < len(data)  # a backslash at the very end is read with what it escapes
        # Else a line ends within the string: its writer stopped there.
        end += data[end] == 0x22
        self._keep(data[at:end])
        self._in_string, self._before = False, b'"'
        return end, False

    def _hunt(self, data: bytes, at: int, last: bool) -> tuple[int, bool]:
        found = _NEXT_OBJECT.search(data, at)
        if found:
            self._keep(data[at : found.end()])
            self._end_line()
            return found.end(), False
        end = len(data) if last else max(at, len(data) - _HELD)
        self._keep(data[at:end])
        return end, True


def _margin(before: bytes, data: bytes, at: int) -> bytes | None:
    """The blanks on the line before the object at data[at], if all that is within it is indented more or on its line;
    else None."""
    if b"\n" not in before:
        return None
    margin = before.rpartition(b"\n")[2]
    within = _INDENT.match(data, at + 1)
    return margin if within is None or len(within[1]) > len(margin) else None
