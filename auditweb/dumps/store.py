"""The bytes of a dump: receiving them slice by slice, and giving them back by byte or by line number.

Keeps for itself how bytes are cut into compressed chunks and how a line number becomes an offset.
"""

import hashlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import Http404
from django.utils import timezone

from auditweb.dumps.models import Dump, DumpChunk, State, Upload
from auditweb.teams.models import Team, User

CHUNK_BYTES = 256 * 2**10  # one raw line costs at most two chunks to read (about 1 ms each)
ZLIB_LEVEL = 3  # 6 is 3 % smaller and twice as slow on real dumps


class Refused(Exception):
    """Bytes that cannot be taken; the message tells a person what to do."""


class WrongOffset(Refused):
    """A slice that does not continue where the dump ends; ``expected`` is where it does."""

    def __init__(self, expected: int):
        super().__init__(f"this dump continues at byte {expected}")
        self.expected = expected


class TooLarge(Refused):
    """More bytes than a dump may have, or than were announced."""


class NotReceiving(Refused):
    """The dump takes no more bytes: it is finished or cancelled."""


class Gone(Http404):
    """The dump was deleted since it was looked up: as missing as one that never was."""


def begin(
    team: Team,
    name: str,
    size: int | None = None,
    user: User | None = None,
    zone: str = "",
    session_key: str = "",
    bus_name: str = "",
) -> Dump:
    """A new dump that waits for its bytes; *size* (bytes) may be told ahead. Raises TooLarge."""
    if size is not None and size > settings.MAX_DUMP_BYTES:
        raise TooLarge(f"a dump may have {settings.MAX_DUMP_BYTES:,} bytes; this one has {size:,}")
    name = clean_name(name)
    with transaction.atomic():
        upload = Upload.objects.create(team=team, name=name, created_by=user)
        return Dump.objects.create(
            team=team,
            upload=upload,
            name=name,
            declared_size=size,
            created_by=user,
            zone=zone,
            zone_source="told" if zone else "",
            session_key=session_key[:200],
            bus_name=bus_name[:200],
        )


def clean_name(name: str) -> str:
    """The last part of a file name, storable and on one line; never empty."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    name = name.encode("utf-8", "replace").decode().strip()
    return name[:300] or "unnamed"


def append_bytes(dump: Dump, offset: int, data: bytes) -> int:
    """Keep *data* as the bytes from *offset* on; bytes received so far. Committed when this returns.

    Sending a slice again is harmless. Raises WrongOffset, TooLarge, NotReceiving, Gone.
    """
    with transaction.atomic():
        dump = present(dump, lock=True)
        if dump.state != State.RECEIVING:
            raise NotReceiving(f"this dump is {dump.state} and takes no more bytes")
        if offset + len(data) <= dump.size and data and read(dump, offset, len(data)) == data:
            return dump.size
        if offset != dump.size:
            raise WrongOffset(dump.size)
        limit = settings.MAX_DUMP_BYTES if dump.declared_size is None else dump.declared_size
        if offset + len(data) > limit:
            raise TooLarge(f"more bytes than the {limit:,} that this dump may have")
        _store(dump, data)
        dump.heartbeat_at = timezone.now()
        dump.save(update_fields=["size", "newlines", "chunk_count", "heartbeat_at"])
        return dump.size


def present(dump: Dump, lock: bool = False) -> Dump:
    """*dump* as it is now, its row locked until the transaction ends when *lock*. Raises Gone."""
    rows = Dump.objects.select_for_update(no_key=True) if lock else Dump.objects.all()
    found = rows.filter(pk=dump.pk).first()
    if found is None:
        raise Gone("this dump is gone")
    return found


def _store(dump: Dump, data: bytes) -> None:
    chunks = []
    for start in range(0, len(data), CHUNK_BYTES):
        piece = data[start : start + CHUNK_BYTES]
        newlines = piece.count(b"\n")
        chunks.append(
            DumpChunk(
                dump=dump,
                number=dump.chunk_count,
                offset=dump.size,
                size=len(piece),
                first_line=dump.newlines + 1,
                newlines=newlines,
                data=zlib.compress(piece, ZLIB_LEVEL),
            )
        )
        dump.chunk_count += 1
        dump.size += len(piece)
        dump.newlines += newlines
    DumpChunk.objects.bulk_create(chunks, batch_size=8)


def finish(dump: Dump) -> tuple[Dump, bool]:
    """All bytes are here: (the dump, queued for its import; False), or (the dump that had the same bytes; True).

    Raises NotReceiving, Gone, and WrongOffset when bytes that were announced are missing.
    """
    dump = present(dump)
    if dump.sha256:
        return dump, False  # asked again after a lost answer
    if dump.state != State.RECEIVING:
        raise NotReceiving(f"this dump is {dump.state}")
    if dump.declared_size is not None and dump.size != dump.declared_size:
        raise WrongOffset(dump.size)
    digest = hashlib.sha256()
    for piece in pieces(dump):
        digest.update(piece)
    sha256 = digest.hexdigest()
    hashed = Dump.objects.filter(pk=dump.pk, state=State.RECEIVING, size=dump.size)  # as long as nothing changed
    while True:
        try:
            with transaction.atomic():
                if hashed.update(state=State.QUEUED, sha256=sha256):
                    Upload.objects.filter(dumps=dump).update(sha256=sha256, size=dump.size)
                    return present(dump), False
        except IntegrityError:  # the same bytes were here before
            pass
        with transaction.atomic():
            first = Dump.objects.filter(team_id=dump.team_id, upload__sha256=sha256).first()
            mine = hashed.select_for_update(no_key=True).first()
            if first is not None and mine is not None:
                drop_bytes(mine)
                return first, True
        if mine is not None:
            continue  # whoever had the same bytes deleted them just now
        if first is None or (first.pk != dump.pk and Dump.objects.filter(pk=dump.pk).exists()):
            present(dump)
            raise NotReceiving("this dump changed while it was being finished")
        return first, first.pk != dump.pk  # another call of this function was faster


def drop_bytes(dump: Dump) -> None:
    """Forget a dump and its bytes; what was imported from it must be gone already."""
    with transaction.atomic():
        DumpChunk.objects.filter(dump=dump).delete()
        upload = dump.upload
        dump.delete()
        if upload is not None and not upload.dumps.exists():
            upload.delete()


def pieces(dump: Dump, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """The bytes of *dump* from *offset* on, chunk by chunk; *size* bytes, or all."""
    end = dump.size if size is None else min(dump.size, offset + size)
    number = _chunk_at(dump, offset)
    while offset < end and number is not None:
        chunk = DumpChunk.objects.filter(dump=dump, number=number).values_list("offset", "data").first()
        if chunk is None:
            return
        start, data = chunk[0], zlib.decompress(chunk[1])
        piece = data[offset - start : end - start]
        yield piece
        offset += len(piece)
        number += 1


def _chunk_at(dump: Dump, offset: int) -> int | None:
    found = DumpChunk.objects.filter(dump=dump, offset__lte=offset).order_by("-number").values_list("number", flat=True)
    return found.first()


def read(dump: Dump, offset: int, size: int) -> bytes:
    """*size* bytes from *offset* on (fewer at the end)."""
    return b"".join(pieces(dump, offset, size))


def line(dump: Dump, number: int) -> bytes | None:
    """Line *number* (from 1) exactly as received, without its newline; None when there is no such line.

    A line longer than the limit comes back up to the limit.
    """
    if number < 1:
        return None
    # Line n begins right after newline n - 1, which lies in the last chunk that begins in line n - 1 or before.
    chunks = DumpChunk.objects.filter(dump=dump, first_line__lte=max(1, number - 1))
    found = chunks.order_by("-first_line", "-number").first() if number > 1 else chunks.order_by("number").first()
    if found is None:
        return None
    data = zlib.decompress(found.data)
    start = 0
    for _ in range(number - found.first_line):
        start = data.find(b"\n", start) + 1
        if start == 0:
            return None
    offset = found.offset + start
    if offset >= dump.size:
        return None
    parts, length = [], 0
    for piece in pieces(dump, offset):
        end = piece.find(b"\n")
        parts.append(piece if end < 0 else piece[:end])
        length += len(parts[-1])
        if end >= 0 or length > settings.MAX_LINE_BYTES:
            break
    return b"".join(parts)[: settings.MAX_LINE_BYTES]


class Line(NamedTuple):
    """A line of a dump: number from 1, byte offset, size in bytes with its newline, bytes without it.

    ``raw`` is None for a line over the limit: its bytes are never in memory together.
    """

    number: int
    offset: int
    size: int
    raw: bytes | None


def lines(dump: Dump, offset: int = 0, number: int = 1, limit: int | None = None) -> Iterator[Line]:
    """The lines from byte *offset* on, the first of them having *number*. Holds at most *limit* bytes of a line."""
    limit = limit or settings.MAX_LINE_BYTES
    rest: list[bytes] = []
    held = 0  # bytes of the line that is still open, kept or not
    dropped = False
    for piece in pieces(dump, offset):
        parts = piece.split(b"\n")
        for part in parts[:-1]:
            if rest or dropped:
                held += len(part)
                raw = None if dropped or held > limit else b"".join([*rest, part])
                rest, dropped = [], False
                size, held = held + 1, 0
            else:
                size = len(part) + 1
                raw = part if len(part) <= limit else None
            yield Line(number, offset, size, raw)
            number += 1
            offset += size
        tail = parts[-1]
        if tail:
            held += len(tail)
            if dropped or held > limit:
                rest, dropped = [], True
            else:
                rest.append(tail)
    if held:
        yield Line(number, offset, held, None if dropped else b"".join(rest))
