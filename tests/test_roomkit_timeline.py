"""Events, tasks and observations of RoomKit rooms become Records that say who spoke and what can be read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditweb.formats import Record, read_line
from tests.test_formats import FILES, VALUES, assert_storable, lines_by_format, one, read, tally

SAMPLE = "other/roomkit_timeline.jsonl"
SOURCE = {
    "channel_id": "ws-user",
    "channel_type": "websocket",
    "direction": "inbound",
    "participant_id": "user-1",
    "external_id": None,
    "provider": None,
    "raw_payload": {},
    "provider_message_id": None,
}
AI = SOURCE | {"channel_id": "helper", "channel_type": "ai", "participant_id": None}
EVENT = {
    "id": "5bfdeb9a",
    "room_id": "room-7",
    "type": "message",
    "source": SOURCE,
    "content": {"type": "text", "body": "Bonjour", "language": None},
    "status": "delivered",
    "blocked_by": None,
    "visibility": "all",
    "addressed_to": None,
    "response_visibility": None,
    "index": 2,
    "chain_depth": 0,
    "parent_event_id": None,
    "responds_to": None,
    "correlation_id": "c-1",
    "idempotency_key": None,
    "created_at": "2026-11-20T09:09:24.073610Z",
    "metadata": {},
    "channel_data": {"provider": None, "external_id": None, "thread_id": None, "extra": {}},
    "delivery_results": {},
}
CALL = {
    "type": "tool_call",
    "tool_name": "search",
    "tool_id": "call-1",
    "arguments": {"q": "é"},
    "result": "found",
    "status": "completed",
    "duration_ms": 120,
    "error": None,
    "structured_content": None,
}
TASK = {
    "id": "task-1",
    "room_id": "room-7",
    "title": "Call back",
    "description": "before noon",
    "assigned_to": "helper",
    "status": "in_progress",
    "created_at": "2026-11-20T09:10:00Z",
    "metadata": {},
}
OBSERVATION = {
    "id": "obs-1",
    "room_id": "room-7",
    "channel_id": "watcher",
    "content": "the caller is in a hurry",
    "category": "sentiment",
    "confidence": 0.75,
    "created_at": "2026-11-20T09:10:01Z",
    "metadata": {"scorer": "tone"},
}


def extra(record):
    return json.loads(record.extra or "{}")


def said(content, **changes):
    return one(EVENT, content=content, **changes).text


# Events


def test_the_sample_reads_as_the_manifest_says():
    records, bad, blank = read(SAMPLE)
    assert (bad, blank) == ({}, [])
    assert lines_by_format(SAMPLE) == {"roomkit_event": FILES[SAMPLE]["lines"]}
    assert tally(r.kind for r in records) == FILES[SAMPLE]["expected"]["events_by_type"]
    assert [r.lane for r in records] == ["lifecycle"] * 2 + ["user", "assistant"] * 2
    assert [r.text for r in records][2:] == ["Bonjour", "Bonjour !", "Note le rendez-vous", "C'est noté."]
    assert [extra(r)["index"] for r in records] == [0, 1, 2, 3, 4, 5]
    assert [r.agent for r in records] == ["", "", "", "helper", "", "helper"]
    assert extra(records[3])["responds_to"] == extra(records[2])["id"]
    assert {r.session for r in records} == {"room-7"}
    assert {r.flags for r in records} == {()}


def test_a_message_becomes_a_record():
    assert one(EVENT) == Record(
        format="roomkit_event",
        kind="message",
        lane="user",
        role="user",
        status="delivered",
        text="Bonjour",
        ts_text="2026-11-20T09:09:24.073610Z",
        ts_us=1795165764073610,
        ts_aware=True,
        visibility="all",
        extra='{"source":{"channel_type":"websocket","direction":"inbound"},"id":"5bfdeb9a","index":2,"chain_depth":0}',
        channel="ws-user",
        participant="user-1",
        session="room-7",
        ref="c-1",
    )


def test_what_is_set_is_kept_and_what_is_not_set_is_left_out():
    record = one(
        EVENT,
        visibility="internal",
        response_visibility="none",
        responds_to="e-1",
        chain_depth=3,
        blocked_by="guard",
        status="blocked",
        source=SOURCE | {"provider": "twilio"},
        content=EVENT["content"] | {"language": "fr"},
        channel_data={"provider": None, "thread_id": "t-1", "extra": {}},
        metadata={"status": "x"},
    )
    assert (record.visibility, record.status) == ("internal", "blocked")
    assert extra(record) == {
        "source": {"channel_type": "websocket", "direction": "inbound", "provider": "twilio"},
        "content": {"type": "text", "language": "fr"},
        "channel_data": {"thread_id": "t-1"},
        "id": "5bfdeb9a",
        "blocked_by": "guard",
        "response_visibility": "none",
        "index": 2,
        "chain_depth": 3,
        "responds_to": "e-1",
        "metadata": {"status": "x"},
    }


@pytest.mark.parametrize(
    ("source", "metadata", "role", "lane", "agent"),
    [
        (SOURCE, {}, "user", "user", ""),
        (SOURCE | {"direction": "outbound"}, {}, "assistant", "assistant", ""),
        (SOURCE | {"direction": "bidirectional"}, {}, "", "other", ""),
        (AI, {}, "assistant", "assistant", "helper"),
        (AI | {"direction": "outbound"}, None, "assistant", "assistant", "helper"),
        (SOURCE | {"channel_type": "system"}, {}, "system", "other", ""),
        (SOURCE | {"channel_type": "realtime_voice"}, {"role": "assistant"}, "assistant", "assistant", ""),
        (SOURCE | {"channel_type": "realtime_voice"}, {"role": "user"}, "user", "user", ""),
        (SOURCE, {"role": ["user"]}, "user", "user", ""),
        (SOURCE, "user", "user", "user", ""),
        ({}, {}, "", "other", ""),
    ],
)
def test_the_source_says_who_spoke(source, metadata, role, lane, agent):
    record = one(EVENT, source=source, metadata=metadata)
    assert (record.role, record.lane, record.agent) == (role, lane, agent)


@pytest.mark.parametrize(
    ("kind", "lane"),
    [
        ("system", "lifecycle"),
        ("channel_muted", "lifecycle"),
        ("participant_joined", "lifecycle"),
        ("room_closed", "lifecycle"),
        ("recording_started", "lifecycle"),
        ("task_delegated", "run"),
        ("handoff", "run"),
        ("observation", "run"),
        ("tool_call_start", "tool"),
        ("tool_call_end", "tool"),
        ("error", "error"),
        ("typing", "other"),
        ("reaction", "other"),
        ("delete", "other"),
        ("Message", "other"),
    ],
)
def test_the_type_of_an_event_is_its_kind_and_chooses_its_lane(kind, lane):
    record = one(EVENT, type=kind)
    assert (record.format, record.kind, record.lane, record.role) == ("roomkit_event", kind, lane, "")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"type": "text", "body": "a"}, "a"),
        ({"type": "rich", "body": "**a**", "plain_text": "a"}, "**a**"),
        ({"type": "system", "body": "", "code": "x"}, ""),
        ({"type": "template", "template_id": "t", "body": None}, ""),
        ({"type": "media", "url": "https://x/y.png", "mime_type": "image/png", "caption": "a cat"}, "a cat"),
        ({"type": "media", "url": "https://x/y.png", "mime_type": "image/png", "filename": "y.png"}, "y.png"),
        ({"type": "media", "url": "https://x/y.png", "mime_type": "image/png", "caption": None}, "https://x/y.png"),
        ({"type": "media", "url": "data:image/png;base64,AAAA", "mime_type": "image/png"}, ""),
        ({"type": "audio", "url": "https://x/y.ogg", "transcript": "hello"}, "hello"),
        ({"type": "audio", "url": "https://x/y.ogg", "transcript": ""}, "https://x/y.ogg"),
        ({"type": "video", "url": "https://x/y.mp4", "thumbnail_url": "https://x/y.png"}, "https://x/y.mp4"),
        ({"type": "location", "latitude": 48.85, "longitude": 2, "label": "Paris"}, "Paris"),
        ({"type": "location", "latitude": 48.85, "longitude": -2}, "48.85, -2"),
        ({"type": "location", "latitude": "48", "longitude": True}, ""),
        ({"type": "delete", "target_event_id": "e", "reason": "a mistake"}, "a mistake"),
        ({"type": "edit", "target_event_id": "e", "new_content": {"type": "text", "body": "b"}}, "b"),
        ({"type": "composite", "parts": [{"type": "text", "body": "a"}, {"type": "media", "caption": "c"}]}, "a\nc"),
        ({"type": "composite", "parts": [{"type": "composite", "parts": [{"type": "text", "body": "a"}]},
                                         {"type": "template", "body": None}]}, "a"),
        ({"type": "hologram", "shape": "x"}, ""),
    ],
)  # fmt: skip
def test_what_can_be_read_of_content_is_the_text(content, text):
    record = one(EVENT, content=content)
    assert (record.text, record.flags) == (text, ())
    whole = {key: value for key, value in content.items() if value is not None}
    kept = extra(record).get("content", {"type": "text"})
    assert {key: value for key, value in whole.items() if key not in kept} in ({}, *({key: text} for key in whole))
    assert all(kept[key] == whole[key] for key in kept)


def test_deeply_nested_content_is_read_in_one_pass():
    content = {"type": "text", "body": "x" * 1000}
    for _ in range(95):
        content = {"type": "composite", "parts": [content]}
    assert said(content) == "x" * 1000


def test_a_tool_call_shows_its_own_status_result_and_arguments():
    record = one(EVENT, type="tool_call_end", source=AI, content=CALL)
    assert (record.lane, record.tool, record.agent, record.status) == ("tool", "search", "helper", "completed")
    assert (record.text, record.duration_ms, record.ts_means) == ("found", 120.0, "end")
    assert extra(record) == {
        "arguments": {"q": "é"},
        "line.status": "delivered",
        "source": {"channel_type": "ai", "direction": "inbound"},
        "content": {"type": "tool_call", "tool_id": "call-1"},
        "id": "5bfdeb9a",
        "index": 2,
        "chain_depth": 0,
    }
    started = one(EVENT, type="tool_call_start", content=CALL | {"result": None, "duration_ms": None})
    assert (started.ts_means, started.text, started.duration_ms) == ("start", "", None)


@pytest.mark.parametrize(
    ("result", "error", "text", "kept"),
    [
        ({"n": 1}, None, '{"n": 1}', None),
        ([], None, "[]", None),
        (False, None, "false", None),
        ("Error: no", "Error: no", "Error: no", None),
        (None, "boom", "boom", None),
        ("", "boom", "boom", None),
        ("partial", "boom", "partial", "boom"),
        (None, None, "", None),
    ],
)
def test_a_tool_call_shows_its_result_or_else_its_error(result, error, text, kept):
    record = one(EVENT, type="tool_call_end", content=CALL | {"result": result, "error": error})
    assert (record.text, record.flags) == (text, ())
    assert extra(record)["content"].get("error") == kept


# Tasks and observations


def test_a_task_becomes_a_record():
    assert one(TASK) == Record(
        format="roomkit_task",
        kind="task",
        lane="run",
        agent="helper",
        status="in_progress",
        text="Call back",
        ts_text="2026-11-20T09:10:00Z",
        ts_us=1795165800000000,
        ts_aware=True,
        extra='{"description":"before noon"}',
        session="room-7",
        ref="task-1",
    )


def test_an_observation_becomes_a_record():
    assert one(OBSERVATION) == Record(
        format="roomkit_observation",
        kind="observation",
        lane="other",
        status="sentiment",
        text="the caller is in a hurry",
        ts_text="2026-11-20T09:10:01Z",
        ts_us=1795165801000000,
        ts_aware=True,
        extra='{"channel_id":"watcher","confidence":0.75,"metadata":{"scorer":"tone"}}',
        channel="watcher",
        session="room-7",
        ref="obs-1",
    )


def test_tasks_and_observations_may_name_nobody_and_nothing():
    task = one(TASK, assigned_to=None, description=None)
    assert (task.agent, task.extra, task.flags) == ("", "", ())
    assert (one(OBSERVATION, category=None).status, one(OBSERVATION, confidence=1).flags) == ("", ())


# What is none of these, and wrong types


@pytest.mark.parametrize(
    "line",
    [
        EVENT | {"source": "ws-user"},
        EVENT | {"content": "Bonjour"},
        {key: value for key, value in EVENT.items() if key != "room_id"},
        {key: value for key, value in TASK.items() if key != "status"},
        {key: value for key, value in OBSERVATION.items() if key != "confidence"},
    ],
)
def test_what_only_resembles_a_timeline_stays_unknown(line):
    assert one(line).format == "unknown"


def test_wrong_types_are_flagged_and_kept():
    record = one(
        EVENT,
        type=None,
        room_id=7,
        visibility=["a"],
        status=[],
        correlation_id="c" * 201,
        created_at=5,
        channel_data="x",
        source={"channel_id": ["c"], "participant_id": {}, "channel_type": []},
        content={"type": "text", "body": [1]},
    )
    assert (record.kind, record.session, record.visibility, record.text) == ("unknown", "7", '["a"]', "[1]")
    assert set(record.flags) == {"wrong_type", "bad_time", "long_id"}
    kept = extra(record)
    assert (kept["room_id"], kept["visibility"], kept["status"]) == (7, ["a"], [])
    assert (kept["correlation_id"], kept["channel_data"], kept["source"]) == ("c" * 201, "x", {"channel_id": ["c"]})


def test_content_that_holds_no_content_is_flagged():
    for content in ({"type": "composite", "parts": 5}, {"type": "edit"}, {"type": "composite", "parts": ["a", None]}):
        record = one(EVENT, content=content)
        assert (record.text, record.flags) == ("", ("wrong_type",))


CONTENT = st.recursive(
    st.dictionaries(st.sampled_from([*CALL, "body", "url", "caption", "latitude", "longitude", "label"]), VALUES),
    lambda inner: (
        st.builds(lambda parts: {"type": "composite", "parts": parts}, st.lists(inner | VALUES, max_size=3))
        | st.builds(lambda new: {"type": "edit", "new_content": new}, inner | VALUES)
    ),
    max_leaves=4,
) | st.builds(lambda changes: CALL | changes, st.dictionaries(st.sampled_from([*CALL]), VALUES))


@given(
    st.sampled_from([EVENT, EVENT | {"type": "tool_call_end", "content": CALL}, TASK, OBSERVATION]),
    st.data(),
)
@settings(max_examples=500)
def test_any_values_become_a_storable_record(start, data):
    obj = start | data.draw(st.dictionaries(st.sampled_from([*start, "x", "arguments", "line.status"]), VALUES))
    if start is not TASK and start is not OBSERVATION:
        obj["source"] = SOURCE | data.draw(st.dictionaries(st.sampled_from([*SOURCE, "x"]), VALUES))
        obj["content"] = data.draw(CONTENT)
    [record] = read_line(json.dumps(obj).encode())
    assert record.format == {"title": "roomkit_task", "confidence": "roomkit_observation"}.get(
        next((key for key in ("title", "confidence") if key in start), ""), "roomkit_event"
    )
    assert_storable(record)
    for key in start.keys() & {"index", "chain_depth", "description", "confidence"}:
        if obj[key].__class__ is int:
            assert extra(record)[key] == obj[key]
