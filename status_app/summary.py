"""The texts that RoomKit prints of a status log: the summary, and what an agent is given of its recent entries."""

import zlib
from collections.abc import Iterator

from django.db import transaction

from auditweb import pages
from auditweb.dumps import raw
from auditweb.formats import roomkit_text
from status_app.models import StatusBus, StatusSummary

FORMAT = "roomkit_status"
MEMORY = roomkit_text.BUS_MEMORY  # entries that RoomKit's own bus remembers


def text(bus: StatusBus, style: str = "upstream") -> Iterator[bytes]:
    """The summary of the last 500 entries in pieces of UTF-8. *style*: "upstream", or "docs"; else ValueError."""
    if style == "upstream":
        stored = StatusSummary.objects.filter(bus=bus, seq=bus.last_seq, revision=bus.revision).first()
        if stored:
            return iter([zlib.decompress(stored.text)])
    return roomkit_text.byte_pieces(roomkit_text.status_text(lambda: _raw_objects(bus), style=style))


def recent_text(bus: StatusBus, n: int = 10, style: str = "auto") -> Iterator[bytes]:
    """The last *n* entries as an agent would be given them. *style*: plain (RoomKit to 0.98), quoted, or auto."""
    clock = "naive" if bus.dumps.filter(naive_lines__gt=0).exists() else "local"
    return roomkit_text.byte_pieces(roomkit_text.recent_text(lambda: _raw_objects(bus), n, style, clock))


def without_end(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A text without the newline that ends it, which is its last piece."""
    before = None
    for piece in pieces:
        if before is not None:
            yield before
        before = piece


def _raw_objects(bus: StatusBus) -> Iterator[dict]:
    """The posts of *bus* in file order; of a long log the last MEMORY by time, which is all that any text shows."""
    newest: dict[int, list[int]] = {}
    if bus.entry_count > MEMORY:
        last = bus.entries.order_by("-sort_us", "-dump_id", "-line", "-id").values_list("dump_id", "line")[:MEMORY]
        for dump_id, line in last:
            newest.setdefault(dump_id, []).append(line)
    for dump in bus.dumps.order_by("pk"):
        if not newest:
            lines = (line for (line,) in pages.every(bus.entries.filter(dump=dump), "line"))
            yield from raw.objects(dump, lines, FORMAT)
        elif dump.pk in newest:
            yield from raw.objects(dump, sorted(newest[dump.pk]), FORMAT)


def make(bus: StatusBus) -> None:
    """Write and keep the summary of *bus* as of now."""
    pieces = roomkit_text.byte_pieces(roomkit_text.status_text(lambda: _raw_objects(bus)))
    packed = zlib.compress(b"".join(pieces), 6)
    with transaction.atomic():
        StatusSummary.objects.update_or_create(
            bus=bus, defaults={"seq": bus.last_seq, "revision": bus.revision, "text": packed}
        )
