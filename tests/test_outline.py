"""The outline: a whole session as columns."""

import gzip
import json
import time
from itertools import accumulate

import pytest
from django.core.cache import cache
from django.db import transaction

from auditweb import log
from auditweb.dumps.models import Dump
from auditweb.pages import iso
from sessions_app import outline, projection
from sessions_app.models import EVENT_COLUMNS, Event, Session

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_remembered():
    cache.clear()


def decoded(session) -> tuple[dict, list[tuple]]:
    """The outline, and its rows as (seq, at_ms, lane, agent, state, duration_ms) with all coding undone."""
    made = json.loads(outline.outline(session))
    columns = made["columns"]
    at, known = [], 0
    for delta in columns["at_ms"]:
        known += delta or 0
        at.append(None if delta is None else known)
    words = [
        [None if i is None else made[names][i] for i in columns[name]]
        for name, names in (("lane", "lanes"), ("agent", "agents"), ("state", "states"))
    ]
    return made, list(zip(accumulate(columns["seq"]), at, *words, columns["duration_ms"], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "roomkit_session/support_call_60.jsonl", "roomkit_session/v058_dst_fall_back_toronto.jsonl",
        "roomkit_mixed/session_status_tool.jsonl", "dirty/timestamps_zoo.jsonl", "dirty/out_of_order.jsonl",
        "roomkit_tool/all_statuses.jsonl", "roomkit_session/one_line.jsonl",
    ],
)  # fmt: skip
def test_an_outline_undone_is_the_session_in_display_order(import_sample, name):
    session = import_sample(name).sessions.get()
    made, rows = decoded(session)
    events = list(session.events.order_by("sort_us", "dump_id", "line", "id"))
    starts = [
        e.at_us - round(e.duration_ms * 1000) if e.lane == "tool" and e.duration_ms and e.at_us is not None else e.at_us
        for e in events
    ]
    start = min((at for at in starts if at is not None), default=None)
    assert made["start"] == iso(start)
    assert rows == [
        (
            e.seq,
            None if at is None else (at - start) // 1000,
            e.lane,
            e.agent or None,
            e.status or None,
            None if e.duration_ms is None else round(e.duration_ms),
        )
        for e, at in zip(events, starts, strict=True)
    ]
    assert (made["revision"], made["last_seq"]) == (session.revision, session.last_seq)


def test_a_call_begins_before_its_stamp_and_ends_at_it(import_sample):
    session = import_sample("roomkit_tool/all_statuses.jsonl").sessions.get()
    made, rows = decoded(session)
    longest = session.events.order_by("-duration_ms").exclude(duration_ms=None).first()
    row = next(row for row in rows if row[0] == longest.seq)
    first_us = min(e.at_us - round((e.duration_ms or 0) * 1000) for e in session.events)
    assert row[1] + row[5] == pytest.approx((longest.at_us - first_us) / 1000, abs=2)
    assert made["end"] == iso(max(e.at_us for e in session.events))


def test_an_outline_of_nothing_is_empty(team):
    made, rows = decoded(Session.objects.create(team=team, key="k", title="t"))
    assert rows == []
    assert (made["start"], made["end"], made["lanes"]) == (None, None, [])


def test_a_remembered_outline_is_never_an_old_one(import_sample):
    session = import_sample("roomkit_session/big_5000.jsonl").sessions.get()
    before = outline.outline_gzip(session)
    assert outline.outline_gzip(session) is not None
    assert gzip.decompress(before) == outline.build(session)
    values = session.events.values_list(*EVENT_COLUMNS).first()
    with transaction.atomic():
        log.append(session, Event, EVENT_COLUMNS, [values])
    session.refresh_from_db()
    assert json.loads(outline.outline(session))["last_seq"] == session.last_seq
    assert len(decoded(session)[1]) == session.last_seq
    session = projection.rebuild(session)
    assert json.loads(outline.outline(session))["revision"] == session.revision


def test_remembering_spares_the_database(import_sample, django_assert_num_queries):
    session = import_sample("roomkit_session/big_5000.jsonl").sessions.get()
    first = outline.outline(session)
    with django_assert_num_queries(0):
        assert outline.outline(session) == first


def test_two_sessions_in_one_place_do_not_answer_for_each_other(import_sample, monkeypatch):
    monkeypatch.setattr(outline, "PLACES", 1)
    monkeypatch.setattr(outline, "SMALL", 0)
    one = import_sample("roomkit_session/support_call_60.jsonl").sessions.get()
    two = import_sample("roomkit_session/multi_party.jsonl").sessions.get()
    expected = [outline.build(one), outline.build(two)]
    for _ in range(2):
        assert [outline.outline(one), outline.outline(two)] == expected


def test_a_hundred_thousand_events_are_small_on_the_wire_and_quick_the_second_time(team):
    dump = Dump.objects.create(team=team, name="big.jsonl")
    session = Session.objects.create(team=team, key="k", title="big")
    kinds = [("speech", "user", ""), ("speech", "assistant", ""), ("tool_call", "tool", "ok"), ("vision", "vision", "")]
    rows = []
    for i in range(100_000):
        kind, lane, status = kinds[i * 7919 % 4]
        at = 1_770_000_000_000_000 + i * 700_123 + i * 7919 % 91_000
        agent, ms = (f"agent {i % 3}", i * 7919 % 4001 / 2) if lane == "tool" else ("", None)
        rows.append(
            ("t", at, at, "aware", kind, lane, "", agent, "", status, ms, "x", "", "", "", "", None, "", dump.pk, i + 1)
        )
    with transaction.atomic():
        log.append(session, Event, EVENT_COLUMNS, rows)
    packed = outline.outline_gzip(session)
    assert len(packed) < 2_000_000
    assert len(gzip.decompress(packed)) < 3_000_000
    best = min(_milliseconds(lambda: outline.outline_gzip(session)) for _ in range(5))
    assert best < 20


def _milliseconds(act) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
