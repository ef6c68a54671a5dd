"""Lines as RoomKit writes them take a faster way, and become the records that the general way makes of them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from auditweb.formats import FORMATS, MAX_STRUCTURE, BadLine, decode, read_line
from auditweb.formats.roomkit import usual_record

SAMPLES = Path(__file__).parent / "samples"
FILES = sorted(p for p in SAMPLES.rglob("*.jsonl") if p.is_file())
STAMP = "2026-04-07T13:05:17.524490+00:00"
SPEECH = {"ts": STAMP, "type": "speech", "role": "user", "content": "hello", "duration_ms": None, "metadata": {}}
CALL = SPEECH | {
    "type": "tool_call",
    "duration_ms": 12.5,
    "metadata": {"tool_name": "search", "arguments": {"q": ["é", 1]}, "status": "ok", "agent_id": "a1"},
}
OPENING = SPEECH | {"type": "session", "content": "started", "metadata": {"channel_id": "v", "participant_id": "p"}}
TOOL = {"ts": STAMP, "agent_id": "a", "tool_name": "t", "arguments": {"q": 1}, "result": "found", "status": "ok"}
TOOL |= {"duration_ms": 1500, "metadata": {"arguments": 2}}
STATUS = {"ts": STAMP, "agent_id": "a", "action": "go", "status": "completed", "detail": "open", "metadata": None}
LINES = [SPEECH, CALL, OPENING, TOOL, STATUS]


def general(raw):
    """The records that the general way makes of a line, or None for a bad line."""
    try:
        obj, flags = decode(raw)
    except BadLine:
        return None
    return next(records for _, matches, records in FORMATS if matches(obj))(obj, flags)


def assert_same(raw):
    if (record := usual_record(raw)) is not None:
        assert [record] == general(raw)
        assert type(record.duration_ms) in (float, type(None))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SAMPLES).as_posix())
def test_both_ways_read_the_samples_alike(path):
    for raw in path.read_bytes().split(b"\n"):
        assert_same(raw)


def test_nearly_all_that_roomkit_wrote_goes_the_faster_way():
    lines = [raw for p in FILES if p.parent.name.startswith("roomkit_") for raw in p.read_bytes().splitlines()]
    assert sum(usual_record(raw) is not None for raw in lines) > 0.95 * len(lines)


@pytest.mark.parametrize("line", LINES, ids=["speech", "call", "opening", "tool", "status"])
def test_a_line_of_each_kind_goes_the_faster_way(line):
    raw = json.dumps(line).encode()
    assert usual_record(raw) is not None
    assert read_line(raw) == [usual_record(raw)]
    assert_same(raw)


ODD_TEXTS = ["", "null", "\0", "a" * 200, "a" * 201, "b" * 500, "x" * 150 + "…", "é", "\u2028", '":', '\\":', "[" * 201]
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6)
SCALARS |= st.sampled_from([*ODD_TEXTS, 0, -0.0, 1e13, 1e999, 2**64, STAMP, "2026-04-07T24:00:00", "2026-04-07"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
KEYS = st.sampled_from(sorted({*SPEECH, *TOOL, *STATUS, "channel_id", "participant_id", "event_type"}))


@given(st.sampled_from(LINES), st.dictionaries(KEYS, VALUES, max_size=2), st.dictionaries(KEYS, VALUES), st.booleans())
@settings(max_examples=500)
@example(CALL, {}, {"status": None}, True)
@example(SPEECH, {"ts": "1969-12-31T23:59:59Z"}, {}, True)
def test_both_ways_read_any_object_alike(line, changes, metadata, ascii_only):
    obj = line | ({"metadata": metadata} if metadata else {}) | changes
    assert_same(json.dumps(obj, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    assert_same(json.dumps(obj, ensure_ascii=ascii_only, separators=(",", ":")).encode("utf-8", "surrogatepass"))


@given(st.sampled_from(LINES), st.data())
@settings(max_examples=500)
def test_both_ways_read_keys_given_twice_alike(line, data):
    """Also where blanks before colons hide keys from the count that usually finds them."""
    raw = json.dumps(line).encode()
    places = [match.start() for match in re.finditer(rb'"[a-z_]+": ', raw)]
    for place in sorted(data.draw(st.sets(st.sampled_from(places), max_size=3)), reverse=True):
        twice = data.draw(st.sampled_from([b'"status": "b", ', b'"q": [], ', b'"metadata": {}, ', b'"ts": "x", ', b""]))
        raw = raw[:place] + twice + raw[place:]
    for match in reversed(list(re.finditer(rb'":', raw))):
        if data.draw(st.integers(0, 4)) == 0:
            raw = raw[: match.end() - 1] + b" " + raw[match.end() - 1 :]
    assert_same(raw)


@pytest.mark.parametrize("depth", [150, 198, 199, 500])
def test_a_deep_line_is_left_to_the_general_way_before_it_counts(depth):
    raw = json.dumps(SPEECH).replace('"metadata": {}', '"metadata": {"a": %s}' % ("[" * depth + "]" * depth)).encode()
    assert_same(raw)
    assert (usual_record(raw) is None) == (depth > 198)


def test_a_line_that_is_long_is_left_to_the_general_way():
    raw = json.dumps(SPEECH | {"content": "a" * MAX_STRUCTURE}).encode()
    assert usual_record(raw) is None
    assert read_line(raw)[0].text == "a" * MAX_STRUCTURE
    with pytest.raises(BadLine, match="longer than 100 bytes"):
        read_line(json.dumps(SPEECH).encode(), False, 100)
