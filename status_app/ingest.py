"""Status records → entries of a bus. The only module that creates them."""

from collections.abc import Iterable, Iterator

from django.db.models import F

from auditweb import log
from auditweb.dumps.models import Dump
from auditweb.dumps.sinks import Placed
from auditweb.formats.clock import Clock, parse_time
from auditweb.formats.record import Record
from status_app.models import ENTRY_COLUMNS, StatusBus, StatusEntry

ROWS = 2000  # entries that are read or written together


class StatusSink:
    """Puts every status line of a dump on the dump's bus."""

    name = "status"
    order = 20  # after sessions: whoever locks both locks the session first

    def store(self, dump: Dump, batch: list[Placed], state: dict) -> int:
        posts = [p for p in batch if p.record.format == "roomkit_status"]
        if not posts:
            return 0
        if "bus" not in state:
            state["bus"] = bus_of(dump).pk
        bus = StatusBus.objects.select_for_update().get(pk=state["bus"])
        log.append(bus, StatusEntry, ENTRY_COLUMNS, [_row(dump, p) for p in posts])
        _count(bus, [(p.record.status, p.record.agent, p.at_us) for p in posts])
        return 0

    def retime(self, dump: Dump) -> None:
        for bus in dump.status_buses.all():
            retime(bus, dump)

    def finish(self, dump: Dump) -> None:
        from auditweb.celery import send
        from status_app.tasks import summarize

        for bus in dump.status_buses.all():
            send(summarize, bus.pk)

    def forget(self, dump: Dump) -> None:
        for bus in list(dump.status_buses.select_for_update()):
            bus.entries.filter(dump=dump).delete()
            bus.dumps.remove(dump)
            if bus.entries.exists():
                recount(bus)
                log.announce(bus)
            else:
                log.announce(bus)
                bus.delete()


def bus_of(dump: Dump) -> StatusBus:
    """The bus that the status lines of *dump* go to: as told, else one of its own."""
    bus, _ = StatusBus.objects.get_or_create(
        team_id=dump.team_id, name=dump.bus_name or dump.public_id, defaults={"title": dump.bus_name or dump.name}
    )
    bus.dumps.add(dump)
    return bus


def _row(dump: Dump, placed: Placed) -> tuple:
    r = placed.record
    return (
        r.ts_text, placed.at_us, placed.sort_us, placed.quality, r.agent, r.action, r.status, r.text, r.extra, r.cut,
        " ".join(r.flags), dump.pk, placed.line,
    )  # fmt: skip


def _count(bus: StatusBus, posts: list[tuple[str, str, int | None]]) -> None:
    """Add *posts* (status, agent, at_us) to the counters of *bus*."""
    bus.entry_count += len(posts)
    for status, agent, _ in posts:
        log.tally(bus.levels, status)
        log.tally(bus.agents, agent)
    times = [at for _, _, at in posts if at is not None]
    if times:
        bus.first_us = min(times) if bus.first_us is None else min(bus.first_us, *times)
        bus.last_us = max(times) if bus.last_us is None else max(bus.last_us, *times)
    bus.save(update_fields=["entry_count", "levels", "agents", "first_us", "last_us"])


def recount(bus: StatusBus) -> None:
    """Count *bus* again from its entries and raise its revision."""
    StatusBus.objects.filter(pk=bus.pk).update(revision=F("revision") + 1)
    bus.refresh_from_db()
    bus.entry_count, bus.levels, bus.agents, bus.first_us, bus.last_us = 0, {}, {}, None, None
    rows = bus.entries.values_list("status", "agent", "at_us")
    chunk: list[tuple] = []
    for row in rows.iterator(ROWS):
        chunk.append(row)
        if len(chunk) == ROWS:
            _count(bus, chunk)
            chunk = []
    _count(bus, chunk)


def retime(bus: StatusBus, dump: Dump) -> None:
    """Place the entries of *bus* that came from *dump* again, after its zone or offset changed."""
    StatusBus.objects.select_for_update().get(pk=bus.pk)
    rows = bus.entries.filter(dump=dump).order_by("line", "id").values_list("id", "ts_text")
    log.update_many(StatusEntry, ["at_us", "sort_us", "ts_quality"], placed_again(dump, rows.iterator(ROWS)))
    recount(bus)
    log.announce(bus)


def placed_again(dump: Dump, rows: Iterable[tuple[int, str]]) -> Iterator[tuple[int | None, int, str, int]]:
    """(at_us, sort_us, quality, id) for *rows* (id, time as written) of *dump* in file order, by its present zone."""
    clock = Clock(dump.zone, dump.offset_ms)
    for pk, ts_text in rows:
        us, aware, _ = parse_time(ts_text)
        yield (*clock.place(Record(ts_us=us, ts_aware=aware)), pk)
