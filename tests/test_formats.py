"""Lines of bytes become Records that every database takes, or reasons that people understand."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from auditweb import formats
from auditweb.formats import FLAGS, LANES, BadLine, Number, Record, decode, is_blank, peek, read_line, sniff

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())
FILES = {f["path"]: f for f in MANIFEST["files"]}
NAMES = {name for name, _, _ in formats.FORMATS} - {"unknown"}
ROOMKIT = [f for f in FILES.values() if f["path"].startswith("roomkit_")]
DIRTY = [
    f
    for f in FILES.values()
    if f["path"].startswith("dirty/") and not f["path"].endswith((".gz", ".zip", ".json", "utf16le.jsonl"))
]
SESSION = {
    "ts": "2026-04-07T13:05:17.524490+00:00",
    "type": "speech",
    "role": "user",
    "content": "Email the report to Noor and copy me.",
    "duration_ms": None,
    "metadata": {},
}
TOOL_CALL = SESSION | {
    "type": "tool_call",
    "role": "assistant",
    "content": "ok",
    "duration_ms": 12.5,
    "metadata": {"tool_name": "search", "arguments": {"q": "é"}, "status": "ok", "agent_id": "a1"},
}
TOOL = {
    "ts": "2026-03-20T12:10:10.234546+00:00",
    "agent_id": "exec",
    "tool_name": "search",
    "arguments": {"q": "roomkit"},
    "result": "found",
    "status": "ok",
    "duration_ms": 1500.0,
    "metadata": {},
}
STATUS = {
    "ts": "2026-06-01T09:00:03.514058+00:00",
    "agent_id": "exec",
    "action": "navigate",
    "status": "completed",
    "detail": "page open",
    "metadata": {"room_id": "room-1"},
}


def physical_lines(path):
    """The lines of a sample, split as the importer splits them."""
    lines = (SAMPLES / path).read_bytes().split(b"\n")
    return lines if lines[-1] else lines[:-1]


def read(path):
    """``(records, bad, blank)`` of a sample; the last two by line number."""
    records, bad, blank = [], {}, []
    for number, raw in enumerate(physical_lines(path), 1):
        try:
            found = read_line(raw, first=number == 1)
        except BadLine as e:
            bad[number] = e.reason
            continue
        if found is None:
            blank.append(number)
        else:
            records += found
    return records, bad, blank


def lines_by_format(path):
    """How many lines of a sample each format reads; one line may become several records."""
    found = (outcome(read_line, raw, number == 1) for number, raw in enumerate(physical_lines(path), 1))
    return tally(records[0].format for records in found if isinstance(records, list))


def one(obj, **changes):
    """The only Record of an object, written as Python writes it."""
    [record] = read_line(json.dumps(obj | changes).encode())
    return record


def reason(raw):
    with pytest.raises(BadLine) as caught:
        read_line(raw)
    return caught.value.reason


def tally(values):
    return dict(Counter(values))


# The samples


@pytest.mark.parametrize("sample", ROOMKIT, ids=lambda f: f["path"])
def test_every_sample_reads_as_the_manifest_says(sample):
    reading = sample["reading"]
    records, bad, blank = read(sample["path"])
    assert len(physical_lines(sample["path"])) == reading["physical_lines"]
    assert bad == {}
    assert blank == reading["blank_lines"]
    assert tally(r.format for r in records) == reading["records_by_kind"]


@pytest.mark.parametrize("sample", [f for f in ROOMKIT if "session" in f["reading"]], ids=lambda f: f["path"])
def test_session_lines_count_as_the_manifest_says(sample):
    expected = sample["reading"]["session"]
    records = [r for r in read(sample["path"])[0] if r.format == "roomkit_session"]
    calls = [r for r in records if r.kind == "tool_call"]
    assert tally(r.kind for r in records) == expected["events_by_type"]
    assert sum(r.kind == "speech" and r.lane == "user" for r in records) == expected["user_turns"]
    assert sum(r.kind == "speech" and r.lane == "assistant" for r in records) == expected["assistant_turns"]
    assert len(calls) == expected["tool_calls"]
    assert math.fsum(r.duration_ms or 0 for r in calls) == pytest.approx(expected["tool_ms"], abs=0.001)
    assert tally(r.tool or "?" for r in calls) == expected["by_tool"]
    assert tally(r.status for r in calls) == expected["tools_by_status"]
    assert tally(r.agent for r in calls) == expected["tools_by_agent"]
    assert sum(r.lane == "interruption" for r in records) == expected["barge_ins"]
    assert sum(r.lane == "vision" for r in records) == expected["vision"]
    assert sum(r.lane == "error" for r in records) == expected["errors"]
    assert sum(r.kind == "session" for r in records) == expected["sessions_started"]
    assert sorted({r.participant for r in records} - {""}) == expected["participants"]
    assert sorted({r.channel for r in records} - {""}) == expected["channels"]


@pytest.mark.parametrize("sample", [f for f in ROOMKIT if "tool" in f["reading"]], ids=lambda f: f["path"])
def test_tool_lines_count_as_the_manifest_says(sample):
    expected = sample["reading"]["tool"]
    records = [r for r in read(sample["path"])[0] if r.format == "roomkit_tool"]
    assert len(records) == expected["calls"]
    assert math.fsum(r.duration_ms for r in records) == pytest.approx(expected["total_ms"], abs=0.001)
    assert tally(r.tool for r in records) == expected["by_tool"]
    assert tally(r.status for r in records) == expected["by_status"]
    assert tally(r.agent for r in records) == expected["by_agent"]
    assert max(len(r.text) for r in records) == expected["max_result_chars"]
    assert {(r.kind, r.lane, r.ts_means) for r in records} == {("tool_call", "tool", "end")}


@pytest.mark.parametrize("sample", [f for f in ROOMKIT if "status" in f["reading"]], ids=lambda f: f["path"])
def test_status_lines_count_as_the_manifest_says(sample):
    expected = sample["reading"]["status"]
    records = [r for r in read(sample["path"])[0] if r.format == "roomkit_status"]
    rooms = {json.loads(r.extra or "{}").get("room_id") for r in records}
    assert len(records) == expected["entries"]
    assert tally(r.status for r in records) == expected["by_level"]
    assert tally(r.agent for r in records) == expected["by_agent"]
    assert tally(r.action for r in records) == expected["by_action"]
    assert sorted(rooms - {None}) == expected["rooms"]
    assert {(r.kind, r.lane, r.ts_means) for r in records} == {("status", "status", "")}


@pytest.mark.parametrize("sample", DIRTY, ids=lambda f: f["path"])
def test_every_damaged_line_is_reported_with_its_number(sample):
    reading = sample["reading"]
    _, bad, blank = read(sample["path"])
    latin_1 = [note["line"] for note in reading["tolerable_lines"] if "invalid utf-8" in note["what"]]
    assert sorted(bad) == sorted([line["line"] for line in reading["malformed_lines"]] + latin_1)
    assert blank == reading["blank_lines"]
    lines = lines_by_format(sample["path"])
    assert sum(lines.values()) == reading["records"] - len(latin_1)
    ours = {kind: n for kind, n in reading["records_by_kind"].items() if kind in NAMES}
    if latin_1:
        ours["roomkit_session"] -= len(latin_1)
    assert {name: n for name, n in lines.items() if name != "unknown"} == ours


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("dirty/deep_2000.jsonl", 4, "nested more than 200 levels deep"),
        ("dirty/glued_records.jsonl", 2, "more than one JSON value on the line"),
        ("dirty/huge_int.jsonl", 3, "a number of 5,000 digits"),
        ("dirty/invalid_utf8_line.jsonl", 8, "not UTF-8 (byte 0xE9 at column 91)"),
        ("dirty/prefixed_log.jsonl", 1, "text in front of the JSON object"),
        ("dirty/truncated_last_line.jsonl", 60, "ends in the middle of a JSON object"),
        ("dirty/wrong_types.jsonl", 32, "null, not an object"),
        ("dirty/wrong_types.jsonl", 33, "true, not an object"),
        ("dirty/wrong_types.jsonl", 34, "a JSON number, not an object"),
        ("dirty/wrong_types.jsonl", 35, "a JSON text, not an object"),
        ("dirty/wrong_types.jsonl", 36, "a JSON array, not an object"),
        ("dirty/html_error_page.jsonl", 1, "HTML or XML, not JSON"),
        ("dirty/rows.csv.jsonl", 2, "plain text, not JSON"),
    ],
)
def test_a_reason_says_what_is_wrong_with_the_line(path, line, expected):
    assert read(path)[1][line] == expected


def test_crlf_leaves_no_carriage_return_in_any_text():
    records, _, _ = read("dirty/crlf.jsonl")
    plain, _, _ = read("roomkit_session/support_call_60.jsonl")
    assert records == plain[:20]


def test_a_byte_order_mark_is_part_of_no_line():
    assert read("dirty/bom.jsonl")[0] == read("roomkit_session/support_call_60.jsonl")[0][:20]


def test_lines_of_unknown_types_keep_their_word_and_their_extra_keys():
    records, _, _ = read("dirty/unknown_types.jsonl")
    session = [r for r in records if r.format == "roomkit_session"]
    words = ["dtmf", "handoff", "Speech", "transfer.start", "日本", "tool_call "]
    assert [r.kind for r in session][:6] == words
    assert {r.lane for r in session if r.kind in words} == {"other"}
    assert [json.loads(r.extra)["extra_field"] for r in session] == [{"i": i} for i in range(12)]


# What a Record says


def test_a_speech_line_becomes_a_record():
    assert one(SESSION) == Record(
        format="roomkit_session",
        kind="speech",
        lane="user",
        role="user",
        text="Email the report to Noor and copy me.",
        ts_text="2026-04-07T13:05:17.524490+00:00",
        ts_us=1775567117524490,
        ts_aware=True,
    )


def test_a_tool_call_keeps_its_arguments_and_its_end():
    record = one(TOOL_CALL, metadata=TOOL_CALL["metadata"] | {"trace": {"id": 7}})
    assert (record.lane, record.tool, record.status, record.agent) == ("tool", "search", "ok", "a1")
    assert (record.duration_ms, record.ts_means, record.text) == (12.5, "end", "ok")
    assert json.loads(record.extra) == {"arguments": {"q": "é"}, "trace": {"id": 7}}


def test_a_tool_line_keeps_its_arguments_and_its_metadata():
    record = one(TOOL, metadata={"arguments": "mine", "n": 1}, more=[2])
    assert (record.format, record.agent, record.tool, record.duration_ms) == ("roomkit_tool", "exec", "search", 1500.0)
    assert json.loads(record.extra) == {
        "arguments": {"q": "roomkit"},
        "line.arguments": "mine",
        "n": 1,
        "more": [2],
    }


def test_a_status_line_becomes_a_record():
    assert one(STATUS) == Record(
        format="roomkit_status",
        kind="status",
        lane="status",
        agent="exec",
        action="navigate",
        status="completed",
        text="page open",
        ts_text="2026-06-01T09:00:03.514058+00:00",
        ts_us=1780304403514058,
        ts_aware=True,
        extra='{"room_id":"room-1"}',
    )


@pytest.mark.parametrize(
    ("kind", "role", "lane"),
    [
        ("speech", "user", "user"),
        ("speech", "assistant", "assistant"),
        ("speech", "USER", "assistant"),
        ("speech", None, "assistant"),
        ("SPEECH", "user", "other"),
        ("tool_call", "assistant", "tool"),
        ("vision", "system", "vision"),
        ("barge_in", "user", "interruption"),
        ("session", "system", "lifecycle"),
        ("error", None, "error"),
        ("status", "system", "status"),
        ("note", "reviewer", "other"),
    ],
)
def test_kind_and_role_choose_the_lane(kind, role, lane):
    assert one(SESSION, type=kind, role=role).lane == lane


def test_a_run_opens_with_a_session_line_that_is_no_ending():
    assert one(SESSION, type="session", role="system", content="Session started").opens
    assert not one(SESSION, type="session", role="system", content="Session ended").opens
    assert not one(SESSION, content="Session started").opens
    assert [r.opens for r in read("roomkit_session/appended_two_runs.jsonl")[0]].count(True) == 2


def test_a_session_line_names_channel_and_participant():
    record = one(SESSION, type="session", metadata={"channel_id": "rt-voice", "participant_id": "user-1"})
    assert (record.channel, record.participant) == ("rt-voice", "user-1")
    assert json.loads(record.extra) == {"channel_id": "rt-voice", "participant_id": "user-1"}


@pytest.mark.parametrize(
    ("record", "cut"),
    [
        (lambda: one(TOOL_CALL, content="x" * 500), 500),
        (lambda: one(TOOL_CALL, content="x" * 501), None),
        (lambda: one(SESSION, type="vision", content="x" * 500), 500),
        (lambda: one(SESSION, content="x" * 500), None),
        (lambda: one(TOOL, result="x" * 500), 500),
        (lambda: one(TOOL, result="x" * 499), None),
        (lambda: one(STATUS, detail="x" * 200), 200),
        (lambda: one(STATUS, detail="word " * 38 + "end…"), 200),
        (lambda: one(STATUS, detail="that was short…"), None),
        (lambda: one(STATUS, detail="x" * 5000), None),
    ],
)
def test_a_text_of_the_length_at_which_producers_cut_says_so(record, cut):
    assert record().cut == cut


def test_cut_details_are_known_in_both_generations_of_roomkit():
    for path in ("roomkit_status/five_levels.jsonl", "roomkit_status/v058_five_levels.jsonl"):
        records, _, _ = read(path)
        assert [number for number, r in enumerate(records, 1) if r.cut] == [11, 12, 13, 14, 15]


def test_the_formats_are_told_apart_by_their_keys():
    assert one(SESSION).format == "roomkit_session"
    assert one(TOOL | SESSION).format == "roomkit_tool"
    assert one(SESSION | STATUS).format == "roomkit_session"
    assert one({"ts": "x", "type": "x", "content": {}}).format == "unknown"  # other producers' objects, not RoomKit's
    assert one({"created_at": "x", "type": "x", "content": "x"}).format == "unknown"


def test_an_unknown_object_is_kept_whole():
    record = one({"event": "skill_used", "timestamp": "2026-04-07T13:05:11Z", "agent_id": "a", "n": [1, {"x": None}]})
    assert (record.format, record.kind, record.lane, record.agent) == ("unknown", "skill_used", "other", "a")
    assert (record.ts_us, record.ts_aware) == (1775567111000000, True)
    assert json.loads(record.extra) == {"n": [1, {"x": None}]}
    assert record.flags == ()


def test_an_unknown_object_without_anything_is_a_record_too():
    assert one({}) == Record(flags=("no_time",))
    odd = one({"type": ["x"], "ts": 1775567120, "content": {"a": 1}, "duration_ms": "1", "role": 0})
    assert (odd.kind, odd.flags) == ("unknown", ("bad_time", "bad_duration"))
    assert json.loads(odd.extra) == {
        "type": ["x"],
        "ts": 1775567120,
        "content": {"a": 1},
        "duration_ms": "1",
        "role": 0,
    }


# Values that are odd


@pytest.mark.parametrize("value", ["12.5", "12ms", True, False, -5, -0.5, [1], {}, 1e30, 10**400, float("nan"), 1e13])
def test_an_impossible_duration_is_no_number(value):
    for record in (one(TOOL_CALL, duration_ms=value), one(TOOL, duration_ms=value)):
        assert record.duration_ms is None
        assert "bad_duration" in record.flags
        assert "duration_ms" in json.loads(record.extra)


@pytest.mark.parametrize(("value", "ms"), [(0, 0.0), (-0.0, 0.0), (5, 5.0), (5885.999999999967, 5885.999999999967)])
def test_a_possible_duration_is_a_float(value, ms):
    record = one(TOOL_CALL, duration_ms=value)
    assert repr(record.duration_ms) == repr(ms)
    assert record.flags == ()


def test_no_duration_is_nothing_to_mention():
    assert (one(TOOL_CALL, duration_ms=None).duration_ms, one(TOOL_CALL, duration_ms=None).flags) == (None, ())


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])
def test_what_is_not_finite_is_kept_as_text(literal):
    raw = json.dumps(TOOL_CALL).replace("12.5", literal).replace('"\\u00e9"', literal)
    [record] = read_line(raw.encode())
    word = {"1e999": "Infinity", "-1e400": "-Infinity"}.get(literal, literal)
    assert record.duration_ms is None
    assert json.loads(record.extra) == {"arguments": {"q": word}, "duration_ms": word}
    assert record.flags == ("nonfinite", "bad_duration")


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64, 2**70, -(2**63) - 1, 10**4000])
def test_big_integers_stay_exact(number):
    record = one(SESSION, metadata={"n": number})
    assert record.extra == f'{{"n":{number}}}'


@pytest.mark.parametrize("key", ["ts", "type", "role", "content", "metadata"])
@pytest.mark.parametrize("value", [1, 1.5, True, None, [], ["user"], {}, {"a": 1}, "", "x" * 5000, "\0", "\ud800"])
def test_any_field_may_hold_anything(key, value):
    for record in (one(SESSION, **{key: value}), one(TOOL_CALL, **{key: value})):
        assert_storable(record)
        assert record.format == "roomkit_session"


@pytest.mark.parametrize("key", ["tool_name", "status", "agent_id", "channel_id", "participant_id", "arguments"])
@pytest.mark.parametrize("value", [7, None, ["ok"], {"a": 1}, "t" * 4000, "a\0b"])
def test_promoted_metadata_may_hold_anything(key, value):
    for kind in ("tool_call", "session"):
        record = one(SESSION, type=kind, metadata={key: value})
        assert_storable(record)
        if not isinstance(value, str):
            assert json.loads(record.extra)[key] == value


def test_a_value_of_the_wrong_type_is_shown_as_json():
    record = one(SESSION, type=["speech"], role=["user"], content={"text": "hé"}, metadata=[1])
    assert (record.kind, record.lane, record.role, record.text) == ('["speech"]', "other", '["user"]', '{"text": "hé"}')
    assert record.flags == ("wrong_type",)
    assert json.loads(record.extra) == {"metadata": [1]}


def test_a_name_is_cut_at_200_characters_and_stays_whole_in_extra():
    record = one(TOOL_CALL, metadata={"tool_name": "t" * 201, "agent_id": "a" * 200})
    assert (record.tool, record.agent, record.flags) == ("t" * 200, "a" * 200, ("long_id",))
    assert json.loads(record.extra) == {"tool_name": "t" * 201}


def test_nul_and_lone_surrogates_are_replaced_everywhere_and_said_so():
    record = one(SESSION, content="a\0b\ud83d", metadata={"tool\0": ["\udce9", {"x\ud800": "\0"}]})
    assert record.text == "a␀b\ufffd"
    assert json.loads(record.extra) == {"tool␀": ["\ufffd", {"x\ufffd": "␀"}]}
    assert record.flags == ("nul", "surrogate")


def test_an_escaped_backslash_before_u0000_is_only_text():
    record = one(SESSION, content="\\u0000")
    assert (record.text, record.flags) == ("\\u0000", ())


def test_emoji_and_odd_line_ends_stay_exact():
    text = "😀👩‍👩‍👧 \u2028\u2029\x85\x0b\x0c\x1c\x7f\ufffe"
    for ascii_only in (True, False):
        [record] = read_line(json.dumps(SESSION | {"content": text}, ensure_ascii=ascii_only).encode())
        assert (record.text, record.flags) == (text, ())


@pytest.mark.parametrize(
    ("raw", "repeats"),
    [
        (b'{"a": 1, "a": 2}', True),
        (b'{"m": {"a": 1, "b": [{"x": 1, "x": 1}]}}', True),
        (b'{"a" : 1, "a" : 2}', True),
        (b'{"a": NaN, "a": 2}', True),
        (b'{"a": 1, "\\u0061": 2}', True),
        (b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', False),
        (b'{"a" : 1, "b" : 2}', False),
        (b'{"a": ": x", "b": "{\\"k\\": 1, \\"k\\": 2}", "c": "\\\\"}', False),
    ],
)
def test_a_key_given_twice_is_noticed(raw, repeats):
    assert ("duplicate_keys" in decode(raw)[1]) == repeats


def test_of_a_key_given_twice_the_last_value_counts():
    assert decode(b'{"a": 1, "a": 2}') == ({"a": 2}, ("duplicate_keys",))
    assert decode(b'{"a": NaN, "a": 2}')[0] == {"a": 2}


@pytest.mark.parametrize("path", ["roomkit_session/big_5000.jsonl", "roomkit_session/long_results.jsonl"])
def test_no_key_is_called_a_repeat_without_reason(path):
    assert all(r.flags == () for r in read(path)[0])


# Lines that are none


@pytest.mark.parametrize("raw", [b"", b" ", b"\t \r", b"\r", b"\0" * 4096, b" \0\r"])
def test_a_line_of_nothing_is_blank(raw):
    assert is_blank(raw)
    assert read_line(raw) is None


def test_a_first_line_of_only_a_byte_order_mark_is_blank():
    assert read_line(b"\xef\xbb\xbf", first=True) is None
    assert reason(b"\xef\xbb\xbf") == "a byte order mark in front of the JSON object"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"a": "b', "ends in the middle of a JSON object"),
        (b'{"a": "b\0\0\0', "ends in the middle of a JSON object, followed by NUL bytes"),
        (b'{"a": "\xc3', "ends in the middle of a character"),
        (b"[1, 2", "ends in the middle of a JSON array"),
        (b'{"a": 1} {"b": 2}', "more than one JSON value on the line"),
        (b'{"a": 1},', "text after the end of the JSON object, at column 9"),
        (b'{"a": 1}\x0b', "text after the end of the JSON object, at column 9"),
        (b'{"a": 1,}', "not JSON: a key in double quotes is missing at column 9"),
        (b'{"a" 1}', "not JSON: a colon is missing at column 6"),
        (b'{"a": }', "not JSON: a value is missing at column 7"),
        (b'{"a": 1 "b"}', "not JSON: a comma or a closing bracket is missing at column 9"),
        (b'{"a": "\\x"}', "not JSON: JSON has no such backslash escape at column 8"),
        (b'{"a": "\\u00g0"}', "not JSON: four hexadecimal digits are missing at column"),
        (b"{'a': 1}", "Python text with single quotes, not JSON"),
        (b"// no", "a comment, not JSON"),
        (b"# no", "a comment, not JSON"),
        (b"hello", "plain text, not JSON"),
        (b'[INFO] {"a": 1}', "text in front of the JSON object"),
        (b'2026-04-07 13:05:11 {"a": 1}', "text in front of the JSON object"),
        (b'\0\0{"a": 1}', "a NUL byte at column 1"),
        (b'{"a": "x\0y"}', "a NUL byte at column 9"),
        (b'{"a": "\x1b[0m"}', "a raw control character (0x1B) at column 8"),
        (b'{"a": "\xc0\x80"}', "not UTF-8 (byte 0xC0 at column 8)"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8 (byte 0xED at column 8)"),
        (b'{"a": ' + b"9" * 4301 + b"}", "a number of 4,301 digits"),
        (b"NaN", "a JSON number, not an object"),
        (b"[]", "a JSON array, not an object"),
    ],
)
def test_a_broken_line_is_refused_with_its_reason(raw, expected):
    assert reason(raw).startswith(expected)


@pytest.mark.parametrize("obj", [SESSION, TOOL_CALL, {"a": [True, None, False, -1.5e-7], "b": "\u00e9😀\\"}])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_line_that_was_cut_off_anywhere_ends_in_the_middle(obj, ascii_only):
    raw = json.dumps(obj | {"x": float("-inf"), "y": float("nan"), "z": "\\u12ab"}, ensure_ascii=ascii_only).encode()
    for end in range(1, len(raw)):
        assert reason(raw[:end]).startswith("ends in the middle"), raw[:end]


def test_nul_bytes_after_a_whole_line_do_not_cost_it():
    [record] = read_line(json.dumps(SESSION).encode() + b"\0" * 500)
    assert (record.text, record.flags) == (SESSION["content"], ("nul_tail",))


def nested(depth, opening, closing):
    return b'{"ts": "", "type": "x", "content": "", "m": ' + opening * depth + b"1" + closing * depth + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_200_levels_are_read_and_not_one_more(opening, closing):
    [record] = read_line(nested(199, opening, closing))
    assert_storable(record)
    for depth in (200, 300, 1000, 100_000):
        assert reason(nested(depth, opening, closing)) == "nested more than 200 levels deep"


def test_deep_lines_with_odd_values_are_read_too():
    raw = nested(199, b"[", b"]").replace(b"1]", b'NaN, "\\u0000\\ud800"]', 1)
    [record] = read_line(raw)
    assert record.flags == ("nonfinite", "nul", "surrogate", "bad_time")


def test_brackets_inside_strings_are_no_structure():
    text = '[{"' * 2000 + "," * 300_000 + '\\"'
    assert one(SESSION, content=text).text == text


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": [' + b"[]," * 250_000 + b"[]]}",
        b'{"a": [' + b"1," * 250_000 + b"1]}",
        b'{"a": ["' + b'","' * 250_000 + b'"]}',
    ],
)
def test_a_line_of_too_many_values_is_refused_before_it_is_parsed(raw):
    assert reason(raw) == "more than 200,000 values"


def test_a_line_of_many_values_within_the_limit_is_read():
    [record] = read_line(b'{"a": [' + b"1," * 150_000 + b'1], "b": "' + b"," * 100_000 + b'"}')
    assert len(json.loads(record.extra)["a"]) == 150_001


def test_a_line_over_the_limit_of_bytes_is_refused():
    raw = json.dumps(SESSION | {"content": "x" * formats.MAX_LINE_BYTES}).encode()
    assert reason(raw).startswith("longer than 8,388,608 bytes")
    assert read_line(raw, max_bytes=len(raw))
    with pytest.raises(BadLine):
        read_line(json.dumps(SESSION).encode(), max_bytes=100)


# Any bytes

NAMED = ("kind", "role", "agent", "tool", "action", "status", "visibility", "channel", "participant", "ts_text")
NAMED += ("session", "ref", "severity")


def assert_storable(record):
    """What both databases, JSON and UTF-8 ask of a Record."""
    for field in fields(Record):
        value = getattr(record, field.name)
        if isinstance(value, str):
            assert "\0" not in value.encode().decode()
    for name in NAMED:
        assert len(getattr(record, name)) <= 200
    assert record.lane in LANES
    assert set(record.flags) <= FLAGS.keys()
    assert len(set(record.flags)) == len(record.flags)
    assert record.kind
    assert record.duration_ms is None or (type(record.duration_ms) is float and 0 <= record.duration_ms < 1e13)
    assert record.ts_us is None or type(record.ts_us) is int
    record.extra.encode()  # every column can be written as UTF-8
    if record.extra:
        extra = json.loads(record.extra, parse_constant=pytest.fail)
        assert isinstance(extra, dict)
        assert "\0" not in json.dumps(extra, ensure_ascii=False).encode().decode()


def outcome(reader, *args):
    """What *reader* returns, or the BadLine that it raises."""
    try:
        return reader(*args)
    except BadLine as e:
        return e


def assert_read(raw, first=False):
    records = outcome(read_line, raw, first)
    if isinstance(records, BadLine):
        assert records.reason
        assert not records.reason.startswith(formats.UNEXPECTED)
        return
    if records is None:
        assert not raw.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n\0")
        return
    assert records
    for record in records:
        assert_storable(record)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_records_or_blank_or_a_bad_line(raw, first):
    assert_read(raw, first)


SOME_LINES = [
    raw
    for path in ("dirty/wrong_types.jsonl", "dirty/timestamps_zoo.jsonl", "roomkit_mixed/session_status_tool.jsonl")
    for raw in physical_lines(path)[:41]
    if len(raw) < 1000
]


@given(st.sampled_from(SOME_LINES), st.data())
@settings(max_examples=300)
def test_any_damage_to_a_real_line_is_survived(raw, data):
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        length = data.draw(st.sampled_from([0, 0, 1, 1, 5, 40]))
        piece = st.sampled_from(
            [b'"', b"\\", b"\\u0000", b"\\ud83d", b"{", b"}", b"[", b",", b":", b"\0", b"1e999", b"NaN"]
        )
        damaged[place : place + length] = data.draw(piece | st.binary(max_size=4))
    assert_read(bytes(damaged))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
WORDS = ["ts", "type", "role", "content", "duration_ms", "metadata", "tool_name", "arguments", "result", "status"]
WORDS += ["agent_id", "action", "detail", "timestamp", "event_type", "kind", "text", "line.ts", "channel_id"]


@given(
    st.sampled_from([{}, SESSION, TOOL_CALL, TOOL, STATUS]),
    st.dictionaries(st.sampled_from(WORDS), VALUES),
    st.dictionaries(st.sampled_from(WORDS), VALUES),
    st.booleans(),
)
@settings(max_examples=300)
@example({}, {"ts": "\ud800"}, {}, False)
def test_any_object_becomes_records(start, changes, metadata, ascii_only):
    obj = start | {"metadata": metadata} | changes
    raw = json.dumps(obj, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert_read(raw)
    if ascii_only:
        assert read_line(raw), "whatever Python's own writer writes is read"


@given(st.dictionaries(st.text(max_size=4), VALUES))
def test_extra_loses_nothing_that_python_writes(metadata):
    record = one(SESSION, metadata=metadata)
    kept = dict(json.loads(record.extra or "{}"))
    for column, key in (("tool", "tool_name"), ("status", "status"), ("agent", "agent_id")):
        if key in metadata and key not in kept:
            kept[key] = getattr(record, column)
    expected = decode(json.dumps({"m": metadata}).encode())[0]["m"]
    assert kept == expected


# Whole files


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dirty/empty.jsonl", "The file has no lines."),
        ("dirty/only_blank.jsonl", "The file has no lines."),
        ("dirty/html_error_page.jsonl", "This is an HTML page"),
        ("dirty/rows.csv.jsonl", "This looks like a table (CSV)"),
        ("dirty/binary.jsonl", "This is a PNG picture"),
        ("dirty/session.jsonl.gz", "This is a gzip archive; unpack it first"),
        ("dirty/three_files.zip", "This is a zip archive; unpack it first"),
        ("dirty/utf16le.jsonl", "The file is UTF-16"),
    ],
)
def test_a_file_that_is_no_dump_is_refused_with_advice(path, expected):
    said = sniff((SAMPLES / path).read_bytes()[: formats.SNIFF_BYTES])
    assert said.startswith(expected)
    assert said.endswith((".", ".jsonl"))


REFUSED = {
    *("dirty/empty.jsonl", "dirty/only_blank.jsonl", "dirty/html_error_page.jsonl", "dirty/rows.csv.jsonl"),
    *("dirty/binary.jsonl", "dirty/utf16le.jsonl"),
}


@pytest.mark.parametrize("path", [f["path"] for f in [*ROOMKIT, *DIRTY] if f["path"] not in REFUSED])
def test_a_damaged_dump_is_not_refused(path):
    assert sniff((SAMPLES / path).read_bytes()[: formats.SNIFF_BYTES]) is None


@pytest.mark.parametrize(
    "head",
    [
        b'{"ts": "2026',  # the start of a file that is being written
        b'{"ts": "2026\n{"a": 1}\n',
        b'{"a": 1,\n{"a": 1}\n',
        b'[2026-04-07 13:05] {"a": 1}\n',
        b"starting up\nlistening on port 1\n" * 50 + b'{"a": 1}\n',
        b'\0\0\0\0\n{"a": 1}\n',
        b'{"a": "\xe9\xe8\xe9\xe8"}\n' * 30,
        b'{"a": "' + b"x" * formats.SNIFF_BYTES,
        b" " * formats.SNIFF_BYTES,
        b"{}\n",
        b'{"a": 1}{"b": 2}\n',
    ],
)
def test_what_may_become_json_lines_is_not_refused(head):
    assert sniff(head[: formats.SNIFF_BYTES]) is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('{"a": 1}\n'.encode("utf-16-be") * 20, "The file is UTF-16"),
        (b"<?xml version='1.0'?><a/>", "This is XML"),
        (b"a;b\n1;2\n3;4\n", "This looks like a table (CSV)"),
        (b"\x00\x01\x02\x03\x90\x91{" * 100, "This is a binary file"),
        (b"Dear all,\nplease find attached\n", "The file holds no JSON object"),
        (b"PK\x03\x04", "This is a zip archive; unpack it first"),
        (b"BZh91AY", "This is a bzip2 archive; unpack it first"),
        (b"%PDF-1.7", "This is a PDF document"),
    ],
)
def test_what_is_clearly_something_else_is_refused(head, expected):
    assert sniff(head[: formats.SNIFF_BYTES]).startswith(expected)


@given(st.binary(max_size=300))
def test_sniffing_never_raises(head):
    assert sniff(head) is None or sniff(head).endswith((".", ".jsonl"))


# The exact value, for people to look at


def test_a_look_at_a_line_keeps_the_spelling_of_its_numbers():
    raw = b'{"a": 1.10, "b": 1E2, "c": -0.0, "d": 1180591620717411303425, "e": [NaN, -Infinity, 1e999], "f": "1"}'
    seen = peek(raw)
    assert seen == {
        "a": "1.10",
        "b": "1E2",
        "c": "-0.0",
        "d": "1180591620717411303425",
        "e": ["NaN", "-Infinity", "1e999"],
        "f": "1",
    }
    assert [type(seen[key]) for key in "abcdf"] == [Number, Number, Number, Number, str]
    assert {type(number) for number in seen["e"]} == {Number}


def test_a_look_takes_what_reading_refuses():
    assert peek(b'{"a": "\xe9\x1b"}') == {"a": "\ufffd\x1b"}
    assert peek(b'{"a": ' + b"9" * 5000 + b"}") == {"a": "9" * 5000}
    assert peek(b'\xef\xbb\xbf["\\u0000\\ud800"]\0\0\r') == ["␀\ufffd"]


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a": 1} x', b"[" * 5000, b'{"a": [' + b"1," * 250_000 + b"1]}"])
def test_a_look_at_what_is_no_json_is_a_bad_line(raw):
    with pytest.raises(BadLine):
        peek(raw)


@given(st.binary(max_size=200))
def test_a_look_at_any_bytes_is_a_value_or_a_bad_line(raw):
    seen = outcome(peek, raw)
    if isinstance(seen, BadLine):
        assert seen.reason
    else:
        assert json.dumps(seen, ensure_ascii=False).encode()
