"""Pages of dumps: what people see of their uploads, and what they may do to them."""

import html
import re

import pytest

from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump
from auditweb.teams.models import AuditRecord, Membership, Role

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    """What a person reads: no tags, entities resolved, blanks folded."""
    body = re.sub(r"(?s)<(script|template|datalist).*?</\1>|<[^>]+>", " ", response.content.decode())
    return " ".join(html.unescape(body).split())


def page(client, dump, **query):
    response = client.get(f"/dumps/{dump.public_id}/", query)
    assert response.status_code == 200
    return response


def test_the_list_names_every_dump_with_its_counts(alice_client, import_sample):
    import_sample("roomkit_session/support_call_60.jsonl")
    broken = import_sample("dirty/prefixed_log.jsonl")
    text = text_of(alice_client.get("/dumps/"))
    assert "support_call_60.jsonl done 60 60 0 support_call_60" in text
    assert "2 dumps of 2" in text
    assert f'href="/dumps/{broken.public_id}/#quarantine"' in alice_client.get("/dumps/").content.decode()


def test_filters_live_in_the_address(alice_client, import_sample):
    import_sample("roomkit_session/one_line.jsonl")
    import_sample("dirty/binary.jsonl")
    assert "one_line.jsonl" not in text_of(alice_client.get("/dumps/?state=failed"))
    assert "binary.jsonl" in text_of(alice_client.get("/dumps/?state=failed"))
    assert "one_line.jsonl" in text_of(alice_client.get("/dumps/?q=ONE_"))
    assert "No dump matches" in text_of(alice_client.get("/dumps/?q=nothing-like-this"))


def test_an_empty_list_shows_three_ways_in(alice_client):
    text = text_of(alice_client.get("/dumps/"))
    assert "Drop a file" in text
    assert "manage.py import_dump session.jsonl --team red" in text
    assert "curl -T session.jsonl" in text


def test_pages_of_the_list_show_every_dump_once(alice_client, team, monkeypatch):
    monkeypatch.setattr("auditweb.dumps.views.PAGE", 2)
    names = [f"file-{n}.jsonl" for n in range(5)]
    for name in names:
        store.begin(team, name)
    seen, address = [], "/dumps/"
    while address:
        body = alice_client.get(address).content.decode()
        seen += re.findall(r"file-\d\.jsonl(?=</a>)", body)
        more = re.search(r'href="([^"]+)" rel="next"', body)
        address = html.unescape(more[1]) if more else ""
    assert seen == names[::-1]


def test_a_fragment_is_the_table_alone_and_says_whether_something_runs(alice_client, team):
    dump = store.begin(team, "half.jsonl", 100)
    body = alice_client.get("/dumps/?fragment=1").content.decode()
    assert "<html" not in body
    assert body.count("data-running") == 1
    jobs.cancel(dump)
    assert "data-running" not in alice_client.get("/dumps/?fragment=1").content.decode()


def test_a_fragment_links_to_whole_pages(alice_client, team):
    body = alice_client.get("/dumps/?fragment=1&q=nothing-like-this&team=red").content.decode()
    assert 'href="?team=red"' in body


def test_names_from_outside_are_text(alice_client, team):
    dump = store.begin(team, "<img src=x onerror=alert(1)>.jsonl", 10)
    for path in ("/dumps/", f"/dumps/{dump.public_id}/", f"/dumps/{dump.public_id}/delete/"):
        body = alice_client.get(path).content.decode()
        assert "<img src=x" not in body
        assert "&lt;img src=x onerror=alert(1)&gt;.jsonl" in body


def test_a_stranger_gets_the_answer_of_a_dump_that_never_was(bob_client, import_sample):
    dump = import_sample("roomkit_session/one_line.jsonl")
    assert "one_line" not in text_of(bob_client.get("/dumps/"))
    for suffix in ("", "delete/"):
        foreign = bob_client.get(f"/dumps/{dump.public_id}/{suffix}")
        missing = bob_client.get(f"/dumps/{'0' * 22}/{suffix}")
        assert (foreign.status_code, missing.status_code) == (404, 404)
        assert text_of(foreign) == text_of(missing)
    for act in ("zone", "cancel", "retry", "delete"):
        answer = bob_client.post(f"/dumps/{dump.public_id}/{act}/", {"name": dump.name, "zone": "UTC"})
        assert answer.status_code == 404
    assert Dump.objects.filter(pk=dump.pk).exists()


def test_somebody_who_is_not_signed_in_is_sent_to_the_sign_in_page(client, import_sample):
    dump = import_sample("roomkit_session/one_line.jsonl")
    for path in ("/dumps/", f"/dumps/{dump.public_id}/", f"/dumps/{dump.public_id}/delete/"):
        answer = client.get(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")


def test_odd_addresses_are_refused_in_words(alice_client):
    for query in ("state=nonsense", "cursor=made-up", "q=%00"):
        assert alice_client.get(f"/dumps/?{query}").status_code == 400
    for path in ("/dumps/%00/", "/dumps/" + "9" * 5000 + "/", "/dumps/..%2f/"):
        assert alice_client.get(path).status_code == 404


def test_the_quarantine_shows_line_byte_reason_and_text(alice_client, import_bytes):
    good = b'{"ts":"2026-01-01T00:00:00Z","type":"speech","role":"user","content":"hi"}\n'
    dump = import_bytes(good + b'{"a": "\x07\xe9 <b>\n' + good)
    body = page(alice_client, dump).content.decode()
    row = re.search(r'(?s)<tr id="line-2">.*?</tr>', body)[0]
    assert f">{len(good)}<" in row
    assert "<b>" not in row.split("<pre")[1].split("</pre>")[0]
    assert "&lt;b&gt;" in row
    assert '<span class="control">\N{SYMBOL FOR BELL}</span>' in row
    assert '<span class="control">‹E9›</span>' in row
    assert dump.bad_lines.get().reason in html.unescape(row)


def test_a_long_quarantine_is_paged_and_a_long_line_is_cut_with_notice(alice_client, import_bytes, monkeypatch):
    monkeypatch.setattr("auditweb.dumps.views.BAD_PAGE", 2)
    good = b'{"ts":"2026-01-01T00:00:00Z","type":"speech","role":"user","content":"hi"}\n'
    dump = import_bytes(good + b"{broken\n" * 2 + b"{" + b"x" * 5000 + b"\n")
    first = page(alice_client, dump)
    assert "Lines 2 to 3, 2 of 3" in text_of(first)
    more = html.unescape(re.search(r'href="([^"#]+)#quarantine" rel="next"', first.content.decode())[1])
    second = text_of(alice_client.get(more))
    assert "Lines 4 to 4, 1 of 3" in second
    assert "The first 2.0 KiB of 4.9 KiB" in second


def test_a_failed_dump_says_why_and_offers_another_try(alice_client, import_sample):
    dump = import_sample("dirty/binary.jsonl")
    body = page(alice_client, dump)
    assert dump.error in text_of(body)
    assert "Try again" in text_of(body)
    answer = alice_client.post(f"/dumps/{dump.public_id}/retry/")
    assert answer.status_code == 302
    dump.refresh_from_db()
    assert dump.state == "queued"
    assert AuditRecord.objects.filter(action="retry", target_id=dump.public_id).count() == 1


def test_cancel_stops_a_dump_and_a_second_one_says_there_was_nothing_left(alice_client, team):
    dump = store.begin(team, "half.jsonl", 100)
    alice_client.post(f"/dumps/{dump.public_id}/cancel/")
    dump.refresh_from_db()
    assert dump.state == "cancelled"
    again = alice_client.post(f"/dumps/{dump.public_id}/cancel/", follow=True)
    assert "nothing left to cancel" in text_of(again)
    assert AuditRecord.objects.filter(action="cancel").count() == 1


def test_a_told_zone_moves_the_times_and_a_wrong_one_gets_a_sentence(alice_client, import_sample):
    dump = import_sample("roomkit_session/v058_tiny_toronto.jsonl")
    session = dump.sessions.get()
    before = session.first_us
    assert "carry a time without a zone" in text_of(page(alice_client, dump))
    wrong = alice_client.post(f"/dumps/{dump.public_id}/zone/", {"zone": "Middle/Earth"})
    assert wrong.status_code == 400
    assert "Middle/Earth" in text_of(wrong) or 'value="Middle/Earth"' in wrong.content.decode()
    assert 'aria-invalid="true"' in wrong.content.decode()
    assert alice_client.post(f"/dumps/{dump.public_id}/zone/", {"zone": "Europe/Paris"}).status_code == 302
    session.refresh_from_db()
    dump.refresh_from_db()
    assert (dump.zone, dump.zone_source) == ("Europe/Paris", "told")
    assert session.first_us != before
    assert "Europe/Paris" in AuditRecord.objects.get(action="change", target_id=dump.public_id).detail


def test_delete_says_what_will_be_gone_and_wants_the_name(alice_client, import_sample):
    dump = import_sample("roomkit_mixed/session_status_tool.jsonl")
    address = f"/dumps/{dump.public_id}/delete/"
    text = text_of(alice_client.get(address))
    assert f"{dump.lines} lines" in text
    assert f"{dump.events} events made from it" in text
    assert "the session" in text
    assert "the status log" in text
    wrong = alice_client.post(address, {"name": "another"})
    assert wrong.status_code == 400
    assert Dump.objects.filter(pk=dump.pk).exists()
    done = alice_client.post(address, {"name": dump.name}, follow=True)
    assert "was deleted" in text_of(done)
    assert not Dump.objects.filter(pk=dump.pk).exists()
    assert AuditRecord.objects.filter(action="delete", target_id=dump.public_id).count() == 1


def test_a_viewer_reads_but_changes_nothing(victor_client, import_sample):
    dump = import_sample("roomkit_session/one_line.jsonl")
    text = text_of(page(victor_client, dump))
    assert "Download original" in text
    assert "Delete" not in text
    assert victor_client.get(f"/dumps/{dump.public_id}/delete/").status_code == 403
    assert victor_client.post(f"/dumps/{dump.public_id}/delete/", {"name": dump.name}).status_code == 403
    assert Dump.objects.filter(pk=dump.pk).exists()


def test_changes_need_a_post(alice_client, import_sample):
    dump = import_sample("roomkit_session/one_line.jsonl")
    for act in ("zone", "cancel", "retry"):
        assert alice_client.get(f"/dumps/{dump.public_id}/{act}/").status_code == 405


def test_looking_at_a_dump_is_recorded_once(alice_client, import_sample):
    dump = import_sample("roomkit_session/one_line.jsonl")
    page(alice_client, dump)
    page(alice_client, dump, fragment="1")
    page(alice_client, dump)
    assert AuditRecord.objects.filter(action="view", target_id=dump.public_id).count() == 1


def test_several_teams_can_be_looked_at_one_by_one(alice, alice_client, other_team, import_sample, team):
    Membership.objects.create(team=other_team, user=alice, role=Role.REVIEWER)
    mine = import_sample("roomkit_session/one_line.jsonl")
    import_sample("roomkit_session/tiny_doc_example.jsonl", team=other_team)
    both = text_of(alice_client.get("/dumps/"))
    assert "one_line.jsonl" in both
    assert "tiny_doc_example.jsonl" in both
    red = alice_client.get("/dumps/?team=red")
    assert "tiny_doc_example.jsonl" not in text_of(red)
    assert f'href="/dumps/{mine.public_id}/?team=red"' in red.content.decode(), "links keep the team"
    assert alice_client.get("/dumps/?team=nobodys").status_code == 404


def test_no_page_carries_inline_script_or_style(alice_client, import_sample):
    dump = import_sample("roomkit_mixed/session_status_tool.jsonl")
    for path in ("/dumps/", f"/dumps/{dump.public_id}/", f"/dumps/{dump.public_id}/delete/"):
        body = alice_client.get(path).content.decode()
        assert not re.search(r"<[^>]+\s(style|on\w+)=", body)
        assert not re.search(r"<script(?![^>]* src=)", body)
        assert "<style" not in body
