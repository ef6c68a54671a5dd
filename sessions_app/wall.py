"""What the Live wall shows of running sessions: a card of each.

Keeps for itself what is remembered between two looks, so that a look reads new events only, and that a card is encoded
once for everybody. All that is here blocks.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from auditweb.log import SEQ_BITS, id_range, seq_of
from auditweb.pages import iso
from sessions_app import liveness
from sessions_app.models import Event, Session, ToolCall
from sessions_app.outline import OPEN
from sessions_app.projection import FAILED

SPAN_US = 180_000_000  # of the strip
EVENTS = 120  # of the strip, at most
FURTHER = 5000  # events among which the last words of a session are looked for when it is seen first
SAID = 300  # characters of them
AGENTS = 10  # names on a card
CARDS = 500  # running sessions of one team that are shown, the newest; the list has all
FAILING_US = 60_000_000  # how long a failure reddens a card
CLOCK_US = 30_000_000  # a producer's clock that is further off is put right for strip and elapsed time
ENDED_FOR = timedelta(minutes=2)  # an ended session is remembered so long: walls keep its card for one minute

_COUNTERS = ("user_turns", "assistant_turns", "tool_calls", "tool_failures", "interruptions", "errors", "event_count")
_HEAD = ("id", "team_id", "public_id", "title", "agents", "created_at", "first_us", "last_seq", "revision")
_COLUMNS = ("at_ms", "lane", "state", "duration_ms")
_SPEECH = ("user", "assistant")
_EVENTS, _CALLS = Event._meta.db_table, ToolCall._meta.db_table


class Seen(NamedTuple):
    """An event on the strip: when it began, and what is drawn."""

    at_us: int
    lane: str
    ms: int | None
    state: str


class Card:
    """One session, as of the last look."""

    def __init__(self, pk: int, team: int, public_id: str):
        self.pk, self.team, self.public_id = pk, team, public_id
        self.url = reverse("session-detail", args=[public_id])
        self.live = True
        self.since = 0  # seq from which on events were not read yet
        self.revision = -1
        self.changed_at = timezone.now()  # when it was seen last to be other than before
        self.fields: dict[str, Any] = {}
        self.text = ""  # the fields as JSON, made once for all who read them
        self._tail: dict[int, Seen] = {}
        self._said = ("", "")
        self._clock_us = 0
        self._shown: tuple = ()

    @property
    def start(self) -> tuple:
        """Its place on the wall: those that began first stand first."""
        return self.fields["started_at"], self.pk

    def wants(self, last_seq: int, revision: int) -> tuple[int, int] | None:
        """The range of primary keys to read on a session that is as far as that; None when nothing is new."""
        if revision != self.revision or last_seq < self.since:
            self._tail.clear()
            self.since, self.revision, self._said = 0, revision, ("", "")
        if last_seq == self.since:
            return None
        first = max(self.since, last_seq - EVENTS)
        waiting = [seq for seq, seen in self._tail.items() if seen.state == OPEN and seq > last_seq - EVENTS]
        return id_range(self.pk, after=min([first, *(seq - 1 for seq in waiting)]), upto=last_seq)

    def read(self, events: Iterable[tuple], last_seq: int, arrived_us: int) -> None:
        """Take in *events*, rows of `_events`, oldest first; *arrived_us*: when the last of them was stored."""
        known = self.since > 0
        for pk, at_us, lane, role, status, ms, text, call, started_us, ended_us, outcome in events:
            if lane in _SPEECH and text:
                self._said = (role or lane, text)
            if call is not None:
                waits = ended_us is None and not outcome
                at_us = next((at for at in (started_us, ended_us, at_us) if at is not None), None)
                ms = ms if started_us is None or ended_us is None else max(0, ended_us - started_us) / 1000
                status = OPEN if waits else outcome
            elif lane == "tool":
                ms = None  # the outcome of a call whose bar is that of its attempt
            if at_us is None:
                if not known:
                    continue  # nothing places it
                at_us = arrived_us - self._clock_us
            self._tail[seq_of(pk)] = Seen(at_us, lane, None if ms is None else round(ms), status)
        self.since = last_seq
        for seq in sorted(self._tail)[: max(0, len(self._tail) - EVENTS)]:
            del self._tail[seq]
        if self._tail:
            apart = arrived_us - max(seen.at_us + (seen.ms or 0) * 1000 for seen in self._tail.values())
            if abs(apart - self._clock_us) > CLOCK_US:
                self._clock_us = 0 if abs(apart) <= CLOCK_US else apart

    @property
    def silent(self) -> bool:
        """Whether nobody is known to have said anything."""
        return not self._said[1]

    def heard_before(self, role: str, text: str) -> None:
        """The last words, found further back than the strip reaches."""
        self._said = (role, text)

    def show(self, row: Mapping[str, Any], now: datetime) -> bool:
        """Bring the fields up to date with *row* of the session; whether anybody would see a difference."""
        state = liveness.state(*(row[name] for name in liveness.FIELDS))
        now_us = _us(now)
        self.live = row["live"]
        failing = self.live and self._failed_us + self._clock_us > now_us - FAILING_US
        counters = {name: row[name] for name in _COUNTERS}
        shown = (row["title"], state, failing, counters, row["first_us"], self.since, self.revision)
        if shown == self._shown:
            return False
        self._shown = shown
        started_us = row["first_us"] if row["first_us"] is not None else _us(row["created_at"])
        self.fields = {
            "id": self.public_id,
            "title": row["title"],
            "url": self.url,
            "agents": list(row["agents"])[:AGENTS],
            **state,
            "failing": failing,
            "started_at": iso(started_us),
            "clock_ms": self._clock_us // 1000,
            "last_role": self._said[0],
            "last_text": self._said[1],
            "counters": counters,
            "recent": self._recent(now_us),
        }
        self.text = msgspec.json.encode(self.fields).decode()
        return True

    @property
    def _failed_us(self) -> int:
        """When something failed last, by its producer's clock."""
        failed = (s for s in self._tail.values() if s.lane == "error" or s.state.lower() in FAILED)
        return max((s.at_us + (s.ms or 0) * 1000 for s in failed), default=0)

    def _recent(self, now_us: int) -> dict[str, Any]:
        """The strip as columns of the kind that outline.py gives; ``at_ms`` are differences, from ``start`` on.

        A call has one bar, which is its attempt's; its state is "?" as long as no outcome is known.
        """
        since = now_us - self._clock_us - SPAN_US
        recent = (s for s in self._tail.values() if s.at_us + (s.ms or 0) * 1000 >= since or s.state == OPEN)
        seen = sorted(recent, key=attrgetter("at_us"))
        if not seen:
            return {"start": None, "lanes": [], "states": [], "columns": {name: [] for name in _COLUMNS}}
        lanes, states = sorted({s.lane for s in seen}), sorted({s.state for s in seen} - {""})
        lane_of, state_of = ({word: i for i, word in enumerate(words)} for words in (lanes, states))
        times = [s.at_us // 1000 for s in seen]
        columns = {
            "at_ms": [0, *(later - at for at, later in pairwise(times))],
            "lane": [lane_of[s.lane] for s in seen],
            "state": [state_of.get(s.state) for s in seen],
            "duration_ms": [s.ms for s in seen],
        }
        return {"start": iso(times[0] * 1000), "lanes": lanes, "states": states, "columns": columns}


class Wall:
    """The cards of the running sessions of some teams, as of the last look."""

    def __init__(self):
        self.cards: dict[int, Card] = {}  # by primary key; a look leaves another one behind
        self.running: dict[int, int] = {}  # team → its running sessions, shown or not

    def of(self, teams: Collection[int]) -> list[Card]:
        """The cards of the running sessions of *teams*, in order."""
        return sorted((c for c in self.cards.values() if c.live and c.team in teams), key=lambda card: card.start)

    def count(self, teams: Collection[int]) -> int:
        """How many sessions of *teams* run, as of the last look at all of them."""
        return sum(self.running.get(team, 0) for team in teams)

    def look(self, teams: Collection[int], keys: Collection[int] | None = None) -> dict[int, Card]:
        """Look at the sessions with these primary keys, by default at all that run in *teams*; cards that changed.

        A session that ended has a card whose ``live`` is false. One that was deleted, that newer ones pushed off the
        wall, or whose team is none of *teams* any more has a card that is no longer among ``cards``.
        """
        now = timezone.now()
        cards = dict(self.cards)  # readers in other threads keep the one that they have
        rows = _heads(teams, keys) if keys is not None else self._running(teams)
        asked = {pk for pk, card in cards.items() if keys is None or pk in keys or card.team not in teams}
        changed = {pk: cards.pop(pk) for pk in asked - rows.keys()}
        rows = {pk: row for pk, row in rows.items() if row["live"] or pk in cards}
        for pk, row in rows.items():
            if pk not in cards:
                cards[pk] = Card(pk, row["team_id"], row["public_id"])
        _read(cards, rows)
        for pk, row in rows.items():
            card = cards[pk]
            if card.show(row, now):
                changed[pk] = card
                card.changed_at = now
            elif not card.live and now - card.changed_at > ENDED_FOR:
                del cards[pk]
        self.cards = cards
        return changed

    def _running(self, teams: Collection[int]) -> dict[int, dict]:
        """What is to be shown of *teams*: what runs, and what did so a moment ago."""
        keys: set[int] = set()
        running = {}
        for team in teams:  # one by one: the index of running sessions begins with the team
            live = Session.objects.filter(team=team, live=True).order_by("-pk")
            found = list(live.values_list("pk", flat=True)[: CARDS + 1])
            more = len(found) > CARDS
            running[team] = live.count() if more else len(found)
            oldest = found[CARDS - 1] if more else 0
            keys.update(found[:CARDS], (pk for pk, c in self.cards.items() if c.team == team and pk >= oldest))
        self.running = running
        return _heads(teams, keys)


def _read(cards: Mapping[int, Card], rows: Mapping[int, dict]) -> None:
    wanted = {pk: cards[pk].wants(row["last_seq"], row["revision"]) for pk, row in rows.items()}
    found = _events([span for span in wanted.values() if span])
    for pk, span in wanted.items():
        if not span:
            continue
        card, row = cards[pk], rows[pk]
        first = card.since == 0
        card.read(found.get(pk, ()), row["last_seq"], _us(row["updated_at"]))
        if first and card.silent and row["last_seq"] > EVENTS:
            _look_back(card, row["last_seq"])


def _heads(teams: Collection[int], keys: Collection[int]) -> dict[int, dict]:
    rows: dict[int, dict] = {}
    asked = sorted(keys)
    for start in range(0, len(asked), 500):
        found = Session.objects.filter(pk__in=asked[start : start + 500], team__in=teams)
        rows.update((row["id"], row) for row in found.values(*_HEAD, *liveness.FIELDS, *_COUNTERS))
    return rows


def _events(spans: Collection[tuple[int, int]]) -> dict[int, list[tuple]]:
    """The events whose primary keys lie in *spans*, by session; of a call also when it ran and what it came to."""
    found: dict[int, list[tuple]] = {}
    if not spans:
        return found
    # Whole numbers, and more of them than a database takes as parameters. CROSS JOIN: SQLite reads spans first.
    ranges = ", ".join(f"({int(first)}, {int(last)})" for first, last in spans)
    statement = (
        f"WITH span (low, high) AS (VALUES {ranges}) "  # noqa: S608
        "SELECT e.id, e.at_us, e.lane, e.role, e.status, e.duration_ms, "
        f"CASE WHEN e.lane IN ('user', 'assistant') THEN substr(e.text, 1, {SAID}) ELSE '' END, "
        "c.id, c.started_us, c.ended_us, c.status "
        f"FROM span CROSS JOIN {_EVENTS} e LEFT JOIN {_CALLS} c ON c.id = e.id "
        "WHERE e.id BETWEEN span.low AND span.high ORDER BY e.id"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement)
        for row in cursor.fetchall():
            found.setdefault(row[0] >> SEQ_BITS, []).append(row)
    return found


def _look_back(card: Card, last_seq: int) -> None:
    """Find the last words of a session whose newest events have none."""
    first, last = id_range(card.pk, after=max(0, last_seq - FURTHER), upto=last_seq - EVENTS)
    spoken = Event.objects.filter(id__range=(first, last), lane__in=_SPEECH).exclude(text="").order_by("-id")
    if row := spoken.values_list("role", "lane", "text").first():
        card.heard_before(row[0] or row[1], row[2][:SAID])


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)
