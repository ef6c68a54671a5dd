"""The texts that RoomKit prints of a status log: the summary, and what an agent is given of its recent entries."""

import zlib
from collections.abc import Iterator

from django.db import transaction

from auditweb import pages
from auditweb.dumps import raw
from auditweb.formats import roomkit_text
from status_app.models import StatusBus, StatusSummary

FORMAT = "roomkit_status"


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


def _raw_objects(bus: StatusBus) -> Iterator[dict]:
    for dump in bus.dumps.order_by("pk"):
        yield from raw.objects(dump, (line for (line,) in pages.every(bus.entries.filter(dump=dump), "line")), FORMAT)


def make(bus: StatusBus) -> None:
    """Write and keep the summary of *bus* as of now."""
    pieces = roomkit_text.byte_pieces(roomkit_text.status_text(lambda: _raw_objects(bus)))
    packed = zlib.compress(b"".join(pieces), 6)
    with transaction.atomic():
        StatusSummary.objects.update_or_create(
            bus=bus, defaults={"seq": bus.last_seq, "revision": bus.revision, "text": packed}
        )
