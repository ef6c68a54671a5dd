"""Imports that survive: claim a dump, read its lines from the checkpoint, hand records to the sinks, batch by batch.

The row of the dump is the queue and decides who works: a lease that every batch renews in its own transaction.
Celery only wakes a worker; a killed worker's lease runs out and ``sweep`` starts the dump again where it stopped.
"""

import contextlib
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from itertools import islice

from django.conf import settings
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from auditweb import formats
from auditweb.dumps import sinks, store
from auditweb.dumps.models import BadLine, Dump, State
from auditweb.dumps.sinks import Placed
from auditweb.formats.clock import Clock, ZoneEvidence
from auditweb.formats.record import BadLine as BadLineError
from auditweb.ids import public_id

logger = logging.getLogger(__name__)

BATCH = 2000  # lines per transaction: about 50 ms, so a live writer beside an import waits little
GUESS_LINES = 2000  # looked at for the zone before the first one is stored
BATCH_BYTES = 4 * 2**20
CHECKPOINT = (
    "lines", "bytes_read", "blank_lines", "bad_line_count", "naive_lines", "events", "records", "checkpoint",
    "heartbeat_at", "attempts", "lease_until",
)  # fmt: skip
PAUSE = 0.002  # seconds between batches, so that a waiting SQLite writer gets its turn


class LeaseLost(Exception):
    """Another worker took the dump over, or a person cancelled it; nothing of this batch was stored."""


def wake(dump: Dump) -> None:
    """Ask a worker to import *dump* once the transaction has committed; a lost message is found by ``sweep``."""
    from auditweb.celery import send
    from auditweb.dumps.tasks import import_dump

    send(import_dump, dump.pk)


def sweep() -> int:
    """Wake a worker for every dump that is due: queued, or importing with a lease that ran out. Returns how many."""
    due = Dump.objects.filter(state__in=[State.QUEUED, State.IMPORTING], lease_until__lt=time.time())
    found = list(due.order_by("id")[:20])
    for dump in found:
        wake(dump)
    drop_abandoned()
    return len(found)


def drop_abandoned() -> int:
    """Forget dumps whose bytes stopped coming ABANDONED_SECONDS ago, at most 20; how many there were."""
    limit = timezone.now() - timedelta(seconds=settings.ABANDONED_SECONDS)
    quiet = Dump.objects.filter(state=State.RECEIVING, created_at__lt=limit)
    quiet = quiet.filter(Q(heartbeat_at=None) | Q(heartbeat_at__lt=limit))
    dropped = 0
    for pk in list(quiet.order_by("created_at").values_list("pk", flat=True)[:20]):
        with transaction.atomic():
            dump = quiet.select_for_update(skip_locked=True, no_key=True).filter(pk=pk).first()
            if dump is not None:
                logger.info("dump %s was never finished: its %d bytes are dropped", dump.public_id, dump.size)
                store.drop_bytes(dump)
                dropped += 1
    return dropped


def claim(dump_id: int) -> Dump | None:
    """The dump with a fresh lease in the caller's name, or None when it is not due. One conditional UPDATE decides.

    A dump whose worker died MAX_ATTEMPTS times without moving the checkpoint is given up (state failed).
    """
    with transaction.atomic():
        return _claim(dump_id)


def _claim(dump_id: int) -> Dump | None:
    token, now = public_id(), time.time()
    due = Dump.objects.filter(pk=dump_id, state__in=[State.QUEUED, State.IMPORTING], lease_until__lt=now)
    # Whoever holds the row is alive or will be ended by the database; waiting here would block a thread for as long.
    if not due.select_for_update(skip_locked=True, no_key=True).values_list("pk", flat=True):
        return None
    given_up = due.filter(attempts__gte=settings.MAX_ATTEMPTS).update(
        state=State.FAILED,
        finished_at=timezone.now(),
        error=f"The worker died {settings.MAX_ATTEMPTS} times at the same place of this dump. "
        "What was read so far is kept. Retry it after an update, or send it to the developers.",
    )
    if given_up:
        return None
    taken = due.update(
        state=State.IMPORTING,
        lease_token=token,
        lease_until=now + settings.LEASE_SECONDS,
        heartbeat_at=timezone.now(),
        attempts=F("attempts") + 1,
        error="",
    )
    if not taken:
        return None
    Dump.objects.filter(pk=dump_id, started_at=None).update(started_at=timezone.now())
    return Dump.objects.get(pk=dump_id)


def run(dump_id: int, progress: Callable[[Dump], None] | None = None) -> bool:
    """Import a dump from its checkpoint to its end; False when it is not due or was taken away.

    *progress* is called after every batch. Any error of ours ends the dump as failed; the rows so far stay.
    """
    try:
        dump = claim(dump_id)
    except AWAY as e:
        logger.warning("dump %d waits: %s", dump_id, str(e).strip())
        connection.close_if_unusable_or_obsolete()
        return False
    if dump is None:
        return False
    try:
        if dump.lines == 0:
            refusal = formats.sniff(store.read(dump, 0, formats.SNIFF_BYTES))
            if refusal:
                _end(dump, State.FAILED, refusal)
                return True
            _guess_zone(dump)
        _read_lines(dump, progress)
        _settle_zone(dump)
        _end(dump, State.DONE)
    except LeaseLost:
        logger.info("dump %s: lease lost at line %d", dump.public_id, dump.lines)
        return False
    except AWAY as e:  # the sweeper goes on when the database is back
        logger.warning("dump %s waits at line %d: %s", dump.public_id, dump.lines, str(e).strip())
        connection.close_if_unusable_or_obsolete()
        if _will_pass(e):
            _give_back(dump)
        return False
    except Exception as e:
        logger.exception("dump %s failed at line %d", dump.public_id, dump.lines)
        reason = f"Stopped after line {dump.lines:,} by an error of auditweb: {type(e).__name__}. "
        try:
            _end(dump, State.FAILED, reason + "What was read so far is kept; the log of the worker says more.")
        except (LeaseLost, *AWAY):
            return False
        return True
    for sink in sinks.all_sinks():
        sink.finish(dump)
    return True


AWAY = (OperationalError, InterfaceError, InternalError)  # how drivers say that the database is locked, full, gone
_PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    "08", "25", "40", "53", "55", "57",
}  # fmt: skip


def _will_pass(error: Exception) -> bool:
    """Whether *error* says that the database is locked, full or away: nothing that this dump is the reason of."""
    if (code := getattr(error.__cause__, "sqlite_errorcode", None)) is not None:
        return code & 0xFF in _PASSING
    state = getattr(error.__cause__, "sqlstate", None)
    return state is None or state[:2] in _PASSING


def _give_back(dump: Dump) -> None:
    """Let the sweeper start *dump* again at once, without counting this start as one that it survived."""
    with contextlib.suppress(DatabaseError, InterfaceError):  # else the lease runs out
        Dump.objects.filter(pk=dump.pk, state=State.IMPORTING, lease_token=dump.lease_token).update(
            lease_until=0, attempts=Greatest(F("attempts") - 1, 0)
        )


def _read_lines(dump: Dump, progress) -> None:
    state = dump.checkpoint
    clock = Clock(dump.zone, dump.offset_ms, state.get("clock"))
    evidence = ZoneEvidence(state.get("evidence"))
    batch, held = [], 0
    for line in store.lines(dump, dump.bytes_read, dump.lines + 1):
        batch.append(line)
        held += line.size
        if len(batch) >= BATCH or held >= BATCH_BYTES:
            _import_batch(dump, batch, clock, evidence)
            batch, held = [], 0
            if progress:
                progress(dump)
            if connection.vendor == "sqlite":
                time.sleep(PAUSE)
    if batch:
        _import_batch(dump, batch, clock, evidence)
        if progress:
            progress(dump)
    if dump.bytes_read != dump.size:
        _hold(dump)  # a dump that is deleted meanwhile has no bytes either
        raise LookupError(f"bytes {dump.bytes_read:,} to {dump.size:,} are missing")


def _import_batch(dump: Dump, batch: list[store.Line], clock: Clock, evidence: ZoneEvidence) -> None:
    """Parse *batch*, give it to the sinks and move the checkpoint, all in one transaction."""
    placed: list[Placed] = []
    bad: list[BadLine] = []
    blank = naive = 0
    counts = Counter(dump.records)
    for line in batch:
        try:
            if line.raw is None:
                raise BadLineError(f"longer than the limit of {settings.MAX_LINE_BYTES:,} bytes")
            records = formats.read_line(line.raw, line.number == 1, settings.MAX_LINE_BYTES)
        except BadLineError as e:
            bad.append(BadLine(dump=dump, line=line.number, offset=line.offset, size=line.size, reason=e.reason[:300]))
            continue
        if records is None:
            blank += 1
            continue
        counts[records[0].format] += 1
        for record in records:
            evidence.see(record)
            at_us, sort_us, quality = clock.place(record)
            naive += record.ts_us is not None and not record.ts_aware
            placed.append(Placed(line.number, record, at_us, sort_us, quality))
    last = batch[-1]
    sink_states = dump.checkpoint.get("sinks", {})
    with transaction.atomic():
        _hold(dump)
        events = 0
        for sink in sinks.all_sinks():
            events += sink.store(dump, placed, sink_states.setdefault(sink.name, {}))
        if bad:
            BadLine.objects.bulk_create(bad)
        dump.lines = last.number
        dump.bytes_read = last.offset + last.size
        dump.blank_lines += blank
        dump.bad_line_count += len(bad)
        dump.naive_lines += naive
        dump.events += events
        dump.records = dict(counts)
        dump.checkpoint |= {"clock": clock.state(), "evidence": evidence.state(), "sinks": sink_states}
        dump.heartbeat_at = timezone.now()
        dump.attempts = 0
        dump.lease_until = time.time() + settings.LEASE_SECONDS  # waiting for a session's lock may have taken long
        dump.save(update_fields=CHECKPOINT)


def _hold(dump: Dump) -> None:
    """Renew the lease, or raise LeaseLost: the fence that keeps a worker that was given up from committing."""
    held = Dump.objects.filter(pk=dump.pk, state=State.IMPORTING, lease_token=dump.lease_token).update(
        lease_until=time.time() + settings.LEASE_SECONDS
    )
    if not held:
        raise LeaseLost


def _guess_zone(dump: Dump) -> None:
    """Begin with the zone that the first lines show. The last line decides; mostly no time is then written twice."""
    if dump.zone_source:
        return
    evidence = ZoneEvidence()
    for line in islice(store.lines(dump), GUESS_LINES):
        with contextlib.suppress(BadLineError):
            for record in formats.read_line(line.raw or b"", line.number == 1, settings.MAX_LINE_BYTES) or ():
                evidence.see(record)
    zone = evidence.zone()
    if zone:
        with transaction.atomic():
            _hold(dump)
            dump.zone, dump.zone_source = zone, "inferred"
            dump.save(update_fields=["zone", "zone_source"])


def _settle_zone(dump: Dump) -> None:
    """Once all lines are known: read naive times in the zone that their aware neighbours show, else as UTC."""
    zone, source = dump.zone, dump.zone_source
    if source != "told":
        zone = ZoneEvidence(dump.checkpoint.get("evidence")).zone()
        source = "inferred" if zone else "assumed" if dump.naive_lines else ""
    if zone != dump.zone or dump.checkpoint.get("retime"):
        _set_zone(dump, zone, source)
    elif source != dump.zone_source:
        with transaction.atomic():
            _hold(dump)
            dump.zone_source = source
            dump.save(update_fields=["zone_source"])


def _set_zone(dump: Dump, zone: str, source: str) -> None:
    """Read the naive times of *dump* in *zone*, those that are stored too."""
    with transaction.atomic():
        if dump.state == State.IMPORTING:
            _hold(dump)
        dump.zone, dump.zone_source = zone, source
        # The clock of a checkpoint has seen earlier lines in the old zone: an import that goes on from it ends with
        # placing them all again.
        dump.checkpoint["retime"] = dump.lines > 0 and dump.state not in (State.IMPORTING, State.DONE)
        dump.save(update_fields=["zone", "zone_source", "checkpoint"])
        for sink in sinks.all_sinks():
            sink.retime(dump)
        if dump.state == State.IMPORTING:
            _hold(dump)  # with a long session that took longer than the lease


def tell_zone(dump: Dump, zone: str) -> None:
    """Read the naive times of *dump* in *zone* from now on ("Europe/Paris", "+02:00"; "" = as the file shows).

    Raises ValueError for a zone that does not exist, store.Refused while an import runs.
    """
    from auditweb.formats.clock import zone_of

    zone_of(zone)
    with transaction.atomic():
        store.present(dump, lock=True)  # no worker begins meanwhile
        dump.refresh_from_db()
        if dump.state == State.IMPORTING:
            raise store.Refused("this dump is being imported; its zone can be changed when that is done")
        if zone:
            _set_zone(dump, zone, "told")
        else:
            inferred = ZoneEvidence(dump.checkpoint.get("evidence")).zone()
            _set_zone(dump, inferred, "inferred" if inferred else "assumed" if dump.naive_lines else "")
        for sink in sinks.all_sinks():
            sink.finish(dump)


def _end(dump: Dump, state: str, error: str = "") -> None:
    with transaction.atomic():
        _hold(dump)
        dump.state, dump.error, dump.finished_at = state, error, timezone.now()
        dump.lease_until = 0
        dump.save(update_fields=["state", "error", "finished_at", "lease_until"])


def cancel(dump: Dump) -> bool:
    """Stop a dump that is being received or imported; what was imported stays. False when there was nothing to stop."""
    active = Q(state__in=[State.RECEIVING, State.QUEUED, State.IMPORTING])
    return bool(
        Dump.objects.filter(active, pk=dump.pk).update(
            state=State.CANCELLED, lease_until=0, finished_at=timezone.now(), error=""
        )
    )


def retry(dump: Dump) -> bool:
    """Go on with a dump that failed or was cancelled, from where it stopped; False when it is neither.

    A dump whose bytes never arrived in full waits for them again.
    """
    stopped = Dump.objects.filter(pk=dump.pk, state__in=[State.FAILED, State.CANCELLED])
    fresh = {"lease_until": 0, "attempts": 0, "error": "", "finished_at": None, "heartbeat_at": timezone.now()}
    with transaction.atomic():
        if stopped.exclude(sha256="").update(state=State.QUEUED, **fresh):
            wake(dump)
            return True
        return bool(stopped.filter(sha256="").update(state=State.RECEIVING, **fresh))


def delete(dump: Dump) -> None:
    """Remove a dump, its bytes and all that came from it: events (their numbers are not used again), status entries.

    Raises store.Gone when somebody else was faster.
    """
    cancel(dump)  # a worker that runs loses its lease and stops before its next commit
    with transaction.atomic():
        dump = store.present(dump, lock=True)
        for sink in sinks.all_sinks():
            sink.forget(dump)
        store.drop_bytes(dump)
