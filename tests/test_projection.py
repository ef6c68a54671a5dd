"""Turns, tool calls with their chains, and agent runs: what is derived from every producer's events."""

import itertools
import json
import zlib
from pathlib import Path

import pytest
from django.db import transaction

from auditweb.dumps import jobs
from auditweb.log import id_range, seq_of
from sessions_app import calls, membership, outline, projection, runs, timeline
from sessions_app.models import AgentRun, Event, Session, ToolCall, ToolStep, Turn
from tests.test_ingest import add, upload, us

SAMPLES = Path(__file__).parent / "samples"
FILES = json.loads((SAMPLES / "manifest.json").read_text())["files"]
XERXES = [f for f in FILES if f["path"].startswith("xerxes/")]
AGENT_FRAMEWORK = [f for f in FILES if f["path"].startswith("agent_framework/")]

pytestmark = pytest.mark.django_db(transaction=True)


def of_session(model, session):
    return model.objects.filter(id__range=id_range(session.pk)).order_by("id")


@pytest.mark.parametrize("file", XERXES, ids=[f["path"] for f in XERXES])
def test_a_xerxes_dump_comes_to_the_numbers_of_its_producer(file, team, import_sample):
    reading, said = file["reading"], file["reading"]["xerxes"]
    dump = import_sample(file["path"], team=team)
    assert (dump.state, dump.error) == ("done", "")
    assert dump.records == reading["records_by_kind"]
    assert dump.bad_line_count == 0

    sessions = list(dump.sessions.order_by("pk"))
    names = {"None" if s.key == dump.public_id else s.key.removeprefix(f"{dump.public_id}:"): s for s in sessions}
    assert {name: s.event_count for name, s in names.items()} == said["sessions"]
    assert add(s.kinds for s in sessions) == said["events_by_type"]
    assert add(s.severities for s in sessions) == said["by_severity"]
    assert set().union(*(s.agents for s in sessions)) == set(said["agents"]) - {"None"}

    turns = [turn for s in sessions for turn in of_session(Turn, s)]
    assert len(turns) == said["turns_started"]
    assert sum(t.ended_us is not None for t in turns) == said["turns_paired"]
    assert sum(t.failed for t in turns) == said["turns_without_end_but_with_error"]
    assert sum(s.user_turns for s in sessions) == said["turns_started"]
    assert sum(s.assistant_turns for s in sessions) == said["turns_ended"]

    made = [call for s in sessions for call in of_session(ToolCall, s)]
    paired = [c for c in made if c.stamp == "both"]
    assert len(paired) == said["tools_paired"]
    assert all(c.inferred for c in paired)
    assert sum(c.stamp == "start" for c in made) == said["attempts_without_outcome"]
    assert sum(c.stamp == "end" for c in made) == said["outcomes_without_attempt"]
    assert sum(s.tool_calls for s in sessions) == len(made) == said["tool_attempts"] + said["outcomes_without_attempt"]
    assert sum(s.tool_failures for s in sessions) == sum(c.failed for c in made) == said["tool_failures"]
    assert sum(s.tool_ms for s in sessions) == pytest.approx(said["complete_ms"], abs=0.01)
    attempted = Event.objects.filter(dump=dump, kind="tool_call_attempt").values_list("tool", flat=True)
    assert {t: list(attempted).count(t) for t in set(attempted)} == said["by_tool_attempted"]
    warnings = Event.objects.filter(dump=dump, kind="tool_loop_warning")
    healthy = warnings.filter(status__in=["ok", "none"]).count()
    assert healthy == said["loop_warnings_that_mean_nothing"]
    blocks = said["events_by_type"].get("tool_loop_block", 0)
    assert sum(s.loops for s in sessions) == warnings.count() - healthy + blocks

    assert min(s.first_us for s in sessions) == us(reading["timestamps"]["utc_min"])
    assert max(s.last_us for s in sessions) == us(reading["timestamps"]["utc_max"])


@pytest.mark.parametrize("file", AGENT_FRAMEWORK, ids=[f["path"] for f in AGENT_FRAMEWORK])
def test_an_agent_framework_dump_comes_to_the_numbers_of_its_producer(file, team, import_sample):
    reading, said = file["reading"], file["reading"]["agent_framework"]
    dump = import_sample(file["path"], team=team)
    assert (dump.state, dump.error) == ("done", "")
    assert dump.records == reading["records_by_kind"]
    assert dump.lines == reading["physical_lines"]
    session = dump.sessions.get()

    lines = said["lines_by_type"]
    kinds = session.kinds
    assert session.run_count == AgentRun.objects.count() == said["runs"]
    assert {kind: kinds[kind] for kind in lines} == lines
    assert kinds.get("callback", 0) == said["callbacks"]
    assert kinds.get("skill", 0) == said["skill_invocations"]
    nested = {kind.removeprefix("event:"): n for kind, n in kinds.items() if kind.startswith("event:")}
    assert nested == said["nested_events_by_type"]
    assert session.denials == said["permissions"]["denied"]
    assert session.memory_count == sum(said["memory_operations"].values())
    decisions = [run.decision or "None" for run in of_session(AgentRun, session)]
    assert {word: decisions.count(word) for word in set(decisions)} == said["decisions"]

    tree = runs.tree(session)
    assert tree["total"] == said["runs"]
    shown = [run for run in tree["runs"] if not run["missing"]]
    assert len(shown) == said["runs"]
    agents = [run["agent"] for run in shown]
    assert {agent: agents.count(agent) for agent in set(agents)} == said["runs_by_agent"]
    roots = [run for run in shown if run["caller"] in ("", "host")]
    assert len(roots) == said["root_runs"]
    known = [r for r in shown if r["parent"] is not None and not tree["runs"][r["parent"]]["missing"]]
    assert len(known) == said["child_runs_with_a_known_parent"]
    for place, run in enumerate(tree["runs"]):
        if run["parent"] is not None:
            above = tree["runs"][run["parent"]]
            assert run["parent"] < place
            assert run["depth"] == above["depth"] + 1
            assert run["run_id"].startswith(above["run_id"] + ".")
    assert {run["run_id"] for run in tree["runs"] if run["missing"]} <= set(file["unfinished_runs"])


def test_a_run_that_repeats_an_id_is_called_by_the_run_that_ended_after_it(team, import_sample):
    session = import_sample("agent_framework/trace-260320_115602.jsonl").sessions.get()
    tree = runs.tree(session)["runs"]
    critics = [run for run in tree if run["run_id"] == "80c1effe-dfc.p2.root.critic"]
    assert [tree[run["parent"]]["run_id"] for run in critics] == ["80c1effe-dfc.p2.root"] * 2
    assert critics[0]["seq"] != critics[1]["seq"]


def test_permissions_join_the_calls_that_asked_for_them(team, import_sample):
    session = import_sample("agent_framework/trace-260320_115602.jsonl").sessions.get()
    asked = session.events.filter(kind="permission_request", line__in=(15, 16))
    chains = {call["tool_name"]: [s["stage"] for s in call["chain"]] for call in made_calls(session)}
    assert chains["Write"] == ["attempt", "result", "permission"]
    assert chains["Bash"] == ["attempt", "result", "permission"]
    steps = ToolStep.objects.filter(pk__in=[e.pk for e in asked]).values_list("stage", flat=True)
    assert set(steps) == {"permission"}


def made_calls(session) -> list[dict]:
    return calls.rows(list(of_session(ToolCall, session)))


def test_a_call_knows_every_decision_about_it(team, import_sample):
    session = import_sample("xerxes/real_runtime.jsonl").sessions.get()
    made = made_calls(session)
    chains = [[step["stage"] for step in call["chain"]] for call in made]
    assert chains[0] == ["loop", "policy", "attempt", "sandbox", "result"]
    blocked = next(call for call in made if call["status"] == "blocked")
    assert [s["kind"] for s in blocked["chain"]] == ["tool_loop_block", "tool_call_failure"]
    denied = next(call for call in made if call["status"] == "denied")
    assert [(s["stage"], s["status"]) for s in denied["chain"]] == [
        ("loop", "ok"), ("policy", "deny"), ("result", "denied"),
    ]  # fmt: skip
    assert denied["failed"]
    assert (denied["stamp"], denied["started_at"], denied["duration_ms"]) == ("end", None, None)
    hooked = next(call for call in made if any(s["stage"] == "hook" for s in call["chain"]))
    assert hooked["tool_name"] == "look_up"
    first = made[0]
    assert (first["arguments_preview"], first["status"]) == ("{'city': 'Montréal'}", "success")
    assert first["started_at"] < first["ended_at"]
    assert first["turn"] == 1


def test_a_hook_on_a_result_joins_the_call_that_ended(team, import_sample):
    session = import_sample("xerxes/every_event.jsonl").sessions.get()
    chains = {call["tool_name"]: [s["kind"] for s in call["chain"]] for call in made_calls(session)}
    assert chains["web_search"] == [
        "tool_policy_decision", "hook_mutation", "tool_call_attempt", "sandbox_decision", "tool_call_complete",
        "hook_mutation",
    ]  # fmt: skip
    assert chains["orphan_tool"] == ["tool_call_attempt"]


def test_rows_name_their_turn_their_call_and_their_run(team, import_sample):
    session = import_sample("xerxes/threads.jsonl").sessions.get()
    rows = timeline.rows_after(session.pk, 0, 200)
    by_turn: dict = {}
    for row in rows:
        by_turn.setdefault(row["turn"], set()).add(row["agent"])
    assert len(by_turn) == 24
    assert all(len(agents) == 1 for agents in by_turn.values())
    for call in of_session(ToolCall, session):
        both = [row for row in rows if row["call"] == call.seq]
        assert [row["kind"] for row in both] == ["tool_call_attempt", "tool_call_complete"]
        assert {row["turn"] for row in both} == {call.turn}

    session = import_sample("agent_framework/trace-260501_090000.jsonl").sessions.get()
    for row in timeline.rows_after(session.pk, 0, 500):
        if row["run"] is not None:
            run = Event.objects.get(pk=session.pk << 32 | row["run"])
            assert (run.kind, run.line) == ("agent_run", row["line"])
        assert (row["run"] is not None) == (
            row["kind"] in ("agent_run", "callback", "skill") or "event:" in row["kind"]
        )


def test_the_outline_draws_a_call_from_its_attempt_to_its_outcome(team, import_sample):
    session = import_sample("xerxes/real_runtime.jsonl").sessions.get()
    made = json.loads(outline.build(session))
    columns = made["columns"]
    seqs = list(itertools.accumulate(columns["seq"]))
    call = of_session(ToolCall, session).filter(stamp="both").first()
    at = seqs.index(call.seq)
    assert columns["duration_ms"][at] == round((call.ended_us - call.started_us) / 1000)
    assert made["states"][columns["state"][at]] == f"{outline.ATTEMPT} success"
    assert columns["duration_ms"][seqs.index(call.last_seq)] is None


def parts_of(session) -> dict:
    """What was derived, named by lines: the same whatever numbers the events got."""

    def line(pk):
        event = Event.objects.select_related("dump").get(pk=pk)
        return event.dump.name, event.line

    base = session.pk << 32
    turns = [
        (t.number, t.role, line(base + t.first_seq), line(base + t.last_seq), t.started_us)
        for t in of_session(Turn, session)
    ]
    made = [
        (c.number, c.turn, line(c.pk), line(base + c.last_seq), c.tool, c.status, c.started_us, c.ended_us)
        for c in of_session(ToolCall, session).order_by("number")
    ]
    steps = sorted((line(s.pk), line(s.call), s.stage) for s in of_session(ToolStep, session))
    counted = {
        n: getattr(session, n) for n in projection.COUNTERS if n not in ("order_dump", "order_line", "unfinished")
    }
    return {"turns": turns, "calls": made, "steps": steps, "counted": counted}


def test_any_order_of_dumps_gives_the_same_projections(team):
    lines = (SAMPLES / "roomkit_mixed/session_status_tool.jsonl").read_bytes().splitlines(keepends=True)
    lines += (SAMPLES / "xerxes/real_runtime.jsonl").read_bytes().splitlines(keepends=True)
    # Lines of one instant stay together: between dumps their order is that of the dumps.
    deal = [zlib.crc32((obj.get("ts") or obj["timestamp"]).encode()) % 3 for obj in map(json.loads, lines)]
    dumps = {f"part{i}.jsonl": b"".join(x for x, part in zip(lines, deal, strict=True) if part == i) for i in range(3)}
    seen = []
    for order in itertools.permutations(dumps):
        made = []
        for name in order:
            dump = upload(team, name, dumps[name], session_key="one")
            jobs.run(dump.pk)
            made.append(dump)
        session = Session.objects.get(team=team, key="one")
        assert not session.unordered
        seen.append(parts_of(session))
        for dump in made:
            jobs.delete(dump)
        assert not Session.objects.exists()
    assert all(one == seen[0] for one in seen)


def test_an_event_belongs_to_the_turn_before_it_in_time(team, import_bytes):
    said = '{"ts": "2026-01-01T10:00:%02d+00:00", "type": "speech", "role": "user", "content": "x%d"}\n'
    tool = '{"ts": "2026-01-01T10:00:%02d+00:00", "agent_id": "a", "tool_name": "t", "arguments": {}, "result": ""}\n'
    import_bytes("".join(said % (i * 10, i) for i in range(5)).encode(), "speech.jsonl", session_key="k")
    import_bytes("".join(tool % (i * 10 + 5) for i in range(5)).encode(), "tools.jsonl", session_key="k")
    session = Session.objects.get(key="k")
    assert [call.turn for call in of_session(ToolCall, session).order_by("number")] == [1, 2, 3, 4, 5]
    rows = timeline.page(session, timeline.Query(order="time"))["entries"]
    assert [row["turn"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    event = session.events.filter(lane="tool").last()
    assert membership.of_event(event) == (5, seq_of(event.pk), None)


def test_what_waits_for_its_end_is_bounded(team, import_bytes):
    line = (
        '{"event_type": "%s", "timestamp": "2026-01-01T10:00:00.%06d+00:00", "agent_id": "a", "turn_id": "t%d", '
        '"session_id": null, "severity": "info", "metadata": {}, "tool_name": "x%d", "prompt_preview": ""}\n'
    )
    data = "".join(line % (kind, i, i, i) for i in range(2500) for kind in ("turn_start", "tool_call_attempt"))
    session = import_bytes(data.encode()).sessions.get()
    assert (session.turn_count, session.tool_calls) == (2500, 2500)
    assert len(session.unfinished) < 100_000
    assert of_session(ToolCall, session).filter(stamp="start").count() == 2500


def test_a_stamp_rule_that_is_told_moves_the_calls(team, import_sample):
    dump = import_sample("roomkit_session/tiny_doc_example.jsonl")
    session = dump.sessions.get()
    before = of_session(ToolCall, session).first()
    assert (before.stamp, before.ended_us - before.started_us) == ("end", round(before.duration_ms * 1000))
    dump.stamp = "start"
    dump.save()
    with transaction.atomic():
        projection.rebuild(session)
    after = of_session(ToolCall, session).first()
    assert (after.stamp, after.started_us) == ("start", before.ended_us)
    assert after.ended_us - after.started_us == round(after.duration_ms * 1000)


def test_tasks_and_observations_of_a_room_come_as_roomkit_lists_them(team, import_bytes):
    task = '{"id": "t1", "room_id": "r", "title": "Call back", "description": "today", "assigned_to": "ann", '
    task += '"status": "%s", "created_at": "2026-01-01T10:00:0%dZ", "metadata": {}}\n'
    seen = '{"id": "o1", "room_id": "r", "channel_id": "ai", "content": "angry", "category": "sentiment", '
    seen += '"confidence": 0.75, "created_at": "2026-01-01T10:00:03Z", "metadata": {}}\n'
    session = import_bytes((task % ("pending", 1) + task % ("completed", 2) + seen).encode()).sessions.get()
    assert session.key.endswith(":r")
    (one,) = runs.tasks(session)
    assert (one["id"], one["title"], one["status"], one["assigned_to"]) == ("t1", "Call back", "completed", "ann")
    assert runs.tasks(session, "pending") == []
    (noticed,) = runs.observations(session)
    assert (noticed["content"], noticed["category"], noticed["confidence"]) == ("angry", "sentiment", 0.75)


def test_sessions_of_one_name_join_across_dumps_only_when_told(team, import_bytes):
    line = (
        '{"event_type": "turn_start", "timestamp": "2026-01-01T10:00:0%dZ", "agent_id": "a", "turn_id": "t%d", '
        '"session_id": "s", "severity": "info", "metadata": {}, "prompt_preview": "hi"}\n'
    )
    import_bytes((line % (1, 1)).encode(), "one.jsonl")
    import_bytes((line % (2, 2)).encode(), "two.jsonl")
    assert Session.objects.count() == 2
    import_bytes((line % (3, 3)).encode(), "three.jsonl", join=True)
    import_bytes((line % (4, 4)).encode(), "four.jsonl", join=True)
    assert Session.objects.get(key="s").event_count == 2


OTHER = [f for f in FILES if f["path"].startswith("other/")]
KNOWN = {"other/roomkit_timeline.jsonl": "roomkit_event", "other/agent_framework_host_log.jsonl": "af_trace"}


@pytest.mark.parametrize("file", OTHER, ids=[f["path"] for f in OTHER])
def test_a_neighbouring_format_imports_without_loss(file, team, import_sample, sample):
    dump = import_sample(file["path"], team=team)
    assert (dump.state, dump.error, dump.bad_line_count) == ("done", "", 0)
    assert dump.records == {KNOWN.get(file["path"], "unknown"): dump.lines}
    if "lines" in file:
        assert dump.lines == file["lines"]
    written = sample(file["path"]).read_bytes()
    if file["path"].endswith(".jsonl"):
        objects = [json.loads(line) for line in written.splitlines()]
    else:
        objects = [json.loads(written)]
    by_line = {e.line: e for session in dump.sessions.all() for e in session.events.order_by("-id")}
    assert [json.loads(timeline.raw_line(by_line[n + 1])) for n in range(len(objects))] == objects
    if "events_by_type" in file["expected"] and file["path"] in KNOWN:
        assert add(s.kinds for s in dump.sessions.all()) == file["expected"]["events_by_type"]


def test_a_zone_told_later_moves_the_events_of_named_sessions(team, import_bytes):
    line = (
        '{"event_type": "turn_start", "timestamp": "2026-01-01T10:00:0%d", "agent_id": "a", "turn_id": "t%d", '
        '"session_id": "s%d", "severity": "info", "metadata": {}, "prompt_preview": "hi"}\n'
    )
    dump = import_bytes("".join(line % (i, i, i % 2) for i in range(4)).encode())
    assert dump.zone_source == "assumed"
    jobs.tell(dump, zone="Europe/Paris")
    for session in dump.sessions.all():
        assert [e.at_us for e in session.events] == [
            us(f"2026-01-01T09:00:0{e.line - 1}+00:00") for e in session.events
        ]
