"""Events → turns, tool calls, runs and the counters of a session. Reads only the log.

What is derived is a function of the events in display order: ``project`` adds a batch that comes after all before it,
and marks the session when one does not; ``settle`` then derives it all again. So any split into batches and any order
of dumps come out the same.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

import msgspec
from django.db import transaction

from auditweb import log
from auditweb.dumps.models import Dump
from auditweb.log import entry_id, id_range, seq_of, tally
from sessions_app import fulltext
from sessions_app.chains import STAGES, Chains, key_of
from sessions_app.models import EVENT_COLUMNS, AgentRun, Event, Observation, Session, Task, ToolCall, ToolStep, Turn

ROWS = 2000  # events that are read and projected together in a rebuild
DERIVED = (Turn, ToolCall, ToolStep, AgentRun, Task, Observation)

FAILED = frozenset({"failed", "error", "denied", "blocked"})  # statuses of a call that count as a failure
FORBIDDEN = frozenset({"deny", "denied"})  # statuses of a decision that say no
HEALTHY = frozenset({"", "ok", "none"})  # of a loop warning that warns of nothing: one is written before every call
MAX_OPEN_TURNS = 1000  # that wait for their end; of more the oldest is given up and stays open

TURN_COLUMNS = (
    "id", "role", "ref", "first_seq", "last_seq", "started_us", "ended_us", "failed", "sort_us", "dump_id", "line",
)  # fmt: skip
CALL_COLUMNS = (
    "id", "number", "turn", "last_seq", "tool", "agent", "status", "failed", "started_us", "ended_us", "duration_ms",
    "stamp", "inferred",
)  # fmt: skip
STEP_COLUMNS = ("id", "call", "stage")
RUN_COLUMNS = ("id", "run_id", "caller", "agent", "decision", "started_us", "dump_id", "line")
TASK_COLUMNS = ("id", "task_id", "title", "status", "assigned_to", "created_us")
OBSERVATION_COLUMNS = ("id", "channel", "category", "content", "confidence", "created_us")

COUNTERS: dict[str, object] = {
    "opening": "", "channel": "", "participant": "", "agents": dict, "tools": dict, "tool_statuses": dict,
    "kinds": dict, "severities": dict, "event_count": 0, "user_turns": 0, "assistant_turns": 0, "turn_count": 0,
    "tool_calls": 0, "tool_failures": 0, "tool_ms": 0.0, "vision_count": 0, "interruptions": 0, "errors": 0,
    "status_count": 0, "run_count": 0, "denials": 0, "loops": 0, "memory_count": 0, "task_count": 0,
    "observation_count": 0, "first_us": None, "last_us": None, "order_us": None, "order_dump": 0, "order_line": 0,
    "unordered": False, "unfinished": "",
}  # fmt: skip
_LANE_COUNTERS = (
    ("user_turns", "user"), ("assistant_turns", "assistant"), ("vision_count", "vision"),
    ("interruptions", "interruption"), ("errors", "error"), ("status_count", "status"), ("memory_count", "memory"),
)  # fmt: skip
_WORD_COUNTERS = (("kinds", "kind"), ("agents", "agent"), ("severities", "severity"))

_column = {name: i + 1 for i, name in enumerate(EVENT_COLUMNS)}  # the id comes first
_AT, _LANE = _column["at_us"], _column["lane"]
_SORT, _DUMP, _LINE = _column["sort_us"], _column["dump_id"], _column["line"]
_place = itemgetter(_SORT, _DUMP, _LINE, 0)


def project(session: Session, events: Iterable[tuple], stamps: Mapping[int, str] | None = None) -> None:
    """Add *events*, tuples of (id, \\*EVENT_COLUMNS), to what is derived from the log.

    *stamps*: for each of their dumps what it was told of the stamps of tools ("start", "end", "" as their format
    says); looked up when not given. Runs in the transaction that stored them, under the lock on the session.
    """
    ordered = sorted(events, key=_place)
    if not ordered:
        return
    if session.order_us is not None:
        reached = (session.order_us, session.order_dump, session.order_line)
        session.unordered = session.unordered or _place(ordered[0])[:3] < reached
    if not session.unordered:
        session.order_us, session.order_dump, session.order_line = _place(ordered[-1])[:3]
    if stamps is None:
        stamps = dict(Dump.objects.filter(pk__in={e[_DUMP] for e in ordered}).values_list("pk", "stamp"))
    _count(session, ordered)
    work = _Work(session, stamps)
    take = {
        "user": work.speech, "assistant": work.speech, "tool": work.tool, "decision": work.decision,
        "lifecycle": work.lifecycle, "run": work.run, "error": work.error, "other": work.other,
    }  # fmt: skip
    for event in ordered:
        reader = take.get(event[_LANE])
        if reader:
            reader(event)
        work.belongs(event)
    work.store()
    log.save(session, list(COUNTERS))


def _count(session: Session, events: Sequence[tuple]) -> None:
    """The counters that need no look at what came before."""
    session.event_count += len(events)
    lanes = Counter(map(itemgetter(_LANE), events))
    for field, lane in _LANE_COUNTERS:
        if number := lanes[lane]:
            setattr(session, field, getattr(session, field) + number)
    for field, name in _WORD_COUNTERS:
        counts = getattr(session, field)
        for word, number in Counter(map(itemgetter(_column[name]), events)).items():
            if word or field == "kinds":
                tally(counts, word, number)
    times = [at for at in map(itemgetter(_AT), events) if at is not None]
    if times:
        first, last = min(times), max(times)
        session.first_us = first if session.first_us is None else min(first, session.first_us)
        session.last_us = last if session.last_us is None else max(last, session.last_us)


_speech = itemgetter(*(_column[n] for n in ("kind", "ref", "text", "at_us", "sort_us", "dump_id", "line")))
_tool = itemgetter(*(_column[n] for n in ("kind", "ref", "agent", "tool", "status", "at_us", "duration_ms", "dump_id")))
_decision = itemgetter(*(_column[n] for n in ("kind", "ref", "agent", "tool", "status", "extra")))
_other = itemgetter(
    *(_column[n] for n in ("kind", "ref", "agent", "status", "text", "at_us", "extra", "dump_id", "line"))
)
_REF, _KIND, _EXTRA = (_column[n] for n in ("ref", "kind", "extra"))


class _Work:
    """The rows that one batch adds and changes."""

    def __init__(self, session: Session, stamps: Mapping[int, str]):
        self._session, self._stamps = session, stamps
        state = json.loads(session.unfinished) if session.unfinished else {}
        self._chains = Chains(state.get("calls"))
        self._open_turns: dict[str, list] = state.get("turns", {})  # ref → [number, failed]
        self._spoken: int = state.get("spoken", session.turn_count)  # number of the turn that the last utterance began
        self._turns: dict[int, list] = {}  # number → row of TURN_COLUMNS
        self._spoken_before = self._spoken
        self._spoken_until = 0  # seq up to which this batch extends that turn
        self._touched: dict[int, tuple] = {}  # number of an earlier turn → (last_seq, ended_us, failed)
        self._calls: dict[int, list] = {}  # seq → row of CALL_COLUMNS
        self._extended: dict[int, int] = {}  # seq of an earlier call → last_seq
        self._closed: dict[int, tuple] = {}  # seq of an earlier call → its end
        self._steps: list[tuple] = []
        self._runs: list[tuple] = []
        self._tasks: list[tuple] = []
        self._observations: list[tuple] = []

    # Turns

    def speech(self, event: tuple) -> None:
        kind, ref, text, at_us, *place = _speech(event)
        session, seq = self._session, seq_of(event[0])
        lane = event[_LANE]
        if lane == "user" and not session.opening:
            session.opening = text[:200]
        if kind == "turn_end":
            self._end_turn(ref, seq, at_us)
            return
        session.turn_count += 1
        number = session.turn_count
        role = "agent" if kind == "turn_start" else lane
        row = [entry_id(session.pk, number), role, "", seq, seq, at_us, None, False, *place]
        self._turns[number] = row
        if kind == "turn_start" and ref:
            row[2] = ref
            self._open_turns[ref] = [number, False]
            if len(self._open_turns) > MAX_OPEN_TURNS:
                del self._open_turns[next(iter(self._open_turns))]
        else:
            self._spoken = number

    def _end_turn(self, ref: str, seq: int, at_us) -> None:
        turn = self._open_turns.pop(ref, None) if ref else None
        if turn:
            self._set_turn(turn[0], seq, at_us, False)
            self._chains.turn_ended(key_of(ref, "", "")[: len(ref) + 1])

    def _set_turn(self, number: int, last_seq: int, ended_us, failed: bool) -> None:
        if row := self._turns.get(number):
            row[4], row[6], row[7] = last_seq, ended_us, failed
        else:
            self._touched[number] = (last_seq, ended_us, failed)

    def belongs(self, event: tuple) -> None:
        """The turn of *event* reaches up to it."""
        ref = event[_REF]
        if ref and ref in self._open_turns:
            number, failed = self._open_turns[ref]
            self._set_turn(number, seq_of(event[0]), None, failed)
        elif self._spoken and event[_KIND] != "turn_end":
            row = self._turns.get(self._spoken)
            if row:
                row[4] = seq_of(event[0])
            else:
                self._spoken_until = seq_of(event[0])

    def error(self, event: tuple) -> None:
        turn = self._open_turns.get(event[_REF]) if event[_REF] else None
        if turn:
            turn[1] = True

    def _turn_of(self, ref: str) -> int | None:
        turn = self._open_turns.get(ref) if ref else None
        return (turn[0] if turn else self._spoken) or None

    # Calls

    def tool(self, event: tuple) -> None:
        kind, ref, agent, tool, status, at_us, duration_ms, dump = _tool(event)
        session, seq, stage = self._session, seq_of(event[0]), STAGES.get(kind)
        if stage is None:
            stamp = self._stamps.get(dump) or "end"
            started, ended = _both_ends(stamp, at_us, duration_ms)
            self._open_call(event[0], ref, tool, agent, started, stamp)
            self._close_call(seq, seq, status, ended, duration_ms, stamp)
        elif stage == "attempt":
            self._open_call(event[0], ref, tool, agent, at_us, "start")
            self._join(seq, self._chains.attempt(_call_id(event) or key_of(ref, agent, tool), seq))
            if kind == "event:tool_call":
                self._chains.may_be_asked(tool, ref, seq)
        else:
            nested, named = kind == "event:tool_result", _call_id(event)
            key = named or key_of(ref, agent, tool)
            call, steps = self._chains.result(key, seq, status, hooked=not (nested or named))
            if call == seq:
                started, _ = _both_ends("end", at_us, duration_ms)
                self._open_call(event[0], ref, tool, agent, started, "end")
                if nested:
                    self._chains.may_be_asked(tool, ref, seq)
            self._close_call(call, seq, status, at_us, duration_ms, "end" if call == seq else "both", not named)
            self._join(call, steps)
        session.tool_failures += stage in (None, "result") and status.lower() in FAILED

    def _open_call(self, pk: int, ref: str, tool: str, agent: str, started_us, stamp: str) -> None:
        session = self._session
        session.tool_calls += 1
        tally(session.tools, tool or "?")
        self._calls[seq_of(pk)] = [
            pk, session.tool_calls, self._turn_of(ref), seq_of(pk), tool, agent, "", False, started_us, None, None,
            stamp, False,
        ]  # fmt: skip

    def _close_call(
        self, call: int, seq: int, status: str, ended_us, duration_ms, stamp: str, inferred: bool = False
    ) -> None:
        session, failed = self._session, status.lower() in FAILED
        session.tool_ms += duration_ms or 0.0
        tally(session.tool_statuses, status)
        row = self._calls.get(call)
        if row is None:
            self._closed[call] = (seq, status, failed, ended_us, duration_ms, "both", inferred)
            self._extended.pop(call, None)
        else:
            row[3], row[6:8], row[9:13] = (
                seq,
                (status, failed),
                (ended_us, duration_ms, stamp, inferred and stamp == "both"),
            )

    def decision(self, event: tuple) -> None:
        kind, ref, agent, tool, status, extra = _decision(event)
        session, seq, stage = self._session, seq_of(event[0]), STAGES.get(kind)
        session.denials += status in FORBIDDEN
        session.loops += stage == "loop" and (status not in HEALTHY or kind == "tool_loop_block")
        if stage == "permission":
            call = self._chains.permission(tool)
        elif stage:
            after = stage == "sandbox" or (stage == "hook" and "after" in str(_from_extra(extra, "hook_name")))
            call = self._chains.decision(key_of(ref, agent, tool), seq, stage, after)
        else:
            return
        if call is not None and stage:
            self._join(call, [(seq, stage)])

    def _join(self, call: int, steps: Iterable[tuple[int, str]]) -> None:
        base = entry_id(self._session.pk, 0)
        last = 0
        for seq, stage in steps:
            self._steps.append((base + seq, base + call, stage))
            last = seq
        if row := self._calls.get(call):
            row[3] = last
        elif call in self._closed:
            self._closed[call] = (last, *self._closed[call][1:])
        else:
            self._extended[call] = last

    # Runs, tasks, observations; where a voice session takes place

    def run(self, event: tuple) -> None:
        kind, ref, agent, status, text, at_us, extra, dump, line = _other(event)
        if kind == "agent_run":
            self._session.run_count += 1
            caller = _from_extra(extra, "caller_id")
            caller = caller[:200] if isinstance(caller, str) else ""
            self._runs.append((event[0], ref, caller, agent, status, at_us, dump, line))
        elif kind == "task" and ref:
            self._session.task_count += 1
            self._tasks.append((event[0], ref, text, status, agent, at_us))

    def other(self, event: tuple) -> None:
        kind, ref, _, status, text, at_us, extra, *_ = _other(event)
        if kind == "observation" and ref:
            self._session.observation_count += 1
            channel, confidence = _from_extra(extra, "channel_id"), _from_extra(extra, "confidence")
            channel = channel[:200] if isinstance(channel, str) else ""
            known = isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0 <= confidence <= 1
            self._observations.append((event[0], channel, status, text, float(confidence) if known else None, at_us))

    def lifecycle(self, event: tuple) -> None:
        """The channel and the participant that the first line of a voice session names."""
        session = self._session
        if session.channel and session.participant:
            return
        for field, key in (("channel", "channel_id"), ("participant", "participant_id")):
            value = "" if getattr(session, field) else _from_extra(event[_EXTRA], key)
            if value and isinstance(value, str):
                setattr(session, field, value[:200])

    # Into the database

    def store(self) -> None:
        """Write what was gathered, and what waits to the session."""
        session, base = self._session, entry_id(self._session.pk, 0)
        if self._spoken_until:
            Turn.objects.filter(pk=base + self._spoken_before).update(last_seq=self._spoken_until)
        log.insert(Turn, TURN_COLUMNS, self._turns.values())
        log.insert(ToolCall, CALL_COLUMNS, self._calls.values())
        log.insert(ToolStep, STEP_COLUMNS, self._steps)
        log.insert(AgentRun, RUN_COLUMNS, self._runs)
        log.insert(Task, TASK_COLUMNS, self._tasks)
        log.insert(Observation, OBSERVATION_COLUMNS, self._observations)
        log.update_many(
            Turn, ("last_seq", "ended_us", "failed"), ((*values, base + n) for n, values in self._touched.items())
        )
        log.update_many(
            ToolCall,
            ("last_seq", "status", "failed", "ended_us", "duration_ms", "stamp", "inferred"),
            ((*values, base + call) for call, values in self._closed.items()),
        )
        log.update_many(ToolCall, ("last_seq",), ((last, base + call) for call, last in self._extended.items()))
        parts = {"calls": self._chains.state(), "turns": self._open_turns}
        state: dict[str, object] = {name: part for name, part in parts.items() if part}
        if self._spoken != session.turn_count:
            state["spoken"] = self._spoken
        session.unfinished = json.dumps(state) if state else ""


def _both_ends(stamp: str, at_us: int | None, duration_ms: float | None) -> tuple[int | None, int | None]:
    """(start, end) of a call that is one line, by what its stamp means."""
    length = None if duration_ms is None or at_us is None else round(duration_ms * 1000)
    if stamp == "start":
        return at_us, None if length is None else at_us + length  # type: ignore[operator]
    return None if length is None else at_us - length, at_us  # type: ignore[operator]


def _call_id(event: tuple) -> str:
    """What RoomKit's events name their call by, as a key of Chains; "" for producers that name none."""
    if event[_KIND] not in ("tool_call_start", "tool_call_end"):
        return ""
    content = _from_extra(event[_EXTRA], "content")
    found = content.get("tool_id") if isinstance(content, dict) else None
    return f"#{found}" if found and isinstance(found, str) else ""


_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _from_extra(extra: str, key: str):
    """The value of *key* in the JSON text *extra*, None when there is none."""
    raw = _parts(extra).get(key) if extra else None
    return None if raw is None else msgspec.json.decode(raw)


def settle(session: Session) -> Session:
    """Derive *session* again when something came before what was there already; the session as it is now."""
    return rebuild(session) if session.unordered else session


def rebuild(session: Session) -> Session:
    """Derive everything of *session* again from its log and raise its revision."""
    with transaction.atomic():
        session = Session.objects.select_for_update(no_key=True).get(pk=session.pk)
        before = fulltext.face(session) if session.last_seq else None
        forget(session.pk)
        for name, empty in COUNTERS.items():
            setattr(session, name, empty() if callable(empty) else empty)
        session.revision += 1
        session.save(update_fields=["revision", *COUNTERS])
        stamps = dict(session.dumps.values_list("pk", "stamp"))
        for part in _in_display_order(session):
            project(session, part, stamps)
        if before is not None:
            fulltext.refresh(session, before)
        log.announce(session)
    return session


def forget(session_pk: int) -> None:
    """Remove all that was derived from the events of a session."""
    for model in DERIVED:
        model._default_manager.filter(id__range=id_range(session_pk)).delete()


def _in_display_order(session: Session) -> Iterator[list[tuple]]:
    """The events of *session*, ROWS at a time. Only their keys are sorted and held together."""
    order = array("q")
    keys = Event.objects.filter(id__range=id_range(session.pk)).order_by("sort_us", "dump_id", "line", "id")
    order.extend(keys.values_list("id", flat=True).iterator(ROWS * 10))
    for start in range(0, len(order), ROWS):
        ids = order[start : start + ROWS]
        if max(ids) - min(ids) == len(ids) - 1:
            rows = Event.objects.filter(id__range=(min(ids), max(ids)))
            yield list(rows.values_list("id", *EVENT_COLUMNS))
        else:
            found: list[tuple] = []
            for part in range(0, len(ids), 500):  # parameters of one statement; SQLite before 3.32 takes 999
                rows = Event.objects.filter(id__in=list(ids[part : part + 500]))
                found += rows.values_list("id", *EVENT_COLUMNS)
            yield found
