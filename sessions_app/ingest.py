"""Records → events of sessions: the only module that creates them.

Keeps for itself which session a line belongs to.
"""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from django.db.models import Q
from django.utils import timezone

from auditweb import live, log
from auditweb.dumps.models import Dump, State
from auditweb.dumps.sinks import Placed, feeds
from auditweb.formats.clock import Clock, parse_time
from auditweb.formats.record import Record
from auditweb.log import id_range
from sessions_app import fulltext, projection
from sessions_app.models import EVENT_COLUMNS, Event, Session
from sessions_app.summary import FORMAT_OF
from status_app.ingest import bus_of
from status_app.models import StatusBus, StatusEntry

NEW_RUN_US = 4 * 3600 * 1_000_000  # a session line this long after the line before it starts another session
ROWS = 2000


class SessionSink:
    """Puts every line of a dump into its session; a dump of nothing but status lines has none.

    Lines that name a session of their own belong to that one; all others to the session of the dump, of which a
    RoomKit file that holds several runs has several.
    """

    name = "sessions"
    order = 10

    def store(self, dump: Dump, batch: list[Placed], state: dict) -> int:
        rows: dict[int, list[tuple]] = {}  # session → its new events
        own: list[tuple] = []  # events for the session in state["session"]
        named = _named_sessions(dump, batch)
        dump_id = dump.pk
        for placed in batch:
            record = placed.record
            if record.session and not dump.session_key:
                rows.setdefault(_named(dump, record.session, named, state), []).append(_row(dump_id, placed))
                continue
            if record.format == "roomkit_status":
                own.append(_row(dump_id, placed))
            elif "session" not in state:
                # Its transaction appends the status lines before it first: those of this batch are in own already.
                own = _earlier_posts(dump, before=batch[0].line) + own
                state["session"] = _open(dump, *_own(dump, 1), state).pk
                state["run"] = 1
                own.append(_row(dump_id, placed))
            else:
                if record.opens and not dump.session_key and _long_silence(record, state):
                    rows.setdefault(state["session"], []).extend(own)
                    own = []
                    state["run"] += 1
                    state["session"] = _open(dump, *_own(dump, state["run"]), state).pk
                own.append(_row(dump_id, placed))
            if record.ts_us is not None:
                state["aware" if record.ts_aware else "naive"] = record.ts_us
        if "session" in state and own:
            rows.setdefault(state["session"], []).extend(own)
        # Locked in an order that is the same for all: two dumps may feed the same sessions.
        return sum(_append(pk, rows[pk], dump) for pk in sorted(rows))

    def late(self, dump: Dump, batch: list[Placed]) -> int:
        """Store lines that could not be read before, each in the session of its neighbours; how many events."""
        rows: dict[int, list[tuple]] = {}
        named = _named_sessions(dump, batch)
        dump_id = dump.pk
        for placed in batch:
            record = placed.record
            if record.session and not dump.session_key:
                pk = _named(dump, record.session, named, {})
            elif record.format == "roomkit_status" and not dump.sessions.exists():
                continue
            else:
                pk = _session_around(dump, placed.line)
            rows.setdefault(pk, []).append(_row(dump_id, placed))
        created = sum(_append(pk, rows[pk], dump) for pk in sorted(rows))
        self.settle(dump)
        return created

    def retime(self, dump: Dump) -> None:
        sessions = _locked(dump)
        columns = ("line", "id", "ts_text", "ts_quality")
        rows = [s.events.filter(dump=dump).order_by("line", "id").values_list(*columns) for s in sessions]
        streams = [of_session.iterator(ROWS) for of_session in rows]
        in_file_order = (row[1:] for row in heapq.merge(*streams))
        log.update_many(Event, ["at_us", "sort_us", "ts_quality"], _placed_again(dump, in_file_order))
        for session in sessions:
            projection.rebuild(session)

    def settle(self, dump: Dump) -> None:
        """All lines are stored: derive again where they came out of order; drop what a new import left empty."""
        for session in _locked(dump):
            # The newest first: they are those of the dump that is settled.
            if session.events.filter(dump=dump).order_by("-id").values_list("id").first() is None:
                session.dumps.remove(dump)
                if not session.events.exists():
                    delete(session)
                    continue
            projection.settle(session)

    def finish(self, dump: Dump) -> None:
        from auditweb.celery import send
        from sessions_app.tasks import summarize

        if any(dump.records.get(name) for name in FORMAT_OF.values()):
            for session in dump.sessions.all():
                send(summarize, session.pk)

    def heard(self, dump: Dump) -> None:
        now = timezone.now()
        for session in dump.sessions.filter(live=True).order_by("pk"):
            Session.objects.filter(pk=session.pk).update(heard_at=now)
            log.announce(session)

    def said(self, dump: Dump, role: str, text: str) -> None:
        session = dump.sessions.filter(live=True).order_by("pk").last()
        if session is not None:
            live.tell(session.live_key, {"type": "provisional", "role": role, "text": text})

    def ended(self, dump: Dump) -> None:
        for session in _locked(dump):
            _end(session)

    def forget(self, dump: Dump, keep: bool = False) -> None:
        """Remove the events of *dump*. *keep*: sessions stay, empty, because the dump is imported again."""
        for session in _locked(dump):
            fulltext.remove(session, session.events.filter(dump=dump))
            session.events.filter(dump=dump).delete()
            if keep:
                projection.rebuild(session)
                continue
            session.dumps.remove(dump)
            if session.events.exists():
                _end(session)
                if session.status_bus in dump.status_buses.all():
                    # It may go next, with this dump's posts: the session keeps one that its other dumps post to.
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


def _own(dump: Dump, run: int) -> tuple[str, str]:
    """(key, title) of the session of *run* (from 1) of *dump*."""
    if dump.session_key:
        return dump.session_key, dump.session_key
    title = _title(dump)
    return (dump.public_id, title) if run == 1 else (f"{dump.public_id}#{run}", f"{title} · run {run}")


def _title(dump: Dump) -> str:
    """The name of the file without what says how it is written; a producer's name for its stream is no file's."""
    name = PurePath(dump.name.removesuffix(".gz"))
    return (
        (name.stem or dump.name)
        if not dump.stream or name.suffix in (".jsonl", ".ndjson", ".json", ".log")
        else dump.name
    )


def _key(dump: Dump, name: str) -> str:
    """The key of the session that its producer calls *name*: its dump's own, unless dumps are joined by it."""
    return name if dump.join else f"{dump.public_id}:{name}"


def _named_sessions(dump: Dump, batch: list[Placed]) -> dict[str, int]:
    """Key → session, for the sessions that lines of *batch* name and that *dump* has fed before."""
    if dump.session_key:
        return {}
    keys = {_key(dump, p.record.session) for p in batch if p.record.session}
    return dict(dump.sessions.filter(key__in=keys).values_list("key", "pk")) if keys else {}


def _named(dump: Dump, name: str, known: dict[str, int], state: dict) -> int:
    """The session that its producer calls *name*; made, and added to *known*, when its first line comes."""
    key = _key(dump, name)
    if key not in known:
        known[key] = _open(dump, key, f"{_title(dump)} · {name}", state).pk
    return known[key]


def _open(dump: Dump, key: str, title: str, state: dict) -> Session:
    """The session *key* of the dump's team, made if there is none yet; noted in the *state* of the sink."""
    session = log.open(Session, team_id=dump.team_id, key=key, defaults={"title": title[:300]})
    session.dumps.add(dump)
    feeds(state, session.public_id)
    return session


def _session_around(dump: Dump, line: int) -> int:
    """The session that the lines around *line* of *dump* went to, of those that name none."""
    if dump.session_key:
        return _open(dump, *_own(dump, 1), {}).pk
    runs = dump.sessions.filter(Q(key=dump.public_id) | Q(key__startswith=f"{dump.public_id}#")).order_by("pk")
    found = None
    for session in runs:
        first = session.events.filter(dump=dump).order_by("id").values_list("line", flat=True).first()
        if found is None or (first is not None and first <= line):
            found = session.pk
    return found or _open(dump, *_own(dump, 1), {}).pk


def _end(session: Session) -> None:
    """Let *session* end, if no stream that runs feeds it any more."""
    if session.live and not session.dumps.filter(state=State.LIVE).exists():
        session.live, session.ended_at = False, timezone.now()
        session.save(update_fields=["live", "ended_at"])
        log.announce(session)


def _locked(dump: Dump) -> list[Session]:
    """The sessions of *dump*, locked in an order that is the same for all."""
    return list(dump.sessions.select_for_update(of=("self",), no_key=True).order_by("pk"))


def _append(session_id: int, rows: list[tuple], dump: Dump) -> int:
    """Store *rows* in a session and derive from them; how many there were."""
    if not rows:
        return 0
    session = log.locked(Session, id=session_id)
    if session is None:
        raise Session.DoesNotExist
    before = fulltext.face(session) if session.last_seq else None
    events = log.append(session, Event, EVENT_COLUMNS, rows)
    projection.project(session, events, {dump.pk: dump.stamp})
    fulltext.add(session, events, before)
    if dump.state == State.LIVE and not session.live:
        session.live, session.ended_at = True, None
        session.save(update_fields=["live", "ended_at"])
    if session.status_bus_id is None and any(row[_KIND] == "status" for row in rows):
        session.status_bus = bus_of(dump)
        session.save(update_fields=["status_bus"])
    return len(rows)


def _row(dump_id: int, placed: Placed) -> tuple:
    """A record as values for EVENT_COLUMNS."""
    r = placed.record
    text = _post_text(r.action, r.text) if r.format == "roomkit_status" else r.text
    return (
        r.ts_text, placed.at_us, placed.sort_us, placed.quality, r.kind, r.lane, r.role, r.agent, r.tool, r.status,
        r.duration_ms, text, r.visibility, r.ref, r.severity, r.extra, r.cut, " ".join(r.flags), dump_id, placed.line,
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
                None, _post_text(e.action, e.detail), "", "", "", e.extra, e.cut, e.flags, dump.pk, e.line,
            )  # fmt: skip
            rows.append(row)
    return rows


def delete(session: Session) -> None:
    """Remove a session with all that hangs on it; whoever watches it hears that it is gone."""
    span = id_range(session.pk)
    fulltext.remove(session)
    Event.objects.filter(id__range=span).delete()
    projection.forget(session.pk)
    log.announce(session)
    session.delete()
