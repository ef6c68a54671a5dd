"""Imports that survive: claim a dump, read its lines from the checkpoint, hand records to the sinks, batch by batch.

The row of the dump is the queue and decides who works: a lease that every batch renews in its own transaction.
Celery only wakes a worker; a killed worker's lease runs out and ``sweep`` starts the dump again where it stopped.
"""

import contextlib
import gc
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import groupby, islice

from django.conf import settings
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from auditweb import formats, log
from auditweb.dumps import intake, raw, sinks, store
from auditweb.dumps.models import Dump, Stamp, State, Unpacked, Upload
from auditweb.dumps.sinks import Placed
from auditweb.formats import containers
from auditweb.formats.clock import Clock, ZoneEvidence, zone_of
from auditweb.formats.record import BadLine as BadLineError
from auditweb.ids import public_id

logger = logging.getLogger(__name__)

BATCH = 5000  # lines per transaction: about 70 ms, so a live writer beside an import waits little
GUESS_LINES = 2000  # looked at for the zone before the first one is stored
BATCH_BYTES = 4 * 2**20
BATCH_PARTS = 20_000  # objects on long lines: of some formats each is a record of its own, of about 500 bytes
LONG_LINE = 4096  # bytes
BULK = 50_000  # lines of one import after which the database is told to look at its tables again
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
    began = dump.lines
    try:
        refusal = _unpack(dump) if dump.packed else ""
        if not refusal and dump.lines == 0:
            refusal = formats.sniff(store.read(dump, 0, formats.SNIFF_BYTES)) or ""
        if refusal:
            _end(dump, State.FAILED, refusal)
            return True
        if dump.lines == 0:
            _guess_zone(dump)
        while True:
            with _few_collections(), log.bulk():
                _read_lines(dump, progress)
            _settle_zone(dump)
            if _is_done(dump):
                break
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
    if dump.lines - began >= BULK:
        with contextlib.suppress(*AWAY):  # the database does so by itself sooner or later
            log.analyze()
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


def _is_done(dump: Dump) -> bool:
    """End the import of *dump*, all whose lines are stored; False when it grew meanwhile."""
    with transaction.atomic():
        _hold(dump)
        before = dump.size
        dump.refresh_from_db(fields=["upload", "sha256", "size", "newlines", "chunk_count", "declared_size"])
        if dump.size != before:
            return False
        for sink in sinks.all_sinks():
            sink.settle(dump)
        _end(dump, State.DONE)
        return True


# Archives


def _unpack(dump: Dump) -> str:
    """Take the lines of *dump* out of what they are in; why that cannot be done, or "".

    Nothing is imported before all of it is unpacked and compared with its check sum. After a crash it begins anew.
    """
    damage: list[str] = []
    limits = containers.Limits(settings.MAX_UNPACKED_BYTES, settings.MAX_UNPACK_RATIO)
    archive, _, _ = dump.container.partition(" ")
    try:
        if archive == "zip":
            directory = containers.Zip(store.received_size(dump), lambda at, n: store.received(dump, at, n), limits)
            if dump.member is None and (refusal := _spread(dump, directory)):
                return refusal
            content = directory.read(dump.member or 0)
        elif archive == "gzip":
            content = containers.gunzip(store.received(dump), limits)
        else:
            content = store.received(dump)
        head, content = containers.look(_until_damage(content, damage))
        shape = containers.kind(head)
        shape = shape if shape in containers.SHAPES else ""  # an archive in an archive is refused as what it is
        store.replace_lines(dump, containers.reshape(shape, content) if shape else content, lambda: _hold(dump))
    except containers.Damaged as e:  # already its directory
        return str(e)
    except (containers.TooMuch, containers.Locked) as e:
        store.replace_lines(dump, (), lambda: _hold(dump))
        return str(e)
    with transaction.atomic():
        _hold(dump)
        dump.unpacked = Unpacked.BROKEN if damage else Unpacked.WHOLE
        dump.container = f"{archive} {shape}" if shape and shape != archive else archive
        dump.attempts = 0
        dump.save(update_fields=["size", "newlines", "chunk_count", "unpacked", "container", "attempts"])
    return damage[0] if damage else ""


def _until_damage(content: Iterable[bytes], damage: list[str]) -> Iterator[bytes]:
    """*content* up to where it is damaged; adds to *damage* what is wrong there."""
    try:
        yield from content
    except containers.Damaged as e:
        damage.append(str(e))


def _spread(dump: Dump, directory: containers.Zip) -> str:
    """Make a dump of each member of the zip that *dump* is, itself being the first; why there is none, or ""."""
    found, skipped = directory.members(formats.sniff)
    with transaction.atomic():
        _hold(dump)
        Upload.objects.filter(dumps=dump).update(skipped=skipped)
        if not found:
            why = "; ".join(f"{one['name']}: {one['reason']}" for one in skipped[:3])
            return f"The zip archive holds no audit dump. {why}".strip()[:2000]
        dump.member, dump.name = found[0].place, store.clean_name(found[0].name)
        dump.save(update_fields=["member", "name"])
        same = ("team_id", "upload_id", "created_by_id", "sha256", "zone", "zone_source", "offset_ms", "stamp", "join",
                "session_key", "bus_name")  # fmt: skip
        for member in found[1:]:
            sibling = Dump.objects.create(
                name=store.clean_name(member.name),
                state=State.QUEUED,
                container="zip",
                member=member.place,
                **{name: getattr(dump, name) for name in same},
            )
            wake(sibling)
    return ""


def import_anyway(dump: Dump) -> bool:
    """Import what could be unpacked of a damaged archive; False when *dump* is none that waits for that."""
    waiting = Dump.objects.filter(pk=dump.pk, state=State.FAILED, unpacked=Unpacked.BROKEN)
    with transaction.atomic():
        if waiting.update(unpacked=Unpacked.ANYWAY, **_again()):
            wake(dump)
            return True
    return False


# Lines


@contextlib.contextmanager
def _few_collections():
    """Let the collector of cycles sleep longer: it would look again and again at the thousands of rows of a batch,
    which are in no cycle (a fifth of the time of an import)."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def _read_lines(dump: Dump, progress) -> None:
    state = dump.checkpoint
    clock = Clock(dump.zone, dump.offset_ms, state.get("clock"))
    evidence = ZoneEvidence(state.get("evidence"))
    # PostgreSQL works in a process of its own; while it does, a thread reads the next batch. SQLite works in this one.
    ahead = connection.vendor == "postgresql"
    batches = _batches(dump)
    batch = next(batches, None)
    records = intake.read(batch) if batch else []
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        while batch:
            following = next(batches, None)
            reading = pool.submit(intake.read, following) if following and ahead else None
            _import_batch(dump, batch, records, clock, evidence)
            if progress:
                progress(dump)
            if following and connection.vendor == "sqlite":
                time.sleep(PAUSE)
            batch, records = following, reading.result() if reading else intake.read(following or [])
    if dump.bytes_read != dump.size:
        _hold(dump)  # a dump that is deleted meanwhile has no bytes either
        raise LookupError(f"bytes {dump.bytes_read:,} to {dump.size:,} are missing")


def _batches(dump: Dump) -> Iterator[list[store.Line]]:
    """The lines of *dump* from its checkpoint on, as many at a time as one transaction takes."""
    batch, held, parts = [], 0, 0
    for line in store.lines(dump, dump.bytes_read, dump.lines + 1):
        batch.append(line)
        held += line.size
        if line.size > LONG_LINE and line.raw is not None:
            parts += line.raw.count(b"{")
        if len(batch) >= BATCH or held >= BATCH_BYTES or parts >= BATCH_PARTS:
            yield batch
            batch, held, parts = [], 0, 0
    if batch:
        yield batch


def _import_batch(
    dump: Dump, batch: list[store.Line], found: list[intake.Found], clock: Clock, evidence: ZoneEvidence
) -> None:
    """Take in what was *found* in the lines of *batch* and move the checkpoint, all in one transaction."""
    with transaction.atomic():
        _hold(dump)
        intake.take(dump, batch, found, clock, evidence)
        dump.attempts = 0
        dump.lease_until = time.time() + settings.LEASE_SECONDS  # waiting for a session's lock may have taken long
        dump.save(update_fields=[*intake.CHECKPOINT, "attempts", "lease_until"])


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
        zone, source = intake.own_zone(dump)
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
        intake.set_zone(dump, zone, source)
        if dump.state == State.IMPORTING:
            _hold(dump)  # with a long session that took longer than the lease


def tell(dump: Dump, zone: str | None = None, offset_ms: int | None = None, stamp: str | None = None) -> None:
    """Place the events of *dump* in time by other rules from now on; None leaves a rule as it is.

    *zone* of naive times: "Europe/Paris", "+02:00", "" = as the file shows. *offset_ms* is added to all times. *stamp*:
    whether the time of a tool call is its "start" or "end", "" = as its format says. Raises ValueError for what makes
    no sense, store.Refused while an import runs.
    """
    check_rules(zone, offset_ms, stamp)
    with transaction.atomic():
        store.present(dump, lock=True)  # no worker begins meanwhile
        dump.refresh_from_db()
        if dump.state == State.IMPORTING:
            raise store.Refused("this dump is being imported; how its times are read can be changed when that is done")
        if offset_ms is not None:
            dump.offset_ms = offset_ms
        if stamp is not None:
            dump.stamp = stamp
        dump.save(update_fields=["offset_ms", "stamp"])
        if zone is None:
            _set_zone(dump, dump.zone, dump.zone_source)
        elif zone:
            _set_zone(dump, zone, "told")
        else:
            _set_zone(dump, *intake.own_zone(dump))
        for sink in sinks.all_sinks():
            sink.finish(dump)


MAX_OFFSET_MS = 100 * 366 * 86_400_000  # a hundred years


def check_rules(zone: str | None, offset_ms: int | None, stamp: str | None) -> None:
    """Raise ValueError, with a sentence, for a rule of time that makes no sense."""
    zone_of(zone or "")
    if abs(offset_ms or 0) > MAX_OFFSET_MS:
        raise ValueError(f"an offset has up to {MAX_OFFSET_MS:,} milliseconds, a hundred years")
    if stamp and stamp not in Stamp.values:
        raise ValueError('the time of a tool call is its "start" or its "end"')


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


def _again() -> dict:
    """What a dump that is to be imported again, or further, has in its row."""
    fresh = {"lease_until": 0, "attempts": 0, "error": "", "finished_at": None, "heartbeat_at": timezone.now()}
    return {"state": State.QUEUED, **fresh}


def retry(dump: Dump) -> bool:
    """Go on with a dump that failed or was cancelled, from where it stopped; False when it is neither.

    A dump whose bytes never arrived in full waits for them again.
    """
    stopped = Dump.objects.filter(pk=dump.pk, state__in=[State.FAILED, State.CANCELLED])
    with transaction.atomic():
        if stopped.exclude(sha256="").update(**_again()):
            wake(dump)
            return True
        return bool(stopped.filter(sha256="").update(**_again() | {"state": State.RECEIVING}))


def reimport(
    dump: Dump,
    zone: str | None = None,
    offset_ms: int | None = None,
    stamp: str | None = None,
    session: str | None = None,
    join: bool | None = None,
) -> None:
    """Forget all that came from *dump* and import it again, by other rules (None leaves one as it is; see ``tell``).

    *session*: id or key of the session that all lines go to, "" = as the lines say. *join*: the producers' session ids
    mean the same session in other dumps. Raises ValueError, and store.Refused while the dump is received or imported.
    """
    check_rules(zone, offset_ms, stamp)
    with transaction.atomic():
        store.present(dump, lock=True)
        dump.refresh_from_db()
        if dump.state not in (State.DONE, State.FAILED, State.CANCELLED) or not dump.sha256:
            raise store.Refused(f"this dump is {dump.state}; it can be imported again when its import has ended")
        for sink in sinks.all_sinks():
            sink.forget(dump, keep=True)
        dump.bad_lines.all().delete()
        if zone is not None or dump.zone_source != "told":
            dump.zone, dump.zone_source = zone or "", "told" if zone else ""
        dump.offset_ms = dump.offset_ms if offset_ms is None else offset_ms
        dump.stamp = dump.stamp if stamp is None else stamp
        dump.join = dump.join if join is None else join
        if session is not None:
            dump.session_key = store.session_key_of(dump.team, session)
        dump.lines = dump.bytes_read = dump.blank_lines = dump.bad_line_count = dump.naive_lines = dump.events = 0
        dump.records, dump.checkpoint, dump.started_at = {}, {}, None
        for name, value in _again().items():
            setattr(dump, name, value)
        dump.save()
        wake(dump)


def retry_bad_lines(dump: Dump) -> int:
    """Read the quarantined lines of *dump* once more; those that can be read now become events. How many those were.

    Raises store.Refused while the dump is received or imported.
    """
    readable = set(_readable_now(dump))
    if not readable:
        _settled(store.present(dump))
        return 0
    with transaction.atomic():
        store.present(dump, lock=True)
        dump.refresh_from_db()
        _settled(dump)
        evidence = ZoneEvidence()
        late: list[Placed] = []
        for placed in raw.placed(dump, dump.lines):
            evidence.see(placed.record)
            if placed.line in readable:
                late.append(placed)
        blank = len(readable) - len({placed.line for placed in late})
        for sink in sinks.all_sinks():
            events = sum(sink.late(dump, late[at : at + BATCH]) for at in range(0, len(late), BATCH))
            dump.events += events
        counts = Counter(dump.records)
        for _, records in groupby(late, lambda placed: placed.line):
            counts[next(records).record.format] += 1
        gone = 0
        numbers = sorted(readable)
        for at in range(0, len(numbers), BATCH):
            gone += dump.bad_lines.filter(line__in=numbers[at : at + BATCH]).delete()[0]
        dump.records = dict(counts)
        dump.bad_line_count -= gone
        dump.blank_lines += blank
        dump.naive_lines += sum(p.record.ts_us is not None and not p.record.ts_aware for p in late)
        dump.checkpoint["evidence"] = evidence.state()
        dump.save(update_fields=["events", "records", "bad_line_count", "blank_lines", "naive_lines", "checkpoint"])
        told = dump.zone_source == "told"  # else their neighbours may show another zone now
        _set_zone(dump, *((dump.zone, "told") if told else intake.own_zone(dump)))
        for sink in sinks.all_sinks():
            sink.settle(dump)
            sink.finish(dump)
    return gone


def _settled(dump: Dump) -> None:
    if dump.state not in (State.DONE, State.FAILED, State.CANCELLED):
        raise store.Refused(f"this dump is {dump.state}; its lines can be read again when its import has ended")


def _readable_now(dump: Dump) -> Iterator[int]:
    """The numbers of the quarantined lines of *dump* that can be read now."""
    for bad in dump.bad_lines.order_by("line").iterator():
        if bad.size > settings.MAX_LINE_BYTES + 1:
            continue
        exact = store.read(dump, bad.offset, bad.size).removesuffix(b"\n")
        with contextlib.suppress(BadLineError):
            formats.read_line(exact, bad.line == 1, settings.MAX_LINE_BYTES)
            yield bad.line


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
