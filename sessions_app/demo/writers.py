"""Lines as RoomKit, Xerxes and agent_framework write them.

Keeps for itself the key orders, the clocks and the cuts of the producers: a story says only who did what.
"""

import json
import uuid
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any

PREVIEW = 200  # characters; Xerxes cuts every preview here
RESULT = 500  # characters; RoomKit cuts results and what was seen here
READING = 22  # characters that are spoken in a second


class Tape:
    """Time that passes, and the lines that were written meanwhile; the same ones for one *seed* and *start*."""

    def __init__(self, seed: str, start: datetime):
        self.random = Random(seed)  # noqa: S311  nothing secret
        self.now = start
        self.lines: list[bytes] = []

    def wait(self, seconds: float) -> None:
        """Let about *seconds* pass: people and networks are never exact."""
        self.pass_ms(seconds * 1000 * self.random.uniform(0.85, 1.15))

    def pass_ms(self, ms: float) -> None:
        self.now += timedelta(microseconds=round(ms * 1000))

    def speak(self, text: str) -> None:
        """Let pass what it takes to say *text*."""
        self.wait(0.7 + len(text) / READING)

    def write(self, obj: dict, ascii: bool = True, compact: bool = False) -> None:
        separators = (",", ":") if compact else None
        self.lines.append(json.dumps(obj, ensure_ascii=ascii, separators=separators).encode())

    def token(self, digits: int) -> str:
        """A hexadecimal id that nobody has chosen."""
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def content(self) -> bytes:
        """All lines, each with its newline."""
        return b"".join(line + b"\n" for line in self.lines)


class RoomKit:
    """A RoomKit voice session: its session, tool and status auditors write to one tape.

    With *local* its hooks write wall clocks of that zone without an offset, as before 0.108; tools are in UTC always.
    """

    def __init__(self, tape: Tape, agent: str, local: timezone | None = None):
        self.tape = tape
        self.agent = agent
        self.local = local

    def start(self, channel: str, participant: str) -> None:
        self._entry("session", "system", "Session started", channel_id=channel, participant_id=participant)

    def user(self, text: str, after: float = 1.0) -> None:
        """The person says *text*, beginning *after* seconds."""
        self.tape.wait(after)
        self.tape.speak(text)
        self._entry("speech", "user", text)

    def assistant(self, text: str, after: float = 0.8) -> None:
        """The agent begins to say *text* after *after* seconds: its words are known before they are heard."""
        self.tape.wait(after)
        self._entry("speech", "assistant", text)
        self.tape.speak(text)

    def tool(
        self, name: str, arguments: dict, result: Any, ms: float, status: str = "ok", agent: str | None = None
    ) -> None:
        """A call that takes *ms*; its line is stamped with its end."""
        self._called(name, arguments, result, self._run(ms), status, agent or self.agent)

    def audited_tool(self, agent: str, name: str, arguments: dict, result: Any, ms: float, status: str = "ok") -> None:
        """The same as the tool auditor writes it, into a file of its own as a rule."""
        ms = self._run(ms)
        self.tape.write(
            {
                "ts": self.tape.now.isoformat(),
                "agent_id": agent,
                "tool_name": name,
                "arguments": arguments,
                "result": _cut(result),
                "status": status,
                "duration_ms": ms,
                "metadata": {},
            }
        )

    def vision(self, text: str, after: float = 0.3) -> None:
        self.tape.wait(after)
        self._entry("vision", "system", text[:RESULT])

    def interrupt(self, after: float = 0.4) -> None:
        self.tape.wait(after)
        self._entry("barge_in", "user", "User interrupted")

    def post(self, agent: str, action: str, status: str, detail: str = "", after: float = 0.05, **metadata) -> None:
        """An entry of the status bus: *status* is ok, failed, pending, info or completed."""
        self.tape.wait(after)
        entry = {"ts": self.tape.now.isoformat(), "agent_id": agent, "action": action, "status": status}
        self.tape.write({**entry, "detail": detail, "metadata": metadata})

    def _called(self, name: str, arguments: dict, result: Any, ms: float, status: str, agent: str) -> None:
        metadata = {"tool_name": name, "arguments": arguments, "status": status, "agent_id": agent}
        stamp, text = self.tape.now.isoformat(), _cut(result)
        self.tape.write(_session_entry(stamp, "tool_call", "assistant", text, ms, metadata))

    def _run(self, ms: float) -> float:
        ms = round(ms * self.tape.random.uniform(0.8, 1.25), 3)
        self.tape.pass_ms(ms)
        return ms

    def _entry(self, type: str, role: str, content: str, **metadata) -> None:
        now = self.tape.now
        stamp = now.astimezone(self.local).replace(tzinfo=None) if self.local else now
        self.tape.write(_session_entry(stamp.isoformat(), type, role, content, None, metadata))


def _session_entry(ts, type, role, content, ms, metadata) -> dict:
    return {"ts": ts, "type": type, "role": role, "content": content, "duration_ms": ms, "metadata": metadata}


def _cut(result: Any) -> str:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return text[:RESULT]


class RoomTimeline:
    """The events of one RoomKit room as its store returns them, with the room's tasks and observations."""

    def __init__(self, tape: Tape, room: str):
        self.tape = tape
        self.room = room
        self.index = 0

    def attach(self, channel: str) -> None:
        """A channel joins the room; only the room itself is told."""
        self.tape.wait(0.4)
        body = f"Channel {channel} attached (read_write, all)"
        data = {"channel_id": channel, "access": "read_write", "visibility": "all"}
        content = {"type": "system", "body": body, "code": "channel_attached", "data": data}
        self._event("channel_attached", _source("system", "system", "inbound"), content, visibility="internal")

    def says(self, channel: str, person: str, text: str, after: float = 6, **changes) -> str:
        """A person writes *text*; the id of the event."""
        self.tape.wait(after + len(text) / READING)
        source = _source(channel, "websocket", "inbound", person)
        return self._event("message", source, _text(text), **changes)

    def answers(self, channel: str, text: str, to: str, after: float = 2, **changes) -> str:
        """An AI channel answers event *to*."""
        self.tape.wait(after)
        usage = {"prompt_tokens": 180 + 3 * len(text), "completion_tokens": 8 + len(text) // 3}
        chained = {
            "chain_depth": 1,
            "responds_to": to,
            "correlation_id": self.tape.token(32),
            "metadata": {"ai_usage": usage, "loop_end_reason": "completed"},
        }
        return self._event("message", _source(channel, "ai", "outbound"), _text(text), **{**chained, **changes})

    def task(self, title: str, description: str, agent: str, status: str) -> None:
        self.tape.wait(0.2)
        self.tape.write(
            {
                "id": self.tape.token(32),
                "room_id": self.room,
                "title": title,
                "description": description,
                "assigned_to": agent,
                "status": status,
                "created_at": self._now(),
                "metadata": {},
            },
            ascii=False,
            compact=True,
        )

    def observation(self, channel: str, content: str, category: str, confidence: float) -> None:
        self.tape.wait(0.2)
        self.tape.write(
            {
                "id": self.tape.token(32),
                "room_id": self.room,
                "channel_id": channel,
                "content": content,
                "category": category,
                "confidence": confidence,
                "created_at": self._now(),
                "metadata": {},
            },
            ascii=False,
            compact=True,
        )

    def _now(self) -> str:
        return self.tape.now.isoformat().replace("+00:00", "Z")

    def _event(self, type: str, source: dict, content: dict, **changes) -> str:
        event_id = self.tape.token(32)
        event = {
            "id": event_id,
            "room_id": self.room,
            "type": type,
            "source": source,
            "content": content,
            "status": "delivered",
            "blocked_by": None,
            "visibility": "all",
            "addressed_to": None,
            "response_visibility": None,
            "index": self.index,
            "chain_depth": 0,
            "parent_event_id": None,
            "responds_to": None,
            "correlation_id": None,
            "idempotency_key": None,
            "created_at": self._now(),
            "metadata": {},
            "channel_data": {"provider": None, "external_id": None, "thread_id": None, "extra": {}},
            "delivery_results": {},
        }
        self.index += 1
        self.tape.write({**event, **changes}, ascii=False, compact=True)
        return event_id


def _source(channel: str, kind: str, direction: str, person: str | None = None) -> dict:
    return {
        "channel_id": channel,
        "channel_type": kind,
        "direction": direction,
        "participant_id": person,
        "external_id": None,
        "provider": "demo-model" if kind == "ai" else None,
        "raw_payload": {},
        "provider_message_id": None,
        "verification": None,
    }


def _text(body: str) -> dict:
    return {"type": "text", "body": body, "language": None}


class Xerxes:
    """One session of a Xerxes (or, without skills and switches, calute) runtime; several may share a tape."""

    def __init__(self, tape: Tape, session: str | None, agent: str):
        self.tape = tape
        self.session = session
        self.agent = agent
        self.turn: str | None = None
        self.calls = 0

    def event(self, event_type: str, severity: str = "info", after: float = 0.05, **own: Any) -> None:
        self.tape.wait(after)
        envelope = {
            "event_type": event_type,
            "timestamp": self.tape.now.isoformat(),
            "agent_id": self.agent,
            "turn_id": self.turn,
            "session_id": self.session,
            "severity": severity,
            "metadata": {},
        }
        self.tape.write(envelope | own)

    def asked(self, prompt: str, after: float = 4) -> None:
        self.turn, self.calls = self.tape.token(12), 0
        self.event("turn_start", after=after + len(prompt) / READING, prompt_preview=prompt[:PREVIEW])

    def answered(self, text: str, after: float = 1.5) -> None:
        self.event("turn_end", after=after, content_preview=text[:PREVIEW], function_calls_count=self.calls)
        self.turn = None

    def broke(self, error: str, message: str, after: float = 1) -> None:
        """The turn ends in an error, and so without an end of its own."""
        context = "during turn execution"
        self.event("error", "error", after, error_type=error, error_message=message, error_context=context)
        self.turn = None

    def call(self, tool: str, arguments: dict, result: str, ms: float, sandbox: str = "", seen: int = 0) -> None:
        """A call that succeeds, with the decisions around it. *seen*: how often the runtime saw it before."""
        self._decide(tool, arguments, sandbox, seen)
        self.tape.pass_ms(ms)
        shown: dict[str, Any] = {"status": "success", "duration_ms": ms, "result_preview": result[:PREVIEW]}
        self.event("tool_call_complete", after=0.001, tool_name=tool, **shown)

    def fails(self, tool: str, arguments: dict, error: str, message: str, ms: float, seen: int = 0) -> None:
        self._decide(tool, arguments, "", seen)
        self.tape.pass_ms(ms)
        self.event("tool_call_failure", "error", 0.001, tool_name=tool, error_type=error, error_message=message)

    def denied(self, tool: str, policy: str, message: str) -> None:
        """The policy refuses the call: there is no attempt."""
        self.calls += 1
        self.event("tool_policy_decision", tool_name=tool, action="deny", policy_source=policy)
        self._refused(tool, "ToolPolicyViolation", message)

    def looped(self, tool: str, pattern: str, count: int) -> None:
        """The loop detector refuses the call."""
        self.calls += 1
        self.event("tool_loop_block", "error", tool_name=tool, pattern=pattern, call_count=count)
        self._refused(tool, "ToolLoopError", f"{tool} was called {count} times in the same way ({pattern})")

    def _refused(self, tool: str, error: str, message: str) -> None:
        self.event("tool_call_failure", "error", 0.01, tool_name=tool, error_type=error, error_message=message)

    def _decide(self, tool: str, arguments: dict, sandbox: str, seen: int) -> None:
        self.calls += 1
        loop = ("same_call", "warning") if seen > 1 else ("none", "ok")
        pattern, level = loop
        count = seen if seen > 1 else 0
        self.event(
            "tool_loop_warning", "warning", 0.6, tool_name=tool, pattern=pattern, severity_level=level, call_count=count
        )
        self.event("tool_policy_decision", after=0.01, tool_name=tool, action="allow", policy_source="")
        self.event("tool_call_attempt", after=0.01, tool_name=tool, arguments_preview=str(arguments)[:PREVIEW])
        context = "sandbox" if sandbox else "host"
        reason = "Tool is designated for sandbox" if sandbox else "Tool not designated for sandbox"
        self.event("sandbox_decision", after=0.01, tool_name=tool, context=context, reason=reason, backend_type=sandbox)


class Run:
    """An agent_framework run that is going on: what it does until its line is written."""

    def __init__(self, trace: "Trace", run_id: str, agent: str, caller: str, prompt: str):
        self.trace = trace
        self.id = run_id
        self.agent = agent
        self.caller = caller
        self.prompt = prompt
        self.started = trace.stamp()
        self.events: list[dict] = []
        self.callbacks: list[dict] = []
        self.skills: list[dict] = []
        self.decision: dict | None = None

    def tool(self, name: str, parameters: dict, result: str, seconds: float) -> None:
        self.events.append({"type": "tool_call", "tool_name": name, "parameters": parameters})
        self.trace.tape.wait(seconds)
        self.events.append({"type": "tool_result", "tool_name": name, "parameters": parameters, "result": result})

    def callback(self, intent: str, prompt: str, response: str | None, after: float) -> None:
        """The run asks its caller."""
        self.trace.tape.wait(0.5)
        asked = {"timestamp": self.trace.stamp(), "intent": intent, "prompt": prompt, "target": f"caller:{self.caller}"}
        self.trace.tape.wait(after)
        self.callbacks.append({**asked, "response": response})
        self.events.append({"type": "callback", "intent": intent})

    def skill(self, name: str, status: str, parameters: dict, inventory: list[str]) -> None:
        self.trace.tape.wait(0.3)
        self.skills.append(
            {
                "timestamp": self.trace.stamp(),
                "skill_name": name,
                "parameters": parameters,
                "inventory": inventory,
                "status": status,
                "loaded_resources": inventory if status == "resources_loaded" else [],
            }
        )

    def says(self, message: str, kind: str = "final_message", after: float = 1.5, **fields) -> None:
        """The model's decision: *kind* final_message, call_tool, call_subagent or callback."""
        self.trace.tape.wait(after)
        nothing = dict.fromkeys(("response", "parameters", "subagent_id", "tool_name", "callback_intent"))
        self.decision = {"kind": kind, "message": message, **nothing, "parameters": {}, **fields}


class Trace:
    """A trace file of agent_framework. A run's line is written when it ends and stamped with its start: children
    come before their parents."""

    def __init__(self, tape: Tape, session: str, zone: timezone):
        self.tape = tape
        self.session = session
        self.zone = zone
        self.prompts = 0
        self.open: list[Run] = []
        self.runs: list[tuple[Run, datetime]] = []  # finished, with when

    def stamp(self) -> str:
        return self.tape.now.astimezone(self.zone).isoformat()

    def typed(self, type: str, after: float = 1, **fields) -> None:
        self.tape.wait(after)
        self.tape.write({"type": type, "timestamp": self.stamp(), **fields}, ascii=False)

    def asked(self, text: str, after: float = 4) -> None:
        self.typed("user_input", after + len(text) / READING, prompt="> ", response=text)

    def told(self, text: str, role: str = "assistant") -> None:
        self.typed("user_output", 0.2, role=role, text=text)

    def permission(self, tool: str, action: str, resource: str, summary: str, allowed: bool, after: float) -> None:
        about = {"tool_name": tool, "action": action, "resource": resource, "summary": summary}
        self.typed("permission_request", after, **about, allowed=allowed, remember_for_session=False)

    def memory(self, operation: str, uri: str, title: str, summary: str, size: int, version: str = "1") -> None:
        payload = {
            "memory_uri": uri,
            "scope": "session",
            "mime_type": "text/markdown",
            "title": title,
            "summary": summary,
            "size_bytes": size,
            "version": version,
        }
        self.typed("memory_operation", 0.3, operation=operation, **payload, metadata=payload)

    @contextmanager
    def run(self, agent: str, prompt: str, key: str = ""):
        """A run for the length of a block; inside another one it is a subagent of that. *key*: its place in a batch."""
        self.tape.wait(0.2)
        parent = self.open[-1] if self.open else None
        if parent is None:
            self.prompts += 1
            run = Run(self, f"{self.session}.p{self.prompts}.{agent}", agent, "host", prompt)
        else:
            run = Run(self, f"{parent.id}.{key or agent}", agent, parent.agent, prompt)
            if not key:
                parent.events.append({"type": "subagent_call", "subagent_id": agent, "parameters": {"request": prompt}})
        self.open.append(run)
        yield run
        self.open.pop()
        self.tape.wait(0.1)
        self._write(run)
        self.runs.append((run, self.tape.now))
        if parent is not None and not key:
            told = run.decision["message"] if run.decision else ""
            status = "completed" if run.decision else "failed"
            parent.events.append({"type": "subagent_result", "subagent_id": agent, "result": told, "status": status})

    def _write(self, run: Run) -> None:
        system = f"You are {run.agent}."
        answer = run.decision and {key: run.decision[key] for key in ("kind", "message")}
        self.tape.write(
            {
                "timestamp": run.started,
                "run_id": run.id,
                "caller_id": run.caller,
                "agent_name": run.agent,
                "system_prompt": system,
                "system_prompt_sources": [f"agents/{run.agent}.md"],
                "user_prompt": run.prompt,
                "user_prompt_sources": [],
                "llm_message_sent": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": run.prompt},
                ],
                "llm_message_received": answer and json.dumps(answer, ensure_ascii=False),
                "model_response": answer,
                "agent_decision": run.decision,
                "callbacks": run.callbacks,
                "skill_invocations": run.skills,
                "events": run.events,
            },
            ascii=False,
        )


class HostLog:
    """The log of the program that agent_framework runs in."""

    def __init__(self, tape: Tape, session: str):
        self.tape = tape
        self.session = session
        self.last: str | None = None

    def event(self, kind: str, summary: str, run: Run, level: str = "info", after: float = 0.2, **payload) -> None:
        """One event of *kind* ("llm.request") about *run*."""
        self.tape.wait(after)
        event_id = str(uuid.UUID(int=self.tape.random.getrandbits(128), version=4))
        self.tape.write(
            {
                "event_id": event_id,
                "parent_event_id": self.last,
                "span_id": run.id,
                "parent_span_id": None if run.caller == "host" else run.id.rpartition(".")[0],
                "timestamp": self.tape.now.isoformat(),
                "channel": kind.partition(".")[0],
                "level": level,
                "kind": kind,
                "title": kind.replace(".", " "),
                "summary": summary,
                "context": {
                    "session_id": self.session,
                    "run_id": run.id,
                    "agent_id": run.agent,
                    "caller_id": None if run.caller == "host" else run.caller,
                    "tool_name": payload.get("tool_name"),
                    "subagent_id": None,
                    "conversation_id": None,
                },
                "payload": payload,
                "tags": ["demo"],
            }
        )
        self.last = event_id
