"""Audit events of Xerxes and calute become Records that say what the producer's own counts say."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditweb.formats import Record, read_line
from tests.test_formats import FILES, VALUES, assert_storable, fields, lines_by_format, one, read, tally

SAMPLES = [f for f in FILES.values() if f["path"].startswith("xerxes/")]
EVENT = {
    "event_type": "turn_start",
    "timestamp": "2026-04-20T10:00:00.200000+00:00",
    "agent_id": "planner",
    "turn_id": "b8a1abcd1a69",
    "session_id": "sess-01",
    "severity": "info",
    "metadata": {},
}
TURN_START = EVENT | {"prompt_preview": "Trop lent, « vraiment »"}
COMPLETE = EVENT | {
    "event_type": "tool_call_complete",
    "tool_name": "web_search",
    "status": "success",
    "duration_ms": 812.25,
    "result_preview": "three flights",
}
FAILURE = EVENT | {
    "event_type": "tool_call_failure",
    "severity": "error",
    "tool_name": "web_search",
    "error_type": "TimeoutError",
    "error_message": "no answer",
}


def extra(record):
    return json.loads(record.extra or "{}")


# The samples


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda f: f["path"])
def test_every_sample_counts_as_the_manifest_says(sample):
    expected = sample["reading"]["xerxes"]
    records, bad, blank = read(sample["path"])
    kinds = tally(r.kind for r in records)
    assert lines_by_format(sample["path"]) == {"xerxes": len(records)} == sample["reading"]["records_by_kind"]
    assert (bad, blank) == ({}, [])
    assert kinds == expected["events_by_type"]
    assert tally(r.severity for r in records) == expected["by_severity"]
    assert tally(r.session or "None" for r in records) == expected["sessions"]
    assert sorted({r.agent or "None" for r in records}) == sorted(expected["agents"])
    assert kinds["turn_start"] == expected["turns_started"] == sum(r.lane == "user" for r in records)
    assert kinds["turn_end"] == expected["turns_ended"] == sum(r.lane == "assistant" for r in records)
    attempts = [r for r in records if r.kind == "tool_call_attempt"]
    assert len(attempts) == expected["tool_attempts"]
    assert tally(r.tool for r in attempts) == expected["by_tool_attempted"]
    assert kinds.get("tool_call_complete", 0) == expected["tool_completes"]
    assert kinds.get("tool_call_failure", 0) == expected["tool_failures"]
    complete = [r.duration_ms for r in records if r.kind == "tool_call_complete"]
    assert math.fsum(complete) == pytest.approx(expected["complete_ms"], abs=0.001)
    healthy = [r for r in records if r.kind == "tool_loop_warning" and r.status in ("ok", "none")]
    assert len(healthy) == expected["loop_warnings_that_mean_nothing"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda f: f["path"])
def test_a_real_line_is_whole_in_its_columns_and_its_extra(sample):
    records, _, _ = read(sample["path"])
    assert {r.ts_aware for r in records} == {True}
    assert {r.flags for r in records} <= {(), ("nonfinite",)}
    times = sample["reading"]["timestamps"]
    assert (records[0].ts_text, records[-1].ts_text) == (times["first_in_file"], times["last_in_file"])


def test_turns_pair_by_their_id_as_the_manifest_says():
    for sample in SAMPLES:
        expected = sample["reading"]["xerxes"]
        records, _, _ = read(sample["path"])
        started = [(r.session, r.ref) for r in records if r.kind == "turn_start"]
        ended = [(r.session, r.ref) for r in records if r.kind == "turn_end"]
        failed = {(r.session, r.ref) for r in records if r.kind == "error"}
        assert len(set(started) & set(ended)) == expected["turns_paired"]
        assert len(set(started) - set(ended)) == expected["turns_without_end"]
        assert len((set(started) - set(ended)) & failed) == expected["turns_without_end_but_with_error"]


def test_calls_that_never_ran_are_told_from_calls_that_failed():
    records, _, _ = read("xerxes/real_runtime.jsonl")
    failures = [r for r in records if r.kind == "tool_call_failure"]
    assert tally((r.status, extra(r)["error_type"]) for r in failures) == {
        ("failed", "ValueError"): 2,
        ("blocked", "ToolLoopError"): 2,
        ("denied", "ToolPolicyViolation"): 1,
    }


def test_calute_and_xerxes_write_the_same_lines():
    calute = {r.kind: r for r in read("xerxes/calute_every_event.jsonl")[0]}
    xerxes = {r.kind: r for r in read("xerxes/every_event.jsonl")[0]}
    assert xerxes.keys() - calute.keys() == {"skill_used", "skill_authored", "skill_feedback", "agent_switch"}
    for kind, record in calute.items():
        assert (record.lane, record.status, record.tool) == (
            xerxes[kind].lane,
            xerxes[kind].status,
            xerxes[kind].tool,
        )
        assert extra(record).keys() == extra(xerxes[kind]).keys()


# What a Record says


def test_a_turn_start_becomes_a_record():
    assert one(TURN_START) == Record(
        format="xerxes",
        kind="turn_start",
        lane="user",
        role="user",
        agent="planner",
        text="Trop lent, « vraiment »",
        ts_text="2026-04-20T10:00:00.200000+00:00",
        ts_us=1776679200200000,
        ts_aware=True,
        session="sess-01",
        ref="b8a1abcd1a69",
        severity="info",
    )


def test_ids_that_are_null_are_empty_columns():
    record = one(TURN_START, agent_id=None, turn_id=None, session_id=None)
    assert (record.agent, record.ref, record.session, record.extra, record.flags) == ("", "", "", "", ())


@pytest.mark.parametrize(
    ("kind", "own", "lane", "tool", "status", "text", "others"),
    [
        ("turn_end", {"content_preview": "done", "function_calls_count": 2}, "assistant", "", "", "done",
         {"function_calls_count": 2}),
        ("tool_call_attempt", {"tool_name": "t", "arguments_preview": "{'q': 1}"}, "tool", "t", "", "{'q': 1}", {}),
        ("tool_policy_decision", {"tool_name": "t", "action": "deny", "policy_source": "p"}, "decision", "t", "deny",
         "p", {}),
        ("sandbox_decision", {"tool_name": "t", "context": "host", "reason": "r", "backend_type": "docker"},
         "decision", "t", "host", "r", {"backend_type": "docker"}),
        ("tool_loop_warning", {"tool_name": "t", "pattern": "same_call", "severity_level": "warning", "call_count": 3},
         "decision", "t", "warning", "same_call", {"call_count": 3}),
        ("tool_loop_block", {"tool_name": "t", "pattern": "same_call", "call_count": 5}, "decision", "t", "block",
         "same_call", {"call_count": 5}),
        ("hook_mutation", {"hook_name": "h", "tool_name": "t", "mutated_field": "arguments"}, "decision", "t", "",
         "arguments", {"hook_name": "h"}),
        ("error", {"error_type": "E", "error_message": "m", "error_context": "c"}, "error", "", "", "m",
         {"error_type": "E", "error_context": "c"}),
        ("skill_used", {"skill_name": "s", "version": "1", "outcome": "success", "duration_ms": 5}, "run", "",
         "success", "s", {"version": "1"}),
        ("skill_authored", {"skill_name": "s", "unique_tools": ["a"]}, "run", "", "", "s", {"unique_tools": ["a"]}),
        ("skill_feedback", {"skill_name": "s", "rating": "bad", "reason": "slow"}, "run", "", "bad", "s",
         {"reason": "slow"}),
        ("agent_switch", {"from_agent": "a", "to_agent": "b", "reason": "asked"}, "run", "", "", "asked",
         {"from_agent": "a", "to_agent": "b"}),
        ("base", {}, "other", "", "", "", {}),
        ("memory_compacted", {"tool_name": "t", "status": "ok", "text": "x", "duration_ms": 3}, "other", "", "", "",
         {"tool_name": "t", "status": "ok", "text": "x", "duration_ms": 3}),
    ],
)  # fmt: skip
def test_each_kind_has_its_lane_and_its_columns(kind, own, lane, tool, status, text, others):
    record = one(EVENT, event_type=kind, **own)
    assert (record.format, record.kind) == ("xerxes", kind)
    assert (record.lane, record.tool, record.status, record.text) == (lane, tool, status, text)
    assert extra(record) == others
    assert (record.agent, record.session, record.ref, record.flags) == ("planner", "sess-01", "b8a1abcd1a69", ())


def test_a_call_is_stamped_at_its_start_and_at_its_end():
    assert one(EVENT, event_type="tool_call_attempt", tool_name="t", arguments_preview="").ts_means == "start"
    ended = one(COMPLETE)
    assert (ended.ts_means, ended.duration_ms, ended.status, ended.text) == ("end", 812.25, "success", "three flights")
    assert (one(FAILURE).ts_means, one(FAILURE).duration_ms) == ("end", None)


@pytest.mark.parametrize(
    ("error_type", "status"),
    [
        ("ToolPolicyViolation", "denied"),
        ("ToolLoopError", "blocked"),
        ("TimeoutError", "failed"),
        ("", "failed"),
        (None, "failed"),
        (["ToolLoopError"], "failed"),
        ({}, "failed"),
    ],
)
def test_the_type_of_error_says_whether_a_call_ran(error_type, status):
    record = one(FAILURE, error_type=error_type)
    assert record.status == status
    assert extra(record) == {"error_type": error_type}


def test_metadata_stays_apart_from_the_keys_of_the_event():
    record = one(TURN_START, metadata={"prompt_preview": "mine", "status": "x"}, status="y")
    assert extra(record) == {"metadata": {"prompt_preview": "mine", "status": "x"}, "status": "y"}
    assert one(TURN_START, metadata=None) == one(TURN_START)


def test_a_key_in_place_of_another_is_not_lost():
    line = TURN_START | {"x": 1}
    del line["severity"]
    assert extra(one(line)) == {"x": 1}


@pytest.mark.parametrize(
    ("line", "key", "cut"),
    [
        (TURN_START, "prompt_preview", 200),
        (EVENT | {"event_type": "turn_end"}, "content_preview", 200),
        (EVENT | {"event_type": "tool_call_attempt"}, "arguments_preview", 200),
        (COMPLETE, "result_preview", 200),
        (FAILURE, "error_message", None),
        (EVENT | {"event_type": "error"}, "error_message", None),
        (EVENT | {"event_type": "agent_switch"}, "reason", None),
    ],
)
def test_a_preview_of_200_characters_was_cut_and_no_other_text(line, key, cut):
    assert one(line, **{key: "é" * 200}).cut == cut
    assert one(line, **{key: "é" * 199}).cut is None
    assert one(line, **{key: "é" * 201}).cut is None


def test_the_previews_of_a_real_file_that_were_cut_say_so():
    records, _, _ = read("xerxes/every_event.jsonl")
    assert tally(r.kind for r in records if r.cut) == {"turn_start": 1, "tool_call_complete": 1, "turn_end": 1}


# Wrong types


@pytest.mark.parametrize("key", ["event_type", "agent_id", "turn_id", "session_id", "severity", "tool_name", "status"])
def test_a_name_of_another_type_is_flagged_and_kept(key):
    record = one(COMPLETE, **{key: ["x", 1]})
    assert "wrong_type" in record.flags
    assert extra(record)[key] == ["x", 1]


def test_a_name_that_is_too_long_is_cut_and_kept():
    record = one(COMPLETE, session_id="s" * 300)
    assert (record.session, record.flags) == ("s" * 200, ("long_id",))
    assert extra(record) == {"session_id": "s" * 300}


def test_texts_times_and_durations_of_other_types_are_flagged():
    record = one(COMPLETE, result_preview={"a": 1}, timestamp=1776679200, duration_ms="1", metadata=[1])
    assert record.text == '{"a": 1}'
    assert (record.ts_us, record.duration_ms) == (None, None)
    assert set(record.flags) == {"wrong_type", "bad_time", "bad_duration"}
    assert extra(record) == {"duration_ms": "1", "metadata": [1]}


@pytest.mark.parametrize("event_type", [None, "", 0, [], {}])
def test_an_event_without_a_type_is_kept_in_the_lane_other(event_type):
    record = one(TURN_START, event_type=event_type)
    assert (record.lane, record.text) == ("other", "")
    assert extra(record)["prompt_preview"] == TURN_START["prompt_preview"]
    assert bool(record.flags) == (event_type != "")


KINDS = ["turn_start", "turn_end", "tool_call_attempt", "tool_call_complete", "tool_call_failure", "skill_used"]
KINDS += ["tool_policy_decision", "sandbox_decision", "tool_loop_warning", "tool_loop_block", "hook_mutation"]
KINDS += ["error", "skill_authored", "skill_feedback", "agent_switch", "base", "telepathy"]
WORDS = [*COMPLETE, "prompt_preview", "content_preview", "arguments_preview", "error_type", "error_message", "action"]
WORDS += ["policy_source", "context", "reason", "pattern", "severity_level", "mutated_field", "skill_name", "outcome"]
WORDS += ["rating", "x", "line.x"]


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(WORDS), VALUES))
@settings(max_examples=500)
def test_any_values_become_a_record_that_loses_nothing(kind, changes):
    obj = EVENT | {"event_type": kind} | changes
    [record] = read_line(json.dumps(obj).encode())
    assert record.format == "xerxes"
    assert_storable(record)
    kept = extra(record)
    columns = [getattr(record, field.name) for field in fields(Record)]
    for key, value in obj.items():
        if value.__class__ is str and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value):
            assert value in columns or kept[key] == value
        elif value not in (None, {}) and value.__class__ in (bool, int):
            assert kept.get(key) == value or value in columns or json.dumps(value) in columns
