"""Entries of a status log as JSON rows: for REST and for the live socket."""

import json
import time
from typing import Any

from django.db.models import Case, CharField, F, QuerySet, Value, When

from auditweb.log import id_range, seq_of
from auditweb.pages import iso
from status_app.lanes import Post
from status_app.models import StatusBus, StatusEntry

MAX_ROWS = 1000
BY_TIME = ("sort_us", "dump_id", "line", "id")
BEFORE, BEHIND = 1000, 5000  # entries of a long log that are looked at for what belongs together
_COLUMNS = ("id", "ts_text", "at_us", "agent", "action", "status", "detail", "extra")
POSTED = ("ts", "agent_id", "action", "status", "detail", "metadata")  # of a row: the post itself, as RoomKit has it
_SAFE = 2**53  # from here on not every reader of JSON keeps an integer's digits

Row = dict[str, Any]


def rows_after(bus_pk: int, after: int, limit: int) -> list[Row]:
    """Up to *limit* entries with seq > *after*, by seq.

    A row: ``{seq, ts, at, agent_id, action, status, detail, metadata, age_ms}``. ``ts`` is the time as written, ``at``
    the same in ISO UTC (null when unreadable), ``age_ms`` the milliseconds since then as the server reads its clock
    (null when ``at`` is). Integers of ``metadata`` beyond 2**53 come as text.
    """
    return _rows(StatusEntry.objects.filter(id__range=id_range(bus_pk, after)).order_by("id")[:limit])


def page(bus: StatusBus, after: int | None = None, before: int | None = None, limit: int = 50) -> dict:
    """``{entries, last_seq, revision, more}``: entries by seq; with *before* the last ones that lie before it."""
    entries = StatusEntry.objects.filter(id__range=id_range(bus.pk, after or 0, bus.last_seq))
    if before is not None and after is None:
        first = id_range(bus.pk, max(0, before - 1))[0]
        rows = _rows(entries.filter(id__lt=first).order_by("-id")[: limit + 1])
        more, rows = len(rows) > limit, rows[:limit][::-1]
    else:
        rows = _rows(entries.order_by("id")[: limit + 1])
        more, rows = len(rows) > limit, rows[:limit]
    return {"entries": rows, "last_seq": bus.last_seq, "revision": bus.revision, "more": more}


def recent(bus: StatusBus, n: int = 10, agent_id: str = "", status: str = "") -> list[Row]:
    """The last *n* entries by time (file order breaks ties), oldest first, of one agent and status when told."""
    entries = bus.entries
    if agent_id:
        entries = entries.filter(agent=agent_id)
    if status:
        entries = entries.filter(status=status)
    return _rows(entries.order_by(*_DOWN)[:n])[::-1]


def posts(bus: StatusBus, first_us: int | None = None) -> list[Post]:
    """The entries of *bus* by time, for `lanes.tie`. Of a long log those around *first_us*: up to BEFORE before it and
    BEHIND from there on; None: the newest."""
    named = Case(
        When(extra__contains='"task_id"', then=F("extra")), default=Value(""), output_field=CharField()
    )  # the rest of the metadata, a whole result for example, stays where it is
    entries = bus.entries.annotate(named=named)
    if first_us is None or bus.entry_count <= BEHIND:
        rows = _slim(entries.order_by(*_DOWN)[:BEHIND])[::-1]
    else:
        rows = _slim(entries.filter(sort_us__lt=first_us).order_by(*_DOWN)[:BEFORE])[::-1]
        rows += _slim(entries.filter(sort_us__gte=first_us).order_by(*BY_TIME)[:BEHIND])
    return [
        Post(seq_of(pk), at_us, agent, action, status, _task(text)) for pk, at_us, agent, action, status, text in rows
    ]


_DOWN = tuple(f"-{column}" for column in BY_TIME)


def _slim(entries: QuerySet) -> list[tuple]:
    return list(entries.values_list("id", "at_us", "agent", "action", "status", "named"))


def _task(extra: str) -> str:
    task = json.loads(extra).get("task_id") if extra else ""
    return task if isinstance(task, str) else ""


GUARD_LOOKS = 50  # RoomKit's own look back for a completed task


def completed(bus: StatusBus, agent_id: str = "") -> Row | None:
    """The latest entry with the status completed, of one agent when told, as a row; None when there is none.

    By time among the last GUARD_LOOKS that arrived: clocks differ a little, and a long log is not read whole for it.
    """
    entries = bus.entries.filter(status="completed", at_us__isnull=False)
    if agent_id:
        entries = entries.filter(agent=agent_id)
    if not bus.levels.get("completed"):
        return None
    return min(_rows(entries.order_by("-id")[:GUARD_LOOKS]), key=lambda row: row["age_ms"], default=None)


def _rows(entries: QuerySet[StatusEntry]) -> list[Row]:
    return [_row(*values) for values in entries.values_list(*_COLUMNS)]


def _row(pk, ts_text, at_us, agent, action, status, detail, extra) -> Row:
    return {
        "seq": seq_of(pk),
        "ts": ts_text,
        "at": iso(at_us),
        "agent_id": agent,
        "action": action,
        "status": status,
        "detail": detail,
        "metadata": json.loads(extra, parse_int=_integer) if extra else {},
        "age_ms": None if at_us is None else time.time_ns() // 1_000_000 - at_us // 1000,
    }


def _integer(digits: str) -> int | str:
    if len(digits) < 17 and abs(number := int(digits)) <= _SAFE:
        return number
    return digits
