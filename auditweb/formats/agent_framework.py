"""Lines that agent_framework's audit tracer writes, and those of its host log.

A trace file holds agent runs and four typed lines of the host. The host log holds every event of the trace bus; the
audit tracer listens to some of them. Source: agent_framework/audit_trace.py, tracing.py, agent_event_publisher.py,
llm_trace_logging.py and console_communication.py of delzubu/agent_framework, b108fed (the first version) to f24e548.
Keeps for itself how one line becomes several records, which events of the bus say what a line of a trace file says,
and what the id of a run tells about the runs above it.
"""

import re
from collections.abc import Callable, Container

from .fields import add, read_text, read_time
from .record import MAX_ID, Record, extra_text, json_text, once, promote, short

PARAMETERS_SHOWN = 200  # characters; the parameters of a call are its text up to this length, else only in extra
CONSOLE_CUT = 2000  # characters; the host's console cuts what it prints and reads for the bus here, without a mark

_TYPES = ("user_output", "user_input", "permission_request", "memory_operation")
_MEMORY = ("runtime.memory_put", "runtime.memory_update", "runtime.memory_autostore")
_OUTPUT_LANES = {"assistant": "assistant", "user": "user"}
_EVENT_LANES = {
    "tool_call": "tool",
    "tool_result": "tool",
    "tool_error": "tool",
    "subagent_call": "run",
    "subagent_result": "run",
    "subagent_error": "run",
    "subagent_batch_started": "run",
    "subagent_batch_finished": "run",
    "callback": "run",
}
_EVENT_TEXTS = {
    "tool_result": "result",
    "tool_error": "error",
    "subagent_result": "result",
    "subagent_error": "error",
    "subagent_batch_finished": "error",
}


def is_run(obj: dict) -> bool:
    """The line of one agent run."""
    return "run_id" in obj and "agent_name" in obj and "user_prompt" in obj


def is_event(obj: dict) -> bool:
    """A typed line of the host."""
    return "timestamp" in obj and "type" in obj and obj["type"].__class__ is str and obj["type"] in _TYPES


def is_trace(obj: dict) -> bool:
    """A line of the host log."""
    return (
        "event_id" in obj
        and "kind" in obj
        and "channel" in obj
        and "payload" in obj
        and obj.get("context").__class__ is dict
    )


def run_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """An ``AgentCallAuditRecord`` → the run, then its callbacks, its skills and its events, a Record each.

    *obj*: ``{timestamp, run_id, caller_id, agent_name, system_prompt, user_prompt, …, model_response, agent_decision,
    callbacks: [{timestamp, intent, prompt, target, response}], skill_invocations: [{timestamp, skill_name, parameters,
    inventory, …}], events: [{type, …}]}``. ``timestamp`` is the start of the run; the line is written at its end.

    Kinds: "agent_run", "callback", "skill", and "event:" with the event's own type. All name the run in ``ref`` and
    its agent. The status of a run is the kind of its decision, "" when it came to none. Events have no times in this
    format, so theirs is missing without a flag.
    """
    found = list(flags)
    run, extra = _run(obj, found)
    _take_time(run, extra, found)
    parts = []
    for key, kind, read, stamped in _PARTS:
        for item in _take_list(extra, key, found):
            its_flags = list(flags)
            part, rest = read(item, its_flags) if item.__class__ is dict else _no_object(item, kind, its_flags)
            if stamped:
                _take_time(part, rest, its_flags)
            part.agent, part.ref = run.agent, run.ref
            parts.append(_finish("af_run", part, rest, its_flags))
    return [_finish("af_run", run, extra, found), *parts]


def event_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A typed line of the host → one Record; its kind is the type.

    *obj*: ``type``, ``timestamp`` and ``role, text`` (user_output); ``prompt, response`` (user_input); ``tool_name,
    action, resource, summary, allowed, remember_for_session`` (permission_request); ``operation, memory_uri, scope,
    mime_type, title, summary, size_bytes, version, metadata`` (memory_operation).

    What is put out stands in the lane of the role that speaks, assistant or user; all other roles, such as "system"
    for a notice, are nobody's turn and stand in "other". A permission is "allowed" or "denied".
    """
    found = list(flags)
    record, extra = _TYPED[obj["type"]](obj, found)
    record.kind = extra.pop("type")
    _take_time(record, extra, found)
    return [_finish("af_event", record, extra, found)]


def trace_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``TraceEvent`` → one Record.

    *obj*: ``{event_id, parent_event_id, span_id, parent_span_id, timestamp, channel, level, kind, title, summary,
    context: {session_id, run_id, agent_id, caller_id, tool_name, …}, payload, tags}``.

    The start of a run, a callback, a skill, a named event and a memory operation have the kind and the columns that
    they have in a trace file, if their payload holds what that takes; the keys of the payload are in ``extra`` then.
    The kind of all others is "trace:" with their own, and the payload is kept as it is.
    """
    found, line = list(flags), dict(obj)
    context = dict(obj["context"])
    read = _same_in_a_trace_file(obj["kind"], obj["payload"])
    if read:
        record, extra = read(line.pop("payload"), found)
        if obj["kind"] in _MEMORY:
            record.status = record.status or obj["kind"].rpartition(".")[2]
    else:
        record, extra = _other_trace(line, found), {}
    _take_time(record, line, found)
    record.severity = promote(line, "level", found)
    record.agent = record.agent or promote(context, "agent_id", found)
    record.ref = record.ref or promote(context, "run_id", found)
    record.tool = record.tool or promote(context, "tool_name", found)
    line["context"] = context
    for key, value in line.items():
        add(extra, key, value)
    return [_finish("af_trace", record, extra, found)]


# Run ids. The host numbers its prompts: a root run is "{session}.p{n}.{agent}", and a run that another one calls has
# the id of that one, a dot, and the name of the agent or, in a batch, the key of its output.

_NUMBERED = re.compile(r"(.+?\.p\d+\.)(.+)", re.ASCII | re.DOTALL)


def parent_of(run_id: str, known: Container[str]) -> str | None:
    """The run that *run_id* belongs under: of the ids in *known* the longest that it continues after a dot; None
    when there is none."""
    above = run_id.rpartition(".")[0]
    while above:
        if above in known:
            return above
        above = above.rpartition(".")[0]
    return None


def caller_missing(run_id: str, caller_id: str | None, known: Container[str]) -> str | None:
    """The id of the run that called *run_id*, when there must have been one that left no line: it never ended.

    *caller_id*: the name of the calling agent, as on the line; a run of the host (None, "host") has no caller. "" is
    for a run of which only the id is known, such as the answer of this function: ask again to climb. Only ids that
    the host made tell anything; None for all others and when the caller is in *known*.
    """
    numbered = _NUMBERED.fullmatch(run_id)
    if caller_id is None or caller_id == "host" or not numbered:
        return None
    root, path = numbered.groups()
    parts = path.split(".")
    above = [root + ".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]  # the nearest first
    if not above or above[0] in known:
        return None
    # Names of agents and keys of outputs may have dots themselves; the name of the caller shows where its id ends.
    named = (id for id in above if caller_id and id[len(root) - 1 :].endswith("." + caller_id))
    caller = next(named, above[0])
    return None if caller in known else caller


# What the lines and the payloads say: each returns a Record and, still open, its extra.

Reading = tuple[Record, dict]


def _run(obj: dict, flags: list[str]) -> Reading:
    extra = dict(obj)
    decision = _object_or_none(obj.get("agent_decision"), flags)
    response = _object_or_none(obj.get("model_response"), flags)
    record = Record(
        kind="agent_run",
        lane="run",
        agent=promote(extra, "agent_name", flags),
        status=short(decision.get("kind"), flags),
        text=_string(decision, "message") or _string(response, "message") or read_text(obj["user_prompt"], flags),
        ts_means="start",
        ref=promote(extra, "run_id", flags),
    )
    return record, extra


def _callback(item: dict, flags: list[str]) -> Reading:
    extra = dict(item)
    text, status = _take_text(extra, "prompt", flags), promote(extra, "intent", flags)
    return Record(kind="callback", lane="run", text=text, status=status), extra


def _skill(item: dict, flags: list[str]) -> Reading:
    extra = dict(item)
    text, status = _take_text(extra, "skill_name", flags), promote(extra, "status", flags)
    return Record(kind="skill", lane="run", text=text, status=status), extra


def _event(item: dict, flags: list[str]) -> Reading:
    extra = dict(item)
    word = _string(item, "type")
    record = Record(kind=_kind("event", extra, "type", flags), lane=_EVENT_LANES.get(word, "other"))
    record.tool = promote(extra, "tool_name", flags)
    record.status = promote(extra, "intent" if word == "callback" else "status", flags)
    if word == "tool_call":
        parameters = json_text(item["parameters"]) if item.get("parameters") else ""
        record.text = parameters if len(parameters) <= PARAMETERS_SHOWN else ""
    elif word == "subagent_call":
        record.text = _string(item, "subagent_id")
    elif word in _EVENT_TEXTS:
        value = extra.pop(_EVENT_TEXTS[word], "")  # a tool may return any value
        record.text = value if value.__class__ is str else json_text(value)
    if word == "tool_error":
        record.status = record.status or "error"  # the outcome of a call that raised is told by its word alone
    return record, extra


def _named_event(payload: dict, flags: list[str]) -> Reading:
    record, extra = _event(payload["event"], flags)
    for key, value in payload.items():
        if key != "event":
            add(extra, key, value)
    return record, extra


def _user_output(obj: dict, flags: list[str]) -> Reading:
    extra = dict(obj)
    role, text = promote(extra, "role", flags), _take_text(extra, "text", flags)
    return Record(lane=_OUTPUT_LANES.get(role, "other"), role=role, text=text), extra


def _user_input(obj: dict, flags: list[str]) -> Reading:
    extra = dict(obj)
    return Record(lane="user", role="user", text=_take_text(extra, "response", flags)), extra


def _permission(obj: dict, flags: list[str]) -> Reading:
    extra = dict(obj)
    record = Record(lane="decision", tool=promote(extra, "tool_name", flags), text=_take_text(extra, "summary", flags))
    if obj.get("allowed").__class__ is bool:
        record.status = "allowed" if extra.pop("allowed") else "denied"
    else:
        record.status = promote(extra, "allowed", flags)
    return record, extra


def _memory(obj: dict, flags: list[str]) -> Reading:
    extra = dict(obj)
    record = Record(kind="memory_operation", lane="memory", status=promote(extra, "operation", flags))
    # What is stored by itself has neither a summary nor a title.
    if obj.get("summary") is not None:
        record.text = _take_text(extra, "summary", flags)
    record.text = record.text or _string(obj, "title")
    # The typed line has no agent and no run, but the whole payload of its event, which may have both.
    metadata = obj.get("metadata")
    if metadata.__class__ is dict:
        record.agent = short(_string(metadata, "agent_id"), flags)
        record.ref = short(_string(metadata, "run_id"), flags)
    return record, extra


def _other_trace(line: dict, flags: list[str]) -> Record:
    """A Record of an event of the bus that has no like in a trace file; takes what has a column out of *line*."""
    word, payload = _string(line, "kind"), line["payload"] if line["payload"].__class__ is dict else {}
    record = Record(kind=_kind("trace", line, "kind", flags))
    if word.startswith(("runtime.", "llm.")):
        record.lane = "run"
    if word in ("user.message_sent", "user.prompt_answered") and payload.get("text").__class__ is str:
        record.text = payload["text"]
        record.role = "user" if word == "user.prompt_answered" else short(payload.get("role"), flags)
        record.lane = "user" if word == "user.prompt_answered" else _OUTPUT_LANES.get(record.role, "other")
        record.cut = CONSOLE_CUT if len(record.text) == CONSOLE_CUT else None
    elif word == "runtime.audit.decision":
        decision = _object_or_none(payload.get("decision"), flags)
        record.text, record.status = _string(decision, "message"), short(decision.get("kind"), flags)
    if word == "llm.error" or line.get("level") == "error":
        record.lane = "error"
    if not record.text:
        summary = line.get("summary")
        record.text = _take_text(line, "summary" if summary is not None and summary != "" else "title", flags)
    return record


_PARTS: tuple[tuple[str, str, Callable[[dict, list[str]], Reading], bool], ...] = (
    ("callbacks", "callback", _callback, True),
    ("skill_invocations", "skill", _skill, True),
    ("events", "event", _event, False),
)
_TYPED = {
    "user_output": _user_output,
    "user_input": _user_input,
    "permission_request": _permission,
    "memory_operation": _memory,
}


def _same_in_a_trace_file(kind, payload) -> Callable[[dict, list[str]], Reading] | None:
    """What reads the payload of an event of the bus that has its like in a trace file; None for any other."""
    if kind.__class__ is not str or payload.__class__ is not dict:
        return None
    if kind == "runtime.audit.agent_call_started" and is_run(payload):
        return _run
    if kind == "runtime.audit.callback" and "intent" in payload and "prompt" in payload:
        return _callback
    if kind == "runtime.audit.skill_invocation" and "skill_name" in payload:
        return _skill
    if kind == "runtime.audit.named_event" and payload.get("event").__class__ is dict:
        return _named_event
    if kind in _MEMORY and "memory_uri" in payload:
        return _memory
    return None


# Values of any type


def _finish(name: str, record: Record, extra: dict, flags: list[str]) -> Record:
    record.format = name
    record.extra = extra_text(extra)
    if flags:
        record.flags = once(flags)
    return record


def _take_time(record: Record, extra: dict, flags: list[str]) -> None:
    record.ts_text, record.ts_us, record.ts_aware = read_time(extra.pop("timestamp", None), flags)


def _take_text(extra: dict, key: str, flags: list[str]) -> str:
    return read_text(extra.pop(key, None), flags)


def _take_list(extra: dict, key: str, flags: list[str]) -> list:
    """The list under *key*, taken out of *extra*; what is no list stays there."""
    value = extra.get(key)
    if value.__class__ is list:
        del extra[key]
        return value
    if value is not None:
        flags.append("wrong_type")
    return []


def _no_object(item, kind: str, flags: list[str]) -> Reading:
    """What stands where a callback, a skill or an event should be and is none: kept as text."""
    flags.append("wrong_type")
    return Record(kind=kind, lane="other", text=item if item.__class__ is str else json_text(item)), {}


def _object_or_none(value, flags: list[str]) -> dict:
    if value.__class__ is dict:
        return value
    if value is not None:
        flags.append("wrong_type")
    return {}


def _string(obj: dict, key: str) -> str:
    value = obj.get(key)
    return value if value.__class__ is str else ""


def _kind(prefix: str, extra: dict, key: str, flags: list[str]) -> str:
    """``prefix:word`` for the word under *key*, which is taken out of *extra* when the kind shows all of it."""
    word = extra.get(key)
    if word.__class__ is not str or not word:
        if word is not None and word != "":
            flags.append("wrong_type")
        return prefix
    kind = f"{prefix}:{word}"
    if len(kind) > MAX_ID:
        flags.append("long_id")
        return kind[:MAX_ID]
    del extra[key]
    return kind
