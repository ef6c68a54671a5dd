"""The status log that a session is linked to: posts in its time that are no events of its own.

A post in a dump of the session is an event of it already. Agents that post elsewhere, to a log that many sessions may
share, are seen beside the session by linking it to that log.
"""

from django.db.models import QuerySet

from auditweb.log import id_range, seq_of
from auditweb.pages import iso
from sessions_app.models import Session
from status_app.models import StatusBus, StatusEntry

MOST = 5000  # posts in one answer, the newest
DETAIL = 300  # characters


def bus_of(session: Session) -> StatusBus | None:
    """The log whose posts are drawn beside *session*; None when it has none, or only one that its own dumps post to."""
    bus = session.status_bus
    if bus is None:
        return None
    dumps = set(bus.dumps.values_list("pk", flat=True))
    return bus if not dumps or dumps - _own(session) else None


def own_bus(session: Session) -> StatusBus | None:
    """The log that the dumps of *session* post to."""
    return StatusBus.objects.filter(dumps__sessions=session).order_by("pk").first()


def in_time(session: Session, bus: StatusBus) -> QuerySet[StatusEntry]:
    """The entries of *bus* from the first moment of *session* to its end; to none while it runs."""
    if session.first_us is None:
        return StatusEntry.objects.none()
    entries = bus.entries.filter(at_us__gte=session.first_us)
    end = _end_us(session)
    return entries if end is None else entries.filter(at_us__lte=end)


def columns(session: Session, after: int = 0) -> dict:
    """``{bus, title, start, open, last_seq, more, columns}``: the posts with seq > *after*, by seq, as columns.

    ``columns``: ``seq``, ``at_ms`` since ``start``, ``agent``, ``state``, ``action``, ``detail`` (cut). ``open``: more
    may come, behind ``last_seq``. ``more``: there are earlier ones than these. ``bus`` is null where none is linked.
    """
    bus = bus_of(session)
    rows: list[tuple] = []
    if bus is not None:
        first, last = id_range(bus.pk, after, bus.last_seq)
        found = in_time(session, bus).filter(id__range=(first, last)).exclude(dump_id__in=_own(session))
        names = ("id", "at_us", "agent", "status", "action", "detail")
        rows = list(found.order_by("-id").values_list(*names)[: MOST + 1])
    more, rows = len(rows) > MOST, rows[:MOST][::-1]
    start = session.first_us or 0
    return {
        "bus": bus and bus.public_id,
        "title": str(bus or ""),
        "start": iso(session.first_us),
        "open": _end_us(session) is None,
        "last_seq": bus.last_seq if bus else 0,
        "more": more,
        "columns": {
            "seq": [seq_of(row[0]) for row in rows],
            "at_ms": [(row[1] - start) // 1000 for row in rows],
            "agent": [row[2] for row in rows],
            "state": [row[3] for row in rows],
            "action": [row[4] for row in rows],
            "detail": [row[5][:DETAIL] for row in rows],
        },
    }


def link(session: Session, bus: StatusBus | None) -> None:
    """Show the posts of *bus* beside *session*; None: only those that are its own. In a transaction."""
    session = Session.objects.select_for_update(of=("self",), no_key=True).get(pk=session.pk)
    session.status_bus = bus or own_bus(session)
    session.save(update_fields=["status_bus"])


def _own(session: Session) -> set[int]:
    return set(session.dumps.values_list("pk", flat=True))


def _end_us(session: Session) -> int | None:
    """When the time of *session* is over, in microseconds; None while it runs."""
    if session.live:
        return None
    ended = round(session.ended_at.timestamp() * 1e6) if session.ended_at else 0
    return max(session.last_us or 0, ended)
