"""The bytes of a dump: receiving them slice by slice, and giving them back by byte or by line number.

Keeps for itself how bytes are cut into compressed chunks, how a line number becomes an offset, and how a longer file
continues the dump that it begins with.
"""

import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.http import Http404
from django.utils import timezone

from auditweb import log
from auditweb.dumps.models import Dump, DumpChunk, Layer, State, Upload
from auditweb.formats import containers
from auditweb.teams.models import Team, User

CHUNK_BYTES = 256 * 2**10  # one raw line costs at most two chunks to read (about 1 ms each)
PART_BYTES = 16 * CHUNK_BYTES  # unpacked lines that are stored together, about 50 ms
CHUNK_COLUMNS = ("dump_id", "layer", "number", "offset", "size", "first_line", "newlines", "data")
MERGED = 64  # chunks of a stream, which comes line by line, that become one
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
    offset_ms: int = 0,
    stamp: str = "",
    join: bool = False,
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
            offset_ms=offset_ms,
            stamp=stamp,
            join=join,
            session_key=session_key_of(team, session_key),
            bus_name=bus_name[:200],
        )


def session_key_of(team: Team, told: str) -> str:
    """The key of the session that *told* names: its id, or a key, which may be that of no session yet.

    The id of another team's session is a key that nobody has.
    """
    found = Dump.objects.filter(team=team, sessions__public_id=told).values_list("sessions__key", flat=True)
    return (found.first() if told else None) or told[:200]


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


def _store(dump: Dump, data: bytes, layer: Layer = Layer.RECEIVED) -> None:
    chunks = []
    for start in range(0, len(data), CHUNK_BYTES):
        piece = data[start : start + CHUNK_BYTES]
        newlines = piece.count(b"\n")
        packed = zlib.compress(piece, ZLIB_LEVEL)
        chunks.append(
            (dump.pk, int(layer), dump.chunk_count, dump.size, len(piece), dump.newlines + 1, newlines, packed)
        )
        dump.chunk_count += 1
        dump.size += len(piece)
        dump.newlines += newlines
    log.insert(DumpChunk, CHUNK_COLUMNS, chunks)


def grow(dump: Dump, data: bytes) -> None:
    """Keep *data* behind the bytes of a stream; its ``size``, ``newlines`` and ``chunk_count`` are not saved.

    In a transaction, under the lock on the dump. What comes line by line is merged into chunks of the usual size.
    """
    _store(dump, data)
    if dump.chunk_count % MERGED:
        return
    small: list[DumpChunk] = []
    for chunk in DumpChunk.objects.filter(dump=dump, layer=Layer.RECEIVED).order_by("-number")[:MERGED]:
        if chunk.size > CHUNK_BYTES // 2:
            break
        small.insert(0, chunk)
    if len(small) > 1:
        first = small[0]
        dump.chunk_count, dump.size, dump.newlines = first.number, first.offset, first.first_line - 1
        DumpChunk.objects.filter(pk__in=[chunk.pk for chunk in small]).delete()
        _store(dump, b"".join(zlib.decompress(chunk.data) for chunk in small))


def finish(dump: Dump) -> tuple[Dump, bool]:
    """All bytes are here: (the dump, queued for its import; False), or (the dump that had the same bytes; True).

    The dump is another one, and ``grown``, when these bytes begin with all of an earlier dump: that one goes on with
    the rest. Raises NotReceiving, Gone, and WrongOffset when bytes that were announced are missing.
    """
    dump = present(dump)
    if dump.sha256:
        return dump, False  # asked again after a lost answer
    if dump.state != State.RECEIVING:
        raise NotReceiving(f"this dump is {dump.state}")
    if dump.declared_size is not None and dump.size != dump.declared_size:
        raise WrongOffset(dump.size)
    still = Dump.objects.filter(pk=dump.pk, state=State.RECEIVING, size=dump.size)  # as long as nothing changed
    while True:
        container, sha256, head, earlier = _hash(dump)
        try:
            with transaction.atomic():
                if earlier is not None and (grown := _grow(earlier, still, sha256)) is not None:
                    return grown, False
                done = {"state": State.QUEUED, "sha256": sha256, "head": head, "container": container}
                if earlier is None and still.update(**done):
                    Upload.objects.filter(dumps=dump).update(sha256=sha256, size=dump.size)
                    return present(dump), False
        except IntegrityError:  # the same bytes were here before
            pass
        with transaction.atomic():
            same = Q(upload__sha256=sha256) | Q(earlier_uploads__sha256=sha256)
            first = Dump.objects.filter(same, team_id=dump.team_id).order_by("pk").first()
            mine = still.select_for_update(no_key=True).first()
            if first is not None and mine is not None:
                drop_bytes(mine)
                return first, True
        if mine is not None:
            continue  # whoever had the same bytes deleted them just now, or what these continue has changed
        if first is None or (first.pk != dump.pk and Dump.objects.filter(pk=dump.pk).exists()):
            present(dump)
            raise NotReceiving("this dump changed while it was being finished")
        return first, first.pk != dump.pk  # another call of this function was faster


def _hash(dump: Dump) -> tuple[str, str, str, Dump | None]:
    """What the lines of *dump* are in, its SHA-256, that of line 1 ("" in an archive), the dump that it continues."""
    start, content = containers.look(pieces(dump))
    container = containers.kind(start)
    whole, first = hashlib.sha256(), hashlib.sha256()
    head, at = "", 0
    shorter: list[Dump] = []
    found = None
    for piece in content:
        if not head and not container:
            line, newline, _ = piece.partition(b"\n")
            first.update(line)
            if newline:
                head = first.hexdigest()
                shorter = list(_same_head(dump, head).order_by("-size"))
        while shorter and shorter[-1].size <= at + len(piece):
            earlier = shorter.pop()
            cut = earlier.size - at
            whole.update(piece[:cut])
            at, piece = at + cut, piece[cut:]
            if whole.hexdigest() == earlier.sha256 and read(earlier, earlier.size - 1, 1) == b"\n":
                found = earlier
        whole.update(piece)
        at += len(piece)
    return container, whole.hexdigest(), head, found


def _same_head(dump: Dump, head: str) -> QuerySet[Dump]:
    """The dumps that *dump* may continue, by their first line. What was told about it must fit them."""
    rules = ("zone", "offset_ms", "stamp", "join", "session_key", "bus_name")
    known = {name: getattr(dump, name) for name in rules if getattr(dump, name)}
    team = Dump.objects.filter(team_id=dump.team_id, head=head, container="", **known)
    return team.filter(size__lt=dump.size).exclude(sha256="").exclude(state=State.LIVE)


def _grow(earlier: Dump, still: QuerySet[Dump], sha256: str) -> Dump | None:
    """*earlier* with the rest of the bytes of the dump in *still*, which goes; None when either has changed.

    In a transaction. An import that runs goes on to the new end by itself. Raises IntegrityError when the bytes are an
    upload already.
    """
    same = Dump.objects.filter(pk=earlier.pk, size=earlier.size, sha256=earlier.sha256)
    grown = same.select_for_update(no_key=True).first()
    longer = still.select_for_update(no_key=True).first()
    if grown is None or longer is None:
        return None
    Upload.objects.filter(dumps=longer).update(sha256=sha256, size=longer.size)
    Upload.objects.filter(dumps=grown).update(grew_into=grown)
    _move_rest(longer, grown)
    DumpChunk.objects.filter(dump=longer).delete()
    longer.delete()
    grown.upload_id, grown.sha256 = longer.upload_id, sha256
    grown.size, grown.newlines, grown.declared_size = longer.size, longer.newlines, None
    if grown.state not in (State.QUEUED, State.IMPORTING):
        grown.state, grown.error, grown.finished_at, grown.started_at = State.QUEUED, "", None, None
        grown.lease_until, grown.attempts = 0, 0
        grown.checkpoint["before"] = grown.lines
        again = ["state", "error", "finished_at", "started_at", "lease_until", "attempts", "checkpoint"]
        grown.save(update_fields=again)
    grown.save(update_fields=["upload", "sha256", "size", "newlines", "chunk_count", "declared_size"])
    grown.grown = True
    return grown


def _move_rest(longer: Dump, grown: Dump) -> None:
    """Give the chunks of *longer* behind the end of *grown* to it. Both begin with the same bytes, so offsets and line
    numbers fit; the chunk that the end lies in is cut."""
    end = grown.size
    cut = DumpChunk.objects.filter(dump=longer, offset__lt=end).order_by("-number").first()
    if cut is not None and cut.offset + cut.size > end:
        rest = zlib.decompress(cut.data)[end - cut.offset :]
        newlines = rest.count(b"\n")
        DumpChunk.objects.create(
            dump=grown,
            number=grown.chunk_count,
            offset=end,
            size=len(rest),
            first_line=cut.first_line + cut.newlines - newlines,
            newlines=newlines,
            data=zlib.compress(rest, ZLIB_LEVEL),
        )
        grown.chunk_count += 1
    after = DumpChunk.objects.filter(dump=longer, offset__gte=end)
    first = after.order_by("number").values_list("number", flat=True).first()
    if first is not None:
        grown.chunk_count += after.update(dump=grown, number=F("number") + (grown.chunk_count - first))


def drop_bytes(dump: Dump) -> None:
    """Forget a dump and its bytes; what was imported from it must be gone already.

    The archive that it was in stays as long as another member of it does.
    """
    with transaction.atomic():
        upload = dump.upload
        other = upload.dumps.exclude(pk=dump.pk).order_by("pk").first() if upload is not None else None
        if other is not None:
            DumpChunk.objects.filter(dump=dump, layer=Layer.RECEIVED).update(dump=other)
        DumpChunk.objects.filter(dump=dump).delete()
        dump.delete()
        if upload is not None and other is None:
            upload.delete()


def members(dump: Dump) -> list[Dump]:
    """The dumps that came out of the same archive, in its order, with *dump* itself; only *dump* when it is no zip."""
    if not dump.container.startswith("zip"):
        return [dump]
    return list(Dump.objects.filter(upload__dumps=dump).order_by("pk"))


def received_size(dump: Dump) -> int:
    """Bytes that were received, of an archive those of all its members."""
    return dump.upload.size if dump.container and dump.upload else dump.size


def received(dump: Dump, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """The bytes as received from *offset* on, an archive still packed; *size* bytes, or all."""
    if not dump.container:
        return pieces(dump, offset, size)
    chunks = DumpChunk.objects.filter(dump__upload__dumps=dump, layer=Layer.RECEIVED)
    end = received_size(dump)
    return _pieces(chunks, offset, end if size is None else min(end, offset + size))


def replace_lines(dump: Dump, content: Iterable[bytes], hold: Callable[[], None]) -> None:
    """Store *content* as the lines of an archive, in place of what an earlier try left. ``size``, ``newlines`` and
    ``chunk_count`` of *dump* count them, but are not saved. *hold* is called in every transaction."""
    old = DumpChunk.objects.filter(dump=dump, layer=Layer.LINES)
    while numbers := list(old.values_list("pk", flat=True)[:64]):
        with transaction.atomic():
            hold()
            DumpChunk.objects.filter(pk__in=numbers).delete()
    dump.size = dump.newlines = dump.chunk_count = 0
    waiting: list[bytes] = []
    held = 0
    for piece in content:
        waiting.append(piece)
        held += len(piece)
        while held >= PART_BYTES:
            data = b"".join(waiting)
            with transaction.atomic():
                hold()
                _store(dump, data[:PART_BYTES], Layer.LINES)
            waiting, held = [data[PART_BYTES:]], held - PART_BYTES
    with transaction.atomic():
        hold()
        _store(dump, b"".join(waiting), Layer.LINES)


def pieces(dump: Dump, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
    """The bytes of the lines of *dump* from byte *offset* on, chunk by chunk; *size* bytes, or all."""
    end = dump.size if size is None else min(dump.size, offset + size)
    return _pieces(DumpChunk.objects.filter(dump=dump, layer=dump.layer), offset, end)


def _pieces(chunks: QuerySet[DumpChunk], offset: int, end: int) -> Iterator[bytes]:
    number = _number_at(chunks, offset)
    together = 1  # chunks of one query: whoever reads on gets more, whoever wants one line gets no more than it needs
    while offset < end and number is not None:
        before = offset
        found = chunks.filter(number__range=(number, number + together - 1)).order_by("number")
        for found_number, start, size, packed in list(found.values_list("number", "offset", "size", "data")):
            if not start <= offset < start + size:
                break
            piece = zlib.decompress(packed)[offset - start : end - start]
            yield piece
            offset += len(piece)
            number = found_number + 1
            if offset >= end:
                return
        if offset == before:  # small chunks of a stream were merged meanwhile, or bytes are missing
            number = _number_at(chunks, offset)
        together = min(2 * together, 8)


def _number_at(chunks: QuerySet[DumpChunk], offset: int) -> int | None:
    """The number of the chunk that holds the byte at *offset*."""
    found = chunks.filter(offset__lte=offset).order_by("-number").values_list("number", "offset", "size").first()
    return found[0] if found and offset < found[1] + found[2] else None


def read(dump: Dump, offset: int, size: int) -> bytes:
    """*size* bytes from *offset* on (fewer at the end)."""
    return b"".join(pieces(dump, offset, size))


def line(dump: Dump, number: int) -> bytes | None:
    """Line *number* (from 1) exactly as received, without its newline; None when there is no such line.

    A line longer than the limit comes back up to the limit.
    """
    offset = offset_of(dump, number)
    if offset is None or offset >= dump.size:
        return None
    parts, length = [], 0
    for piece in pieces(dump, offset):
        end = piece.find(b"\n")
        parts.append(piece if end < 0 else piece[:end])
        length += len(parts[-1])
        if end >= 0 or length > settings.MAX_LINE_BYTES:
            break
    return b"".join(parts)[: settings.MAX_LINE_BYTES]


def offset_of(dump: Dump, number: int) -> int | None:
    """The byte at which line *number* (from 1) begins, or would begin behind the last newline; None beyond that."""
    if number < 1:
        return None
    # Line n begins right after newline n - 1, which lies in the last chunk that begins in line n - 1 or before.
    chunks = DumpChunk.objects.filter(dump=dump, layer=dump.layer, first_line__lte=max(1, number - 1))
    found = chunks.order_by("-first_line", "-number").first() if number > 1 else chunks.order_by("number").first()
    if found is None:
        return None
    data = zlib.decompress(found.data)
    start = 0
    for _ in range(number - found.first_line):
        start = data.find(b"\n", start) + 1
        if start == 0:
            return None
    return found.offset + start


class Line(msgspec.Struct, gc=False):  # made in half the time of a tuple with names
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
        tail = parts.pop()
        if parts and held:
            held += len(parts[0])
            whole = None if dropped or held > limit else b"".join([*rest, parts[0]])
            yield Line(number, offset, held + 1, whole)
            number += 1
            offset += held + 1
            rest, dropped, held = [], False, 0
            del parts[0]
        if parts:
            sizes = [len(part) + 1 for part in parts]
            raws = parts if len(piece) <= limit else [part if len(part) <= limit else None for part in parts]
            yield from map(Line, itertools.count(number), itertools.accumulate(sizes, initial=offset), sizes, raws)
            number += len(parts)
            offset += sum(sizes)
        if tail:
            held += len(tail)
            if dropped or held > limit:
                rest, dropped = [], True
            else:
                rest.append(tail)
    if held:
        yield Line(number, offset, held, None if dropped else b"".join(rest))
