"""Events → turns, tool calls and the counters of a session. Reads only the log.

``project`` takes the events of one batch in order of ``seq``; projecting a session in any batches, or all of it again
with ``rebuild``, comes out the same.
"""

import json
from collections.abc import Sequence
from operator import itemgetter

from django.db import transaction

from auditweb import log
from auditweb.log import entry_id, id_range, seq_of, tally
from sessions_app.models import EVENT_COLUMNS, Event, Session, ToolCall, Turn

ROWS = 2000  # events that are read and projected together in a rebuild

FAILED = frozenset({"failed", "error", "denied", "blocked"})  # statuses of a call that count as a failure

TURN_COLUMNS = ("id", "role", "first_seq", "last_seq", "started_us")
CALL_COLUMNS = (
    "id", "number", "turn", "last_seq", "tool", "agent", "status", "failed", "started_us", "ended_us", "duration_ms",
    "stamp",
)  # fmt: skip

COUNTERS = {
    "opening": "", "channel": "", "participant": "", "agents": dict, "tools": dict, "tool_statuses": dict,
    "kinds": dict, "event_count": 0, "user_turns": 0, "assistant_turns": 0, "turn_count": 0, "tool_calls": 0,
    "tool_failures": 0, "tool_ms": 0.0, "vision_count": 0, "interruptions": 0, "errors": 0, "status_count": 0,
    "first_us": None, "last_us": None,
}  # fmt: skip

_column = {name: i + 1 for i, name in enumerate(EVENT_COLUMNS)}  # the id comes first
_fields = itemgetter(*(_column[n] for n in ("at_us", "kind", "lane", "agent", "tool", "status", "duration_ms", "text")))
_EXTRA = _column["extra"]


def project(session: Session, events: Sequence[tuple]) -> None:
    """Add *events*, tuples of (id, \\*EVENT_COLUMNS) that continue the log, to what is derived from it.

    Runs in the transaction that stored them, under the lock on the session.
    """
    turns: list[list] = []
    calls: list[tuple] = []
    carried = None  # seq up to which this batch extends the turn that the last one left open
    for event in events:
        seq = seq_of(event[0])
        at_us, kind, lane, agent, tool, status, duration_ms, text = _fields(event)
        session.event_count += 1
        tally(session.kinds, kind)
        if agent:
            tally(session.agents, agent)
        if at_us is not None:
            if session.first_us is None or at_us < session.first_us:
                session.first_us = at_us
            if session.last_us is None or at_us > session.last_us:
                session.last_us = at_us
        if lane in ("user", "assistant"):
            session.turn_count += 1
            turns.append([entry_id(session.pk, session.turn_count), lane, seq, seq, at_us])
            if lane == "user":
                session.user_turns += 1
                session.opening = session.opening or text[:200]
            else:
                session.assistant_turns += 1
        elif turns:
            turns[-1][3] = seq
        elif session.turn_count:
            carried = seq
        if lane == "tool":
            calls.append(_call(session, event[0], at_us, agent, tool, status, duration_ms))
        elif lane == "vision":
            session.vision_count += 1
        elif lane == "interruption":
            session.interruptions += 1
        elif lane == "error":
            session.errors += 1
        elif lane == "status":
            session.status_count += 1
        elif lane == "lifecycle":
            _take_channel(session, event[_EXTRA])
    if carried is not None:
        open_turn = session.turn_count - len(turns)
        Turn.objects.filter(pk=entry_id(session.pk, open_turn)).update(last_seq=carried)
    if turns:
        log.insert(Turn, TURN_COLUMNS, [tuple(t) for t in turns])
    if calls:
        log.insert(ToolCall, CALL_COLUMNS, calls)
    session.save(update_fields=list(COUNTERS))


def _call(session: Session, pk: int, at_us, agent: str, tool: str, status: str, duration_ms) -> tuple:
    """A RoomKit tool line as a call: one line, stamped when the call had ended (FORMATS: 1, surprise 3)."""
    failed = status.lower() in FAILED
    session.tool_calls += 1
    session.tool_failures += failed
    session.tool_ms += duration_ms or 0.0
    tally(session.tools, tool or "?")
    tally(session.tool_statuses, status)
    started = None if at_us is None or duration_ms is None else at_us - round(duration_ms * 1000)
    turn = session.turn_count or None
    return (pk, session.tool_calls, turn, seq_of(pk), tool, agent, status, failed, started, at_us, duration_ms, "end")


def _take_channel(session: Session, extra: str) -> None:
    """The channel and the participant that the first line of a voice session names."""
    if not extra or (session.channel and session.participant):
        return
    known = json.loads(extra)
    for field, key in (("channel", "channel_id"), ("participant", "participant_id")):
        if not getattr(session, field) and isinstance(known.get(key), str):
            setattr(session, field, known[key][:200])


def rebuild(session: Session) -> Session:
    """Derive everything of *session* again from its log and raise its revision."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(pk=session.pk)
        span = id_range(session.pk)
        Turn.objects.filter(id__range=span).delete()
        ToolCall.objects.filter(id__range=span).delete()
        for name, empty in COUNTERS.items():
            setattr(session, name, empty() if callable(empty) else empty)
        session.revision += 1
        session.save(update_fields=["revision", *COUNTERS])
        after = span[0] - 1
        columns = ("id", *EVENT_COLUMNS)
        while rows := list(
            Event.objects.filter(id__gt=after, id__lte=span[1]).order_by("id").values_list(*columns)[:ROWS]
        ):
            project(session, rows)
            after = rows[-1][0]
        log.announce(session)
    return session
