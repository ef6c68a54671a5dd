"""Sessions over HTTP: lists, rows, outline, turns, calls, texts, exports, and who sees them."""

import asyncio
import csv
import gzip
import io
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import AsyncClient

from auditweb.dumps import store
from auditweb.dumps.models import Dump
from auditweb.teams.models import AuditRecord
from sessions_app import export, fulltext, timeline
from sessions_app.api import (
    CallBody,
    EventDetail,
    OutlineBody,
    OutlineColumns,
    Row,
    SessionBody,
    SessionDetail,
    SummaryBody,
    TimelinePage,
    TurnBody,
)
from sessions_app.models import Session

API = "/api/v1/sessions/"
PARTS = [
    "", "timeline", "timeline?seqs=1", "outline", "turns", "tool-calls", "events/1", "summary", "summary.txt",
    "export?as=original", "export?as=jsonl", "export?as=csv", "export?as=markdown", "export?as=summary",
]  # fmt: skip

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(import_sample):
    return import_sample("roomkit_session/support_call_60.jsonl").sessions.get()


@pytest.fixture
def get(alice_client, session):
    """``get("timeline", limit=2)`` → the answer about the session as JSON, or as bytes when it is none."""

    def ask(part="", status=200, headers=None, **query):
        answer = alice_client.get(f"{API}{session.public_id}/{part}", query, headers=headers)
        assert answer.status_code == status, answer.content
        return answer.json() if answer.headers["Content-Type"] == "application/json" else whole(answer)

    return ask


def whole(answer) -> bytes:
    return b"".join(answer.streaming_content)


def line(text="x", **more) -> bytes:
    entry = {"ts": "2026-01-01T10:00:00+00:00", "type": "speech", "role": "user", "content": text}
    return json.dumps(entry | {"duration_ms": None, "metadata": {}} | more).encode() + b"\n"


# The list ----------------------------------------------------------------------------------------------------------


def titles(client, **query):
    answer = client.get(API, query)
    assert answer.status_code == 200, answer.content
    return [item["title"] for item in answer.json()["items"]]


@pytest.fixture
def many(team, other_team):
    """Sessions a to e of red, with what they are filtered by; z is the stranger's."""
    hour = 3_600_000_000
    rows: dict[str, dict] = {
        "a": {"first_us": 0, "last_us": 5 * hour, "agents": {"planner": 2}, "tools": {"search": 1}, "tool_calls": 1},
        "b": {"first_us": 30 * hour, "last_us": 31 * hour, "live": True, "opening": "Book a table"},
        "c": {"first_us": 60 * hour, "last_us": 60 * hour, "errors": 1, "tool_statuses": {"failed": 1}},
        "d": {"interruptions": 3, "agents": {"Zoë": 1}},
        "e": {"first_us": 90 * hour, "last_us": 99 * hour, "vision_count": 2, "status_count": 1},
    }
    for name, columns in rows.items():
        fulltext.refresh(Session.objects.create(team=team, key=name, title=name, **columns), None)
    fulltext.refresh(Session.objects.create(team=other_team, key="z", title="z", opening="Book a table"), None)


@pytest.mark.parametrize(
    "query, expected",
    [
        ({"sort": "title"}, "abcde"), ({"sort": "-title"}, "edcba"), ({}, "edcba"),
        ({"sort": "started"}, "abced"), ({"sort": "-started"}, "ecbad"), ({"sort": "-duration"}, "eabcd"),
        ({"agent": "planner"}, "a"), ({"agent": "plan"}, ""), ({"agent": "Zoë"}, "d"), ({"tool": "search"}, "a"),
        ({"status": "failed"}, "c"), ({"live": "1"}, "b"), ({"live": "0"}, "edca"), ({"has": "error"}, "c"),
        ({"has": "interruption"}, "d"), ({"has": "vision"}, "e"), ({"has": "status"}, "e"), ({"has": "tool"}, "a"),
        ({"q": "BOOK"}, "b"), ({"q": "planner"}, "a"), ({"q": "agent:planner has:tool"}, "a"), ({"q": "%"}, ""),
        ({"from": "1970-01-02T06:00:00Z"}, "ecb"), ({"to": "1970-01-02"}, "ba"), ({"to": "1970-01-02T06:00:00Z"}, "a"),
        ({"from": "1970-01-02", "to": "1970-01-03"}, "cb"), ({"dump": "0" * 22}, ""),
    ],
)  # fmt: skip
def test_the_list_is_sorted_and_filtered(alice_client, many, query, expected):
    assert titles(alice_client, **query) == list(expected)


@pytest.mark.parametrize(
    "query",
    [{"sort": "key"}, {"has": "x"}, {"live": "maybe"}, {"from": "then"}, {"cursor": "x"}, {"limit": "x"}, {"q": "\0"}],
)
def test_a_list_asked_for_nonsense_is_a_400_that_says_so(alice_client, many, query):
    answer = alice_client.get(API, query)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_the_list_is_paged_both_ways_and_counts_when_asked(alice_client, many):
    first = alice_client.get(API, {"sort": "title", "limit": 2, "count": 1}).json()
    assert (first["total"], first["prev"]) == (5, None)
    second = alice_client.get(API, {"sort": "title", "limit": 2, "cursor": first["next"]}).json()
    assert [item["title"] for item in second["items"]] == ["c", "d"]
    back = alice_client.get(API, {"sort": "title", "limit": 2, "cursor": second["prev"]}).json()
    assert [item["title"] for item in back["items"]] == ["a", "b"]
    assert "total" not in second


def test_the_stranger_sees_only_his_own(bob_client, many):
    assert titles(bob_client) == ["z"]
    assert titles(bob_client, q="planner") == []
    assert bob_client.get(API, {"count": 1}).json()["total"] == 1


def test_sessions_of_a_dump(alice_client, session, import_sample):
    other = import_sample("roomkit_session/multi_party.jsonl")
    assert titles(alice_client, dump=other.public_id) == ["multi_party"]


def test_a_long_list_takes_few_queries(alice_client, team, django_assert_max_num_queries):
    Session.objects.bulk_create(Session(team=team, key=str(i), title=str(i)) for i in range(200))
    with django_assert_max_num_queries(8):
        assert len(titles(alice_client, limit=200)) == 200


# One session --------------------------------------------------------------------------------------------------------


def test_answers_have_the_fields_that_the_schema_promises(get):
    assert set(get()) == set(SessionDetail().fields)
    assert set(get("timeline")) == set(TimelinePage().fields)
    assert set(get("timeline")["entries"][0]) == set(Row().fields)
    assert set(get("events/1")) == set(EventDetail().fields)
    assert set(get("turns")["items"][0]) == set(TurnBody().fields)
    assert set(get("tool-calls")["items"][0]) == set(CallBody().fields)
    assert set(get("summary")) == set(SummaryBody().fields)
    outline = get("outline")
    assert set(outline) == set(OutlineBody().fields)
    assert set(outline["columns"]) == set(OutlineColumns().fields)


def test_a_session_says_what_was_counted_and_where_it_came_from(alice_client, get, session):
    one = get()
    assert (one["events"], one["user_turns"], one["assistant_turns"], one["tool_calls"]) == (60, 20, 15, 15)
    assert one["duration_s"] == pytest.approx(281.410992)
    assert [dump["name"] for dump in one["dumps"]] == ["support_call_60.jsonl"]
    (listed,) = alice_client.get(API).json()["items"]
    assert set(listed) == set(SessionBody().fields)
    assert listed == {name: one[name] for name in listed}
    assert get("summary")["tool_calls"] == 15


def test_the_timeline_pages_as_roomkit_does(get):
    assert [row["seq"] for row in get("timeline", before_index=10, limit=3)["entries"]] == [7, 8, 9]
    assert [row["seq"] for row in get("timeline", after_index=10, limit=3)["entries"]] == [11, 12, 13]
    both = get("timeline", status=400, after_index=1, before_index=9)
    assert "exclude each other" in both["error"]["message"]


def test_tool_calls_come_as_roomkit_wrote_them(alice_client, import_sample, sample):
    dump = import_sample("roomkit_tool/all_statuses.jsonl")
    written = [json.loads(raw) for raw in sample("roomkit_tool/all_statuses.jsonl").read_bytes().splitlines()]
    address = f"{API}{dump.sessions.get().public_id}/tool-calls"
    given = alice_client.get(address).json()["items"]
    assert [{name: call[name] for name in written[0]} for call in given] == written
    assert {(call["stamp"], call["inferred"], len(call["chain"])) for call in given} == {("end", False, 0)}
    assert [call["number"] for call in given] == list(range(1, len(written) + 1))
    failed = alice_client.get(address, {"failed": 1}).json()["items"]
    assert {call["status"] for call in failed} == {w["status"] for w in written} - {"ok", "cancelled"}
    ok = alice_client.get(address, {"status": "ok", "limit": 1}).json()
    assert ok["items"][0]["status"] == "ok"
    assert alice_client.get(address, {"status": "ok", "cursor": ok["next"]}).json()["items"][0]["number"] > 1


def test_a_call_in_a_session_file_leaves_the_promoted_keys_out_of_its_metadata(alice_client, import_bytes):
    metadata = {"tool_name": "t", "arguments": {"q": 1e2}, "status": "ok", "agent_id": "a", "trace": {"n": 2**70}}
    dump = import_bytes(line("done", type="tool_call", role="assistant", metadata=metadata))
    answer = alice_client.get(f"{API}{dump.sessions.get().public_id}/tool-calls")
    (call,) = answer.json()["items"]
    assert (call["arguments"], call["metadata"]) == ({"q": 100.0}, {"trace": {"n": 2**70}})
    assert (call["duration_ms"], call["started_at"]) == (0, None)
    assert str(2**70).encode() in answer.content


def test_the_outline_is_compressed_where_that_is_accepted_and_not_sent_twice(alice_client, session):
    address = f"{API}{session.public_id}/outline"
    plain = alice_client.get(address)
    packed = alice_client.get(address, headers={"Accept-Encoding": "br, gzip;q=0.8"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.content) == plain.content
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert "Content-Encoding" not in alice_client.get(address, headers={"Accept-Encoding": "gzip;q=0"}).headers
    again = alice_client.get(address, headers={"If-None-Match": f'"x", {plain.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    Session.objects.filter(pk=session.pk).update(revision=7)
    assert alice_client.get(address, headers={"If-None-Match": plain.headers["ETag"]}).status_code == 200


def test_an_event_that_is_not_there_is_a_404(get):
    for seq in (0, 61, 2**32, 10**30):
        get(f"events/{seq}", status=404)


def test_the_text_is_what_the_producer_prints(get, sample, alice_client, session):
    golden = sample("roomkit_session/support_call_60.summary.txt").read_bytes()
    answer = alice_client.get(f"{API}{session.public_id}/summary.txt")
    assert whole(answer).strip() == golden.strip()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    for wrong in ({"style": "x"}, {"of": "x"}, {"zone": "Mars"}, {"clock": "x"}):
        get("summary.txt", status=400, **wrong)
    get("summary.txt", zone="Europe/Paris", clock="local", style="docs", of="tool")


# Exports -------------------------------------------------------------------------------------------------------------


def test_an_export_of_the_original_is_the_file(get, sample):
    assert get("export") == sample("roomkit_session/support_call_60.jsonl").read_bytes()


def test_two_dumps_of_one_session_are_exported_whole_and_apart(import_bytes):
    one = line("one").rstrip(b"\n")
    session = import_bytes(one, session_key="k").sessions.get()
    import_bytes(line("two"), session_key="k")
    assert b"".join(export.pieces(session, "original")) == one + b"\n" + line("two")


def test_jsonl_holds_every_event_with_its_whole_text(get, session, import_bytes):
    rows = [json.loads(raw) for raw in get("export", **{"as": "jsonl"}).splitlines()]
    assert [row["seq"] for row in rows] == list(range(1, 61))
    assert set(rows[0]) == {*Row().fields, "metadata"}
    long = import_bytes(line("é" * 5000)).sessions.get()
    (row,) = map(json.loads, b"".join(export.pieces(long, "jsonl")).splitlines())
    assert (row["text"], row["flags"]) == ("é" * 5000, [])


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "=cmd|' /C calc'!A0", "%0A=1", "|x"],
)
def test_no_cell_is_a_formula(import_bytes, text):
    metadata = {"tool_name": text, "status": text, "agent_id": text}
    session = import_bytes(line(text, type="tool_call", role=text, metadata=metadata)).sessions.get()
    header, row = csv.reader(io.StringIO(b"".join(export.pieces(session, "csv")).decode(), newline=""))
    cells = dict(zip(header, row, strict=True))
    assert tuple(header) == export.COLUMNS
    for name in ("text", "tool", "status", "agent", "role"):
        assert cells[name] == "'" + text, name


def test_csv_reads_back_as_it_was_in_display_order(import_sample):
    session = import_sample("roomkit_session/hostile_text.jsonl").sessions.get()
    table = csv.DictReader(io.StringIO(b"".join(export.pieces(session, "csv")).decode(), newline=""))
    ordered = session.events.order_by("sort_us", "dump_id", "line", "id")
    assert [(int(row["seq"]), row["text"].removeprefix("'")) for row in table] == [
        (event.seq, event.text.removeprefix("'")) for event in ordered
    ]


def test_nothing_of_the_data_is_markup_in_a_transcript(import_bytes):
    hostile = "# a\n<script>x</script> [l](http://e) ![i](h) **b** `c` - d http://evil.example www.evil.example a@b.c"
    fences = "```\n````\n<b>"
    data = line(hostile) + line(fences, type="vision", role=None)
    text = b"".join(export.pieces(import_bytes(data).sessions.get(), "markdown")).decode()
    assert "\\<script\\>" in text
    for live in ("<script>", "[l](", "![i]", "**b**", "`c`", "://evil", "www.evil", "a@b"):
        assert live not in text
    assert "> \\# a\n" in text
    assert f"`````text\n{fences}\n`````" in text


def test_exports_are_downloads_under_our_name_and_recorded(alice_client, session):
    Session.objects.filter(pk=session.pk).update(title='../a"b\r\nX: é')
    for form, kind in [("csv", "text/csv; charset=utf-8"), ("jsonl", "application/octet-stream")]:
        answer = alice_client.get(f"{API}{session.public_id}/export", {"as": form})
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Disposition"].startswith("attachment; filename")
        assert "\n" not in answer.headers["Content-Disposition"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert whole(answer)
    records = AuditRecord.objects.filter(action="export", target_id=session.public_id)
    assert [json.loads(record.detail)["form"] for record in records.order_by("id")] == ["csv", "jsonl"]
    assert alice_client.get(f"{API}{session.public_id}/export", {"as": "html"}).status_code == 400
    assert records.count() == 2


def test_an_export_holds_a_bounded_number_of_rows(import_sample, monkeypatch):
    session = import_sample("roomkit_session/big_5000.jsonl").sessions.get()
    asked = []
    rows_by_seqs = timeline.rows_by_seqs

    def counted(pk, seqs):
        asked.append(len(seqs))
        return rows_by_seqs(pk, seqs)

    monkeypatch.setattr(timeline, "rows_by_seqs", counted)
    lines = export.pieces(session, "jsonl")
    next(lines)
    assert asked == [export.BATCH]
    assert sum(1 for _ in lines) == session.event_count - 1
    assert max(asked) == export.BATCH


@pytest.mark.django_db(transaction=True)
def test_under_asgi_an_export_is_sent_while_it_is_made(alice, import_bytes, monkeypatch):
    dump = import_bytes(b"".join(line(f"{i:06d}" * 100) for i in range(2000)))
    client = AsyncClient()
    client.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    read = []
    pieces = store.pieces

    def counted(*args):
        for piece in pieces(*args):
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(store, "pieces", counted)

    public_id = dump.sessions.get().public_id

    async def ask():
        answer: Any = await client.get(f"{API}{public_id}/export")
        stream = aiter(answer.streaming_content)
        first = await anext(stream)
        after_first = len(read)
        data = first + b"".join([piece async for piece in stream])
        await sync_to_async(lambda: connection.close())()  # that of the thread, looked up there
        return data, after_first

    data, after_first = asyncio.run(ask())
    assert data == b"".join(pieces(Dump.objects.get()))
    assert after_first == 1
    assert len(read) > 3


# Who sees it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_a_foreign_session_is_as_missing_as_one_that_never_was(bob_client, session, part):
    answers = [bob_client.get(f"{API}{i}/{part}") for i in (session.public_id, "0" * 22, "x", "%00", "9" * 400)]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert not AuditRecord.objects.filter(action__in=["view", "export"]).exists()


@pytest.mark.parametrize("part", PARTS)
def test_anonymous_is_asked_to_sign_in_and_a_viewer_reads_all(client, victor_client, session, part):
    assert client.get(f"{API}{session.public_id}/{part}").status_code == 401
    answer = victor_client.get(f"{API}{session.public_id}/{part}")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert whole(answer) if answer.streaming else answer.content


def test_looking_at_a_session_is_recorded_once(get, session):
    get("timeline")
    get("outline")
    get()
    assert AuditRecord.objects.filter(action="view", target_id=session.public_id).count() == 1


ODD = [
    "", " ", "0", "-1", "1e9", "9" * 5000, "10**9", "1000000000", "\0", "a\0b", "%", "_", "\\", "'", '"', "';--", "<b>",
    "../..", "\u202e", "🙂", "null", "[]", "{}", "true",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_no_odd_value_of_any_parameter_breaks_anything(alice_client, session, odd):
    alice_client.raise_request_exception = False
    for part, names in {
        "timeline": [
            "offset", "limit", "after_index", "before_index", "seqs", "order", "visibility_filter", "q",
            *timeline.FILTERS,
        ],
        "turns": ["cursor", "limit"],
        "tool-calls": ["cursor", "limit", "tool", "agent", "status", "failed"],
        "summary.txt": ["style", "of", "zone", "clock"],
        "export": ["as"],
        "../": ["q", "agent", "tool", "status", "live", "has", "dump", "from", "to", "sort", "cursor", "limit", "team"],
    }.items():  # fmt: skip
        address = API if part == "../" else f"{API}{session.public_id}/{part}"
        for name in names:
            answer = alice_client.get(address, {name: odd})
            assert not answer.streaming or whole(answer)
            assert answer.status_code in (200, 400, 404), (part, name, answer.status_code)
            if answer.status_code == 400:
                assert set(answer.json()["error"]) == {"code", "message", "detail"}
