"""Trace files of agent_framework and its host log become records: runs with all that happened in them."""

import json
import re
from collections import Counter
from datetime import datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from auditweb.formats import FORMATS, BadLine, Record, decode, is_blank, read_line
from auditweb.formats.agent_framework import caller_missing, parent_of
from tests.test_formats import FILES, MANIFEST, SAMPLES, VALUES, assert_read, assert_storable, physical_lines, tally

TRACES = [f for f in FILES.values() if f["path"].startswith("agent_framework/")]
READ_BY_US = {"af_run", "af_event", "af_trace"}
HOST_LOG = "other/agent_framework_host_log.jsonl"

RUN = {
    "timestamp": "2026-05-01T09:00:02.441460+00:00",
    "run_id": "s1.p1.root.critic",
    "caller_id": "root",
    "agent_name": "critic",
    "system_prompt": "You are critic.",
    "system_prompt_sources": ["agents/critic.md"],
    "user_prompt": "Review the draft.",
    "user_prompt_sources": [],
    "llm_message_sent": [{"role": "user", "content": "Review the draft."}],
    "llm_message_received": '{"kind": "final_message"}',
    "model_response": {"kind": "final_message", "message": "Too short."},
    "agent_decision": {"kind": "final_message", "message": "Too short, sorry.", "response": None, "parameters": {}},
    "callbacks": [],
    "skill_invocations": [],
    "events": [],
}
CALLBACK = {
    "timestamp": "2026-05-01T09:00:03+00:00",
    "intent": "clarify",
    "prompt": "Which one?",
    "target": "caller:host",
    "response": "the second",
}
SKILL = {
    "timestamp": "2026-05-01T09:00:04+00:00",
    "skill_name": "summarise-report",
    "parameters": {"depth": 2},
    "inventory": ["references/style.md"],
    "status": "loaded",
    "loaded_resources": [],
}
OUTPUT = {"type": "user_output", "timestamp": "2026-05-01T09:00:05+00:00", "role": "assistant", "text": "Done."}
INPUT = {"type": "user_input", "timestamp": "2026-05-01T09:00:06+00:00", "prompt": "> ", "response": "yes"}
PERMISSION = {
    "type": "permission_request",
    "timestamp": "2026-05-01T09:00:07+00:00",
    "tool_name": "Bash",
    "action": "execute",
    "resource": "echo hi",
    "summary": "Execute: echo hi",
    "allowed": False,
    "remember_for_session": False,
}
MEMORY = {
    "type": "memory_operation",
    "timestamp": "2026-05-01T09:00:08+00:00",
    "operation": "memory_put",
    "memory_uri": "mem://session/0",
    "scope": "session",
    "mime_type": "text/plain",
    "title": "note",
    "summary": "Where the desks go",
    "size_bytes": 55,
    "version": "1",
    "metadata": {},
}
TRACE = {
    "event_id": "e-1",
    "parent_event_id": None,
    "span_id": "s1.p1.root",
    "parent_span_id": None,
    "timestamp": "2026-05-01T09:00:09+00:00",
    "channel": "runtime",
    "level": "info",
    "kind": "runtime.agent_started",
    "title": "Agent started",
    "summary": "",
    "context": {"session_id": "s1", "run_id": "s1.p1.root", "agent_id": "root", "caller_id": None, "tool_name": None},
    "payload": {},
    "tags": [],
}


def line_records(path):
    """The records of every line of a sample, a list each."""
    return [read_line(raw) for raw in physical_lines(path)]


def records(obj, **changes):
    return read_line(json.dumps(obj | changes, ensure_ascii=False).encode())


def one(obj, **changes):
    [record] = records(obj, **changes)
    return record


def extra(record):
    return json.loads(record.extra or "{}")


def nested(event):
    """The Record of one nested event of a run."""
    return records(RUN, events=[event])[1]


def is_child(run):
    """As the manifest tells: a run that the host did not start."""
    return extra(run).get("caller_id") not in (None, "host")


# The samples


@pytest.mark.parametrize("sample", TRACES, ids=lambda f: f["path"])
def test_every_trace_file_reads_as_the_manifest_says(sample):
    expected = sample["reading"]["agent_framework"]
    lines = line_records(sample["path"])
    assert tally(found[0].format for found in lines) == sample["reading"]["records_by_kind"]
    everything = [record for found in lines for record in found]
    assert {flag for record in everything for flag in record.flags} == set()
    runs = [record for record in everything if record.kind == "agent_run"]
    assert len(runs) == expected["runs"]
    assert len({run.ref for run in runs}) == expected["distinct_run_ids"]
    assert [ref for ref, n in Counter(run.ref for run in runs).items() if n > 1] == expected["repeated_run_ids"]
    assert tally(run.agent for run in runs) == expected["runs_by_agent"]
    assert tally(run.status or "None" for run in runs) == expected["decisions"]
    assert sum(run.status == "" for run in runs) == expected["runs_without_decision"]
    assert tally(type(extra(run)["llm_message_sent"]).__name__ for run in runs) == expected["llm_message_sent_types"]
    assert sum(record.kind == "callback" for record in everything) == expected["callbacks"]
    assert sum(record.kind == "skill" for record in everything) == expected["skill_invocations"]
    events = [record.kind.removeprefix("event:") for record in everything if record.kind.startswith("event:")]
    assert tally(events) == expected["nested_events_by_type"]
    typed = [record for record in everything if record.format == "af_event"]
    assert tally(record.kind for record in typed) == expected["lines_by_type"]
    permissions = [record.status for record in typed if record.kind == "permission_request"]
    assert {status: permissions.count(status) for status in ("allowed", "denied")} == expected["permissions"]
    assert tally(r.status for r in typed if r.kind == "memory_operation") == expected["memory_operations"]
    assert {r.lane for r in typed if r.kind == "memory_operation"} <= {"memory"}


@pytest.mark.parametrize("sample", TRACES, ids=lambda f: f["path"])
def test_the_times_of_the_lines_are_those_of_the_manifest(sample):
    expected = sample["reading"]["timestamps"]
    firsts = [found[0] for found in line_records(sample["path"])]
    assert sum(record.ts_aware for record in firsts) == expected["aware"] == len(firsts)
    assert [firsts[0].ts_text, firsts[-1].ts_text] == [expected["first_in_file"], expected["last_in_file"]]
    times = [record.ts_us for record in firsts]
    earlier = [number for number in range(2, len(times) + 1) if times[number - 1] < times[number - 2]]
    assert len(earlier) == expected["lines_earlier_than_the_line_before"]
    assert earlier[:20] == expected["some_of_them"]
    assert [min(times), max(times)] == [
        round(datetime.fromisoformat(expected[key]).timestamp() * 1_000_000) for key in ("utc_min", "utc_max")
    ]
    assert (max(times) - min(times)) / 1_000_000 == pytest.approx(expected["span_s"], abs=1e-6)


@pytest.mark.parametrize("sample", TRACES, ids=lambda f: f["path"])
def test_children_find_the_parents_that_the_manifest_knows(sample):
    expected = sample["reading"]["agent_framework"]
    runs = [found[0] for found in line_records(sample["path"]) if found[0].kind == "agent_run"]
    known = {run.ref for run in runs}
    children = [run for run in runs if is_child(run)]
    assert len(runs) - len(children) == expected["root_runs"]
    assert len(children) == expected["child_runs"]
    parents = [parent_of(run.ref, known) for run in children]
    assert sum(parent is not None for parent in parents) == expected["child_runs_with_a_known_parent"]
    assert [parent_of(run.ref, known) for run in runs if not is_child(run)] == [None] * expected["root_runs"]


@pytest.mark.parametrize("sample", TRACES, ids=lambda f: f["path"])
def test_every_unfinished_run_that_called_another_is_found_missing(sample):
    runs = [found[0] for found in line_records(sample["path"]) if found[0].kind == "agent_run"]
    known = {run.ref for run in runs}
    missing = set()
    for run in runs:
        above = caller_missing(run.ref, extra(run)["caller_id"], known)
        while above is not None:
            missing.add(above)
            above = caller_missing(above, "", known)
    ids = [id for id in sample["unfinished_runs"] if any(run.ref.startswith(id + ".") for run in runs)]
    assert missing == set(ids)


def test_the_samples_have_unfinished_runs_that_called_others():
    ids = {id for sample in TRACES for id in sample["unfinished_runs"]}
    assert {"sess21.p1.root", "sess21.p106.root", "sess21.p121.root.researcher", "sess22.p15.root"} <= ids


def claims(raw):
    """The formats that would take a line, "unknown" left out; () for what is no object."""
    try:
        obj = decode(raw)[0]
    except BadLine:
        return ()
    return tuple(name for name, matches, _ in FORMATS if name != "unknown" and matches(obj))


def test_no_line_of_any_sample_is_claimed_by_another_format_too():
    seen = Counter()
    for file in MANIFEST["files"]:
        if not file["path"].endswith((".jsonl", ".json")):
            continue
        for raw in (SAMPLES / file["path"]).read_bytes().split(b"\n"):
            names = () if is_blank(raw) else claims(raw)
            if READ_BY_US & set(names):
                assert len(names) == 1, raw
                seen[names[0]] += 1
    assert seen["af_trace"] == 6
    assert seen["af_run"] > 386 and seen["af_event"] > 516  # those of the trace files, and of a concatenated one


def test_line_separators_inside_texts_stay_exact():
    lines = line_records("agent_framework/trace-260320_115602.jsonl")
    assert lines[13][0].text == "tomorrow\u2028morning"
    [prompt] = [
        extra(found[0])["user_prompt"]
        for found in lines
        if found[0].kind == "agent_run" and found[0].ref == "80c1effe-dfc.p9.root"
    ]
    assert re.findall("[\u2028\u2029\x85]", prompt) == ["\u2028", "\x85", "\u2029"]


def test_the_offset_of_the_clocks_changes_inside_a_file():
    firsts = [found[0] for found in line_records("agent_framework/trace-261025_013000.jsonl")]
    offsets = [record.ts_text[-6:] for record in firsts]
    assert {*offsets} <= {"+02:00", "+01:00"}
    assert min(record.ts_us for record in firsts) == firsts[0].ts_us


# Runs


def test_a_run_becomes_a_record():
    assert one(RUN) == Record(
        format="af_run",
        kind="agent_run",
        lane="run",
        agent="critic",
        status="final_message",
        text="Too short, sorry.",
        ts_text="2026-05-01T09:00:02.441460+00:00",
        ts_us=1777626002441460,
        ts_aware=True,
        ts_means="start",
        ref="s1.p1.root.critic",
        extra=one(RUN).extra,
    )
    left = set(RUN) - {"timestamp", "run_id", "agent_name", "callbacks", "skill_invocations", "events"}
    assert extra(one(RUN)) == {key: RUN[key] for key in left}


def test_what_happened_in_a_run_follows_it_in_order():
    events = [{"type": "tool_call", "tool_name": "Write", "parameters": {"path": "a"}}, {"type": "plan_updated"}]
    found = records(RUN, callbacks=[CALLBACK, CALLBACK], skill_invocations=[SKILL], events=events)
    assert [r.kind for r in found] == [
        *("agent_run", "callback", "callback", "skill", "event:tool_call", "event:plan_updated")
    ]
    assert {(r.format, r.ref, r.agent) for r in found} == {("af_run", "s1.p1.root.critic", "critic")}
    assert [r.ts_text for r in found] == [
        *(RUN["timestamp"], CALLBACK["timestamp"], CALLBACK["timestamp"], SKILL["timestamp"], "", "")
    ]
    assert {r.flags for r in found} == {()}


def test_a_callback_and_a_skill_keep_what_has_no_column():
    _, callback, skill = records(RUN, callbacks=[CALLBACK], skill_invocations=[SKILL | {"seconds": 3}])
    assert (callback.lane, callback.text, callback.status) == ("run", "Which one?", "clarify")
    assert extra(callback) == {"target": "caller:host", "response": "the second"}
    assert (skill.lane, skill.text, skill.status) == ("run", "summarise-report", "loaded")
    assert extra(skill) == {
        "parameters": {"depth": 2},
        "inventory": ["references/style.md"],
        "loaded_resources": [],
        "seconds": 3,
    }


def test_a_skill_of_the_first_versions_has_no_status():
    old = {key: SKILL[key] for key in ("timestamp", "skill_name", "parameters", "inventory")}
    assert records(RUN, skill_invocations=[old])[1].status == ""


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({}, "final_message", "Too short, sorry."),
        ({"agent_decision": None}, "", "Too short."),
        ({"agent_decision": {"kind": "call_tool", "message": ""}}, "call_tool", "Too short."),
        ({"agent_decision": None, "model_response": None}, "", "Review the draft."),
        ({"agent_decision": None, "model_response": {"error": {"code": 503}}}, "", "Review the draft."),
        ({"agent_decision": {"kind": None, "message": {"a": 1}}, "model_response": {}}, "", "Review the draft."),
    ],
)
def test_a_run_says_what_it_decided_else_what_it_was_asked(changes, status, text):
    record = one(RUN, **changes)
    assert (record.status, record.text, record.flags) == (status, text, ())


def test_a_run_of_the_first_version_has_no_skills():
    old = {key: value for key, value in RUN.items() if key != "skill_invocations"}
    assert [r.kind for r in records(old, events=[{"type": "callback", "n": 0}])] == ["agent_run", "event:callback"]


@pytest.mark.parametrize("key", ["callbacks", "skill_invocations", "events"])
def test_a_list_of_another_type_stays_with_the_run(key):
    record = one(RUN, **{key: {"a": 1}})
    assert extra(record)[key] == {"a": 1}
    assert record.flags == ("wrong_type",)
    assert one(RUN, **{key: None}).flags == ()


@pytest.mark.parametrize(
    ("key", "kind"), [("callbacks", "callback"), ("skill_invocations", "skill"), ("events", "event")]
)
def test_what_is_no_object_in_a_list_is_kept_as_text(key, kind):
    _, word, number = records(RUN, **{key: ["was here", [7]]})
    assert (word.kind, word.text, word.lane) == (kind, "was here", "other")
    assert (number.kind, number.text) == (kind, "[7]")
    assert "wrong_type" in word.flags


def test_a_flag_of_the_line_stands_at_all_its_records():
    found = records(RUN, events=[{"type": "x", "n": "\0"}], callbacks=[CALLBACK])
    assert [r.flags for r in found] == [("nul",)] * 3


def test_a_flag_of_one_part_stands_at_that_part():
    run, callback = records(RUN, callbacks=[CALLBACK | {"timestamp": "yesterday"}])
    assert (run.flags, callback.flags) == ((), ("bad_time",))


# Events of a run


@pytest.mark.parametrize(
    ("event", "lane", "tool", "status", "text", "left"),
    [
        (
            {"type": "tool_call", "tool_name": "Write", "parameters": {"path": "é"}},
            *("tool", "Write", "", '{"path": "é"}', {"parameters": {"path": "é"}}),
        ),
        ({"type": "tool_call", "tool_name": "Read", "parameters": {}}, "tool", "Read", "", "", {"parameters": {}}),
        (
            {"type": "tool_call", "tool_name": "Write", "parameters": {"t": "x" * 200}},
            *("tool", "Write", "", "", {"parameters": {"t": "x" * 200}}),
        ),
        ({"type": "tool_result", "tool_name": "Write", "result": "written"}, "tool", "Write", "", "written", {}),
        ({"type": "tool_result", "tool_name": "x", "result": {"a": [1]}}, "tool", "x", "", '{"a": [1]}', {}),
        (
            {"type": "tool_error", "tool_name": "x", "error_type": "OSError", "error": "disk full"},
            *("tool", "x", "error", "disk full", {"error_type": "OSError"}),
        ),
        (
            {"type": "subagent_call", "subagent_id": "critic", "parameters": {"n": 1}},
            *("run", "", "", "critic", {"subagent_id": "critic", "parameters": {"n": 1}}),
        ),
        (
            {"type": "subagent_result", "subagent_id": "critic", "result": "fine", "status": "completed"},
            *("run", "", "completed", "fine", {"subagent_id": "critic"}),
        ),
        (
            {"type": "subagent_batch_finished", "batch_id": "b", "status": "ok", "completed": 2},
            *("run", "", "ok", "", {"batch_id": "b", "completed": 2}),
        ),
        ({"type": "callback", "intent": "clarify"}, "run", "", "clarify", "", {}),
        ({"type": "plan_updated", "step_count": 3}, "other", "", "", "", {"step_count": 3}),
    ],
)
def test_a_nested_event_keeps_its_type_and_all_its_keys(event, lane, tool, status, text, left):
    record = nested(event)
    assert record.kind == "event:" + event["type"]
    assert (record.lane, record.tool, record.status, record.text) == (lane, tool, status, text)
    assert extra(record) == left
    assert (record.ts_us, record.ts_text, record.flags) == (None, "", ())


@pytest.mark.parametrize(
    ("event", "kind", "flags"),
    [
        ({"n": 1}, "event", ()),
        ({"type": None}, "event", ()),
        ({"type": ""}, "event", ()),
        ({"type": ["x"]}, "event", ("wrong_type",)),
        ({"type": "x" * 194}, "event:" + "x" * 194, ()),
        ({"type": "x" * 195}, "event:" + "x" * 194, ("long_id",)),
    ],
)
def test_a_nested_event_without_a_usable_type_is_an_event(event, kind, flags):
    record = nested(event)
    assert (record.kind, record.flags) == (kind, flags)
    if kind != "event:" + str(event.get("type")):
        assert extra(record) == event


# Lines of the host


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (OUTPUT, {"lane": "assistant", "role": "assistant", "text": "Done."}),
        (OUTPUT | {"role": "user"}, {"lane": "user", "role": "user", "text": "Done."}),
        (OUTPUT | {"role": "system"}, {"lane": "other", "role": "system", "text": "Done."}),
        (INPUT, {"lane": "user", "role": "user", "text": "yes"}),
        (PERMISSION, {"lane": "decision", "tool": "Bash", "status": "denied", "text": "Execute: echo hi"}),
        (PERMISSION | {"allowed": True}, {"lane": "decision", "status": "allowed"}),
        (PERMISSION | {"allowed": "perhaps"}, {"lane": "decision", "status": "perhaps"}),
        (PERMISSION | {"allowed": None}, {"lane": "decision", "status": "", "flags": ()}),
        (PERMISSION | {"allowed": 1}, {"lane": "decision", "status": "1", "flags": ("wrong_type",)}),
        (MEMORY, {"lane": "memory", "status": "memory_put", "text": "Where the desks go"}),
        (MEMORY | {"summary": None}, {"text": "note", "flags": ()}),
        (MEMORY | {"summary": None, "title": None}, {"text": "", "flags": ()}),
        (MEMORY | {"metadata": {"agent_id": "critic", "run_id": "s.p1.critic"}}, {"agent": "critic"}),
        (MEMORY | {"metadata": {"agent_id": 1, "run_id": "s.p1.critic"}}, {"agent": "", "ref": "s.p1.critic"}),
    ],
)
def test_a_typed_line_becomes_a_record_of_that_kind(line, expected):
    record = one(line)
    assert (record.format, record.kind, record.ts_text) == ("af_event", line["type"], line["timestamp"])
    assert {name: getattr(record, name) for name in expected} == expected


def test_a_typed_line_keeps_what_has_no_column():
    assert extra(one(INPUT)) == {"prompt": "> "}
    left = {"action": "execute", "resource": "echo hi", "remember_for_session": False}
    assert extra(one(PERMISSION)) == left
    assert extra(one(PERMISSION, allowed="perhaps", more=1)) == left | {"more": 1}
    columns = ("type", "timestamp", "operation", "summary")
    assert extra(one(MEMORY)) == {key: value for key, value in MEMORY.items() if key not in columns}


@pytest.mark.parametrize("word", ["user_outputs", "USER_INPUT", "", ["user_input"], None, {"a": 1}])
def test_a_line_of_another_type_is_none_of_the_host(word):
    assert one(OUTPUT, type=word).format == "unknown"


# The host log


def test_the_events_of_a_host_log_keep_their_kinds():
    found = [line[0] for line in line_records(HOST_LOG)]
    assert [r.kind for r in found] == [
        "trace:runtime.agent_started",
        "trace:llm.request",
        "trace:llm.response",
        "trace:log.record",
        "trace:user.prompt",
        "trace:runtime.audit.agent_call_finished",
    ]
    assert [r.lane for r in found] == ["run", "run", "run", "other", "other", "run"]
    assert [r.severity for r in found] == ["info", "info", "info", "warning", "info", "info"]
    assert {(r.format, r.text, r.agent, r.ref, r.session) for r in found} == {
        ("af_trace", "é", "root", "s-1.p1.root", "")
    }
    assert [extra(r)["payload"] for r in found] == [{"i": i} for i in range(6)]


def test_an_event_of_the_bus_keeps_what_has_no_column():
    record = one(TRACE, payload=[1], more=True)
    assert (record.text, record.severity, record.tool) == ("Agent started", "info", "")
    assert extra(record) == {
        "event_id": "e-1",
        "parent_event_id": None,
        "span_id": "s1.p1.root",
        "parent_span_id": None,
        "channel": "runtime",
        "summary": "",
        "context": {"session_id": "s1", "caller_id": None, "tool_name": None},
        "payload": [1],
        "tags": [],
        "more": True,
    }


@pytest.mark.parametrize(
    ("changes", "lane"),
    [
        ({"kind": "llm.error"}, "error"),
        ({"kind": "runtime.tool_execution_failed", "level": "error"}, "error"),
        ({"kind": "log.record", "level": "error"}, "error"),
        ({"kind": "llm.response"}, "run"),
        ({"kind": "log.record", "level": "warning"}, "other"),
        ({"kind": "user.prompt_answered", "payload": {"text": None}}, "other"),
        ({"kind": "user.stream_chunk", "payload": {"chunk": "x"}}, "other"),
        ({"kind": "runtime"}, "other"),
        ({"kind": None}, "other"),
    ],
)
def test_kind_and_level_choose_the_lane_of_an_event_of_the_bus(changes, lane):
    assert one(TRACE, **changes).lane == lane


def test_what_people_typed_stands_in_their_lane():
    record = one(TRACE, channel="user", kind="user.prompt_answered", payload={"text": "yes", "prompt_id": None})
    assert (record.kind, record.lane, record.role, record.text) == (
        *("trace:user.prompt_answered", "user", "user", "yes"),
    )
    assert record.cut is None
    assert one(TRACE, kind="user.prompt_answered", payload={"text": "x" * 2000}).cut == 2000


def test_a_message_on_the_console_is_shown_as_long_as_it_was_kept():
    text = "word " * 100
    record = one(TRACE, kind="user.message_sent", summary=text[:200], payload={"role": "assistant", "text": text})
    assert (record.role, record.text, record.lane) == ("assistant", text, "assistant")


def test_a_decision_on_the_bus_shows_what_was_decided():
    record = one(
        TRACE, kind="runtime.audit.decision", payload={"decision": {"kind": "call_tool", "message": "I look it up."}}
    )
    assert (record.kind, record.status, record.text) == ("trace:runtime.audit.decision", "call_tool", "I look it up.")


@pytest.mark.parametrize(
    ("kind", "payload", "like"),
    [
        ("runtime.audit.agent_call_started", {k: RUN[k] for k in list(RUN)[1:8]}, "agent_run"),
        ("runtime.audit.callback", {k: CALLBACK[k] for k in list(CALLBACK)[1:]} | {"event": {"n": 1}}, "callback"),
        ("runtime.audit.skill_invocation", {k: SKILL[k] for k in list(SKILL)[1:]}, "skill"),
        (
            "runtime.audit.named_event",
            {"event": {"type": "tool_call", "tool_name": "Write", "parameters": {}}},
            "event:tool_call",
        ),
        ("runtime.memory_put", {k: MEMORY[k] for k in list(MEMORY)[3:]}, "memory_operation"),
        ("runtime.memory_autostore", {"memory_uri": "mem://x", "size_bytes": 1, "run_id": "r"}, "memory_operation"),
    ],
)
def test_what_the_audit_tracer_would_have_written_has_the_same_kind(kind, payload, like):
    record = one(TRACE, kind=kind, payload=payload, level="debug")
    assert (record.format, record.kind, record.severity) == ("af_trace", like, "debug")
    assert (record.ts_text, record.ref) == (TRACE["timestamp"], RUN["run_id"] if like == "agent_run" else "s1.p1.root")
    kept = extra(record)
    assert kept["kind"] == kind
    assert "payload" not in kept
    assert kept["event_id"] == "e-1"
    assert one(TRACE, kind=kind, payload={"i": 1}).kind == "trace:" + kind
    assert one(TRACE, kind=kind, payload="text").kind == "trace:" + kind


def test_the_columns_of_such_an_event_are_those_of_a_trace_file():
    names = ("lane", "agent", "tool", "status", "text", "ts_means")

    def columns(record):
        return [getattr(record, name) for name in names]

    context = TRACE["context"] | {"agent_id": "critic"}
    started = one(TRACE, kind="runtime.audit.agent_call_started", payload={k: RUN[k] for k in list(RUN)[1:8]})
    assert columns(started) == columns(one(RUN, agent_decision=None, model_response=None))
    assert extra(started)["caller_id"] == "root"
    event = {"type": "tool_result", "tool_name": "Write", "result": "written"}
    named = one(TRACE, kind="runtime.audit.named_event", payload={"event": event}, context=context)
    assert columns(named) == columns(nested(event))
    _, callback, skill = records(RUN, callbacks=[CALLBACK], skill_invocations=[SKILL])
    for kind, payload, like in (("callback", CALLBACK, callback), ("skill_invocation", SKILL, skill)):
        assert columns(one(TRACE, kind="runtime.audit." + kind, payload=payload, context=context)) == columns(like)
    put = one(TRACE, kind="runtime.memory_put", payload=MEMORY, context={})
    assert columns(put) == columns(one(MEMORY))
    assert extra(put)["line.title"] == TRACE["title"]
    assert one(TRACE, kind="runtime.memory_update", payload={"memory_uri": "m"}).status == "memory_update"
    assert one(TRACE, kind="runtime.memory_put", payload=MEMORY | {"operation": "mine"}).status == "mine"


# Run ids


@pytest.mark.parametrize(
    ("run_id", "known", "parent"),
    [
        ("s.p1.root.critic", {"s.p1.root", "s.p1"}, "s.p1.root"),
        ("s.p1.root.critic.helper", {"s.p1.root"}, "s.p1.root"),
        ("s.p1.root", {"s.p1.root", "s.p1.roo"}, None),
        ("s.p1.rooted", {"s.p1.root"}, None),
        ("1ed696a174357aba", {"1ed696a1"}, None),
        ("", {""}, None),
        (".a", {"", "."}, None),
        ("a..b", {"a"}, "a"),
    ],
)
def test_the_parent_is_the_longest_known_id_before_a_dot(run_id, known, parent):
    assert parent_of(run_id, known) == parent


@pytest.mark.parametrize(
    ("run_id", "caller", "known", "missing"),
    [
        ("s.p1.root.critic", "root", set(), "s.p1.root"),
        ("s.p1.root.critic", "root", {"s.p1.root"}, None),
        ("s.p1.root.critic.critic", "critic", {"s.p1.root"}, "s.p1.root.critic"),
        ("s.p1.root.root.root", "root", {"s.p1.root"}, "s.p1.root.root"),
        ("s.p1.root", "host", set(), None),
        ("s.p1.root", None, set(), None),
        ("s.p1.my.agent", "host", set(), None),
        ("s.p1.root.my.agent", "root", {"s.p1.root"}, None),  # a dot in the name of an agent or in an output's key
        ("s.p1.root.my.agent", "root", set(), "s.p1.root"),
        ("s.p1.my.agent.critic", "my.agent", set(), "s.p1.my.agent"),
        ("s.p1.root.call_1.critic", "researcher", {"s.p1.root"}, "s.p1.root.call_1"),  # the caller ran in a batch
        ("s.p1.root.call_1.critic", "researcher", {"s.p1.root", "s.p1.root.call_1"}, None),
        ("s.p1.researcher.r.critic", "researcher", {"s.p1.researcher.r"}, None),
        ("a.b.p12.root.critic", "root", set(), "a.b.p12.root"),
        ("s.p1.root.critic", "", set(), "s.p1.root"),
        ("s.p1.root", "", set(), None),
        ("s.px.root.critic", "root", set(), None),
        ("root.critic", "root", set(), None),
        ("39f5af65ec2cf9b8", "planner", set(), None),
        ("", "planner", set(), None),
    ],
)
def test_a_caller_without_a_line_is_told_from_the_id(run_id, caller, known, missing):
    assert caller_missing(run_id, caller, known) == missing


IDS = st.lists(st.sampled_from(["s", "p1", "root", "critic", "", "p2"]), max_size=7).map(".".join)


@given(IDS, st.none() | st.sampled_from(["root", "critic", "host", "", "x"]), st.sets(IDS, max_size=4))
def test_what_a_run_id_tells_always_stands_above_it(run_id, caller, known):
    parent, missing = parent_of(run_id, known), caller_missing(run_id, caller, known)
    assert parent is None or (parent in known and run_id.startswith(parent + "."))
    assert missing is None or (missing not in known and run_id.startswith(missing + "."))


# Any line

STARTS = [RUN, OUTPUT, INPUT, PERMISSION, MEMORY, TRACE]
KINDS = ["runtime.audit." + word for word in ("agent_call_started", "callback", "named_event", "skill_invocation")]
KINDS += ["runtime.audit.decision", "runtime.memory_put", "llm.error", "user.prompt_answered", "x"]
KEYS = sorted({key for start in [*STARTS, CALLBACK, SKILL] for key in start} | {"error", "event", "result"})
PARTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
EVENTS = st.builds(
    lambda type, rest: rest | {"type": type},
    st.sampled_from(["tool_call", "tool_result", "subagent_call", "subagent_result", "callback"]),
    PARTS,
)
LISTS = st.lists(VALUES | PARTS | EVENTS | st.just(CALLBACK) | st.just(SKILL), max_size=3)
PAYLOADS = st.builds(
    lambda start, rest: start | rest,
    st.sampled_from([{}, RUN, CALLBACK, SKILL, MEMORY, {"event": {"type": "tool_call"}}]),
    PARTS | EVENTS.map(lambda event: {"event": event}),
)


@given(
    st.sampled_from(STARTS),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["callbacks", "skill_invocations", "events"]), LISTS),
    st.none() | st.tuples(st.sampled_from(KINDS), PAYLOADS),
    st.booleans(),
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])  # the machine may have more to do
@example(TRACE, {}, {}, ("runtime.audit.agent_call_started", RUN | {"user_prompt": ["\ud800"]}), True)
@example(
    RUN, {"run_id": None, "agent_name": {}, "user_prompt": None}, {"events": [{"type": "tool_result"}]}, None, True
)
@example(MEMORY, {"metadata": {"agent_id": "x" * 300}}, {}, None, False)
def test_any_values_become_records_that_databases_take(start, changes, lists, trace, ascii_only):
    obj = start | changes | (lists if start is RUN else {})
    if start is TRACE and trace:
        obj |= {"kind": trace[0], "payload": trace[1]}
    raw = json.dumps(obj, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert_read(raw)
    if ascii_only:
        found = read_line(raw)
        assert len(found) == 1 or found[0].kind == "agent_run"
        assert found[0].format != "unknown" or start is not RUN


def put_back(record, kept, columns, source):
    """*kept* with the keys that went into columns, for comparison with the object that they came from."""
    for key, column in columns.items():
        if key not in source or key in kept:
            continue
        value = getattr(record, column)
        if source[key].__class__ is not str:  # shown as JSON text; nothing for null
            value = json.loads(value) if value else None
        kept[key] = value
    return kept


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), PARTS, PARTS, EVENTS)
@settings(max_examples=300)
def test_no_key_of_a_run_is_lost(changes, callback, skill, event):
    callback |= {"timestamp": CALLBACK["timestamp"]}
    skill |= {"timestamp": SKILL["timestamp"]}
    changes |= {"timestamp": RUN["timestamp"], "callbacks": [callback], "skill_invocations": [skill], "events": [event]}
    raw = json.dumps(RUN | changes).encode()
    source = decode(raw)[0]
    run, *parts = read_line(raw)
    kept = put_back(run, extra(run), {"timestamp": "ts_text", "run_id": "ref", "agent_name": "agent"}, source)
    assert kept == {
        key: value for key, value in source.items() if key not in ("callbacks", "skill_invocations", "events")
    }
    time = {"timestamp": "ts_text"}
    word = event["type"]
    about = {"tool_result": {"result": "text"}, "subagent_result": {"result": "text"}}.get(word, {})
    about |= {"tool_name": "tool", "intent" if word == "callback" else "status": "status"}
    for record, key, columns in (
        (parts[0], "callbacks", time | {"prompt": "text", "intent": "status"}),
        (parts[1], "skill_invocations", time | {"skill_name": "text", "status": "status"}),
        (parts[2], "events", about),
    ):
        original = dict(source[key][0])
        kept = put_back(record, extra(record), columns, original)
        if key == "events":
            kept["type"] = record.kind.removeprefix("event:")
        assert kept == original


@pytest.mark.parametrize(("letters", "shown"), [(191, 200), (192, 0)])
def test_the_parameters_of_a_call_are_its_text_up_to_200_characters(letters, shown):
    record = nested({"type": "tool_call", "tool_name": "Write", "parameters": {"t": "x" * letters}})
    assert len(record.text) == shown
    assert extra(record)["parameters"] == {"t": "x" * letters}


def test_a_line_of_very_many_events_is_read():
    found = records(RUN, events=[{}] * 60_000)
    assert len(found) == 60_001
    assert found[-1].kind == "event"
    assert_storable(found[-1])


# In a session


@pytest.mark.django_db(transaction=True)
def test_a_trace_file_becomes_the_events_of_one_session(import_sample):
    from sessions_app.models import Event

    for path in ("agent_framework/trace-260320_115602.jsonl", HOST_LOG):
        dump = import_sample(path)
        events = Event.objects.filter(dump=dump).order_by("id")
        assert len({id >> 32 for id in events.values_list("id", flat=True)}) == 1
        columns = ("kind", "lane", "agent", "tool", "status", "ref", "severity", "text")
        expected = [record for found in line_records(path) for record in found]
        assert list(events.values_list(*columns)) == [tuple(getattr(r, name) for name in columns) for r in expected]
