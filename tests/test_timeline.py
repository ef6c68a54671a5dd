"""Rows of a session: RoomKit's paging, filters, and what a row says."""

import json

import pytest
from django.http import QueryDict

from auditweb import log
from auditweb.pages import BadQuery
from sessions_app import fulltext, timeline
from sessions_app.api import Row
from sessions_app.models import EVENT_COLUMNS, Event, ToolCall, Turn

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(import_sample):
    return import_sample("roomkit_session/support_call_60.jsonl").sessions.get()


def seqs(session, query=""):
    return [row["seq"] for row in timeline.page(session, timeline.Query.from_params(QueryDict(query)))["entries"]]


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", range(1, 51)),
        ("limit=7", range(1, 8)),
        ("offset=55", range(56, 61)),
        ("offset=60", []),
        ("offset=4000000000", []),
        ("limit=1000000000", range(1, 61)),
        ("limit=0", [1]),
        ("limit=-3", [1]),
        ("after_index=10&limit=5", range(11, 16)),
        ("after_index=0&limit=2", [1, 2]),
        ("after_index=58", [59, 60]),
        ("after_index=60", []),
        ("after_index=99999999999", []),
        ("before_index=10&limit=5", range(5, 10)),  # the last ones before it, ascending
        ("before_index=3&limit=5", [1, 2]),
        ("before_index=1", []),
        ("before_index=1000&limit=2", [59, 60]),
        ("after_index=10&offset=40&limit=2", [11, 12]),  # a cursor wins over an offset
        ("before_index=10&offset=40&limit=2", [8, 9]),
        ("seqs=3,1,58-62", [1, 3, 58, 59, 60]),
        ("seqs=61", []),
        ("seqs=0", []),
    ],
)
def test_pages_follow_roomkits_rules(session, query, expected):
    assert seqs(session, query) == list(expected)


@pytest.mark.parametrize(
    "query",
    [
        "after_index=1&before_index=9", "order=time&after_index=1", "order=time&before_index=1", "order=x", "limit=ten",
        "seqs=1-5000", "q=%00", "kind=%00", "after_index=1.5", "q=" + "x" * 501,
    ],
)  # fmt: skip
def test_queries_that_mean_nothing_are_refused(session, query):
    with pytest.raises(BadQuery):
        seqs(session, query)


def test_pages_by_cursor_in_both_directions_hold_every_row_once(session):
    there, after = [], 0
    while page := seqs(session, f"after_index={after}&limit=7"):
        there += page
        after = page[-1]
    back, before = [], 61
    while page := seqs(session, f"before_index={before}&limit=7"):
        back = page + back
        before = page[0]
    assert there == back == list(range(1, 61))


def test_filters_narrow_and_combine(session):
    events = list(session.events)
    assert seqs(session, "lane=tool&limit=100") == [e.seq for e in events if e.lane == "tool"]
    assert seqs(session, "lane=user&lane=assistant&limit=100") == [
        e.seq for e in events if e.lane in ("user", "assistant")
    ]
    assert seqs(session, "kind=speech&role=user&limit=100") == [
        e.seq for e in events if (e.kind, e.role) == ("speech", "user")
    ]
    assert seqs(session, "agent=voice-agent&tool=send_email") == [e.seq for e in events if e.tool == "send_email"]
    cancelled = [e.seq for e in events if e.status == "cancelled"]
    assert cancelled
    assert seqs(session, "status=cancelled") == cancelled
    assert seqs(session, "status=cancelled&order=time") == cancelled
    assert seqs(session, "lane=tool&limit=2&offset=2") == [e.seq for e in events if e.lane == "tool"][2:4]
    assert seqs(session, "tool=' OR 1=1 --") == []


def add(session, *texts, **columns):
    """Append events with these texts to *session*, past any import."""
    at = session.events.last()
    fields = {name: getattr(at, name) for name in EVENT_COLUMNS} | columns
    values = [fields | {"text": text, "line": at.line + i} for i, text in enumerate(texts, 1)]
    rows = [tuple(v[n] for n in EVENT_COLUMNS) for v in values]
    stored = log.append(session, Event, EVENT_COLUMNS, rows)
    fulltext.add(session, stored, fulltext.face(session))
    type(session).objects.filter(pk=session.pk).update(event_count=session.event_count + len(texts))
    session.refresh_from_db()
    return [log.seq_of(row[0]) for row in stored]


@pytest.mark.parametrize(
    "q, hits",
    [
        ("100%", [0]), ("a_b", [1]), ("A_B", [1]), ("back\\slash", [2]), ("ÉTÉ", [3]), ("été", [3]), ("%", [0]),
        ("_", [1]), ("'", [4]), ("ЖУК", [5]), (".*", []), ("nowhere", []),
    ],
)  # fmt: skip
def test_a_search_takes_every_character_as_it_is_and_ignores_case(session, q, hits):
    texts = ["sure: 100%!", "an a_b here", "a back\\slash", "Un été", "it's so", "жук"]
    new = add(session, *texts, kind="searched", extra="")
    query = QueryDict(mutable=True)
    query.update({"q": q, "kind": "searched"})
    found = timeline.page(session, timeline.Query.from_params(query))["entries"]
    assert [row["seq"] for row in found] == [new[i] for i in hits]


def test_a_search_finds_the_arguments_of_tools(session):
    found = timeline.page(session, timeline.Query(q="thursday"))["entries"]
    assert any(row["lane"] == "tool" for row in found)


def test_visibility_is_matched_exactly(session):
    internal = add(session, "hidden", visibility="internal")
    assert seqs(session, "visibility_filter=internal") == internal
    assert seqs(session, "visibility_filter=intern") == []


def test_a_row_says_what_the_line_said(import_sample):
    dump = import_sample("roomkit_session/v058_tiny_toronto.jsonl")
    session = dump.sessions.get()
    lines = [json.loads(line) for line in dump_bytes(dump).splitlines()]
    rows = timeline.rows_after(session.pk, 0, 100)
    assert len(rows) == len(lines)
    assert set(rows[0]) == set(Row().fields)
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        assert (row["seq"], row["line"], row["dump"]) == (number, number, dump.public_id)
        assert (row["ts"], row["kind"], row["text"]) == (line["ts"], line["type"], line["content"])
        assert row["call"] == (number if row["lane"] == "tool" else None)
        assert row["run"] is None
        assert len(row["at"]) == 27
        assert row["at"].endswith("Z")
    assert json.loads(timeline.encode(rows)) == rows


def dump_bytes(dump) -> bytes:
    from auditweb.dumps import store

    return b"".join(store.pieces(dump))


def test_a_long_text_is_cut_in_rows_and_whole_in_the_details(session):
    (seq,) = add(session, "é" * 3000, flags="nul")
    row = timeline.row(session.pk, seq)
    assert row is not None
    assert row["text"] == "é" * 2000
    assert row["flags"] == ["nul", "more"]
    detail = timeline.event_detail(session, seq)
    assert detail["text"] == "é" * 3000
    assert detail["flags"] == ["nul"]
    (whole,) = add(session, "é" * 2000, flags="")
    (row,) = timeline.rows_by_seqs(session.pk, [whole])
    assert row["flags"] == []


def test_every_row_knows_its_turn_wherever_the_page_begins(import_sample):
    session = import_sample("roomkit_session/big_5000.jsonl").sessions.get()
    expected = {}
    for turn in Turn.objects.filter(id__range=log.id_range(session.pk)):
        expected |= dict.fromkeys(range(turn.first_seq, turn.last_seq + 1), turn.number)
    assert len(set(expected.values())) > 1000
    for wanted in (range(1, 20), range(2400, 2600), range(4900, session.last_seq + 1), range(1, 5000, 457), [17, 4999]):
        rows = timeline.rows_by_seqs(session.pk, wanted)
        assert [(r["seq"], r["turn"]) for r in rows] == [(seq, expected.get(seq)) for seq in wanted]
    rows = timeline.rows_after(session.pk, 0, 10_000)
    assert {r["seq"]: r["turn"] for r in rows if r["turn"]} == expected


def test_rows_before_any_turn_and_of_sessions_without_turns_have_none(import_sample):
    session = import_sample("roomkit_tool/all_statuses.jsonl").sessions.get()
    assert {row["turn"] for row in timeline.rows_after(session.pk, 0, 100)} == {None}


def test_order_by_time_is_display_order_however_it_is_paged(import_sample):
    session = import_sample("roomkit_mixed/session_status_tool.jsonl").sessions.get()
    ordered = session.events.order_by("sort_us", "dump_id", "line", "id")
    expected = [event.seq for event in ordered]
    paged = [s for offset in range(0, len(expected), 3) for s in seqs(session, f"order=time&limit=3&offset={offset}")]
    assert paged == expected
    assert seqs(session, f"order=time&seqs=1-{len(expected)}") == expected


def test_a_deleted_range_leaves_a_hole_that_no_page_stumbles_over(session):
    session.events.filter(id__range=log.id_range(session.pk, 9, 30)).delete()
    type(session).objects.filter(pk=session.pk).update(event_count=39)
    session.refresh_from_db()
    assert seqs(session, "offset=8&limit=3") == [9, 31, 32]
    assert seqs(session, "after_index=8&limit=3") == [9, 31, 32]
    assert seqs(session, "before_index=32&limit=3") == [8, 9, 31]
    assert seqs(session, "seqs=8-33") == [8, 9, 31, 32, 33]


def test_a_page_says_whether_there_are_more(session):
    def answer(query):
        page = timeline.page(session, timeline.Query.from_params(QueryDict(query)))
        return page["more"], page["total"], page["last_seq"]

    assert answer("limit=59") == (True, 60, 60)
    assert answer("limit=60") == (False, 60, 60)
    assert answer("before_index=61&limit=60") == (False, 60, 60)
    assert answer("before_index=61&limit=59") == (True, 60, 60)
    assert answer("lane=tool") == (False, None, 60)


def test_details_hold_the_exact_line_and_both_ends_of_a_call(session):
    call = ToolCall.objects.filter(id__range=log.id_range(session.pk)).first()
    assert call is not None
    detail = timeline.event_detail(session, call.seq)
    line = json.loads(detail["raw"])
    assert detail["raw_base64"] is None
    assert detail["raw"].encode() == dump_bytes(session.dumps.get()).splitlines()[detail["line"] - 1]
    assert json.loads(bytes(detail["metadata"]))["arguments"] == line["metadata"]["arguments"]
    assert detail["tool_call"]["ended_at"] == detail["at"]
    assert detail["tool_call"]["started_at"] < detail["at"]
    assert detail["tool_call"]["stamp"] == "end"
    for missing in (0, 61, 2**32, 2**70):
        with pytest.raises(Event.DoesNotExist):
            timeline.event_detail(session, missing)


def test_numbers_travel_with_all_their_digits(import_bytes):
    line = (
        b'{"ts":"2026-01-01T00:00:00+00:00","type":"tool_call","role":"assistant","content":"x","duration_ms":1,'
        b'"metadata":{"tool_name":"t","status":"ok","arguments":{"n":123456789012345678901234567890}}}\n'
    )
    session = import_bytes(line).sessions.get()
    assert b"123456789012345678901234567890" in timeline.encode(timeline.event_detail(session, 1))


def test_a_page_costs_three_queries_wherever_it_lies(session, django_assert_max_num_queries):
    for query in (timeline.Query(), timeline.Query(after_index=40), timeline.Query(before_index=30, limit=10)):
        with django_assert_max_num_queries(3):
            timeline.page(session, query)
