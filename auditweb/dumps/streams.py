"""Streams: dumps that grow line by line while their producer runs, over HTTP, a socket, from a file or from Redis.

Keeps for itself what makes sending again harmless: a line has a number, what is there already is compared and skipped,
a gap is refused with the number expected. What a function returns from is committed.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import accumulate, count
from typing import NamedTuple

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from auditweb import log
from auditweb.dumps import intake, jobs, raw, sinks, store
from auditweb.dumps.models import Dump, State
from auditweb.formats.clock import Clock, ZoneEvidence
from auditweb.teams.models import Team, User

NAME_LENGTH = 200
SAID_LENGTH = 2000  # characters of an utterance that is not over; the line that ends it has all of them
LOST_AFTER = timedelta(hours=1)  # without a line or a heartbeat; a stream that comes back goes on


class Gap(store.Refused):
    """Lines that do not continue the stream; ``expected`` is the number of the next one."""

    def __init__(self, expected: int):
        super().__init__(f"this stream continues with line {expected}")
        self.expected = expected


class Differs(store.Refused):
    """A line that is there already was sent again with other bytes; ``line`` is its number."""

    def __init__(self, line: int):
        super().__init__(f"line {line} of this stream is another one")
        self.line = line


class Busy(store.Refused):
    """The dump is being imported again, by other rules; its producer may go on in a moment."""


class Taken(NamedTuple):
    """``through``: number of the last line that is stored; ``duplicates``: lines that were there before."""

    through: int
    duplicates: int
    dump: Dump


class Tail:
    """The last lines of a stream whose lock is held."""

    def __init__(self, dump: Dump):
        self._dump = dump

    def last(self, number: int) -> list[bytes]:
        """Up to *number* last lines, oldest first, without their newlines."""
        first = max(1, self._dump.lines - number + 1)
        return list(_stored(self._dump, first, self._dump.lines))


def open(
    team: Team,
    name: str,
    user: User | None = None,
    *,
    session: str = "",
    bus: str = "",
    zone: str = "",
    title: str = "",
) -> Dump:
    """The stream *name* of *team*, made if there is none; only then the rest counts: see ``store.begin``.

    Raises ValueError with a sentence for a name or zone that cannot be.
    """
    found = find(team, name)
    if found is not None:
        return found
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a stream has a name of 1 to {NAME_LENGTH} printable characters")
    jobs.check_rules(zone, None, None)
    made = {
        "name": store.clean_name(title or name),
        "state": State.LIVE,
        "created_by": user,
        "heartbeat_at": timezone.now(),
        "started_at": timezone.now(),
        "zone": zone,
        "zone_source": "told" if zone else "",
        "session_key": store.session_key_of(team, session),
        "bus_name": bus[:200],
    }
    with contextlib.suppress(IntegrityError), log.writing():
        return Dump.objects.create(team=team, stream=name, **made)
    return Dump.objects.get(team=team, stream=name)  # another process was faster


def find(team: Team, name: str) -> Dump | None:
    """The stream *name* of *team*."""
    return Dump.objects.filter(team=team, stream=name).first() if name and "\0" not in name else None


def append(dump: Dump, first: int | None, lines: Sequence[bytes], newline: bool = True) -> Taken:
    """Store *lines* (without their newlines) as those from number *first* on; None: as the next ones.

    Lines that are there already are skipped. *newline* False: the last one has none, and nothing can follow it.
    Raises Gap, Differs, Busy, store.NotReceiving, store.TooLarge, store.Gone.
    """
    with log.writing():
        dump = _locked(dump)
        return _append(dump, dump.lines + 1 if first is None else first, lines, newline)


def append_if_there(team_id: int, name: str, first: int, lines: Sequence[bytes]) -> Taken | None:
    """``append`` to the stream *name* of a team; None when there is no such stream."""
    with log.writing():
        dump = log.locked(Dump, team_id=team_id, stream=name) if name and "\0" not in name else None
        return None if dump is None else _append(_growing(dump), first, lines, True)


def append_to(team: Team, name: str, user: User | None, first: int, lines: Sequence[bytes], **options: str) -> Taken:
    """``append`` to the stream *name* of *team*, which is made first if there is none: see ``open``."""
    if (taken := append_if_there(team.pk, name, first, lines)) is not None:
        return taken
    if first != 1:
        raise Gap(1)
    return append(open(team, name, user, **options), first, lines)


def append_with(dump: Dump, choose: Callable[[Tail], Sequence[bytes]]) -> Taken:
    """Store the lines that *choose* finds to follow on the Tail; nobody else appends meanwhile. Raises like append."""
    with log.writing():
        dump = _locked(dump)
        return _append(dump, dump.lines + 1, choose(Tail(dump)), True)


def heartbeat(dump: Dump) -> int:
    """Its producer is there and has nothing to say; the number of lines that are stored."""
    with log.writing():
        dump = _locked(dump)
        dump.heartbeat_at = timezone.now()
        dump.save(update_fields=["heartbeat_at"])
        if dump.state == State.LIVE:
            for sink in sinks.all_sinks():
                sink.heard(dump)
        return dump.lines


def provisional(dump: Dump, role: str, text: str) -> None:
    """Show watchers what *role* has said so far of an utterance that is not over; nothing of it is kept."""
    with log.writing():
        for sink in sinks.all_sinks():
            sink.said(dump, role, text[:SAID_LENGTH])


def end(dump: Dump) -> int:
    """Its producer is done: bring in order what came out of order; the number of lines that are stored.

    Lines that come all the same open it again. To end twice is harmless.
    """
    whole, size = hashlib.sha256(), 0
    for piece in store.pieces(store.present(dump)):  # most of it before anybody has to wait
        whole.update(piece)
        size += len(piece)
    with log.writing():
        dump = _locked(dump)
        if dump.state != State.LIVE:
            return dump.lines
        for piece in store.pieces(dump, size):
            whole.update(piece)
        _settle_zone(dump, told=dump.zone_source == "told")
        for sink in sinks.all_sinks():
            sink.settle(dump)
        dump.state, dump.sha256, dump.finished_at = State.DONE, whole.hexdigest(), timezone.now()
        dump.save(update_fields=["state", "sha256", "finished_at"])
        for sink in sinks.all_sinks():
            sink.ended(dump)
    for sink in sinks.all_sinks():
        sink.finish(dump)
    return dump.lines


def end_lost() -> int:
    """End the streams whose producers were not heard for LOST_AFTER, at most 20; how many those were."""
    lost = Dump.objects.filter(state=State.LIVE, heartbeat_at__lt=timezone.now() - LOST_AFTER)
    found = list(lost.order_by("heartbeat_at")[:20])
    for dump in found:
        with contextlib.suppress(store.Gone, store.Refused):
            end(dump)
    return len(found)


def _locked(dump: Dump) -> Dump:
    found = log.locked(Dump, id=dump.pk)
    if found is None:
        raise store.Gone("this stream is gone")
    return _growing(found)


def _growing(dump: Dump) -> Dump:
    """*dump* if it takes lines now."""
    if dump.state in (State.QUEUED, State.IMPORTING):
        raise Busy("this stream is being imported again; it takes new lines when that is done")
    if not dump.stream or dump.state not in (State.LIVE, State.DONE):
        raise store.NotReceiving(f"this dump is {dump.state} and takes no more lines")
    return dump


def _append(dump: Dump, first: int, lines: Sequence[bytes], newline: bool) -> Taken:
    if first > dump.lines + 1 or first < 1:
        raise Gap(dump.lines + 1)
    again = min(len(lines), dump.lines + 1 - first)
    if again:
        for number, line, stored in zip(count(first), lines, _stored(dump, first, first + again - 1), strict=False):
            if line != stored:
                raise Differs(number)
        lines = lines[again:]
    if not lines:
        return Taken(dump.lines, again, dump)
    if dump.newlines < dump.lines:
        raise store.NotReceiving("the last line of this stream has no newline: nothing can follow it")
    data = b"\n".join(lines) + (b"\n" if newline else b"")
    if dump.size + len(data) > settings.MAX_DUMP_BYTES:
        raise store.TooLarge(f"more bytes than the {settings.MAX_DUMP_BYTES:,} that a dump may have")
    batch = _numbered(dump, lines, newline)
    if dump.checkpoint.get("retime"):  # somebody told another zone or offset since
        _wind_clock(dump)
    store.grow(dump, data)
    _take(dump, batch)
    state = {"state": State.LIVE, "finished_at": None, "sha256": ""} if dump.state != State.LIVE else {}
    for name, value in state.items():
        setattr(dump, name, value)
    log.save(dump, ["size", "newlines", "chunk_count", *intake.CHECKPOINT, *state])
    return Taken(dump.lines, again, dump)


def _numbered(dump: Dump, lines: Sequence[bytes], newline: bool) -> list[store.Line]:
    """*lines* as those behind the last one of *dump*."""
    sizes = [len(line) + 1 for line in lines]
    if not newline:
        sizes[-1] -= 1
    offsets = accumulate(sizes, initial=dump.size)
    limit = settings.MAX_LINE_BYTES
    kept = (line if len(line) <= limit else None for line in lines)
    return [store.Line(*line) for line in zip(count(dump.lines + 1), offsets, sizes, kept, strict=False)]


def _take(dump: Dump, batch: list[store.Line]) -> None:
    found = intake.read(batch)
    state = dump.checkpoint
    evidence = ZoneEvidence(state.get("evidence"))
    if not dump.zone_source and not dump.naive_lines:
        # What is stored already is untouched by a zone for naive times, so the first of them may choose it.
        dump.zone = _guess(evidence, found)
    was = dump.state
    dump.state = State.LIVE  # the sinks see that what it feeds is live
    intake.take(dump, batch, found, Clock(dump.zone, dump.offset_ms, state.get("clock")), evidence)
    dump.state = was
    # Looked at again whenever the stream has doubled: times that were shown in the wrong zone are all placed anew.
    if dump.zone_source != "told" and dump.naive_lines and dump.lines >= 2 * state.get("zone_at", 0):
        _settle_zone(dump, told=False)
        dump.checkpoint["zone_at"] = dump.lines
    if not dump.zone_source and dump.naive_lines:
        dump.zone_source = "inferred" if dump.zone else "assumed"
        dump.save(update_fields=["zone", "zone_source"])


def _guess(evidence: ZoneEvidence, found: Sequence[intake.Found]) -> str:
    """The zone that the lines of a batch show together with those before it, as far as *evidence* has seen them."""
    ahead = ZoneEvidence(evidence.state())
    for records in found:
        if isinstance(records, list):
            for record in records:
                ahead.see(record)
    return ahead.zone()


def _settle_zone(dump: Dump, told: bool) -> None:
    """Place all lines again if they show another zone than the one in which they were read so far."""
    zone, source = (dump.zone, "told") if told else intake.own_zone(dump)
    if zone == dump.zone:
        if source != dump.zone_source:
            dump.zone_source = source
            dump.save(update_fields=["zone_source"])
        return
    intake.set_zone(dump, zone, source)
    _wind_clock(dump)
    dump.save(update_fields=["checkpoint"])


def _wind_clock(dump: Dump) -> None:
    """Let the clock of the checkpoint be one that has read all lines so far by the present rules."""
    clock = Clock(dump.zone, dump.offset_ms)
    for placed in raw.placed(dump):
        clock.place(placed.record)
    dump.checkpoint |= {"clock": clock.state(), "retime": False}


def _stored(dump: Dump, first: int, last: int):
    """The lines *first* to *last* of *dump* as stored, each without its newline."""
    offset = store.offset_of(dump, first)
    if offset is None:
        return
    for line in store.lines(dump, offset, first, settings.MAX_DUMP_BYTES):
        if line.number > last:
            return
        yield line.raw
