"""The turn, the tool call and the agent run that an event belongs to.

Keeps for itself how a turn is found by its place in display order: turns are numbered along it, so the database
halves the range of numbers itself (17 look-ups for 100,000 turns, 0.03 ms).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import connection

from auditweb.log import SEQ_BITS, id_range
from sessions_app.chains import STAGES
from sessions_app.models import AgentRun, Event, ToolStep, Turn

_SEQ = (1 << SEQ_BITS) - 1
_IDS = 500  # parameters of one statement; SQLite before 3.32 takes 999
_TURNS = Turn._meta.db_table
_OF_RUNS = frozenset({"agent_run", "callback", "skill"})  # kinds that come from the line of a run


class Key(NamedTuple):
    """What of an event says where it belongs."""

    id: int
    kind: str
    lane: str
    ref: str
    sort_us: int
    dump_id: int
    line: int

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Its place in display order."""
        return self.sort_us, self.dump_id, self.line, self.id & _SEQ


class Membership(NamedTuple):
    """Number of the turn, seq of the call's first main event, seq of the run's event; None where there is none."""

    turn: int | None
    call: int | None
    run: int | None


def of(session_pk: int, keys: Sequence[Key]) -> list[Membership]:
    """Where the events with *keys*, all of one session, belong; in the order given."""
    turns, calls, runs = _turns(session_pk, keys), _calls(keys), _runs(session_pk, keys)
    return [Membership(turns[k.id], calls.get(k.id), runs.get((k.dump_id, k.line)) if k.ref else None) for k in keys]


def of_event(event: Event) -> Membership:
    """Where one event belongs."""
    key = Key(event.pk, event.kind, event.lane, event.ref, event.sort_us, event.dump_id, event.line)
    return of(event.pk >> SEQ_BITS, [key])[0]


def _calls(keys: Sequence[Key]) -> dict[int, int]:
    staged = [k.id for k in keys if k.kind in STAGES and k.lane in ("tool", "decision")]
    found: dict[int, int] = {k.id: k.id & _SEQ for k in keys if k.lane == "tool" and k.kind not in STAGES}
    if staged and max(staged) - min(staged) < 10 * len(staged):
        steps = ToolStep.objects.filter(id__range=(min(staged), max(staged)))
        found.update((pk, call & _SEQ) for pk, call in steps.values_list("id", "call"))
        return found
    for part in _parts(staged):
        steps = ToolStep.objects.filter(pk__in=part)
        found.update((pk, call & _SEQ) for pk, call in steps.values_list("id", "call"))
    return found


def _runs(session_pk: int, keys: Sequence[Key]) -> dict[tuple[int, int], int]:
    lines: dict[int, set[int]] = {}
    for k in keys:
        if k.ref and (k.kind in _OF_RUNS or k.kind.startswith("event:")):
            lines.setdefault(k.dump_id, set()).add(k.line)
    found = {}
    for dump, numbers in lines.items():
        for part in _parts(sorted(numbers)):
            runs = AgentRun.objects.filter(dump_id=dump, line__in=part, id__range=id_range(session_pk))
            found.update({(dump, line): pk & _SEQ for pk, line in runs.values_list("id", "line")})
    return found


def _turns(session_pk: int, keys: Sequence[Key]) -> dict[int, int | None]:
    numbers: dict[int, int | None] = {}
    named: dict[str, int] = {}
    for part in _parts(sorted({k.ref for k in keys if k.ref})):
        # The index is of turns with a ref; SQLite uses it only where the query says so in the same words.
        turns = Turn.objects.exclude(ref="").filter(ref__in=part, id__range=id_range(session_pk)).order_by("id")
        named.update({ref: pk & _SEQ for ref, pk in turns.values_list("ref", "id")})
    placed = []
    for k in keys:
        if k.ref in named:
            numbers[k.id] = named[k.ref]
        elif k.kind == "turn_end":
            numbers[k.id] = None
        else:
            placed.append(k)
    placed.sort(key=lambda k: k.place)
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


def _of_stretch(session_pk: int, keys: list[Key], numbers: dict[int, int | None]) -> int:
    """Find the turns of the first of *keys* (in display order) and of those that follow it closely; how many."""
    first, last = id_range(session_pk)
    wanted = len(keys) + 1  # every turn but the first begins at an event of its own
    place = keys[0].place
    with connection.cursor() as cursor:
        cursor.execute(_HALVE, [first, first, first, last, *place, *place, first, first, last, wanted])
        turns = cursor.fetchall()
    i = -1
    for done, key in enumerate(keys):
        while i + 1 < len(turns) and turns[i + 1][1:] <= key.place:
            i += 1
        if i + 1 == wanted and done:
            return done  # further turns may lie between this event and the one before it
        numbers[key.id] = turns[i][0] & _SEQ if i >= 0 else None
    return len(keys)


def _parts(values: Sequence) -> Iterable[Sequence]:
    return (values[start : start + _IDS] for start in range(0, len(values), _IDS))
