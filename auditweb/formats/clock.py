"""Times of records: reading them, the zone of those that name none, and their place on one line.

Keeps for itself everything that is odd about naive times: the zone they are read in, the hour that a change of
clocks repeats, and the rule that the naive lines of one dump never pass each other. All arithmetic is in integer
microseconds.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from .record import Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
LOWEST_US = 0  # 1970-01-01; drivers cannot read back years before 1 or after 9999, and such times are never meant
HIGHEST_US = 7_289_654_400 * _SECOND  # 2201-01-01, excluded


def parse_time(value) -> tuple[int | None, bool, str]:
    """``(us, aware, flag)`` of an ISO 8601 date and time as written.

    *us*: microseconds since 1970, in UTC when *aware*, else of the wall clock; None when *flag* is one of
    "no_time" (null), "bad_time" (not a date with a time; numbers are not guessed to be seconds or milliseconds)
    and "time_range" (outside 1970 to 2200). Never raises.
    """
    if value.__class__ is not str:
        return None, False, "no_time" if value is None else "bad_time"
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None, False, "bad_time"
    # A date without a time is a day, not an instant; week dates and 24:00 are read by some Python versions only.
    if len(value) < 11 or value[4] == "W" or value[5] == "W":
        return None, False, "bad_time"
    if moment.hour == 0 and (value[11:13] if value[4] == "-" else value[9:11]) == "24":
        return None, False, "bad_time"
    aware = moment.tzinfo is not None
    try:
        us = (moment - (_EPOCH if aware else _NAIVE_EPOCH)) // _MICROSECOND
    except OverflowError:
        return None, False, "time_range"
    if LOWEST_US <= us < HIGHEST_US:
        return us, aware, ""
    return None, False, "time_range"


_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


def zone_of(name: str) -> tzinfo | None:
    """The zone that *name* means: "" → None, "UTC", "+02:00" or "-04:00", or a name like "Europe/Paris".

    Raises ValueError with a sentence for people.
    """
    if name == "":
        return None
    if name == "UTC":
        return UTC
    if fixed := _OFFSET.fullmatch(name):
        sign, hours, minutes = fixed[1], int(fixed[2]), int(fixed[3])
        offset = timedelta(hours=hours, minutes=minutes)
        if minutes < 60 and offset <= timedelta(hours=14):
            return timezone(-offset if sign == "-" else offset)
        raise ValueError(f"No clock runs {name} from UTC; offsets go from -14:00 to +14:00.")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # missing; a path or a NUL in the name; a directory, too long
        raise ValueError(
            f"There is no time zone {name[:60]!r}; write a name like Europe/Paris, an offset like +02:00, or UTC."
        ) from None


FOLD_SLACK_US = 5 * _SECOND  # lines that cross on their way into the file are seconds apart, a repeated hour is not


class Clock:
    """Places the records of one dump, in file order, on the line of time.

    *zone*: name for ``zone_of``, what naive times are read in; "" reads them as UTC and says that this is a guess.
    *offset_ms*: correction added to every line of the dump. *state*: what ``state()`` gave, to go on exactly there.
    """

    __slots__ = ("_naive_at", "_naive_sort", "_offset_us", "_quality", "_sort", "_zone")

    def __init__(self, zone: str = "", offset_ms: int = 0, state: dict | None = None):
        state = state or {}
        self._zone = zone_of(zone)
        self._quality = "assumed" if self._zone is None else "inferred"
        self._offset_us = round(offset_ms * 1000)
        self._sort: int = state.get("sort", 0)
        self._naive_at: int | None = state.get("naive_at")
        self._naive_sort: int | None = state.get("naive_sort")

    def place(self, record: Record) -> tuple[int | None, int, str]:
        """``(at_us, sort_us, quality)`` of the next record.

        *at_us*: UTC microseconds, None when the line has no readable time. *sort_us*: where the line stands in
        the display order. *quality*: "aware" as written with an offset, "inferred" from a zone, "assumed" to be
        UTC for want of one, "missing".
        """
        us = record.ts_us
        if us is None:
            return None, self._sort, "missing"
        if record.ts_aware:
            self._sort = at = us + self._offset_us
            return at, at, "aware"
        at = self._read_naive(us) + self._offset_us
        self._naive_at = at
        if self._naive_sort is None or self._naive_sort < at:
            self._naive_sort = at
        self._sort = self._naive_sort
        return at, self._naive_sort, self._quality

    def _read_naive(self, us: int) -> int:
        if self._zone is None:
            return us
        wall = _NAIVE_EPOCH + timedelta(microseconds=us)
        first = us - _offset_us(self._zone, wall)
        if self._naive_at is None or first >= self._naive_at - self._offset_us - FOLD_SLACK_US:
            return first
        # Only where clocks go back is the second reading later; in the gap where they go forward it is earlier.
        return max(first, us - _offset_us(self._zone, wall.replace(fold=1)))

    def state(self) -> dict:
        """What a later Clock of the same zone and offset needs to go on as if there had been no break."""
        return {"sort": self._sort, "naive_at": self._naive_at, "naive_sort": self._naive_sort}


def _offset_us(zone: tzinfo, wall: datetime) -> int:
    offset = zone.utcoffset(wall) or timedelta()
    return offset.days * _DAY + offset.seconds * _SECOND + offset.microseconds


STEP_US = 15 * 60 * _SECOND  # every offset in use since 1972 is a multiple of it
FARTHEST_US = 14 * 3600 * _SECOND
JITTER_US = 2 * _SECOND  # status lines are written by worker threads and can pass their neighbours
NEAR_US = 600 * _SECOND  # a neighbour on one side only says something when it is this close


class ZoneEvidence:
    """Finds the offset of naive times from the aware times around them.

    RoomKit before 0.108 writes speech in local time without an offset and tools in UTC into one file: naive lines
    were written between their aware neighbours, which as a rule leaves one multiple of 15 minutes. Feed it all
    records of a dump in file order. Naive lines in a row share a clock, so they are judged together, by the first
    and the last of them, and have one vote each.
    """

    __slots__ = ("_before", "_count", "_first", "_last", "_votes")

    def __init__(self, state: dict | None = None):
        state = state or {}
        self._before: int | None = state.get("before")  # the aware time before the naive lines that wait
        self._first: int = state.get("first", 0)  # the naive lines that wait for the next aware time
        self._last: int = state.get("last", 0)
        self._count: int = state.get("count", 0)
        self._votes: dict[str, int] = dict(state.get("votes", {}))  # minutes east of UTC (JSON keys are text) → votes

    def see(self, record: Record) -> None:
        """Take notice of the next record."""
        us = record.ts_us
        if us is None:
            return
        if record.ts_aware:
            if self._count:
                self._vote(self._votes, us)
                self._first = self._last = self._count = 0
            self._before = us
        else:
            if not self._count:
                self._first = us
            self._last = us
            self._count += 1

    def zone(self) -> str:
        """The offset with most votes, such as "-04:00" ("UTC" for zero); "" when no naive line stands near an aware
        one. Of equal ones the nearest to UTC, then the eastern."""
        votes = dict(self._votes)
        if self._count:
            self._vote(votes, None)
        if not votes:
            return ""
        return _offset_name(int(min(votes, key=lambda name: (-votes[name], abs(int(name)), -int(name)))))

    def state(self) -> dict:
        """What a later ZoneEvidence needs to go on as if there had been no break; JSON-able, of constant size."""
        return {
            "before": self._before,
            "first": self._first,
            "last": self._last,
            "count": self._count,
            "votes": dict(self._votes),
        }

    def _vote(self, votes: dict[str, int], after: int | None) -> None:
        offset = _likely_offset(self._before, self._first, self._last, after)
        if offset is not None:
            name = str(offset // (60 * _SECOND))
            votes[name] = votes.get(name, 0) + self._count


def _likely_offset(before: int | None, first: int, last: int, after: int | None) -> int | None:
    """The offset that puts the naive times *first* … *last* after *before* and before *after*, the aware times
    around them: the only one, or the one that puts them close to one of the two; None when there is none."""
    highest = lowest = None
    choices = []  # (distance to the aware neighbour, distance from UTC, offset)
    if before is not None:
        highest = (first - before + JITTER_US) // STEP_US * STEP_US
        choices.append((abs(first - highest - before), abs(highest), highest))
    if after is not None:
        lowest = -((after + JITTER_US - last) // STEP_US) * STEP_US  # rounded up
        choices.append((abs(after - (last - lowest)), abs(lowest), lowest))
    if not choices or (highest is not None and lowest is not None and lowest > highest):
        return None  # no aware time yet; or shuffled lines, or a clock that was set: the order of the file says nothing
    gap, size, offset = min(choices)
    certain = highest == lowest or gap <= NEAR_US
    return offset if certain and size <= FARTHEST_US else None


def _offset_name(minutes: int) -> str:
    if minutes == 0:
        return "UTC"
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
