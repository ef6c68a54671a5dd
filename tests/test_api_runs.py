"""Runs, tasks, observations, turns and the chain of a tool call over HTTP, from the producers' own files."""

import json

import pytest

from sessions_app import runs
from sessions_app.api import CallBody, ObservationBody, RunBody, Step, TaskBody, TurnBody

pytestmark = pytest.mark.django_db

TASK = {
    "id": "t1", "room_id": "r", "title": "Call back", "description": "today", "assigned_to": None, "status": "pending",
    "created_at": "2026-01-01T10:00:01Z", "metadata": {"n": 1e2},
}  # fmt: skip
UNFINISHED = "agent_framework/trace-260704_081500.jsonl"  # some of its runs left no line
SEEN = {
    "id": "o1", "room_id": "r", "channel_id": "ai", "content": "angry", "category": "sentiment", "confidence": 0.75,
    "created_at": "2026-01-01T10:00:03Z", "metadata": {"by": "model"},
}  # fmt: skip


@pytest.fixture
def get(alice_client):
    """``get(session, "runs", status="x")`` → the answer as JSON."""

    def ask(session, part, **query):
        answer = alice_client.get(f"/api/v1/sessions/{session.public_id}/{part}", query)
        assert answer.status_code == 200, answer.content
        return answer.json()

    return ask


def everything(get, session, part, **query):
    """The items of all pages."""
    found, page = [], get(session, part, limit=200, **query)
    while True:
        found += page["items"]
        if not page["next"] or not page["items"]:
            return found
        page = get(session, part, limit=200, cursor=page["next"], **query)


@pytest.fixture
def room(import_bytes):
    lines = [TASK, TASK | {"id": "t2", "title": "Send it", "assigned_to": "ann"}, SEEN, TASK | {"status": "completed"}]
    return import_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines)).sessions.get()


def test_runs_are_a_tree_whose_parents_are_places_in_the_list(get, import_sample):
    session = import_sample(UNFINISHED).sessions.get()
    tree = get(session, "runs")
    assert set(tree["items"][0]) == set(RunBody().fields)
    shown = [run for run in tree["items"] if not run["missing"]]
    assert len(shown) == tree["total"] == session.run_count > 10
    assert len({run["seq"] for run in shown}) == len(shown)
    children = [0] * len(tree["items"])
    for place, run in enumerate(tree["items"]):
        if run["parent"] is None:
            assert run["depth"] == 0
        else:
            assert run["parent"] < place
            assert run["depth"] == tree["items"][run["parent"]]["depth"] + 1
            children[run["parent"]] += 1
    assert children == [run["children"] for run in tree["items"]]
    assert max(run["depth"] for run in tree["items"]) >= 2


def test_a_run_without_a_line_has_an_id_and_nothing_else(get, import_sample):
    session = import_sample(UNFINISHED).sessions.get()
    missing = [run for run in get(session, "runs")["items"] if run["missing"]]
    assert missing
    for run in missing:
        assert run["children"] > 0
        assert (run["seq"], run["started_at"], run["decision"]) == (None, None, "")


def test_a_tree_that_is_cut_says_how_many_runs_there_are(get, import_sample, monkeypatch):
    session = import_sample("agent_framework/trace-260320_115602.jsonl").sessions.get()
    monkeypatch.setattr(runs, "MAX_RUNS", 3)
    tree = get(session, "runs")
    assert len([run for run in tree["items"] if not run["missing"]]) == 3
    assert tree["total"] == session.run_count


def test_a_task_is_as_its_latest_line_tells_it(get, room):
    tasks = get(room, "tasks")["items"]
    assert set(tasks[0]) == set(TaskBody().fields)
    assert [(t["id"], t["title"], t["status"], t["assigned_to"], t["seq"]) for t in tasks] == [
        ("t1", "Call back", "completed", None, 4),
        ("t2", "Send it", "pending", "ann", 2),
    ]
    assert [(t["description"], t["metadata"]) for t in tasks] == [("today", {"n": 100})] * 2
    assert tasks[0]["created_at"] == "2026-01-01T10:00:01.000000Z"
    assert [t["id"] for t in get(room, "tasks", status="pending")["items"]] == ["t2"]
    assert get(room, "tasks", status="pend")["items"] == []


def test_observations_are_listed_as_roomkit_does(get, room):
    (seen,) = get(room, "observations")["items"]
    assert set(seen) == set(ObservationBody().fields)
    assert seen == {
        "channel_id": "ai", "content": "angry", "category": "sentiment", "confidence": 0.75,
        "created_at": "2026-01-01T10:00:03.000000Z", "metadata": {"by": "model"}, "seq": 3,
    }  # fmt: skip


def test_a_session_that_has_none_of_them_answers_with_empty_lists(get, import_sample):
    session = import_sample("roomkit_session/support_call_60.jsonl").sessions.get()
    assert get(session, "runs") == {"items": [], "total": 0}
    assert get(session, "tasks") == get(session, "observations") == {"items": []}


def test_the_chain_of_a_call_leads_to_its_events(get, import_sample):
    session = import_sample("xerxes/every_event.jsonl").sessions.filter(tool_calls__gt=0).first()
    calls = everything(get, session, "tool-calls")
    assert len(calls) == session.tool_calls
    assert set(calls[0]) == set(CallBody().fields)
    chained = [call for call in calls if call["chain"]]
    assert chained
    rows = {row["seq"]: row for row in get(session, "timeline", limit=1000)["entries"]}
    for call in chained:
        for step in call["chain"]:
            assert set(step) == set(Step().fields)
            assert (step["kind"], step["at"]) == (rows[step["seq"]]["kind"], rows[step["seq"]]["at"])
            assert rows[step["seq"]]["call"] == call["seq"]
        assert {step["seq"] for step in call["chain"]} >= {call["seq"]}
    stages = {step["stage"] for call in chained for step in call["chain"]}
    assert {"attempt", "result"} <= stages
    assert stages <= {"attempt", "policy", "sandbox", "permission", "hook", "loop", "result"}


def test_turns_with_an_id_say_when_they_ended_and_whether_they_failed(get, import_sample):
    sessions = import_sample("xerxes/every_event.jsonl").sessions.filter(turn_count__gt=0)
    turns = [turn for session in sessions for turn in everything(get, session, "turns")]
    assert set(turns[0]) == set(TurnBody().fields)
    assert any(turn["ref"] for turn in turns)
    assert any(turn["ended_at"] for turn in turns)
    for turn in turns:
        if turn["failed"]:
            assert turn["ended_at"] is None


def test_turns_without_an_id_have_no_end_of_their_own(get, import_sample):
    session = import_sample("roomkit_session/support_call_60.jsonl").sessions.get()
    turns = everything(get, session, "turns")
    assert len(turns) == session.turn_count > 0
    assert {(turn["ref"], turn["ended_at"], turn["failed"]) for turn in turns} == {("", None, False)}


def test_the_timeline_is_filtered_by_severity(get, import_sample):
    for session in import_sample("xerxes/every_event.jsonl").sessions.all():
        rows = get(session, "timeline", limit=1000)["entries"]
        words = {row["severity"] for row in rows}
        for word in words - {""}:
            filtered = get(session, "timeline", limit=1000, severity=word)["entries"]
            assert filtered == [row for row in rows if row["severity"] == word]
        assert get(session, "timeline", severity="loud")["entries"] == []
    assert len(words) > 1
