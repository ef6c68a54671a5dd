"""The whole session as columns: what the overview draws and the scroller measures.

Keeps for itself how the columns are read, coded and remembered.
"""

import gzip
from collections.abc import Iterable
from itertools import pairwise
from operator import itemgetter

import msgspec
from django.core.cache import cache
from django.db import connection
from django.db.models import F

from auditweb.formats.record import LANES
from auditweb.log import SEQ_BITS, id_range
from auditweb.pages import iso
from sessions_app.models import Event, Session, ToolCall, ToolStep

# Outlines are remembered in a fixed number of places of a bounded size, whatever the cache behind: at most 32 MB.
PLACES = 32
PLACE_BYTES = 2**20
SECONDS = 3600
SMALL = 500  # events; up to here building is as fast as remembering

ATTEMPT, OPEN = "→", "?"  # in the state of an attempt: that it is one, and that it has no outcome

_SEQ = (1 << SEQ_BITS) - 1


def tag(session: Session) -> str:
    """What an outline of *session* is as of: changes whenever the outline does."""
    return f"{session.public_id}.{session.revision}.{session.last_seq}"


def outline(session: Session) -> bytes:
    """The outline of *session* as JSON; see `build` for its shape."""
    return gzip.decompress(outline_gzip(session))


def outline_gzip(session: Session) -> bytes:
    """The same, gzip-compressed; remembered until the session changes."""
    if session.last_seq <= SMALL:
        return _pack(build(session))
    place = f"outline:{session.pk % PLACES}"
    known = cache.get(place)
    if known and known[0] == tag(session):
        return known[1]
    packed = _pack(build(session))
    if len(packed) <= PLACE_BYTES:
        cache.set(place, (tag(session), packed), SECONDS)
    return packed


def _pack(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def build(session: Session) -> bytes:
    """``{revision, last_seq, start, end, lanes, agents, states, columns}`` as JSON, rows in display order.

    ``columns``: ``seq`` and ``at_ms`` as differences to the value before (null: unknown, and no value before),
    ``lane``, ``agent``, ``state`` as indexes into the lists (null: none), ``duration_ms`` whole (null: unknown).
    ``at_ms`` counts from ``start`` to when a thing began: the stamp of a call that was recorded at its end is moved
    back by its duration. An attempt lasts until its outcome, which has no bar of its own, and its state is "→ " with
    what it came to: "→ ?" without an outcome. ``start`` and ``end`` (ISO UTC or null) enclose all bars.
    """
    first, last = id_range(session.pk, upto=session.last_seq)
    table = connection.ops.quote_name(Event._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT sort_us, dump_id, line, id, at_us, lane, agent, status, duration_ms FROM {table} "  # noqa: S608
            "WHERE id BETWEEN %s AND %s ORDER BY id",
            [first, last],
        )
        rows = cursor.fetchall()
    rows.sort()  # nearly sorted already, and ids differ: faster than any database sorts wide rows
    # Column by column: zip(*rows) with 100,000 arguments takes three times as long.
    ids, ends, lanes, agents, states, durations = (list(map(itemgetter(i), rows)) for i in range(3, 9))
    # A call that was stamped at its beginning stays there.
    early = set(ToolCall.objects.filter(id__range=(first, last)).exclude(stamp="end").values_list("id", flat=True))
    if early:
        _join_calls(first, last, ids, ends, states, durations)
    starts = [
        at - round(ms * 1000) if lane == "tool" and ms and at is not None and pk not in early else at
        for pk, at, lane, ms in zip(ids, ends, lanes, durations, strict=True)
    ]
    known = [at for at in starts if at is not None]
    start = min(known, default=None)
    end = max(
        (at + round((ms or 0) * 1000) for at, ms in zip(starts, durations, strict=True) if at is not None), default=None
    )
    used = set(lanes)
    lane_list = [lane for lane in LANES if lane in used] + sorted(used - set(LANES))
    agent_list = sorted(set(agents) - {""})
    state_list = sorted(set(states) - {""})
    return msgspec.json.encode(
        {
            "revision": session.revision,
            "last_seq": session.last_seq,
            "start": iso(start),
            "end": iso(end),
            "lanes": lane_list,
            "agents": agent_list,
            "states": state_list,
            "columns": {
                "seq": _differences(ids),
                "at_ms": _differences_of_known([None if at is None else (at - (start or 0)) // 1000 for at in starts]),
                "lane": _indexes(lanes, lane_list),
                "agent": _indexes(agents, agent_list),
                "state": _indexes(states, state_list),
                "duration_ms": [None if ms is None else round(ms) for ms in durations],
            },
        }
    )


def _join_calls(first: int, last: int, ids: list, starts: list, states: list, durations: list) -> None:
    """Draw calls of two lines as one bar, from attempt to outcome, with the state that they came to.

    The arrow keeps an attempt apart from its outcome, so that a failed call is one failure.
    """
    place = {pk: i for i, pk in enumerate(ids)}
    attempts = ToolStep.objects.filter(id__range=(first, last), stage="attempt").values_list("id", flat=True)
    for pk in attempts:
        if pk in place:
            states[place[pk]] = f"{ATTEMPT} {OPEN}"
    paired = ToolCall.objects.filter(id__range=(first, last), stamp="both")
    for pk, status, started, ended in paired.values_list("id", "status", "started_us", "ended_us"):
        i = place.get(pk)
        if i is not None:
            states[i] = f"{ATTEMPT} {status}"
            durations[i] = between(started, ended)
    outcomes = ToolStep.objects.filter(id__range=(first, last), stage="result").exclude(call=F("id"))
    for pk in outcomes.values_list("id", flat=True):
        if pk in place:
            durations[place[pk]] = None


def between(started_us: int | None, ended_us: int | None) -> float | None:
    """Milliseconds from the attempt of a call to its outcome; None when a time is unknown or they are out of order."""
    if started_us is None or ended_us is None or ended_us < started_us:
        return None
    return (ended_us - started_us) / 1000


def _differences(ids: list[int]) -> list[int]:
    return [*(pk & _SEQ for pk in ids[:1]), *(b - a for a, b in pairwise(ids))]


def _differences_of_known(numbers: list[int | None]) -> list[int | None]:
    coded: list[int | None] = []
    before = 0
    for number in numbers:
        if number is None:
            coded.append(None)
        else:
            coded.append(number - before)
            before = number
    return coded


def _indexes(words: Iterable[str], of: list[str]) -> list[int | None]:
    places: dict[str, int] = {word: i for i, word in enumerate(of)}
    return list(map(places.get, words))
