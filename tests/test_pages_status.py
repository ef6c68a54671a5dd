"""Pages of status logs: the feed, its filters, the texts of the producer, and what arrives while a page is open."""

import html
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from auditweb.dumps import jobs, streams
from auditweb.dumps.models import Dump
from auditweb.teams.models import AuditRecord
from sessions_app import status_lane
from sessions_app.models import Session
from status_app import posts, summary
from status_app.models import StatusBus, StatusSummary

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    """What a person reads: no tags, entities resolved, blanks folded."""
    body = re.sub(r"(?s)<(script|template).*?</\1>|<[^>]+>", " ", response.content.decode())
    return " ".join(html.unescape(body).split())


def seqs(response) -> list[int]:
    return [int(seq) for seq in re.findall(r'data-seq="(\d+)"', response.content.decode())]


def post(action: str, status: str = "ok", second: int = 0, agent: str = "exec", detail: str = "") -> bytes:
    entry = {
        "ts": f"2026-01-01T10:00:{second:02d}+00:00",
        "agent_id": agent,
        "action": action,
        "status": status,
        "detail": detail,
        "metadata": {},
    }
    return json.dumps(entry).encode() + b"\n"


@pytest.fixture
def bus(import_bytes):
    """A log of five entries; the third in the file is the earliest."""
    import_bytes(
        post("open", "pending", 10)
        + post("open", "completed", 20)
        + post("start", "info", 5)
        + post("read", "failed", 30, agent="vision", detail="<script>window.__xss = 1</script>")
        + post("write", "ok", 40)
    )
    return StatusBus.objects.get()


def test_the_list_counts_each_level(alice_client, import_sample):
    import_sample("roomkit_status/orchestration.jsonl")
    text = text_of(alice_client.get("/status/"))
    assert "orchestration.jsonl 18 x failed 1 ? pending 9 ~ info 1 * completed 7 4" in text
    assert "No status log matches" in text_of(alice_client.get("/status/?q=zzz"))


def test_the_feed_is_in_order_of_time_either_way(alice_client, bus):
    assert seqs(alice_client.get(f"/status/{bus.public_id}/")) == [5, 4, 2, 1, 3]
    assert seqs(alice_client.get(f"/status/{bus.public_id}/?order=oldest")) == [3, 1, 2, 4, 5]


def test_an_entry_shows_icon_word_agent_action_and_detail_escaped(alice_client, bus):
    response = alice_client.get(f"/status/{bus.public_id}/")
    assert "2026-01-01 10:00:30 UTC x failed vision read <script>" in html.unescape(
        " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())
    )
    assert "<script>window" not in response.content.decode()


def test_agent_status_and_text_filter_the_feed(alice_client, bus):
    address = f"/status/{bus.public_id}/"
    assert seqs(alice_client.get(address, {"agent": "vision"})) == [4]
    assert seqs(alice_client.get(address, {"status": "pending"})) == [1]
    assert seqs(alice_client.get(address, {"q": "OPEN"})) == [2, 1]
    assert "No entry matches" in text_of(alice_client.get(address, {"q": "nothing-like-this"}))


def test_pages_of_the_feed_show_every_entry_once(alice_client, import_sample, monkeypatch):
    monkeypatch.setattr("status_app.views.FEED", 150)
    import_sample("roomkit_status/many_700.jsonl")
    bus = StatusBus.objects.get()
    seen, address = [], f"/status/{bus.public_id}/"
    while address:
        response = alice_client.get(address)
        seen += seqs(response)
        more = re.search(r'href="([^"]+)" rel="next"', response.content.decode())
        address = html.unescape(more[1]) if more else ""
    assert len(seen) == 700
    assert sorted(seen) == list(range(1, 701))


def test_news_are_the_entries_after_a_seq_with_the_filters_kept(alice_client, bus):
    address = f"/status/{bus.public_id}/"
    news = alice_client.get(address, {"after": 3, "fragment": 1})
    assert seqs(news) == [4, 5]
    assert 'data-after="5"' in news.content.decode()
    assert "<html" not in news.content.decode()
    assert seqs(alice_client.get(address, {"after": 3, "fragment": 1, "agent": "vision"})) == [4]
    assert seqs(alice_client.get(address, {"after": 5, "fragment": 1})) == []


def test_many_news_come_in_portions(alice_client, bus, monkeypatch):
    monkeypatch.setattr("status_app.views.NEWS", 2)
    body = alice_client.get(f"/status/{bus.public_id}/", {"after": 0, "fragment": 1}).content.decode()
    assert 'data-after="2" data-more="1"' in body


def test_the_texts_are_those_that_the_producer_prints(alice_client, import_sample, sample):
    import_sample("roomkit_status/orchestration.jsonl")
    bus = StatusBus.objects.get()
    body = alice_client.get(f"/status/{bus.public_id}/").content.decode()
    for name in ("recent", "summary"):
        shown = html.unescape(re.search(rf'(?s)<pre[^>]*id="{name}-text"[^>]*>\n(.*?)</pre>', body)[1])
        stem = "recent_text" if name == "recent" else "summary"
        golden = sample(f"roomkit_status/orchestration.{stem}.txt").read_text("utf-8")
        assert shown == (golden.removesuffix("\n") if name == "recent" else golden)


def test_the_page_links_the_dump_and_the_sessions(alice_client, import_sample):
    dump = import_sample("roomkit_mixed/session_status_tool.jsonl")
    bus = StatusBus.objects.get()
    body = alice_client.get(f"/status/{bus.public_id}/").content.decode()
    assert f'href="/dumps/{dump.public_id}/"' in body
    for session in bus.sessions.all():
        assert session.public_id in body


def test_a_stranger_gets_the_answer_of_a_log_that_never_was(bob_client, bus):
    assert bus.title not in text_of(bob_client.get("/status/"))
    foreign = bob_client.get(f"/status/{bus.public_id}/")
    missing = bob_client.get(f"/status/{'0' * 22}/")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert text_of(foreign) == text_of(missing)
    assert bob_client.get(f"/status/{bus.public_id}/?after=0&fragment=1").status_code == 404


def test_somebody_who_is_not_signed_in_is_sent_to_the_sign_in_page(client, bus):
    assert client.get("/status/").status_code == 302
    assert client.get(f"/status/{bus.public_id}/?after=0&fragment=1").status_code == 302


def test_odd_addresses_are_refused_in_words(alice_client, bus):
    for query in ("order=sideways", "cursor=made-up", "q=%00", "fragment=maybe", "after=x&fragment=1"):
        assert alice_client.get(f"/status/{bus.public_id}/?{query}").status_code == 400
    assert alice_client.get(f"/status/{bus.public_id}/?fragment=1&after={'9' * 400}").status_code == 200


def test_looking_at_a_log_is_recorded_once(alice_client, bus):
    for query in ("", "?q=open", "?after=0&fragment=1"):
        alice_client.get(f"/status/{bus.public_id}/{query}")
    assert AuditRecord.objects.filter(action="view", target_id=bus.public_id).count() == 1


def test_no_page_carries_inline_script_or_style(alice_client, bus):
    for path in ("/status/", f"/status/{bus.public_id}/"):
        body = alice_client.get(path).content.decode()
        assert not re.search(r"<[^>]+\s(style|on\w+)=", body)
        assert not re.search(r"<script(?![^>]* src=)", body)


# What belongs together, and whether it goes on ----------------------------------------------------------------------


def entry_of(response, seq: int) -> str:
    """What a person reads of one entry."""
    found = re.search(rf'(?s)<li class="feed-entry[^"]*" id="e{seq}".*?</li>', response.content.decode())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found[0])).split())


@pytest.fixture
def live_bus(team):
    """A log that agents post to: a pending entry, and a while ago one that was completed."""
    now = datetime.now(UTC)

    def say(seconds_ago, action, status):
        stamp = (now - timedelta(seconds=seconds_ago)).isoformat()
        return json.dumps({"ts": stamp, "agent_id": "exec", "action": action, "status": status}).encode()

    lines = posts.read(
        b"\n".join([say(100, "open", "pending"), say(95.8, "open", "completed"), say(90, "go", "pending")])
    )
    posts.append(team, "office", "", lines)
    return StatusBus.objects.get(name="office")


def test_a_pending_entry_and_its_end_lead_to_each_other(alice_client, live_bus):
    page = alice_client.get(f"/status/{live_bus.public_id}/")
    assert entry_of(page, 1).endswith("→ completed after 4.2 s")
    assert entry_of(page, 2).endswith("← pending for 4.2 s")
    assert re.search(r"pending for 1m 3\ds$", entry_of(page, 3))
    body = page.content.decode()
    assert '<a class="tie" href="#e2">' in body and '<a class="tie" href="#e1">' in body
    assert re.search(r'data-since="\d{13}"', body)
    filtered = alice_client.get(f"/status/{live_bus.public_id}/?status=pending").content.decode()
    assert f'href="/status/{live_bus.public_id}/?at=2#e2"' in filtered, "its end is not on this page"
    assert seqs(alice_client.get(f"/status/{live_bus.public_id}/?at=2")) == [2, 1]
    assert seqs(alice_client.get(f"/status/{live_bus.public_id}/?at=2&order=oldest")) == [2, 3]


def test_what_is_posted_while_a_page_is_open_brings_what_it_ends(alice_client, live_bus, team):
    end = json.dumps({"agent_id": "exec", "action": "go", "status": "ok"}).encode()
    posts.append(team, "office", "", posts.read(end))
    news = alice_client.get(f"/status/{live_bus.public_id}/?fragment=1&after=3")
    assert seqs(news) == [4, 3]
    assert "→ ok after" in entry_of(news, 3)
    assert 'id="agent-lanes"' in news.content.decode()
    assert "exec: go → ok" in text_of(news)


def test_posts_in_the_shadow_of_a_completed_one_are_marked_and_counted(alice_client, import_bytes):
    import_bytes(post("a", "completed", 10) + post("b", "pending", 14) + post("b", "pending", 16))
    page = alice_client.get(f"/status/{StatusBus.objects.get().public_id}/")
    assert "↻ 1 delegated again within 5 s" in text_of(page)
    assert "↻ delegated again 4.0 s after completed" in entry_of(page, 2)
    assert "↻" not in entry_of(page, 3)
    assert entry_of(page, 3).endswith("no end was posted"), "nothing is pending for ever in a log that is over"
    assert len(re.findall('class="shadow"', page.content.decode())) == 1


def test_a_log_is_live_then_silent_then_ended(alice_client, live_bus):
    def says(query="fragment=state"):
        return text_of(alice_client.get(f"/status/{live_bus.public_id}/?{query}"))

    assert says() == "live"
    assert "office live" in text_of(alice_client.get("/status/"))
    dump = live_bus.dumps.get()
    Dump.objects.update(heartbeat_at=timezone.now() - timedelta(seconds=31))
    assert says().startswith("silent since 20")
    streams.end(dump)
    assert says().startswith("ended 20")
    assert "data-since" not in alice_client.get(f"/status/{live_bus.public_id}/").content.decode()
    posts.append(
        dump.team, "office", "", posts.read(json.dumps({"agent_id": "a", "action": "b", "status": "ok"}).encode())
    )
    assert says() == "live", "a post opens it again"


def test_a_history_of_exactly_as_much_as_roomkit_remembers_may_be_cut(alice_client, import_bytes, team):
    lines = b"".join(post(f"a{n}", second=n % 60) for n in range(501)).splitlines(keepends=True)
    cut = import_bytes(b"".join(lines[:500])).status_buses.get()
    whole = import_bytes(b"".join(lines[1:]) + lines[0]).status_buses.get()
    posts.append(team, "posted", "", posts.read(b"".join(lines[:500])))
    said = {
        bus.public_id: "history may be cut at 500" in text_of(alice_client.get(f"/status/{bus.public_id}/"))
        for bus in StatusBus.objects.all()
    }
    posted = StatusBus.objects.get(name="posted").public_id
    assert said == {cut.public_id: True, whole.public_id: False, posted: False}
    gaps = [{"after": 0, "why": "the list is full"}, {"after": 501, "why": "the list was emptied"}]
    Dump.objects.filter(status_buses=whole).update(checkpoint={"gaps": gaps})  # as a relay notes them
    page = alice_client.get(f"/status/{whole.public_id}/")
    assert "history may be cut at 500 entries may be missing" in text_of(page)
    assert 'title="the list was emptied (after line 501 of ' in page.content.decode()


def test_the_texts_of_a_long_log_are_those_of_its_last_entries(import_sample, sample):
    bus = import_sample("roomkit_status/many_700.jsonl").status_buses.get()
    assert bus.entry_count > summary.MEMORY
    golden = sample("roomkit_status/many_700.summary.txt").read_bytes()
    StatusSummary.objects.all().delete()
    assert b"".join(summary.text(bus)) == golden


# Beside a session ---------------------------------------------------------------------------------------------------


@pytest.fixture
def session(import_bytes):
    """A call from 10:00:00 to 10:00:30 with one post of its own."""
    said = {"type": "speech", "role": "user", "content": "Hi", "duration_ms": 0, "metadata": {}}
    stamps = ("2026-01-01T10:00:00+00:00", "2026-01-01T10:00:30+00:00")
    lines = [json.dumps({"ts": stamp} | said).encode() + b"\n" for stamp in stamps]
    return import_bytes(lines[0] + post("own", second=5) + lines[1], "call.jsonl").sessions.get()


@pytest.fixture
def office(import_bytes):
    """A log of other agents: posts before, in and after the time of the session."""
    early = post("early", second=0).replace(b"10:00:00", b"09:59:59")
    data = early + post("in", "pending", 10, "voice", "x" * 400) + post("out", second=31)
    return import_bytes(data, "office.jsonl").status_buses.get()


def lane(client, session, **query):
    return client.get(f"/api/v1/sessions/{session.public_id}/status", query).json()


def test_a_linked_log_gives_a_session_the_posts_of_its_time(alice_client, session, office):
    assert lane(alice_client, session)["bus"] is None, "its own posts are its events"
    path = f"/api/v1/sessions/{session.public_id}/status"
    linked = alice_client.patch(path, {"bus": office.public_id}, content_type="application/json")
    assert linked.json() == lane(alice_client, session)
    assert (linked.json()["bus"], linked.json()["open"], linked.json()["last_seq"]) == (office.public_id, False, 3)
    assert linked.json()["columns"] == {
        "seq": [2], "at_ms": [10_000], "agent": ["voice"], "state": ["pending"], "action": ["in"],
        "detail": ["x" * 300],
    }  # fmt: skip
    assert lane(alice_client, session, after=2)["columns"]["seq"] == []
    Session.objects.update(live=True)
    assert (lane(alice_client, session)["columns"]["seq"], lane(alice_client, session)["open"]) == ([2, 3], True)
    assert AuditRecord.objects.filter(action="link", target_id=session.public_id).count() == 1
    alice_client.patch(path, {"bus": None}, content_type="application/json")
    assert lane(alice_client, session)["bus"] is None
    assert Session.objects.get().status_bus.entry_count == 1, "its own log again"


def test_only_logs_of_the_team_can_be_linked_and_only_by_reviewers(
    alice_client, victor_client, bob_client, session, office, other_team
):
    path = f"/api/v1/sessions/{session.public_id}/status"
    foreign = StatusBus.objects.create(team=other_team, name="foreign")
    before = Session.objects.get().status_bus_id
    for name in ("foreign", foreign.public_id, "0" * 22, "\0"):
        answer = alice_client.patch(path, {"bus": name}, content_type="application/json")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")
    assert victor_client.patch(path, {"bus": office.name}, content_type="application/json").status_code == 403
    assert bob_client.patch(path, {"bus": "foreign"}, content_type="application/json").status_code == 404
    page = f"/sessions/{session.public_id}/status/"
    assert victor_client.post(page, {"bus": office.public_id}).status_code == 403
    assert bob_client.post(page, {"bus": foreign.public_id}).status_code == 404
    assert alice_client.post(page, {"bus": foreign.public_id}).status_code == 400
    assert Session.objects.get().status_bus_id == before


def test_the_page_beside_a_session_links_and_shows(alice_client, victor_client, session, office):
    page = f"/sessions/{session.public_id}/status/"
    assert seqs(alice_client.get(page)) == [1], "its own post"
    assert "In the time of this session" in alice_client.get(page).content.decode()
    assert alice_client.post(page, {"bus": office.public_id}).headers["Location"] == page
    shown = victor_client.get(page)
    assert seqs(shown) == [2]
    assert "<select" not in shown.content.decode()
    assert "no end was posted" in entry_of(shown, 2)
    head = alice_client.get(f"/sessions/{session.public_id}/").content.decode()
    assert f'href="{page}"' in head


def test_a_link_outlives_a_dump_that_does_not_post_to_it(alice_client, session, office, import_bytes):
    more = {"ts": "2026-01-01T10:00:40+00:00", "type": "speech", "role": "user", "content": "Bye", "duration_ms": 0}
    other = import_bytes(json.dumps(more | {"metadata": {}}).encode(), "more.jsonl", session_key=session.key)
    status_lane.link(session, office)
    jobs.delete(other)
    assert Session.objects.get().status_bus == office
