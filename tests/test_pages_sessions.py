"""The sessions list, the session page and the page of one event, as they are before scripts run."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.template.loader import render_to_string
from hypothesis import given, settings
from hypothesis import strategies as st

from auditweb import client_wheel
from auditweb.formats import LANES, peek
from auditweb.teams.models import AuditRecord
from sessions_app import timeline
from sessions_app.chains import STAGES
from sessions_app.models import Session
from sessions_app.projection import FAILED
from sessions_app.templatetags.timeline import RUN_LABELS, TREE_CHILDREN, TREE_DEPTH, json_tree

pytestmark = pytest.mark.django_db
JS = Path(__file__).parent / "js"


def page(client, path, **query):
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content[:300]
    return answer.content.decode()


def session_of(dump) -> Session:
    return dump.sessions.get()


def path_of(session) -> str:
    return f"/sessions/{session.public_id}/"


def seqs(text: str) -> list[int]:
    return [int(n) for n in re.findall(r'<article class="row[^>]*data-seq="(\d+)"', text)]


class Shape(HTMLParser):
    """Tags with sorted attributes and the text between them, without what differs by design: places in the list."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.parts = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        kept = sorted(
            (n, v or "") for n, v in attrs if n not in ("aria-posinset", "aria-setsize") and (n, v) != ("class", "")
        )
        self.parts.append((tag, kept))

    def handle_endtag(self, tag):
        self.parts.append(("/" + tag, []))

    def handle_data(self, data):
        if data.strip():
            self.parts.append(("text", data))


def drawn_by_script(rows: list[dict]) -> list[str]:
    node = shutil.which("node")
    assert node, "node is not installed; `make test` installs it"
    wanted = json.dumps([{"row": row, "gap": row.get("gap"), "outcome": row.get("outcome")} for row in rows])
    done = subprocess.run([node, str(JS / "draw_rows.mjs")], input=wanted, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def drawn_by_server(row: dict) -> str:
    return render_to_string("sessions/_row.html", {"row": row})


def assert_drawn_alike(rows):
    for row, theirs in zip(rows, drawn_by_script(rows), strict=True):
        assert Shape(drawn_by_server(row)).parts == Shape(theirs).parts, row


# One row, drawn twice


@pytest.mark.parametrize(
    "name",
    [
        "roomkit_session/tiny_doc_example.jsonl",
        "roomkit_session/hostile_text.jsonl",
        "roomkit_session/manual_entries.jsonl",
        "roomkit_mixed/session_status_tool.jsonl",
        "roomkit_tool/all_statuses.jsonl",
        "dirty/wrong_types.jsonl",
        "dirty/timestamps_zoo.jsonl",
        "dirty/unknown_types.jsonl",
        "xerxes/real_runtime.jsonl",
        "xerxes/every_event.jsonl",
        "agent_framework/trace-260320_115602.jsonl",
        "agent_framework/trace-260501_090000.jsonl",
        "other/agent_framework_host_log.jsonl",
        "other/roomkit_timeline.jsonl",
    ],
)
def test_server_and_script_draw_the_same_row(import_sample, name):
    outcomes = [None, {"status": "?", "ms": None}, {"status": "failed", "ms": 0}, {"status": "", "ms": 812.5}]
    for session in import_sample(name).sessions.all():
        rows = timeline.rows_after(session.pk, 0, 500)
        for i, row in enumerate(rows):
            row["outcome"] = outcomes[i % 4]
            row["gap"] = [None, 0.0, 999.9, 1000.0, 2049.9, 59_949.0, 59_950.0, 4e6][i % 8]
        assert len(rows) == session.event_count
        assert_drawn_alike(rows)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "seq": st.integers(1, 4) | st.integers(1, 2**32 - 1),
                "at": st.sampled_from([None, "2026-03-20T11:56:02.118204Z"]),
                "ts": words, "ts_quality": st.sampled_from(["aware", "inferred", "assumed", "missing"]),
                "kind": words | st.sampled_from([*STAGES, *RUN_LABELS, "event:", "event:zap", "trace:llm.request"]),
                "lane": st.sampled_from([*LANES, "from_the_future"]), "role": words, "agent": words, "tool": words,
                "status": st.sampled_from(["", "ok", "FAILED", "pending", "completed", "info"]) | words,
                "duration_ms": st.none() | st.floats(0, 1e13), "text": words | st.just("😀" * 401),
                "cut": st.sampled_from([None, 500]), "flags": st.lists(st.sampled_from(["nul", "more", "surrogate"])),
                "gap": st.none() | st.floats(0, 1e7), "call": st.none() | st.integers(1, 4),
                "severity": st.sampled_from(["", "info", "Warning", "CRITICAL"]) | words, "depth": st.integers(0, 9),
                "visibility": st.sampled_from(["", "all", "internal", "transport"]) | words,
                "outcome": st.none()
                | st.fixed_dictionaries({"status": st.sampled_from(["", "?", "ok", "failed", "zap"]),
                                         "ms": st.none() | st.integers(0, 10**9)}),
            }
        ),
        min_size=20,
        max_size=40,
    )
)  # fmt: skip
def test_server_and_script_draw_any_row_alike(rows):
    assert_drawn_alike(rows)


def test_a_failure_is_the_same_for_the_script_the_page_and_the_counters():
    source = (JS.parent.parent / "static/js/row.js").read_text()
    listed = re.search(r"const FAILED = new Set\(\[([^\]]*)\]\)", source)[1]
    assert set(re.findall(r'"([^"]+)"', listed)) == FAILED


# A session without scripts


def test_a_session_page_is_whole_before_scripts_run(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    text = page(alice_client, path_of(session))
    assert seqs(text) == list(range(1, 9))
    for words in ("Open Google Chrome and search for roomkit", "2 user 2 assistant", "1 tool", "1 interruption",
                  "screen-assistant", "rt-voice", "user-1", "tiny_doc_example.jsonl", "+2.0 s"):  # fmt: skip
        assert words in text, words
    assert "<script>" not in text and " style=" not in text and "onclick" not in text


def test_a_page_of_rows_leads_through_the_whole_session_in_display_order(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/big_5000.jsonl"))
    wanted = [
        pk & 0xFFFFFFFF
        for pk in session.events.order_by("sort_us", "dump_id", "line", "id").values_list("id", flat=True)
    ]
    found, path = [], path_of(session)
    for _ in range(30):
        text = page(alice_client, path)
        found += seqs(text)
        later = re.search(r'href="([^"]+)" rel="next"', text)
        if not later:
            break
        path = html.unescape(later[1])
    assert found == wanted
    earlier = html.unescape(re.search(r'href="([^"]+)" rel="prev"', text)[1])
    assert seqs(page(alice_client, earlier)) == wanted[4600:4800]


def test_a_permalink_opens_the_page_around_its_event_with_its_details(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/big_5000.jsonl"))
    text = page(alice_client, path_of(session), at=2500)
    assert 2500 in seqs(text) and len(seqs(text)) == 200
    assert re.search(r'class="row[^"]* selected" id="e2500"', text)
    assert 'id="event-raw"' in text
    assert "There is no event 99999" in page(alice_client, path_of(session), at=99_999)


def test_filters_work_as_links_and_say_when_nothing_passes(alice_client, import_sample):
    session = session_of(import_sample("roomkit_mixed/session_status_tool.jsonl"))
    tools = page(alice_client, path_of(session), lane="tool")
    assert len(seqs(tools)) == session.tool_calls
    failed = page(alice_client, path_of(session), lane="tool", status="failed")
    assert len(seqs(failed)) == session.tool_failures
    chip = html.unescape(re.search(r'data-value="tool" href="([^"]+)"\s+aria-current="true"', tools)[1])
    assert "lane" not in chip
    assert seqs(page(alice_client, path_of(session), q="no such words here")) == []
    assert "No event passes these filters" in page(alice_client, path_of(session), q="no such words here")


def test_times_without_a_zone_are_announced(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/v058_tiny_toronto.jsonl"))
    assert "are read as −04:00, inferred" in page(alice_client, path_of(session))


def test_text_of_a_dump_stays_text(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/hostile_text.jsonl"))
    pages = [page(alice_client, path_of(session), at=n) for n in range(1, session.last_seq + 1)]
    pages += [page(alice_client, f"{path_of(session)}events/{n}/") for n in range(1, session.last_seq + 1)]
    for text in [*pages, page(alice_client, "/")]:
        for markup in ("<script>alert", "<img src=x", "<svg onload", "<b>1</b>", "echo<i>"):
            assert markup not in text


def test_the_summary_shows_what_roomkit_prints(alice_client, import_sample):
    from sessions_app import summary

    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    summary.make(session)
    text = page(alice_client, path_of(session), fragment="summary")
    shown = html.unescape(re.search(r'<pre id="summary-session"[^>]*>\n(.*?)</pre>', text, re.S)[1])
    assert shown == b"".join(summary.text(session)).decode()
    assert shown in html.unescape(page(alice_client, path_of(session), tab="summary"))


# One event


def test_the_details_hold_the_raw_line_exactly(alice_client, import_sample, sample):
    lines = sample("roomkit_session/hostile_text.jsonl").read_text().splitlines()
    session = session_of(import_sample("roomkit_session/hostile_text.jsonl"))
    for number in (3, 5, 9):
        text = page(alice_client, f"{path_of(session)}events/{number}/", fragment="1")
        exact = html.unescape(re.search(r'id="event-raw"[^>]*data-exact="([^"]*)"', text)[1])
        assert json.loads(exact) == lines[number - 1]


def test_the_details_of_a_tool_say_when_it_started_and_how_it_is_known(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    text = page(alice_client, f"{path_of(session)}events/4/", fragment="1")
    assert "<html" not in text
    assert re.search(r"11:56:13</time>, the stamp of the line", text)
    assert re.search(r"11:56:07</time>, the stamp less the duration", text)
    assert "2026-03-20T11:56:13.404204+00:00" in text
    assert "5885.999999999967" in text  # the object keeps the spelling of its numbers


def test_events_lead_to_their_neighbours(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    text = page(alice_client, f"{path_of(session)}events/4/")
    assert f'rel="prev" href="{path_of(session)}events/3/"' in text
    assert f'rel="next" href="{path_of(session)}events/5/"' in text


def test_a_line_in_trouble_says_so_in_words(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/hostile_text.jsonl"))
    assert "databases cannot hold it" in page(alice_client, f"{path_of(session)}events/3/")


def test_a_tree_keeps_numbers_as_written_and_says_what_it_leaves_out():
    assert "1.10" in json_tree(peek(b'{"a": 1.10}'))
    assert "123456789012345678901234567890" in json_tree(peek(b'{"a": 123456789012345678901234567890}'))
    assert "NaN" in json_tree(peek(b'{"a": NaN}'))
    wide = json_tree(list(range(TREE_CHILDREN + 7)))
    assert wide.count("json-number") == TREE_CHILDREN and "7 more" in wide
    deep = value = []
    for _ in range(TREE_DEPTH + 3):
        value.append([])
        value = value[0]
    assert "see the raw line" in json_tree(deep)
    assert len(json_tree([[list(range(50))] * 50] * 50)) < 200_000
    assert "&lt;b&gt;" in json_tree({"<b>": "<i>"}) and "<b>" not in json_tree({"<b>": "<i>"})


# Who may see


@pytest.mark.parametrize("path", ["", "?fragment=head", "?fragment=summary", "events/1/", "events/1/?fragment=1"])
def test_a_strangers_session_answers_like_one_that_never_was(bob_client, import_sample, path):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    foreign = bob_client.get(path_of(session) + path)
    missing = bob_client.get(f"/sessions/{'x' * 22}/{path}")
    assert foreign.status_code == missing.status_code == 404
    scrub = lambda answer: answer.content.replace(session.public_id.encode(), b"").replace(b"x" * 22, b"")  # noqa: E731
    assert re.sub(rb"csrf[^>]*>", b"", scrub(foreign)) == re.sub(rb"csrf[^>]*>", b"", scrub(missing))


def test_a_list_holds_nothing_of_others(bob_client, import_sample):
    import_sample("roomkit_session/tiny_doc_example.jsonl")
    text = page(bob_client, "/")
    assert "tiny_doc_example" not in text and "No sessions yet" in text and "Live 0" in text


def test_whoever_is_not_signed_in_is_sent_to_sign_in(client, import_sample):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    for path in ("/", path_of(session), f"{path_of(session)}events/1/"):
        assert client.get(path).status_code == 302


def test_looking_at_a_session_is_recorded_once(alice_client, import_sample):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    for _ in range(3):
        page(alice_client, path_of(session))
    assert AuditRecord.objects.filter(action="view", target_id=session.public_id).count() == 1


@pytest.mark.parametrize(
    "query",
    ["at=99999999999999999999", "at=x", "at=%00", "from=-1", "before=0", "tab=zap", "lane=%00", "q=%ED%A0%80",
     "fragment=zap", "status=ok"],
)  # fmt: skip
def test_odd_addresses_are_answered_without_a_fault(alice_client, import_sample, query):
    session = session_of(import_sample("roomkit_session/tiny_doc_example.jsonl"))
    assert alice_client.get(f"{path_of(session)}?{query}").status_code in (200, 400)


# The list


def titles(text: str) -> list[str]:
    return re.findall(r'class="session-title"><a [^>]*>([^<]*)</a>', text)


def test_the_list_counts_searches_and_sorts(alice_client, import_sample):
    for name in ("tiny_doc_example", "long_results", "multi_party"):
        import_sample(f"roomkit_session/{name}.jsonl")
    import_sample("roomkit_mixed/session_status_tool.jsonl")
    assert "1–4 of 4" in page(alice_client, "/")
    assert titles(page(alice_client, "/", sort="title")) == [
        "long_results",
        "multi_party",
        "session_status_tool",
        "tiny_doc_example",
    ]
    assert titles(page(alice_client, "/", sort="-tools"))[0] == "session_status_tool"
    assert titles(page(alice_client, "/", sort="duration"))[0] == "tiny_doc_example"
    assert titles(page(alice_client, "/", q="tool:describe_screen has:interruption TINY")) == ["tiny_doc_example"]
    assert titles(page(alice_client, "/", q="agent:screen-assistant")) == ["tiny_doc_example"]
    assert titles(page(alice_client, "/", q='"google chrome"')) == ["tiny_doc_example"]
    assert titles(page(alice_client, "/", q="has:status")) == ["session_status_tool"]
    assert "No session matches" in page(alice_client, "/", q="has:zap")
    assert "No session matches" in page(alice_client, "/", live="1")


def test_pages_of_the_list_join_without_a_gap(alice_client, team):
    Session.objects.bulk_create(
        [Session(team=team, key=f"k{i}", title=f"s {i:03d}", first_us=None if i % 3 else i) for i in range(120)]
    )
    for sort in ("title", "-started", "duration"):
        found, path = [], f"/?sort={sort}"
        for place in ("1–50 of 120", "51–100 of 120", "101–120 of 120"):
            text = page(alice_client, path)
            assert place in text
            itself = html.unescape(re.search(r'data-rows-url="([^"]+)"', text)[1])
            assert titles(page(alice_client, itself)) == titles(text)
            found += titles(text)
            later = re.search(r'href="([^"]+)" rel="next"', text)
            path = html.unescape(later[1]) if later else ""
        assert not path and len(set(found)) == len(found) == 120


def test_an_unchanged_list_is_answered_without_a_body(alice_client, import_sample):
    import_sample("roomkit_session/tiny_doc_example.jsonl")
    first = alice_client.get("/?fragment=rows")
    assert first.status_code == 200 and b"<html" not in first.content
    again = alice_client.get("/?fragment=rows", headers={"If-None-Match": first["ETag"]})
    assert again.status_code == 304 and not again.content
    import_sample("roomkit_session/multi_party.jsonl")
    changed = alice_client.get("/?fragment=rows", headers={"If-None-Match": first["ETag"]})
    assert changed.status_code == 200 and b"multi_party" in changed.content


@pytest.mark.parametrize("query", ["sort=zap", "cursor=zap", "q=%00", "n=zap", "live=zap"])
def test_an_odd_query_of_the_list_is_a_bad_request(alice_client, query):
    assert alice_client.get(f"/?{query}").status_code == 400


def test_an_empty_list_shows_three_ways_in(alice_client, settings):
    settings.PUBLIC_URL = "https://audit.example.org"
    text = html.unescape(page(alice_client, "/"))
    assert "Drop a file" in text and "Load the demo sessions" in text
    assert "auditweb follow 'logs/*.jsonl' --team red<" in text
    assert "auditweb demo --live --team red<" in text
    assert f"pip install http://testserver/clients/{client_wheel.NAME}<" in text
    assert 'SessionAuditor("http://testserver", "KEY", agent="voice-7")' in text
    assert "AUDITWEB_DATA" not in text


def test_commands_name_a_data_directory_that_is_not_the_usual_one(alice_client, settings):
    settings.PUBLIC_URL, settings.DATA_DIR = "", Path("/srv/my audits")
    assert "AUDITWEB_DATA='/srv/my audits' " in html.unescape(page(alice_client, "/"))
