"""Rows of a session: what REST pages, the live socket and the page without scripts show of its events.

Keeps for itself how events become rows, and the SQL for it (names from here, values as parameters): columns go from
the database into JSON without model instances (a page of 200: 0.6 ms so, 4.5 ms through instances and a serializer).
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.db import connection
from django.http import QueryDict

from auditweb.dumps import store
from auditweb.dumps.models import Dump
from auditweb.log import SEQ_BITS, entry_id, id_range
from auditweb.pages import BadQuery, Params, iso
from sessions_app import calls, fulltext, membership, terms
from sessions_app.models import Event, Session

DEFAULT_LIMIT, MAX_LIMIT = 50, 1000
TEXT = 2000  # characters of text in a row; the details have all of it
MAX_SEQ = (1 << SEQ_BITS) - 1
FILTERS = ("kind", "lane", "role", "agent", "tool", "status", "severity")
_IDS = 500  # parameters of one statement; SQLite before 3.32 takes 999

_EVENTS, _DUMPS = (model._meta.db_table for model in (Event, Dump))
_COLUMNS = (
    "id, kind, lane, ref, sort_us, dump_id, line, "  # membership.Key
    "ts_text, at_us, ts_quality, role, agent, tool, status, duration_ms, "
    f"substr(text, 1, {TEXT + 1}), visibility, cut, flags, severity"
)

Row = dict[str, Any]
encode = msgspec.json.encode


@dataclass(frozen=True)
class Query:
    """Which rows of a session are wanted; the names and the meaning of paging are RoomKit's ``get_timeline``.

    ``after_index`` and ``before_index`` are seqs and exclude themselves; either wins over ``offset`` and
    ``newest_first``, which counts the offset from the end and still gives rows in order. ``words`` holds for each of
    FILTERS the values that it may have. ``order``: "arrival" (by seq) or "time" (display order).
    """

    offset: int = 0
    limit: int = DEFAULT_LIMIT
    after_index: int | None = None
    before_index: int | None = None
    seqs: list[int] | None = None
    newest_first: bool = False
    order: str = "arrival"
    visibility: str = ""
    words: Mapping[str, list[str]] = field(default_factory=dict)
    q: str = ""

    @classmethod
    def from_params(cls, query: QueryDict) -> "Query":
        """The query that the parameters of an address ask for. Raises BadQuery."""
        params = Params(query)
        after = params.integer("after_index", None, 0, MAX_SEQ)
        before = params.integer("before_index", None, 0, MAX_SEQ)
        order = params.word("order", ("arrival", "time"), "arrival")
        if after is not None and before is not None:
            raise BadQuery("before_index", "after_index and before_index exclude each other")
        if order == "time" and (after is not None or before is not None):
            raise BadQuery("order", "after_index and before_index count arrivals; use offset with order=time")
        words = {name: [w for w in query.getlist(name) if w] for name in FILTERS}
        if any(len(values) > 100 for values in words.values()):
            raise BadQuery("kind", "a filter may have 100 values")
        return cls(
            offset=params.integer("offset", 0, 0, MAX_SEQ) or 0,
            limit=params.limit(DEFAULT_LIMIT, MAX_LIMIT),
            after_index=after,
            before_index=before,
            seqs=params.numbers("seqs", MAX_LIMIT),
            newest_first=bool(params.flag("newest_first")),
            order=order,
            visibility=params.text("visibility_filter"),
            words={name: values for name, values in words.items() if values},
            q=params.text("q"),
        )

    @property
    def filtered(self) -> bool:
        return bool(self.visibility or self.words or self.q)


def page(session: Session, query: Query | None = None) -> dict:
    """``{entries, last_seq, revision, total, more}``: rows of *session*, oldest first unless ordered by time.

    ``q`` is a search as ``terms.parse`` reads it. ``more`` says whether rows lie beyond this page in its direction;
    ``total`` counts all rows of the session, null when a filter is on (counting would read them all).
    """
    query = query or Query()
    where, values = _conditions(session, query)
    span = id_range(session.pk, upto=session.last_seq)
    words = terms.parse(query.q) if query.q else None
    if query.seqs is not None:
        entries = _by_seqs(session.pk, query.seqs, where, values)
        if words:
            matches = set(matching(session, query))
            entries = [r for r in entries if r["seq"] in matches]
        if query.order == "time":
            places = _places([entry_id(session.pk, r["seq"]) for r in entries])
            entries.sort(key=lambda r: places[entry_id(session.pk, r["seq"])])
        more = False
    elif query.order == "time":
        if words:
            matches = set(matching(session, query))
            ordered = _ids_by_time(span, where, values, MAX_SEQ, 0, query.newest_first)
            seqs = [seq for seq in ordered if seq in matches][query.offset : query.offset + query.limit + 1]
        else:
            seqs = _ids_by_time(span, where, values, query.limit + 1, query.offset, query.newest_first)
        more = len(seqs) > query.limit
        seqs = seqs[: query.limit][:: -1 if query.newest_first else 1]
        by_seq = {r["seq"]: r for r in _by_seqs(session.pk, sorted(seqs), "", [])}
        entries = [by_seq[seq] for seq in seqs if seq in by_seq]
    else:
        cursor = query.after_index is not None or query.before_index is not None
        backwards = query.before_index is not None or (query.newest_first and not cursor)
        first, last = span
        offset = 0
        if query.before_index is not None:
            last = min(last, entry_id(session.pk, 0) + query.before_index - 1)
        elif query.after_index is not None:
            first += query.after_index
        elif query.filtered or session.event_count != session.last_seq:
            offset = query.offset
        elif backwards:
            last -= query.offset  # no hole in the numbers: an offset is a cursor
        else:
            first += query.offset
        count = query.limit + 1
        if words:
            passing = _passing(where, values)
            hits = fulltext.in_session(session, words, offset + count, (first, last), backwards, passing)[offset:]
            more = len(hits) > query.limit
            entries = _by_seqs(session.pk, sorted(pk & MAX_SEQ for pk in hits[: query.limit]), "", [])
        else:
            tuples = _select(
                f"WHERE id BETWEEN %s AND %s {where} ORDER BY id {'DESC' if backwards else ''} LIMIT %s OFFSET %s",
                [first, last, *values, count, offset],
            )
            more = len(tuples) > query.limit
            tuples = tuples[: query.limit]
            entries = _rows(session.pk, tuples[::-1] if backwards else tuples)
    return {
        "entries": entries,
        "last_seq": session.last_seq,
        "revision": session.revision,
        "total": None if query.filtered else session.event_count,
        "more": more,
    }


def rows_after(session_pk: int, after: int, limit: int) -> list[Row]:
    """Up to *limit* rows with seq > *after*, by seq."""
    first, last = id_range(session_pk, after)
    return _rows(session_pk, _select("WHERE id BETWEEN %s AND %s ORDER BY id LIMIT %s", [first, last, limit]))


def rows_by_seqs(session_pk: int, seqs: Iterable[int]) -> list[Row]:
    """The rows that have these seqs, by seq; a seq that there is none for is left out."""
    return _by_seqs(session_pk, sorted(set(seqs)), "", [])


def row(session_pk: int, seq: int) -> Row | None:
    """One row, or None."""
    return next(iter(rows_by_seqs(session_pk, [seq])), None)


def raw_line(event: Event) -> bytes:
    """The line that *event* came from, exactly as received; b"" when its dump is gone."""
    return store.line(event.dump, event.line) or b""


def event_detail(session: Session, seq: int) -> dict:
    """All that is known of one event. Raises Event.DoesNotExist.

    A row with its whole ``text``, and ``metadata`` (msgspec.Raw: the JSON of what has no column, its numbers as
    written), ``dump_name``, ``raw`` (the line; bytes that are not UTF-8 show as U+FFFD), ``raw_base64`` (the exact
    bytes when they are not, else null) and ``tool_call`` (the call it belongs to as in ``calls.rows``, or null).
    """
    event = Event.objects.select_related("dump").get(pk=entry_id(session.pk, _storable(seq)))
    found = row(session.pk, seq) or {}
    line = raw_line(event)
    shown = line.decode("utf-8", "replace")
    return found | {
        "text": event.text,
        "flags": event.flag_list,
        "metadata": msgspec.Raw(event.extra.encode() or b"{}"),
        "dump_name": event.dump.name,
        "raw": shown,
        "raw_base64": base64.b64encode(line).decode() if shown.encode() != line else None,
        "tool_call": calls.of_event(session.pk, found.get("call")),
    }


def _storable(seq: int) -> int:
    if not 0 < seq <= MAX_SEQ:
        raise Event.DoesNotExist
    return seq


def _conditions(session: Session, query: Query) -> tuple[str, list]:
    """SQL to add to a WHERE that names the session's range, and its values."""
    parts, values = [], []
    for name, words in query.words.items():
        parts.append(f"AND {name} IN ({', '.join(['%s'] * len(words))})")
        values += words
    if query.visibility:
        parts.append("AND visibility = %s")
        values.append(query.visibility)
    return " ".join(parts), values


def matching(session: Session, query: Query) -> list[int]:
    """The seqs of all rows of *session* that pass the filters and have the words of *query*, ascending."""
    where, values = _conditions(session, query)
    if query.q:
        return [pk & MAX_SEQ for pk in fulltext.within(session, terms.parse(query.q), _passing(where, values))]
    with connection.cursor() as cursor:
        span = id_range(session.pk, upto=session.last_seq)
        cursor.execute(f"SELECT id FROM {_EVENTS} WHERE id BETWEEN %s AND %s {where} ORDER BY id", [*span, *values])  # noqa: S608
        return [pk & MAX_SEQ for (pk,) in cursor.fetchall()]


def _passing(where: str, values: list) -> Callable[[list[int]], set[int]] | None:
    """Which of some keys pass the filters, as a function; None when there are none."""
    if not where:
        return None

    def passing(keys: list[int]) -> set[int]:
        found = set()
        for start in range(0, len(keys), _IDS):
            some = keys[start : start + _IDS]
            marks = ", ".join(["%s"] * len(some))
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT id FROM {_EVENTS} WHERE id IN ({marks}) {where}", [*some, *values])  # noqa: S608
                found.update(pk for (pk,) in cursor.fetchall())
        return found

    return passing


def _select(tail: str, values: Sequence) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM {_EVENTS} {tail}", values)  # noqa: S608
        return cursor.fetchall()


def _by_seqs(session_pk: int, seqs: Sequence[int], where: str, values: list) -> list[Row]:
    base = entry_id(session_pk, 0)
    seqs = [s for s in seqs if 0 < s <= MAX_SEQ]
    if not seqs:
        return []
    tuples: list[tuple] = []
    if seqs[-1] - seqs[0] == len(seqs) - 1:
        tuples = _select(f"WHERE id BETWEEN %s AND %s {where} ORDER BY id", [base + seqs[0], base + seqs[-1], *values])
    else:
        for start in range(0, len(seqs), _IDS):
            ids = [base + s for s in seqs[start : start + _IDS]]
            marks = ", ".join(["%s"] * len(ids))
            tuples += _select(f"WHERE id IN ({marks}) {where} ORDER BY id", [*ids, *values])
    return _rows(session_pk, tuples)


def _ids_by_time(
    span: tuple[int, int], where: str, values: list, limit: int, offset: int, newest_first: bool
) -> list[int]:
    """Seqs in display order, or the reverse. Only what orders is sorted; the rows themselves are read afterwards."""
    down = "DESC" if newest_first else "ASC"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM {_EVENTS} WHERE id BETWEEN %s AND %s {where} "  # noqa: S608
            f"ORDER BY sort_us {down}, dump_id {down}, line {down}, id {down} LIMIT %s OFFSET %s",
            [*span, *values, limit, offset],
        )
        return [pk & MAX_SEQ for (pk,) in cursor.fetchall()]


def _places(ids: list[int]) -> dict[int, tuple]:
    places: dict[int, tuple] = {}
    for start in range(0, len(ids), _IDS):
        some = Event.objects.filter(pk__in=ids[start : start + _IDS])
        places.update({pk: tuple(at) for pk, *at in some.values_list("id", "sort_us", "dump_id", "line", "id")})
    return places


def _rows(session_pk: int, tuples: list[tuple]) -> list[Row]:
    """Database tuples (by seq) → rows."""
    if not tuples:
        return []
    base = entry_id(session_pk, 0)
    dumps = _dump_ids({t[5] for t in tuples})
    depths = _chain_depths([t[0] for t in tuples if t[16]])
    belong = membership.of(session_pk, [t[:7] for t in tuples])
    rows = []
    for event, (turn, call, run) in zip(tuples, belong, strict=True):
        (
            pk, kind, lane, _, _, dump, line, ts_text, at_us, ts_quality, role, agent, tool, status, duration_ms, text,
            visibility, cut, flags, severity,
        ) = event  # fmt: skip
        flag_list = flags.split() if flags else []
        if len(text) > TEXT:
            text = text[:TEXT]
            flag_list.append("more")
        rows.append(
            {
                "seq": pk - base,
                "at": iso(at_us),
                "ts": ts_text,
                "ts_quality": ts_quality,
                "kind": kind,
                "lane": lane,
                "role": role,
                "agent": agent,
                "tool": tool,
                "status": status,
                "severity": severity,
                "duration_ms": duration_ms,
                "text": text,
                "cut": cut,
                "turn": turn,
                "call": call,
                "run": run,
                "visibility": visibility,
                "depth": depths.get(pk, 0),
                "dump": dumps.get(dump),
                "line": line,
                "flags": flag_list,
            }
        )
    return rows


def _chain_depths(pks: list[int]) -> dict[int, int]:
    """How many answers led to each event of a room's timeline: only their lines tell it, and all of them have a
    visibility, so other sessions pay nothing."""
    depths: dict[int, int] = {}
    for start in range(0, len(pks), _IDS):
        found = Event.objects.filter(pk__in=pks[start : start + _IDS], extra__contains='"chain_depth"')
        for pk, extra in found.values_list("pk", "extra"):
            depth = msgspec.json.decode(calls.extra_parts(extra).get("chain_depth", b"0"))
            if depth.__class__ is int and 0 < depth < 1000:
                depths[pk] = depth
    return depths


def _dump_ids(pks: set[int]) -> dict[int, str]:
    marks = ", ".join(["%s"] * len(pks))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id, public_id FROM {_DUMPS} WHERE id IN ({marks})", list(pks))  # noqa: S608
        return dict(cursor.fetchall())
