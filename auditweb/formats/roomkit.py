"""Lines that RoomKit's auditors and its status bus write.

Source: roomkit/orchestration/session_audit.py, tool_audit.py and status_bus.py, versions 0.7 to 0.109.
Keeps for itself what those versions do differently: where they cut, which line ends a run, what a stamp means.
"""

import re

import msgspec

from .clock import parse_time
from .decode import MAX_STRUCTURE, is_unremarkable
from .fields import add, add_others, read_duration, read_metadata, read_name, read_text, read_time
from .record import MAX_DURATION_MS, MAX_ID, Record, extra_text, once, promote, short

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
    text = read_text(obj["content"], found)
    ts_text, ts_us, ts_aware = read_time(obj.get("ts"), found)
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
        extra = read_metadata(metadata, found)
        if extra:
            record.tool = promote(extra, "tool_name", found)
            record.status = promote(extra, "status", found)
            record.agent = promote(extra, "agent_id", found)
            if kind == SESSION:
                record.channel = short(extra.get("channel_id"), found)
                record.participant = short(extra.get("participant_id"), found)
        record.duration_ms = read_duration(obj, extra, found)
        add_others(extra, obj, _SESSION_KEYS)
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
    text = read_text(obj["result"], found)
    ts_text, ts_us, ts_aware = read_time(obj.get("ts"), found)
    extra = {"arguments": obj["arguments"]}
    for key, value in read_metadata(obj.get("metadata"), found).items():
        add(extra, key, value)
    duration_ms = read_duration(obj, extra, found)
    add_others(extra, obj, _TOOL_KEYS)
    return [
        Record(
            "roomkit_tool",
            TOOL_CALL,
            "tool",
            agent=read_name(obj, "agent_id", extra, found),
            tool=read_name(obj, "tool_name", extra, found),
            status=read_name(obj, "status", extra, found),
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
    text = read_text(obj.get("detail"), found)
    ts_text, ts_us, ts_aware = read_time(obj.get("ts"), found)
    extra = read_metadata(obj.get("metadata"), found)
    add_others(extra, obj, _STATUS_KEYS)
    return [
        Record(
            "roomkit_status",
            "status",
            "status",
            agent=read_name(obj, "agent_id", extra, found),
            action=read_name(obj, "action", extra, found),
            status=read_name(obj, "status", extra, found),
            text=text,
            ts_text=ts_text,
            ts_us=ts_us,
            ts_aware=ts_aware,
            extra=extra_text(extra),
            cut=_detail_cut(text),
            flags=once(found),
        )
    ]


def _detail_cut(text: str) -> int | None:
    cut = len(text) == DETAIL_CUT or (DETAIL_CUT // 2 < len(text) < DETAIL_CUT and text.endswith("…"))
    return DETAIL_CUT if cut else None


# Lines as RoomKit itself writes them: nearly all there are. A typed decoder reads them in a third of the time, because
# what it took needs few checks. Everything about the line that is not quite so is left to the readers above.


class _Session(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ts: str
    type: str
    role: str | None
    content: str
    duration_ms: float | int | None
    metadata: dict | None


class _Status(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ts: str
    agent_id: str
    action: str
    status: str
    detail: str
    metadata: dict | None


class _Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ts: str
    agent_id: str
    tool_name: str
    arguments: dict
    result: str
    status: str
    duration_ms: float | int | None
    metadata: dict | None


_decode_session = msgspec.json.Decoder(_Session).decode
_decode_status = msgspec.json.Decoder(_Status).decode
_decode_tool = msgspec.json.Decoder(_Tool).decode


_SHOWN = ("tool_name", "status", "agent_id", "channel_id", "participant_id")  # of the metadata of a session line


def usual_record(raw: bytes) -> Record | None:
    """The Record of a line with exactly the keys and types that RoomKit writes and nothing odd about it, else None.

    It is the one that ``decode`` and the functions of this module would make of it.
    """
    if not raw.startswith(b'{"ts"') or len(raw) > MAX_STRUCTURE:
        return None
    try:
        if b'"content":' in raw:
            return _usual_session(raw)
        if b'"tool_name":' in raw:
            return _usual_tool(raw)
        return _usual_status(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _usual_session(raw: bytes) -> Record | None:
    line = _decode_session(raw)
    kind, role, text, extra = line.type, line.role or "", line.content, line.metadata
    if not is_unremarkable(raw, 6, extra) or not kind or len(kind) > MAX_ID or len(role) > MAX_ID:
        return None
    us, aware, flag = parse_time(line.ts)
    ms = line.duration_ms
    if flag or len(line.ts) > MAX_ID or not (ms is None or 0 <= ms < MAX_DURATION_MS):
        return None
    tool = status = agent = channel = participant = rest = ""
    if extra:
        for key in _SHOWN:
            value = extra.get(key, "")
            if value.__class__ is not str or len(value) > MAX_ID:
                return None
        if kind == SESSION:
            channel, participant = extra.get("channel_id", ""), extra.get("participant_id", "")
        tool, status, agent = extra.pop("tool_name", ""), extra.pop("status", ""), extra.pop("agent_id", "")
        rest = extra_text(extra)
    call = kind == TOOL_CALL
    return Record(
        "roomkit_session",
        kind,
        ("user" if role == "user" else "assistant") if kind == SPEECH else _LANES.get(kind, "other"),
        role,
        agent,
        tool,
        status=status,
        text=text,
        ts_text=line.ts,
        ts_us=us,
        ts_aware=aware,
        duration_ms=None if ms is None else ms + 0.0,
        extra=rest,
        cut=RESULT_CUT if len(text) == RESULT_CUT and (call or kind == "vision") else None,
        ts_means="end" if call else "",
        opens=kind == SESSION and not _ENDED.search(text),
        channel=channel,
        participant=participant,
    )


def _usual_status(raw: bytes) -> Record | None:
    line = _decode_status(raw)
    if not is_unremarkable(raw, 6, line.metadata):
        return None
    us, aware, flag = parse_time(line.ts)
    if flag or max(len(line.ts), len(line.agent_id), len(line.action), len(line.status)) > MAX_ID:
        return None
    return Record(
        "roomkit_status",
        "status",
        "status",
        agent=line.agent_id,
        action=line.action,
        status=line.status,
        text=line.detail,
        ts_text=line.ts,
        ts_us=us,
        ts_aware=aware,
        extra=extra_text(line.metadata) if line.metadata else "",
        cut=_detail_cut(line.detail),
    )


def _usual_tool(raw: bytes) -> Record | None:
    line = _decode_tool(raw)
    if not is_unremarkable(raw, 6, {"arguments": line.arguments, "metadata": line.metadata}):
        return None
    us, aware, flag = parse_time(line.ts)
    if flag or max(len(line.ts), len(line.agent_id), len(line.tool_name), len(line.status)) > MAX_ID:
        return None
    ms = line.duration_ms
    if not (ms is None or 0 <= ms < MAX_DURATION_MS):
        return None
    extra = {"arguments": line.arguments}
    for key, value in (line.metadata or {}).items():
        add(extra, key, value)
    return Record(
        "roomkit_tool",
        TOOL_CALL,
        "tool",
        agent=line.agent_id,
        tool=line.tool_name,
        status=line.status,
        text=line.result,
        ts_text=line.ts,
        ts_us=us,
        ts_aware=aware,
        duration_ms=None if ms is None else ms + 0.0,
        extra=extra_text(extra),
        cut=RESULT_CUT if len(line.result) == RESULT_CUT else None,
        ts_means="end",
    )
