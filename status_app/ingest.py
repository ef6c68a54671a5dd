"""Status records → entries of a bus. The only module that creates them."""

from collections.abc import Iterator
from itertools import islice

from django.db import transaction

from auditweb import log
from auditweb.dumps import raw
from auditweb.dumps.models import Dump
from auditweb.dumps.sinks import Placed, feeds
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
            first = bus_of(dump)
            state["bus"] = first.pk
            feeds(state, first.public_id)
        if (bus := log.locked(StatusBus, id=state["bus"])) is None:
            raise StatusBus.DoesNotExist
        log.append(bus, StatusEntry, ENTRY_COLUMNS, [_row(dump, p) for p in posts])
        _count(bus, [(p.record.status, p.record.agent, p.at_us) for p in posts])
        return 0

    def late(self, dump: Dump, batch: list[Placed]) -> int:
        self.store(dump, batch, {})
        return 0

    def retime(self, dump: Dump) -> None:
        for bus in _locked(dump):
            log.update_many(StatusEntry, ["at_us", "sort_us", "ts_quality"], _placed_again(bus, dump))
            recount(bus)

    def settle(self, dump: Dump) -> None:
        """Their order changes nothing that is counted; a bus that a new import left empty goes."""
        for bus in _locked(dump):
            if bus.entry_count == 0:
                log.announce(bus)
                bus.delete()

    def finish(self, dump: Dump) -> None:
        from auditweb.celery import send
        from status_app.tasks import summarize

        for bus in dump.status_buses.all():
            send(summarize, bus.pk)

    def heard(self, dump: Dump) -> None:
        """Who watches a bus looks at its dumps by themselves."""

    def said(self, dump: Dump, role: str, text: str) -> None:
        """Nobody speaks on a bus."""

    def ended(self, dump: Dump) -> None:
        for bus in dump.status_buses.order_by("pk"):
            log.announce(bus)

    def forget(self, dump: Dump, keep: bool = False) -> None:
        for bus in _locked(dump):
            bus.entries.filter(dump=dump).delete()
            if not keep:
                bus.dumps.remove(dump)
            if keep or bus.entries.exists():
                recount(bus)
            else:
                log.announce(bus)
                bus.delete()


def bus_of(dump: Dump) -> StatusBus:
    """The bus that the status lines of *dump* go to, locked: as told, else one of its own."""
    name, title = dump.bus_name or dump.public_id, dump.bus_name or dump.name
    bus = log.open(StatusBus, team_id=dump.team_id, name=name, defaults={"title": title})
    bus.dumps.add(dump)
    return bus


def _locked(dump: Dump) -> list[StatusBus]:
    """The buses of *dump*, locked in an order that is the same for all."""
    return list(dump.status_buses.select_for_update(of=("self",), no_key=True).order_by("pk"))


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
    log.save(bus, ["entry_count", "levels", "agents", "first_us", "last_us"])


def recount(bus: StatusBus) -> None:
    """Count *bus* again from its entries and raise its revision. Raises StatusBus.DoesNotExist when it is gone."""
    with transaction.atomic():
        # Locked before it is read: an import that goes on meanwhile counts what it adds itself.
        bus.refresh_from_db(from_queryset=StatusBus.objects.select_for_update(no_key=True))
        bus.revision += 1
        bus.entry_count, bus.levels, bus.agents, bus.first_us, bus.last_us = 0, {}, {}, None, None
        bus.save(update_fields=["revision", "entry_count", "levels", "agents", "first_us", "last_us"])
        rows = bus.entries.values_list("status", "agent", "at_us").iterator(ROWS)
        while chunk := list(islice(rows, ROWS)):
            _count(bus, chunk)
        log.announce(bus)


def _placed_again(bus: StatusBus, dump: Dump) -> Iterator[tuple[int | None, int, str, int]]:
    """(at_us, sort_us, quality, id) of the entries of *bus* that came from *dump*, by its present zone.

    Read from its lines: the place of a post also depends on the lines before it that are no posts.
    """
    posts = (p for p in raw.placed(dump) if p.record.format == "roomkit_status")
    post = next(posts, None)
    for line, pk in bus.entries.filter(dump=dump).order_by("line", "id").values_list("line", "id").iterator(ROWS):
        while post is not None and post.line < line:  # it waits in the quarantine, where nothing could read it
            post = next(posts, None)
        if post is None or post.line != line:
            raise LookupError(f"line {line:,} was a post and is none now")
        yield post.at_us, post.sort_us, post.quality, pk
        post = next(posts, None)
