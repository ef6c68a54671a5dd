"""Records → events of sessions: the only module that creates them.

Keeps for itself which session a line belongs to.
"""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from auditweb import log
from auditweb.dumps.models import Dump
from auditweb.dumps.sinks import Placed
from auditweb.formats.clock import Clock, parse_time
from auditweb.formats.record import Record
from auditweb.log import entry_id, id_range
from sessions_app import projection
from sessions_app.models import EVENT_COLUMNS, Event, Session, ToolCall, Turn
from status_app.ingest import bus_of
from status_app.models import StatusBus, StatusEntry

NEW_RUN_US = 4 * 3600 * 1_000_000  # a session line this long after the line before it starts another session
ROWS = 2000


class SessionSink:
    """Puts every line of a dump into its session; a dump of nothing but status lines has none."""

    name = "sessions"
    order = 10

    def store(self, dump: Dump, batch: list[Placed], state: dict) -> int:
        created = 0
        rows: list[tuple] = []  # events for the session in state["session"]
        for placed in batch:
            record = placed.record
            if record.format == "roomkit_status":
                rows.append(_row(dump, placed))
            elif "session" not in state:
                # Its transaction appends the status lines before it first: those of this batch are in rows already.
                rows = _earlier_posts(dump, before=batch[0].line) + rows
                state["session"] = _open(dump, run=1).pk
                state["run"] = 1
                rows.append(_row(dump, placed))
            else:
                if record.opens and not dump.session_key and _long_silence(record, state):
                    created += _append(state["session"], rows, dump)
                    rows = []
                    state["run"] += 1
                    state["session"] = _open(dump, state["run"]).pk
                rows.append(_row(dump, placed))
            if record.ts_us is not None:
                state["aware" if record.ts_aware else "naive"] = record.ts_us
        if "session" in state:
            created += _append(state["session"], rows, dump)
        return created

    def retime(self, dump: Dump) -> None:
        sessions = _locked(dump)
        columns = ("line", "id", "ts_text", "ts_quality")
        streams = [s.events.filter(dump=dump).values_list(*columns).iterator(ROWS) for s in sessions]
        in_file_order = (row[1:] for row in heapq.merge(*streams))
        log.update_many(Event, ["at_us", "sort_us", "ts_quality"], _placed_again(dump, in_file_order))
        for session in sessions:
            projection.rebuild(session)

    def finish(self, dump: Dump) -> None:
        from auditweb.celery import send
        from sessions_app.tasks import summarize

        for session in dump.sessions.all():
            send(summarize, session.pk)

    def forget(self, dump: Dump) -> None:
        for session in _locked(dump):
            session.events.filter(dump=dump).delete()
            session.dumps.remove(dump)
            if session.events.exists():
                # The log of this dump's posts may go next: the session keeps one that its other dumps post to.
                session.status_bus = StatusBus.objects.filter(dumps__sessions=session).order_by("pk").first()
                session.save(update_fields=["status_bus"])
                projection.rebuild(session)
            else:
                delete(session)


_KIND = EVENT_COLUMNS.index("kind")


def _long_silence(record: Record, state: dict) -> bool:
    """Whether 4 h or more lie between *record* and the line before it that was written by the same clock.

    Naive and aware times of one file cannot be compared before its zone is known.
    """
    before = state.get("aware" if record.ts_aware else "naive")
    return before is not None and record.ts_us is not None and record.ts_us - before >= NEW_RUN_US


def _open(dump: Dump, run: int) -> Session:
    """The session of *run* (from 1) of *dump*, made if there is none yet."""
    key = dump.session_key or (dump.public_id if run == 1 else f"{dump.public_id}#{run}")
    title = PurePath(dump.name).stem or dump.name
    session = log.open(
        Session,
        team_id=dump.team_id,
        key=key,
        defaults={"title": dump.session_key or (title if run == 1 else f"{title} · run {run}")},
    )
    session.dumps.add(dump)
    return session


def _locked(dump: Dump) -> list[Session]:
    """The sessions of *dump*, locked in an order that is the same for all."""
    return list(dump.sessions.select_for_update(of=("self",), no_key=True).order_by("pk"))


def _append(session_id: int, rows: list[tuple], dump: Dump) -> int:
    """Store *rows* in a session and derive from them; how many there were."""
    if not rows:
        return 0
    session = Session.objects.select_for_update(no_key=True).get(pk=session_id)
    first = log.append(session, Event, EVENT_COLUMNS, rows)
    base = entry_id(session.pk, first)
    projection.project(session, [(base + i, *row) for i, row in enumerate(rows)])
    if session.status_bus_id is None and any(row[_KIND] == "status" for row in rows):
        session.status_bus = bus_of(dump)
        session.save(update_fields=["status_bus"])
    return len(rows)


def _row(dump: Dump, placed: Placed) -> tuple:
    """A record as values for EVENT_COLUMNS."""
    r = placed.record
    text = _post_text(r.action, r.text) if r.format == "roomkit_status" else r.text
    return (
        r.ts_text, placed.at_us, placed.sort_us, placed.quality, r.kind, r.lane, r.role, r.agent, r.tool, r.status,
        r.duration_ms, text, r.visibility, r.extra, r.cut, " ".join(r.flags), dump.pk, placed.line,
    )  # fmt: skip


def _placed_again(dump: Dump, rows: Iterable[tuple[int, str, str]]) -> Iterator[tuple[int | None, int, str, int]]:
    """(at_us, sort_us, quality, id) for *rows* (id, time as written, old quality) of *dump* in file order, by its
    present zone."""
    clock = Clock(dump.zone, dump.offset_ms)
    for pk, ts_text, quality in rows:
        # What was no time stays none: of a number or a list only the text is left, which may look like one.
        us, aware, _ = parse_time(ts_text if quality != "missing" else None)
        yield (*clock.place(Record(ts_us=us, ts_aware=aware)), pk)


def _post_text(action: str, detail: str) -> str:
    """What a status post says in a timeline, which has no column for its action."""
    return f"{action}: {detail}" if detail else action


def _earlier_posts(dump: Dump, before: int) -> list[tuple]:
    """The posts of *dump* that were stored before its first session line, as values for EVENT_COLUMNS."""
    rows = []
    for bus in dump.status_buses.all():
        span = StatusEntry.objects.filter(id__range=id_range(bus.pk), dump=dump, line__lt=before)
        for e in span.order_by("line", "id").iterator(ROWS):
            row = (
                e.ts_text, e.at_us, e.sort_us, e.ts_quality, "status", "status", "", e.agent, "", e.status,
                None, _post_text(e.action, e.detail), "", e.extra, e.cut, e.flags, dump.pk, e.line,
            )  # fmt: skip
            rows.append(row)
    return rows


def delete(session: Session) -> None:
    """Remove a session with all that hangs on it; whoever watches it hears that it is gone."""
    span = id_range(session.pk)
    for model in (Event, Turn, ToolCall):
        model.objects.filter(id__range=span).delete()
    log.announce(session)
    session.delete()
