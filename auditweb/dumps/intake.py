"""Lines into the sinks: what a batch of lines holds, and how a dump moves on when that is stored.

Shared by the import of a finished dump (jobs.py) and the growth of a stream (streams.py), so that both come out alike.
"""

from collections import Counter
from collections.abc import Sequence

from django.conf import settings
from django.utils import timezone

from auditweb import formats
from auditweb.dumps import sinks
from auditweb.dumps.models import BadLine, Dump
from auditweb.dumps.sinks import Placed
from auditweb.dumps.store import Line
from auditweb.formats.clock import Clock, ZoneEvidence
from auditweb.formats.record import BadLine as BadLineError
from auditweb.formats.record import Record

CHECKPOINT = (
    "lines", "bytes_read", "blank_lines", "bad_line_count", "naive_lines", "events", "records", "checkpoint",
    "heartbeat_at",
)  # fmt: skip

Found = list[Record] | BadLineError | None


def read(batch: Sequence[Line]) -> list[Found]:
    """What each line of *batch* holds: records, None for a blank line, the reason why it cannot be read."""
    limit = settings.MAX_LINE_BYTES
    found: list[Found] = []
    for line in batch:
        try:
            if line.raw is None:
                raise BadLineError(f"longer than the limit of {limit:,} bytes")
            found.append(formats.read_line(line.raw, line.number == 1, limit))
        except BadLineError as e:
            found.append(e)
    return found


def take(dump: Dump, batch: Sequence[Line], found: Sequence[Found], clock: Clock, evidence: ZoneEvidence) -> None:
    """Give what was *found* in the lines of *batch* to the sinks, and set the fields CHECKPOINT of *dump*, which the
    caller saves in the same transaction."""
    placed: list[Placed] = []
    bad: list[BadLine] = []
    blank = naive = 0
    counts = Counter(dump.records)
    for line, records in zip(batch, found, strict=True):
        if records is None:
            blank += 1
            continue
        if isinstance(records, BadLineError):
            reason = records.reason[:300]
            bad.append(BadLine(dump=dump, line=line.number, offset=line.offset, size=line.size, reason=reason))
            continue
        counts[records[0].format] += 1
        for record in records:
            evidence.see(record)
            at_us, sort_us, quality = clock.place(record)
            naive += record.ts_us is not None and not record.ts_aware
            placed.append(Placed(line.number, record, at_us, sort_us, quality))
    last = batch[-1]
    sink_states = dump.checkpoint.get("sinks", {})
    for sink in sinks.all_sinks():
        dump.events += sink.store(dump, placed, sink_states.setdefault(sink.name, {}))
    if bad:
        BadLine.objects.bulk_create(bad)
    dump.lines = last.number
    dump.bytes_read = last.offset + last.size
    dump.blank_lines += blank
    dump.bad_line_count += len(bad)
    dump.naive_lines += naive
    dump.records = dict(counts)
    dump.checkpoint |= {"clock": clock.state(), "evidence": evidence.state(), "sinks": sink_states}
    dump.heartbeat_at = timezone.now()


def set_zone(dump: Dump, zone: str, source: str) -> None:
    """Read the naive times of *dump* in *zone* from now on, those that are stored too. In a transaction."""
    dump.zone, dump.zone_source = zone, source
    # The clock of a checkpoint has seen earlier lines in the old zone: an import that goes on from it ends with
    # placing them all again.
    dump.checkpoint["retime"] = dump.lines > 0
    dump.save(update_fields=["zone", "zone_source", "checkpoint"])
    for sink in sinks.all_sinks():
        sink.retime(dump)


def own_zone(dump: Dump) -> tuple[str, str]:
    """The zone that the lines of *dump* show by themselves, and where it comes from."""
    inferred = ZoneEvidence(dump.checkpoint.get("evidence")).zone()
    return inferred, "inferred" if inferred else "assumed" if dump.naive_lines else ""
