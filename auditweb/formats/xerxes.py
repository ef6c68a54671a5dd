"""Audit events of Xerxes, and of calute as the project was called before.

Source: the event classes, emitter and JSONL collector of the packages ``xerxes`` 0.2.0 and ``calute`` 0.2.0. Their
events have the same keys; calute knows no skills and no agent switches. Keeps for itself which key of which event says
what. A tool call has no id: its events belong together by session, turn, agent and tool, in order.
"""

from typing import NamedTuple

from .fields import add_others, read_duration, read_name, read_text, read_time
from .record import Record, extra_text, once

PREVIEW_CUT = 200  # characters; the emitter cuts every preview here, without a mark

_ENVELOPE = ("event_type", "timestamp", "agent_id", "turn_id", "session_id", "severity", "metadata")
_NOT_RUN = {"ToolPolicyViolation": "denied", "ToolLoopError": "blocked"}  # error types of calls that never ran


class _Shape(NamedTuple):
    """Where the columns of one kind of event come from; "" where it has none."""

    lane: str
    text: str = ""
    status: str = ""
    tool: str = ""
    role: str = ""
    ts_means: str = ""
    timed: bool = False
    known: frozenset[str] = frozenset(_ENVELOPE)  # keys that become columns


def _shape(lane: str, text: str = "", status: str = "", **more) -> _Shape:
    shape = _Shape(lane, text, status, **more)
    own = (text, status, shape.tool, "duration_ms" if shape.timed else "")
    return shape._replace(known=shape.known.union(own) - {""})


_TOOL = "tool_name"
_SHAPES = {
    "turn_start": _shape("user", "prompt_preview", role="user"),
    "turn_end": _shape("assistant", "content_preview", role="assistant"),
    "tool_call_attempt": _shape("tool", "arguments_preview", tool=_TOOL, ts_means="start"),
    "tool_call_complete": _shape("tool", "result_preview", "status", tool=_TOOL, ts_means="end", timed=True),
    "tool_call_failure": _shape("tool", "error_message", tool=_TOOL, ts_means="end"),
    "tool_policy_decision": _shape("decision", "policy_source", "action", tool=_TOOL),
    "sandbox_decision": _shape("decision", "reason", "context", tool=_TOOL),
    "tool_loop_warning": _shape("decision", "pattern", "severity_level", tool=_TOOL),
    "tool_loop_block": _shape("decision", "pattern", tool=_TOOL),
    "hook_mutation": _shape("decision", "mutated_field", tool=_TOOL),
    "error": _shape("error", "error_message"),
    "skill_used": _shape("run", "skill_name", "outcome", timed=True),
    "skill_authored": _shape("run", "skill_name"),
    "skill_feedback": _shape("run", "skill_name", "rating"),
    "agent_switch": _shape("run", "reason"),
}
_OTHER = _shape("other")


def is_event(obj: dict) -> bool:
    """A line of ``JSONLSinkCollector``."""
    return "event_type" in obj and "timestamp" in obj


def event_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """An audit event → one Record whose kind is its ``event_type``.

    *obj*: ``{event_type, timestamp, agent_id, turn_id, session_id, severity, metadata}``, then the keys of its type.
    A failed call is "denied" when a policy refused it, "blocked" when the loop detector did, else "failed"; a loop
    block is "block". Types that are not known here keep all their own keys in ``extra``.
    """
    found = list(flags)
    extra: dict = {}
    kind = read_name(obj, "event_type", extra, found) or "unknown"
    if obj["event_type"] is None:
        found.append("wrong_type")
    lane, text_key, status_key, tool_key, role, ts_means, timed, known = _SHAPES.get(kind, _OTHER)
    ts_text, ts_us, ts_aware = read_time(obj["timestamp"], found)
    record = Record(
        "xerxes",
        kind,
        lane,
        role,
        agent=read_name(obj, "agent_id", extra, found),
        ts_text=ts_text,
        ts_us=ts_us,
        ts_aware=ts_aware,
        ts_means=ts_means,
        session=read_name(obj, "session_id", extra, found),
        ref=read_name(obj, "turn_id", extra, found),
        severity=read_name(obj, "severity", extra, found),
    )
    if tool_key:
        record.tool = read_name(obj, tool_key, extra, found)
    if text_key:
        record.text = text = read_text(obj.get(text_key), found)
        if len(text) == PREVIEW_CUT and text_key.endswith("_preview"):
            record.cut = PREVIEW_CUT
    if status_key:
        record.status = read_name(obj, status_key, extra, found)
    elif kind == "tool_call_failure":
        error_type = obj.get("error_type")
        record.status = _NOT_RUN.get(error_type, "failed") if error_type.__class__ is str else "failed"
    elif kind == "tool_loop_block":
        record.status = "block"
    if timed:
        record.duration_ms = read_duration(obj, extra, found)
    metadata = obj.get("metadata")
    if metadata or metadata.__class__ is not dict:
        _add_metadata(extra, metadata, found)
    if obj.keys() != known:
        add_others(extra, obj, known)
    if extra:
        record.extra = extra_text(extra)
    if found:
        record.flags = once(found)
    return [record]


def _add_metadata(extra: dict, metadata, flags: list[str]) -> None:
    """Keep metadata as one value, so that its keys are not taken for keys of the event."""
    if metadata is None:
        return
    if metadata.__class__ is not dict:
        flags.append("wrong_type")
    extra["metadata"] = metadata
