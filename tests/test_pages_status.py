"""Pages of status logs: the feed, its filters, the texts of the producer, and what arrives while a page is open."""

import html
import json
import re

import pytest

from auditweb.teams.models import AuditRecord
from status_app.models import StatusBus

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
        assert shown == golden


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
