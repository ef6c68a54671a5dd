"""Lines that RoomKit's auditors and its status bus write.

Source: roomkit/orchestration/session_audit.py, tool_audit.py and status_bus.py, versions 0.7 to 0.109.
Keeps for itself what those versions do differently: where they cut, which line ends a run, what a stamp means.
"""

import re

from .clock import parse_time
from .record import MAX_ID, Record, duration, extra_text, json_text, once, promote, short

SPEECH, TOOL_CALL, SESSION = "speech", "tool_call", "session"
_LANES = {
    TOOL_CALL: "tool",
    "vision": "vision",
    "barge_in": "interruption",
    SESSION: "lifecycle",
    "error": "error",
    "status": "status",
}
_SESSION_KEYS = ("ts", "type", "role", "content", "duration_ms", "metadata")
_TOOL_KEYS = ("ts", "agent_id", "tool_name", "arguments", "result", "status", "duration_ms", "metadata")
_STATUS_KEYS = ("ts", "agent_id", "action", "status", "detail", "metadata")

RESULT_CUT = 500  # characters; audit_tool_handler and the vision hook cut here, without a mark
DETAIL_CUT = 200  # characters; post_agent_lifecycle cuts here, up to 0.95 hard, since 0.99 at a word and with "…"
_ENDED = re.compile(r"\b(?:end(?:ed|s)?|closed|stopped|finished|disconnected|terminated|left)\b", re.I)


def is_tool(obj: dict) -> bool:
    """A line of ``JSONLToolAuditor``."""
    return "tool_name" in obj and "arguments" in obj and "result" in obj


def is_session(obj: dict) -> bool:
    """A line of ``JSONLSessionAuditor``: content is a string, or else all six keys are there."""
    if "content" not in obj or "type" not in obj or "ts" not in obj:
        return False
    return obj["content"].__class__ is str or ("role" in obj and "duration_ms" in obj and "metadata" in obj)


def is_status(obj: dict) -> bool:
    """A line of ``StatusBus``, from its file or its Redis list."""
    return "action" in obj and "status" in obj and "agent_id" in obj


def session_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``SessionAuditEntry`` → one Record.

    *obj*: ``{ts, type, role, content, duration_ms, metadata}``; the metadata of a tool call holds ``tool_name``,
    ``arguments``, ``status`` and ``agent_id``, that of a session line ``channel_id`` and ``participant_id``.
    """
    found = list(flags)
    kind = short(obj["type"], found) or "unknown"
    if obj["type"] is None:
        found.append("wrong_type")
    role = short(obj.get("role"), found)
    text = _text(obj["content"], found)
    ts_text, ts_us, ts_aware = _time(obj.get("ts"), found)
    record = Record(
        "roomkit_session",
        kind,
        ("user" if role == "user" else "assistant") if kind == SPEECH else _LANES.get(kind, "other"),
        role,
        text=text,
        ts_text=ts_text,
        ts_us=ts_us,
        ts_aware=ts_aware,
    )
    metadata = obj.get("metadata")
    if metadata or len(obj) != 6 or obj.get("duration_ms") is not None:
        extra = _metadata(metadata, found)
        if extra:
            record.tool = promote(extra, "tool_name", found)
            record.status = promote(extra, "status", found)
            record.agent = promote(extra, "agent_id", found)
            if kind == SESSION:
                record.channel = short(extra.get("channel_id"), found)
                record.participant = short(extra.get("participant_id"), found)
        record.duration_ms = _duration(obj, extra, found)
        _add_others(extra, obj, _SESSION_KEYS)
        record.extra = extra_text(extra)
    if kind == TOOL_CALL:
        record.ts_means = "end"
    elif kind == SESSION:
        record.opens = not _ENDED.search(text)
    if len(text) == RESULT_CUT and (kind == TOOL_CALL or kind == "vision"):
        record.cut = RESULT_CUT
    if found:
        record.flags = once(found)
    return [record]


def tool_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``ToolAuditEntry`` → one Record of kind "tool_call".

    *obj*: ``{ts, agent_id, tool_name, arguments, result, status, duration_ms, metadata}``; ``ts`` is the end.
    """
    found = list(flags)
    text = _text(obj["result"], found)
    ts_text, ts_us, ts_aware = _time(obj.get("ts"), found)
    extra = {"arguments": obj["arguments"]}
    for key, value in _metadata(obj.get("metadata"), found).items():
        _add(extra, key, value)
    duration_ms = _duration(obj, extra, found)
    _add_others(extra, obj, _TOOL_KEYS)
    return [
        Record(
            "roomkit_tool",
            TOOL_CALL,
            "tool",
            agent=_name(obj, "agent_id", extra, found),
            tool=_name(obj, "tool_name", extra, found),
            status=_name(obj, "status", extra, found),
            text=text,
            ts_text=ts_text,
            ts_us=ts_us,
            ts_aware=ts_aware,
            duration_ms=duration_ms,
            extra=extra_text(extra),
            cut=RESULT_CUT if len(text) == RESULT_CUT else None,
            flags=once(found),
            ts_means="end",
        )
    ]


def status_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``StatusEntry`` → one Record of kind "status". *obj*: ``{ts, agent_id, action, status, detail, metadata}``."""
    found = list(flags)
    text = _text(obj.get("detail"), found)
    ts_text, ts_us, ts_aware = _time(obj.get("ts"), found)
    extra = _metadata(obj.get("metadata"), found)
    _add_others(extra, obj, _STATUS_KEYS)
    cut = len(text) == DETAIL_CUT or (DETAIL_CUT // 2 < len(text) < DETAIL_CUT and text.endswith("…"))
    return [
        Record(
            "roomkit_status",
            "status",
            "status",
            agent=_name(obj, "agent_id", extra, found),
            action=_name(obj, "action", extra, found),
            status=_name(obj, "status", extra, found),
            text=text,
            ts_text=ts_text,
            ts_us=ts_us,
            ts_aware=ts_aware,
            extra=extra_text(extra),
            cut=DETAIL_CUT if cut else None,
            flags=once(found),
        )
    ]


def _time(value, flags: list[str]) -> tuple[str, int | None, bool]:
    us, aware, flag = parse_time(value)
    if not flag:
        return (value if len(value) <= MAX_ID else short(value, flags)), us, aware
    flags.append(flag)
    return short(value, flags), us, aware


def _text(value, flags: list[str]) -> str:
    if value.__class__ is str:
        return value
    flags.append("wrong_type")
    return "" if value is None else json_text(value)


def _name(obj: dict, key: str, extra: dict, flags: list[str]) -> str:
    """The value of *key* as a column; what the column cannot hold whole goes to *extra* too."""
    value = obj.get(key)
    column = short(value, flags)
    if value is not None and column != value:
        _add(extra, key, value)
    return column


def _metadata(value, flags: list[str]) -> dict:
    if value.__class__ is dict:
        return dict(value)
    if value is None:
        return {}
    flags.append("wrong_type")
    return {"metadata": value}


def _duration(obj: dict, extra: dict, flags: list[str]) -> float | None:
    value = obj.get("duration_ms")
    ms = duration(value, flags)
    if ms is None and value is not None:
        _add(extra, "duration_ms", value)
    return ms


def _add_others(extra: dict, obj: dict, known: tuple[str, ...]) -> None:
    for key, value in obj.items():
        if key not in known:
            _add(extra, key, value)


def _add(extra: dict, key: str, value) -> None:
    """Add a key of the line itself; one that the metadata has too is written "line.key"."""
    while key in extra:
        key = "line." + key
    extra[key] = value
