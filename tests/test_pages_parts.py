"""The new knowledge of a session on its pages: calls with their chains, agent runs, tools and records."""

import html
import json
import re

import pytest

from auditweb.log import entry_id, insert
from sessions_app import outline, projection, runs, timeline
from sessions_app.chains import STAGES
from sessions_app.models import AgentRun, Session, ToolCall, ToolStep
from sessions_app.views import _lane_counts

pytestmark = pytest.mark.django_db

REAL = "xerxes/real_runtime.jsonl"
EVERY = "xerxes/every_event.jsonl"
TRACE = "agent_framework/trace-260320_115602.jsonl"


def page(client, path, **query) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content[:300]
    return answer.content.decode()


def words(text: str) -> str:
    """The text of a page as people read it: no tags, single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def path_of(session, part="") -> str:
    return f"/sessions/{session.public_id}/{part}"


@pytest.fixture
def one(import_sample):
    return lambda name, **options: import_sample(name, **options).sessions.get()


@pytest.fixture
def of_lines(import_bytes):
    """``of_lines({…}, {…})`` → the session of these objects."""

    def make(*objects, **options) -> Session:
        data = "".join(json.dumps(each) + "\n" for each in objects)
        return import_bytes(data.encode(), "lines.jsonl", **options).sessions.get()

    return make


def event(kind: str, second: float, **more) -> dict:
    at = f"2026-07-01T08:00:{second:09.6f}+00:00"
    envelope = {"agent_id": "a", "turn_id": "t1", "session_id": "s", "severity": "info", "metadata": {}}
    return {"event_type": kind, "timestamp": at, **envelope, **more}


def row_of(text: str, seq: int) -> str:
    return re.search(rf'<article class="row[^>]*id="e{seq}".*?</article>', text, re.S)[0]


# Rows


def test_an_attempt_has_the_outcome_and_its_result_hangs_below_it(alice_client, one):
    session = one(EVERY)
    text = page(alice_client, path_of(session))
    attempt, result, orphan = row_of(text, 4), row_of(text, 6), row_of(text, 20)
    call = ToolCall.objects.get(pk=entry_id(session.pk, 4))
    assert "SUCCESS" in attempt and f"{round((call.ended_us - call.started_us) / 1000)} ms" in attempt
    assert "in-call" in attempt and "call-part" not in attempt
    assert "call-part" in result and "→ RESULT" in result and "812 ms" in result
    assert "NO OUTCOME" in orphan
    for seq in (2, 3, 5, 11):
        assert "call-part" in row_of(text, seq), seq


def test_a_decision_that_says_no_is_loud_and_a_healthy_check_is_quiet(alice_client, one):
    text = page(alice_client, path_of(one(REAL)))
    assert re.search(r'class="row lane-decision failed [^"]*" id="e26"', text)
    assert re.search(r'class="row lane-decision failed [^"]*" id="e53"', text)
    assert "healthy" in row_of(text, 25)
    assert "healthy" not in row_of(text, 16)


def test_rows_say_who_may_not_see_them_and_how_deep_the_answers_are(alice_client, of_lines):
    def said(index, depth, visibility="all"):
        source = {"channel_id": "helper", "channel_type": "ai", "direction": "outbound"}
        return {
            "id": f"e{index}", "room_id": "r", "type": "message", "source": source, "index": index,
            "content": {"type": "text", "body": f"words {index}"}, "status": "delivered", "visibility": visibility,
            "chain_depth": depth, "created_at": f"2026-11-20T09:09:{index:02d}Z",
        }  # fmt: skip

    session = of_lines(said(1, 0), said(2, 1, "internal"), said(3, 4), said(4, 70), said(5, True))
    text = page(alice_client, path_of(session))
    assert [row["depth"] for row in timeline.rows_after(session.pk, 0, 10)] == [0, 1, 4, 70, 0]
    assert ">internal</span>" in row_of(text, 2) and ">internal</span>" not in row_of(text, 1)
    assert "depth 4 of 5" in row_of(text, 3) and "depth" not in row_of(text, 1)
    assert "DELIVERED" not in row_of(text, 1)


@pytest.mark.parametrize(
    "name",
    [
        REAL, EVERY, TRACE, "roomkit_mixed/session_status_tool.jsonl", "other/roomkit_timeline.jsonl",
        "other/agent_framework_host_log.jsonl", "roomkit_tool/all_statuses.jsonl",
    ],
)  # fmt: skip
def test_the_chip_of_a_lane_counts_the_rows_that_it_shows(alice_client, one, name):
    session = one(name)
    lanes = list(session.events.values_list("lane", flat=True))
    counts, untimed = _lane_counts(session)
    assert {lane: n for lane, n in counts.items() if n} == {lane: lanes.count(lane) for lane in set(lanes)}
    assert untimed == session.events.filter(at_us=None).count()
    text = page(alice_client, path_of(session))
    for lane in set(lanes):
        assert re.search(
            rf'data-filter="lane" data-value="{lane}"[^>]*>[^<]*<span class="soft">{lanes.count(lane)}<', text
        )


def test_severities_are_chips_when_there_are_any(alice_client, one):
    session = one(REAL)
    text = page(alice_client, path_of(session))
    assert re.findall(r'data-filter="severity" data-value="(\w+)"', text) == ["error", "warning", "info"]
    shown = page(alice_client, path_of(session), severity="error")
    assert len(re.findall(r'<article class="row', shown)) == session.severities["error"]
    plain = page(alice_client, path_of(one("roomkit_session/tiny_doc_example.jsonl")))
    assert 'data-filter="severity"' not in plain


def test_checks_that_passed_can_be_hidden(alice_client, one):
    session = one(REAL)
    every = page(alice_client, path_of(session))
    assert 'data-filter="checks"' in every
    shown = page(alice_client, path_of(session), checks="telling")
    left = [int(n) for n in re.findall(r'<article class="row[^>]*data-seq="(\d+)"', shown)]
    gone = session.events.filter(lane="decision", status__in=("ok", "allow"))
    assert left == [event.seq for event in session.events if event not in set(gone)]
    assert {16, 21, 26, 53} <= set(left)
    assert 'data-filter="checks"' not in page(alice_client, path_of(one("roomkit_session/one_line.jsonl")))


def test_the_header_counts_what_is_there_and_nothing_else(alice_client, one):
    trace = words(page(alice_client, path_of(one(TRACE)), fragment="head"))
    for said in ("2 denials", "14 runs", "3 memory operations", "Runs 14", "Tools 2", "Records 6"):
        assert said in trace, said
    assert "4 loops" in words(page(alice_client, path_of(one(REAL)), fragment="head"))
    plain = words(page(alice_client, path_of(one("roomkit_session/tiny_doc_example.jsonl")), fragment="head"))
    for said in ("run", "denial", "loop", "memory", "task", "Records"):
        assert said not in plain, said


# The outline


def states(session) -> dict[int, str | None]:
    made = json.loads(outline.build(session))
    seq, found = 0, {}
    for delta, state in zip(made["columns"]["seq"], made["columns"]["state"], strict=True):
        seq += delta
        found[seq] = None if state is None else made["states"][state]
    return found


def test_an_attempt_is_drawn_with_what_its_call_came_to(one):
    found = states(one(EVERY))
    assert (found[4], found[7], found[20]) == ("→ success", "→ failed", "→ ?")
    assert (found[6], found[8]) == ("success", "failed")


def test_a_call_of_one_line_is_drawn_as_before_whatever_its_stamp_means(one):
    session = one("roomkit_tool/all_statuses.jsonl", stamp="start")
    assert ToolCall.objects.filter(id__gte=entry_id(session.pk, 0)).first().stamp == "start"
    assert not any((state or "").startswith("→") for state in states(session).values())


# The details of an event


def details(client, session, seq) -> str:
    return page(client, path_of(session, f"events/{seq}/"), fragment="1")


def test_the_details_of_every_event_of_a_call_show_its_whole_chain(alice_client, one):
    session = one(EVERY)
    for seq in (2, 3, 4, 5, 6, 11):
        text = details(alice_client, session, seq)
        stages = [words(found) for found in re.findall(r'<span class="chain-stage">(.*?)</span>', text, re.S)]
        assert stages == ["policy", "hook", "attempt", "sandbox", "result", "hook"], seq
        linked = [int(n) for n in re.findall(r'chain-stage"><a href="[^"]*\?at=(\d+)#', text)]
        assert linked == [n for n in (2, 3, 4, 5, 6, 11) if n != seq]
        assert "Tied by order, not by an id" in text


def test_times_are_right_whatever_the_stamps_mean(alice_client, one, of_lines):
    session = of_lines(
        event("tool_call_attempt", 10, tool_name="t", arguments_preview="{'q': 1}"),
        event("tool_call_complete", 12.5, tool_name="t", status="success", duration_ms=2400.0, result_preview="fine"),
        event("tool_call_attempt", 20, tool_name="u", arguments_preview=""),
    )
    attempt, outcome, alone = (words(details(alice_client, session, n)) for n in (1, 2, 3))
    for text in (attempt, outcome):
        assert re.search(r"started \S*08:00:10 , the stamp of the attempt", text), text
        assert re.search(r"ended \S*08:00:12 , the stamp of the outcome", text)
        assert "2 400 ms as the outcome states, 2 500 ms between the two stamps" in text
    assert "08:00:20 , the stamp of the line" in alone and "no outcome was written" in alone
    for name, stamp, began, ended in (
        ("roomkit_tool/all_statuses.jsonl", "end", "the stamp less the duration", "the stamp of the line"),
        ("roomkit_session/tiny_doc_example.jsonl", "start", "the stamp of the line", "the stamp plus the duration"),
    ):
        tool = one(name, stamp=stamp)
        timed = tool.events.exclude(duration_ms=None).filter(duration_ms__gt=0).first()
        text = words(details(alice_client, tool, timed.seq))
        assert re.search(rf"started [\d:]+ , {began}", text), text
        assert re.search(rf"ended [\d:]+ , {ended}", text), text


def test_an_outcome_before_its_attempt_has_no_length(alice_client, of_lines):
    session = of_lines(
        event("tool_call_attempt", 10, tool_name="t"), event("tool_call_complete", 5, tool_name="t", status="success")
    )
    for seq in (1, 2):
        assert "between the two stamps" not in details(alice_client, session, seq)


def test_arguments_stand_there_as_their_producer_wrote_them(alice_client, one):
    text = words(details(alice_client, one(REAL), 4))
    assert "Arguments, as their producer wrote them {'city': 'Montréal'}" in text
    parameters = words(details(alice_client, one(TRACE), 26))
    assert "file_path notes/a.md" in parameters and "as their producer wrote them" not in parameters


def test_a_run_shows_its_prompts_what_was_sent_and_decided_and_what_it_did(alice_client, one):
    session = one(TRACE)
    text = words(details(alice_client, session, 25))
    for said in (
        "Run of root", "called by host", "final_message", "System prompt", "/project/agents/root.md", "User prompt",
        "Request", "Response as received", "Response as read", "tool_call", "tool_result",
    ):  # fmt: skip
        assert said in text, said
    part = details(alice_client, session, 26)
    assert re.search(r"<dt>run</dt><dd><a href=[^>]*\?at=25#e25", part)
    assert "It came to no decision" in details(alice_client, session, 37)


@pytest.mark.parametrize(
    "seq, said",
    [
        (23, ["permission", "allowed", "action write", "resource notes/a.md", "remembered true"]),
        (41, ["memory_put", "address mem://session/", "scope session:", "bytes 55", "version 1"]),
        (16, ["loaded", "inventory", "references/style.md", "depth 2"]),
    ],
)
def test_permission_memory_and_skill_say_all_they_know(alice_client, one, seq, said):
    text = words(details(alice_client, one(TRACE), seq)).replace("{ 1 } ", "").replace("[ 1 ] ", "")
    for part in said:
        assert part in text, (part, text)


def test_texts_that_the_producer_cut_say_so(alice_client, one):
    assert "cuts such texts at 200 characters" in details(alice_client, one(EVERY), 1)


# Agent runs


def shown_runs(text: str) -> list[tuple[int, str]]:
    return [
        (int(depth), words(cell).partition(": ")[2])
        for depth, cell in re.findall(r'<tr(?: class="missing")? data-depth="(\d+)">\s*<th[^>]*>(.*?)</th>', text, re.S)
    ]


@pytest.mark.parametrize(
    "name", ["trace-260320_115602", "trace-260331_090000", "trace-260501_090000", "trace-261025_013000"]
)
def test_runs_stand_below_the_run_that_called_them(alice_client, one, name):
    session = one(f"agent_framework/{name}.jsonl")
    tree = runs.tree(session)["runs"]
    text = page(alice_client, path_of(session, "runs/"))
    assert shown_runs(text) == [(run["depth"], run["agent"]) for run in tree]
    assert text.count("left no line</span>") == sum(run["missing"] for run in tree)
    linked = [int(n) for n in re.findall(r'<th[^>]*>.*?href="[^"]*\?at=(\d+)#', text)]
    assert linked == [run["seq"] for run in tree if run["seq"]]


def test_a_caller_that_never_ended_has_a_place_and_says_so(alice_client, of_lines):
    def run(second, run_id, agent, caller):
        return {"timestamp": f"2026-05-01T09:00:{second:02d}+00:00", "run_id": run_id, "caller_id": caller,
                "agent_name": agent, "user_prompt": "x", "agent_decision": {"kind": "final_message"}}  # fmt: skip

    session = of_lines(run(3, "s.p1.root.critic", "critic", "root"), run(5, "s.p2.root", "root", "host"))
    text = page(alice_client, path_of(session, "runs/"))
    assert shown_runs(text) == [(0, "root"), (1, "critic"), (0, "root")]
    assert "left no line" in text and "1 caller left no line: it never ended" in words(text)


def test_a_run_says_what_it_called(alice_client, one):
    text = words(page(alice_client, path_of(one(TRACE), "runs/")))
    for said in ("agent researcher , critic ×2", "skill summarise-report ×2", "tool Write , Bash"):
        assert said in text, said


def test_twenty_thousand_runs_are_paged_and_more_are_cut_and_said(alice_client, one):
    session = one(TRACE)
    base, first = entry_id(session.pk, 0), AgentRun.objects.filter(id__gt=entry_id(session.pk, 0)).first()
    columns = projection.RUN_COLUMNS
    values = {name: getattr(first, name) for name in columns}
    AgentRun.objects.filter(id__gt=base).delete()
    insert(AgentRun, columns, (
        tuple((values | {"id": base + n, "run_id": f"s.p{n // 4 * 4}.root" + ".sub" * (n % 4)})[c] for c in columns)
        for n in range(1, 20_101)
    ))  # fmt: skip
    Session.objects.filter(pk=session.pk).update(run_count=20_100)
    text = page(alice_client, path_of(session, "runs/"))
    assert len(shown_runs(text)) == 500 and len(text) < 600_000
    assert "the first 20 000 lines of 20 100 runs" in words(text)
    places, address = [], path_of(session, "runs/")
    while address:
        text = page(alice_client, address)
        places.append(re.search(r"<span>([\d\u202f]+)–", text)[1].replace("\u202f", ""))
        later = re.search(r'href="([^"]+)" rel="next"', text)
        address = path_of(session, "runs/") + html.unescape(later[1]) if later and len(places) < 3 else ""
    assert places == ["1", "501", "1001"]
    inside = page(alice_client, path_of(session, "runs/"), **{"from": "3"})
    assert "continued from the page before" in inside


def test_a_session_without_runs_says_so(alice_client, one):
    assert "No agent runs" in page(alice_client, path_of(one("roomkit_session/one_line.jsonl"), "runs/"))


# Tools


def call_numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r'data-label="Number" class="number">(\d+)<', text)]


def test_the_table_of_calls_filters_and_sorts(alice_client, one):
    session = one(REAL)
    tools = path_of(session, "tools/")
    made = list(ToolCall.objects.filter(id__gt=entry_id(session.pk, 0)).order_by("number"))
    made = [call for call in made if call.id <= entry_id(session.pk, session.last_seq)]
    assert call_numbers(page(alice_client, tools)) == [call.number for call in made] == list(range(1, 11))
    assert call_numbers(page(alice_client, tools, tool="broken")) == [c.number for c in made if c.tool == "broken"]
    assert call_numbers(page(alice_client, tools, status="denied")) == [5]
    assert call_numbers(page(alice_client, tools, failed="1")) == [c.number for c in made if c.failed]
    assert call_numbers(page(alice_client, tools, failed="0")) == [c.number for c in made if not c.failed]
    assert call_numbers(page(alice_client, tools, agent="nobody")) == []
    slow = call_numbers(page(alice_client, tools, sort="-duration"))
    timed = sorted((c for c in made if c.duration_ms is not None), key=lambda c: -c.duration_ms)
    assert slow[: len(timed)] == [c.number for c in timed] and len(slow) == 10
    assert alice_client.get(tools, {"sort": "zap"}).status_code == 400


def test_pages_of_calls_join_without_a_gap(alice_client, one):
    session = one("roomkit_tool/many_1000.jsonl")
    for sort in ("number", "-duration"):
        found, address = [], path_of(session, f"tools/?sort={sort}")
        while address:
            text = page(alice_client, address)
            found += call_numbers(text.replace("\u202f", ""))
            later = re.search(r'href="([^"]+)" rel="next"', text)
            address = path_of(session, "tools/") + html.unescape(later[1]) if later else ""
        assert sorted(found) == list(range(1, 1001))


def test_totals_tell_failures_from_refusals(alice_client, one):
    text = page(alice_client, path_of(one(REAL), "tools/"))
    totals = re.search(r'<table class="table stacks tool-totals">(.*?)</table>', text, re.S)[1]
    lines = {words(line).split()[0]: words(line) for line in re.findall(r"<tr>(.*?)</tr>", totals, re.S)[1:]}
    assert lines["broken"] == "broken 3 ✗2 ✗1 – –"
    assert lines["dangerous"] == "dangerous 1 0 ✗1 – –"
    assert lines["look_up"].startswith("look_up 5 0 ✗1 1 ms of 4")


def test_a_call_shows_what_was_decided_of_it(alice_client, one):
    text = page(alice_client, path_of(one(REAL), "tools/"))
    assert re.search(r'class="mark loud"[^>]*>policy deny<', text)
    assert text.count("loop block") == 2 and "loop ok" not in text and "loop warning" in text
    assert "no outcome" in page(alice_client, path_of(one(EVERY), "tools/"))


# Records


def test_permissions_and_the_grants_in_force(alice_client, one):
    text = words(page(alice_client, path_of(one(TRACE), "records/")))
    grants = text.partition("Grants in force")[2].partition("Permissions asked for")[0]
    assert "Write write notes/a.md remembered for the session since" in grants and "Bash" not in grants
    for said in ("Bash denied Execute: echo hi execute", "web_fetch denied", "session:80c1effe-dfc 3 104 bytes",
                 "memory_update Topic A mem://session/80c1effe-dfc/notes/topic-a"):  # fmt: skip
        assert said in text, said


def test_tasks_and_observations_of_a_room(alice_client, of_lines):
    def task(status):
        return {"id": "t1", "room_id": "r", "title": "Call <b>back</b>", "description": "d", "assigned_to": "mia",
                "status": status, "created_at": "2026-11-20T09:00:00Z", "metadata": {}}  # fmt: skip

    seen = {"id": "o1", "room_id": "r", "channel_id": "watch", "content": "sounds unhappy", "category": "sentiment",
            "confidence": 0.82, "created_at": "2026-11-20T09:01:00Z", "metadata": {}}  # fmt: skip
    session = of_lines(task("pending"), task("completed"), seen)
    raw = page(alice_client, path_of(session, "records/"))
    text = words(raw)
    assert "Call <b>back</b> completed mia 2026-11-20 09:00:00 UTC" in text and "<b>back" not in raw
    assert "sounds unhappy sentiment 82 % watch" in text and "pending" not in text
    assert "Records 3" in text


def test_nothing_kept_is_said(alice_client, one):
    assert "No records" in page(alice_client, path_of(one("roomkit_session/one_line.jsonl"), "records/"))


# All of it


@pytest.mark.parametrize("part", ["runs/", "tools/", "records/"])
@pytest.mark.parametrize(
    "name",
    ["dirty/wrong_types.jsonl", "dirty/all_formats_concatenated.jsonl", "agent_framework/trace-260704_081500.jsonl"],
)
def test_every_part_of_any_session_opens(alice_client, import_sample, name, part):
    for session in import_sample(name).sessions.all():
        text = page(alice_client, path_of(session, part))
        assert " style=" not in text and "<script>" not in text


def test_the_script_knows_the_same_stages_as_the_projection():
    from tests.test_pages_sessions import JS

    source = (JS.parent.parent / "static/js/row.js").read_text()
    listed = re.search(r"export const STAGES = \{(.*?)\};", source, re.S)[1]
    found = {name.strip('"'): stage for name, stage in re.findall(r'([\w":]+): "(\w+)"', listed)}
    assert found == STAGES
    quiet = re.search(r"const HEALTHY = new Set\(\[([^\]]*)\]\)", source)[1]
    assert set(re.findall(r'"([^"]*)"', quiet)) == projection.HEALTHY


def test_a_call_whose_steps_are_gone_still_opens(alice_client, one):
    session = one(EVERY)
    ToolStep.objects.filter(call=entry_id(session.pk, 4)).delete()
    assert "web_search" in details(alice_client, session, 4)
