"""The vocabulary of all formats: a parsed line, a line that is none, and what can be odd about either.

Keeps for itself how a value of any JSON type becomes text that fits a column.
"""

import json

import msgspec

LANES = (
    "user",
    "assistant",
    "tool",
    "vision",
    "interruption",
    "status",
    "decision",
    "memory",
    "run",
    "lifecycle",
    "error",
    "other",
)

FLAGS = {
    "nul": "A NUL character in this line is shown as ␀, because databases cannot hold it.",
    "surrogate": "Half of a surrogate pair in this line is shown as �, because UTF-8 cannot hold it.",
    "nonfinite": "This line holds NaN, Infinity or a number beyond all numbers; it is kept as text, out of all sums.",
    "duplicate_keys": "A key appears twice in one object of this line; the last value counts, as in most JSON readers.",
    "nul_tail": "NUL bytes follow this line, as a power cut leaves them; they were skipped.",
    "bad_time": "The time of this line cannot be read; the line keeps its place in the file.",
    "time_range": "The time of this line lies outside the years 1970 to 2200; the line keeps its place in the file.",
    "no_time": "This line has no time; it keeps its place in the file.",
    "bad_duration": "The duration of this line is not a possible number of milliseconds; it is left out of sums.",
    "wrong_type": "A field of this line has a value of another type than its format says; it is shown as JSON text.",
    "long_id": "A name in this line is longer than 200 characters and is cut here; the raw line has all of it.",
}

MAX_ID = 200  # characters; btree keys of PostgreSQL end at 8,191 bytes and names are read by people
MAX_DURATION_MS = 1e13  # 317 years, longer than all years a time may have; starts computed from it fit 64 bits


class Record(msgspec.Struct, gc=False):  # made in a third of the time of a dataclass; no cycle can go through it
    """One thing that a line says happened.

    Every string can be stored in SQLite and PostgreSQL and encoded as UTF-8: no NUL, no lone surrogate.
    ``ts_us`` is in microseconds since 1970: UTC when ``ts_aware``, else the wall clock read as if it were UTC.
    ``extra`` is "" or one strict JSON object with the keys that have no column of their own. ``session`` is the
    producer's own id of the session, "" when its lines name none; ``ref`` its id of the turn or run that this belongs
    to; ``severity`` its word for how bad it is.
    ``cut`` is the length at which the producer cuts such texts, when this text has that length. ``ts_means``
    is "end" when the time is when the thing was over. ``opens`` marks a line that starts a run.
    """

    format: str = "unknown"
    kind: str = "unknown"
    lane: str = "other"
    role: str = ""
    agent: str = ""
    tool: str = ""
    action: str = ""
    status: str = ""
    text: str = ""
    ts_text: str = ""
    ts_us: int | None = None
    ts_aware: bool = False
    duration_ms: float | None = None
    visibility: str = ""
    extra: str = ""
    cut: int | None = None
    flags: tuple[str, ...] = ()
    ts_means: str = ""
    opens: bool = False
    channel: str = ""
    participant: str = ""
    session: str = ""
    ref: str = ""
    severity: str = ""


class BadLine(Exception):
    """A line that is no record. ``reason``: one plain phrase that says what is wrong with it."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def json_text(value) -> str:
    """*value* as readable JSON, for a column that shows what is not a string."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def short(value, flags: list[str]) -> str:
    """*value* as a name of at most 200 characters; null is ""; adds to *flags* what had to be done for it."""
    if value.__class__ is not str:
        if value is None:
            return ""
        flags.append("wrong_type")
        value = json_text(value)
    if len(value) > MAX_ID:
        flags.append("long_id")
        return value[:MAX_ID]
    return value


def promote(extra: dict, key: str, flags: list[str]) -> str:
    """The value of *key* as a column; taken out of *extra* only when the column holds all of it."""
    value = extra.get(key)
    column = short(value, flags)
    if value.__class__ is str and len(value) == len(column):
        del extra[key]
    return column


def duration(value, flags: list[str]) -> float | None:
    """Milliseconds as a finite float from 0 up, or None; a value that is neither that nor null adds a flag."""
    if value is None:
        return None
    # A bool is an int, but not of this class; NaN fails the comparison, as do Infinity and 10 ** 400.
    if (value.__class__ is float or value.__class__ is int) and 0 <= value < MAX_DURATION_MS:
        return value + 0.0  # -0.0 becomes 0.0
    flags.append("bad_duration")
    return None


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode = msgspec.json.Encoder().encode


def extra_text(extra: dict) -> str:
    """*extra* as strict JSON, "" when empty. Its values must be clean (see ``decode``): msgspec would write a NaN as
    null. Letters stay letters, so that full-text search finds the words in it."""
    if not extra:
        return ""
    try:
        return _encode(extra).decode()
    except OverflowError:  # integers beyond 64 bits
        return _ENCODE(extra)


def once(flags: list[str]) -> tuple[str, ...]:
    """*flags* without repeats, in order."""
    return tuple(dict.fromkeys(flags))
