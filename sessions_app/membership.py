"""The turn, the tool call and the agent run that an event belongs to.

Keeps for itself how a turn is found by its place in display order: turns are numbered along it, so the database
halves the range of numbers itself (17 look-ups for 100,000 turns, 0.03 ms).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import connection

from auditweb.log import SEQ_BITS, entry_id, id_range
from sessions_app.chains import STAGES
from sessions_app.models import AgentRun, Event, ToolStep, Turn

_SEQ = (1 << SEQ_BITS) - 1
_IDS = 500  # parameters of one statement; SQLite before 3.32 takes 999
_TURNS = Turn._meta.db_table
_OF_RUNS = frozenset({"agent_run", "callback", "skill"})  # kinds that come from the line of a run


# What of an event says where it belongs: id, kind, lane, ref, sort_us, dump_id, line. A plain tuple: a page has 200.
Key = tuple[int, str, str, str, int, int, int]
Place = tuple[int, int, int, int]  # in display order: sort_us, dump_id, line, seq


class Membership(NamedTuple):
    """Number of the turn, seq of the call's first main event, seq of the run's event; None where there is none."""

    turn: int | None
    call: int | None
    run: int | None


def of(session_pk: int, keys: Sequence[Key]) -> Sequence[tuple[int | None, int | None, int | None]]:
    """Where the events with *keys*, all of one session, belong, each as in Membership; in the order given."""
    staged: list[int] = []
    calls: dict[int, int] = {}
    lines: dict[int, set[int]] = {}  # dump → lines that may be of a run
    refs: set[str] = set()
    for pk, kind, lane, ref, _, dump, line in keys:
        if lane == "tool" or lane == "decision":
            if kind in STAGES:
                staged.append(pk)
            elif lane == "tool":
                calls[pk] = pk & _SEQ
        if ref:
            refs.add(ref)
            if kind in _OF_RUNS or kind.startswith("event:"):
                lines.setdefault(dump, set()).add(line)
    calls |= _calls(staged)
    runs = _runs(session_pk, lines)
    turns = _turns(session_pk, keys, refs)
    return [
        (turns[pk], calls.get(pk), runs.get((dump, line)) if ref else None) for pk, _, _, ref, _, dump, line in keys
    ]


def of_event(event: Event) -> Membership:
    """Where one event belongs."""
    key = (event.pk, event.kind, event.lane, event.ref, event.sort_us, event.dump_id, event.line)
    return Membership(*of(event.pk >> SEQ_BITS, [key])[0])


def _calls(staged: list[int]) -> dict[int, int]:
    """The calls of events that are one of several, by ToolStep."""
    found: dict[int, int] = {}
    if staged and max(staged) - min(staged) < 10 * len(staged):
        parts = [ToolStep.objects.filter(id__range=(min(staged), max(staged)))]
    else:
        parts = [ToolStep.objects.filter(pk__in=part) for part in _parts(staged)]
    for steps in parts:
        found.update((pk, call & _SEQ) for pk, call in steps.values_list("id", "call"))
    return found


def _runs(session_pk: int, lines: dict[int, set[int]]) -> dict[tuple[int, int], int]:
    found = {}
    for dump, numbers in lines.items():
        for part in _parts(sorted(numbers)):
            runs = AgentRun.objects.filter(dump_id=dump, line__in=part, id__range=id_range(session_pk))
            found.update({(dump, line): pk & _SEQ for pk, line in runs.values_list("id", "line")})
    return found


def _turns(session_pk: int, keys: Sequence[Key], refs: set[str]) -> dict[int, int | None]:
    named: dict[str, int] = {}
    for part in _parts(sorted(refs)):
        # The index is of turns with a ref; SQLite uses it only where the query says so in the same words.
        turns = Turn.objects.exclude(ref="").filter(ref__in=part, id__range=id_range(session_pk)).order_by("id")
        named.update({ref: pk & _SEQ for ref, pk in turns.values_list("ref", "id")})
    numbers: dict[int, int | None] = {}
    placed: list[Place] = []
    base = entry_id(session_pk, 0)
    for pk, kind, _, ref, sort_us, dump, line in keys:
        if ref in named:
            numbers[pk] = named[ref]
        elif kind == "turn_end":
            numbers[pk] = None
        else:
            placed.append((sort_us, dump, line, pk - base))
    placed.sort()
    start = 0
    while start < len(placed):
        start += _of_stretch(session_pk, placed[start:], numbers)
    return numbers


# The last turn that began with an utterance at or before a place, and the ones that follow it.
_HALVE = f"""
WITH RECURSIVE half(lo, hi) AS (
    SELECT %s, COALESCE(MAX(id), %s) FROM {_TURNS} WHERE id BETWEEN %s AND %s
    UNION ALL
    SELECT CASE WHEN (SELECT (sort_us, dump_id, line, first_seq) <= (%s, %s, %s, %s) FROM {_TURNS}
                      WHERE id = (lo + hi + 1) / 2)
                THEN (lo + hi + 1) / 2 ELSE lo END,
           CASE WHEN (SELECT (sort_us, dump_id, line, first_seq) <= (%s, %s, %s, %s) FROM {_TURNS}
                      WHERE id = (lo + hi + 1) / 2)
                THEN hi ELSE (lo + hi + 1) / 2 - 1 END
    FROM half WHERE lo < hi
)
SELECT id, sort_us, dump_id, line, first_seq FROM {_TURNS}
WHERE ref = '' AND id BETWEEN
    COALESCE((SELECT MAX(id) FROM {_TURNS} WHERE ref = '' AND id BETWEEN %s AND (SELECT MAX(lo) FROM half)), %s) AND %s
ORDER BY id LIMIT %s
"""  # noqa: S608


def _of_stretch(session_pk: int, places: list[Place], numbers: dict[int, int | None]) -> int:
    """Find the turns of the first of *places* (in display order) and of those that follow it closely; how many."""
    first, last = id_range(session_pk)
    base, place = first - 1, places[0]
    wanted = len(places) + 1  # every turn but the first begins at an event of its own
    with connection.cursor() as cursor:
        cursor.execute(_HALVE, [first, first, first, last, *place, *place, first, first, last, wanted])
        turns = cursor.fetchall()
    begins = [turn[1:] for turn in turns]
    i, known = -1, len(turns) - 1
    for done, place in enumerate(places):
        while i < known and begins[i + 1] <= place:
            i += 1
        if i + 1 == wanted and done:
            return done  # further turns may lie between this event and the one before it
        numbers[base + place[3]] = turns[i][0] & _SEQ if i >= 0 else None
    return len(places)


def _parts(values: Sequence) -> Iterable[Sequence]:
    return (values[start : start + _IDS] for start in range(0, len(values), _IDS))
