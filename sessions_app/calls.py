"""Tool calls as people and programs read them: RoomKit's ToolAuditEntry, its place, and the chain of its events."""

from collections.abc import Sequence

import msgspec

from auditweb.log import entry_id, seq_of
from auditweb.pages import iso
from sessions_app.models import Event, ToolCall, ToolStep

PROMOTED = ("tool_name", "arguments", "status", "agent_id")  # what RoomKit lifts out of an entry's metadata
STEP_TEXT = 200  # characters of what a step says; its event has all of it

_EVENT = ("id", "ts_text", "at_us", "kind", "status", "text", "extra", "sort_us", "dump_id", "line")


def rows(calls: Sequence[ToolCall]) -> list[dict]:
    """*calls* of one session in the order given; a call whose events were removed meanwhile is left out.

    ``{ts, agent_id, tool_name, arguments, result, status, duration_ms, metadata}`` as RoomKit's ToolAuditEntry
    (``duration_ms`` is null when its producer measured none), ``arguments_preview`` when only a text of them was
    written, ``{seq, last_seq, number, turn, failed, started_at, ended_at, stamp, inferred}`` as on ToolCall, and
    ``chain``: for each event of a call of several ``{stage, seq, at, kind, status, text}`` in display order.
    """
    if not calls:
        return []
    steps: dict[int, list[ToolStep]] = {}
    for step in ToolStep.objects.filter(call__in=[call.id for call in calls]):
        steps.setdefault(step.call, []).append(step)
    wanted = {call.id for call in calls} | {call.last_id for call in calls}
    wanted |= {step.id for parts in steps.values() for step in parts}
    events = {row[0]: row for row in _events(sorted(wanted))}
    return [_row(call, steps.get(call.id, []), events) for call in calls if call.id in events]


def of_event(session_pk: int, seq: int | None) -> dict | None:
    """The call that begins with event *seq*, as in ``rows``; None when there is none."""
    if seq is None:
        return None
    return next(iter(rows(list(ToolCall.objects.filter(pk=entry_id(session_pk, seq))))), None)


def extra_parts(extra: str) -> dict[str, msgspec.Raw]:
    """The keys of an event's ``extra`` with their JSON as it stands there."""
    return msgspec.json.decode(extra, type=dict[str, msgspec.Raw]) if extra else {}


def _events(ids: list[int]) -> list[tuple]:
    found: list[tuple] = []
    for start in range(0, len(ids), 500):  # parameters of one statement; SQLite before 3.32 takes 999
        found += Event.objects.filter(pk__in=ids[start : start + 500]).values_list(*_EVENT)
    return found


def _row(call: ToolCall, steps: list[ToolStep], events: dict[int, tuple]) -> dict:
    chain = [(step, events[step.id]) for step in steps if step.id in events]
    chain.sort(key=lambda pair: (*pair[1][7:], pair[0].id))
    by_stage = {step.stage: event for step, event in chain}
    first = by_stage.get("attempt") or events[call.id]
    outcome = by_stage.get("result") if chain else first
    parts = extra_parts(first[6])
    if outcome is not None and outcome is not first:
        parts = extra_parts(outcome[6]) | parts
    return {
        "ts": (outcome or first)[1],
        "agent_id": call.agent,
        "tool_name": call.tool,
        "arguments": parts.get("arguments", msgspec.Raw(b"{}")),
        "arguments_preview": by_stage["attempt"][5] if "attempt" in by_stage else None,
        "result": outcome[5] if outcome else "",
        "status": call.status,
        "duration_ms": call.duration_ms,
        "metadata": {name: value for name, value in parts.items() if name not in PROMOTED},
        "seq": call.seq,
        "last_seq": call.last_seq,
        "number": call.number,
        "turn": call.turn,
        "failed": call.failed,
        "started_at": iso(call.started_us),
        "ended_at": iso(call.ended_us),
        "stamp": call.stamp,
        "inferred": call.inferred,
        "chain": [
            {
                "stage": step.stage,
                "seq": seq_of(event[0]),
                "at": iso(event[2]),
                "kind": event[3],
                "status": event[4],
                "text": event[5][:STEP_TEXT],
            }
            for step, event in chain
        ],
    }
