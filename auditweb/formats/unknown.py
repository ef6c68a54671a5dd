"""JSON objects of no known format: kept whole, under the word that they use for themselves.

Keeps for itself which keys are taken at their word. Nothing is guessed from values: what is not plainly a name, a time
or a text stays in ``extra``.
"""

from .clock import parse_time
from .record import Record, duration, extra_text, once, promote

_KINDS = ("type", "event_type", "kind", "event", "object")
_TIMES = ("ts", "timestamp", "created_at", "time")
_TEXTS = ("content", "text", "message", "detail")
_COLUMNS = (("role", ("role",)), ("agent", ("agent_id", "agent", "agent_name")), ("tool", ("tool_name", "tool")),
            ("status", ("status",)), ("action", ("action",)))  # fmt: skip


def records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """Any JSON object → one Record in the lane "other", with what has no column in ``extra``."""
    extra, found, record = dict(obj), list(flags), Record()
    if key := _first_string(extra, _KINDS):
        record.kind = promote(extra, key, found)
    for column, keys in _COLUMNS:
        if key := _first_string(extra, keys):
            setattr(record, column, promote(extra, key, found))
    if key := _first_string(extra, _TEXTS):
        record.text = extra.pop(key)
    _take_time(record, extra, found)
    ms = duration(extra.get("duration_ms"), found)
    if ms is not None:
        record.duration_ms = ms
        del extra["duration_ms"]
    record.extra = extra_text(extra)
    record.flags = once(found)
    return [record]


def _first_string(obj: dict, keys: tuple[str, ...]) -> str:
    """The first of *keys* whose value in *obj* is a string that says something, or ""."""
    return next((key for key in keys if obj.get(key).__class__ is str and obj[key]), "")


def _take_time(record: Record, extra: dict, flags: list[str]) -> None:
    """The first of the usual keys that holds a time; else the first that is there, as text."""
    keys = [key for key in _TIMES if key in extra]
    readable = [key for key in keys if not parse_time(extra[key])[2]]
    if not keys:
        flags.append("no_time")
        return
    key = (readable or keys)[0]
    record.ts_us, record.ts_aware, flag = parse_time(extra[key])
    if flag:
        flags.append(flag)
    if extra[key].__class__ is str:
        record.ts_text = promote(extra, key, flags)
