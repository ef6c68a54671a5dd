"""Fields of a decoded line as columns of a Record, whatever JSON type their values turn out to have.

Keeps for itself what becomes of a value that its column cannot hold: it is flagged, shown as JSON text, and what the
column does not show whole is kept in the ``extra`` of the Record. Nothing here raises.
"""

from collections.abc import Container

from .clock import parse_time
from .record import MAX_ID, duration, json_text, short


def read_time(value, flags: list[str]) -> tuple[str, int | None, bool]:
    """``(ts_text, ts_us, ts_aware)`` of a Record, from the value of the time key."""
    us, aware, flag = parse_time(value)
    if not flag:
        return (value if len(value) <= MAX_ID else short(value, flags)), us, aware
    flags.append(flag)
    return short(value, flags), us, aware


def read_text(value, flags: list[str]) -> str:
    """The value of a key that should hold a string, at any length; null is "", flagged as every other type is."""
    if value.__class__ is str:
        return value
    flags.append("wrong_type")
    return "" if value is None else json_text(value)


def read_name(obj: dict, key: str, extra: dict, flags: list[str]) -> str:
    """The value of *key* as a column of at most 200 characters; what it cannot hold whole goes to *extra* too."""
    value = obj.get(key)
    if value.__class__ is str and len(value) <= MAX_ID:
        return value
    if value is None:
        return ""
    add(extra, key, value)
    return short(value, flags)


def read_metadata(value, flags: list[str]) -> dict:
    """A copy of a metadata object, to be added to; what is no object stands under "metadata"."""
    if value.__class__ is dict:
        return dict(value)
    if value is None:
        return {}
    flags.append("wrong_type")
    return {"metadata": value}


def read_duration(obj: dict, extra: dict, flags: list[str]) -> float | None:
    """The ``duration_ms`` of the line; one that is no possible number of milliseconds goes to *extra*."""
    value = obj.get("duration_ms")
    ms = duration(value, flags)
    if ms is None and value is not None:
        add(extra, "duration_ms", value)
    return ms


def add_others(extra: dict, obj: dict, known: Container[str]) -> None:
    """Add to *extra* the keys of the line that its format does not know."""
    for key, value in obj.items():
        if key not in known:
            add(extra, key, value)


def add(extra: dict, key: str, value) -> None:
    """Add a key of the line itself; one that the metadata has too is written "line.key"."""
    while key in extra:
        key = "line." + key
    extra[key] = value
