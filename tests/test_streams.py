"""Streams: lines of producers that run, numbered, stored once, whatever is sent again."""

import json

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from auditweb.dumps import jobs, store, streams
from auditweb.dumps.models import BadLine, DumpChunk, State
from sessions_app.models import Event, Session
from status_app.models import StatusBus

pytestmark = pytest.mark.django_db


def speech(n, text="hello", **more):
    entry = {"ts": f"2026-03-01T10:{n // 60:02d}:{n % 60:02d}+00:00", "type": "speech", "role": "user", "content": text}
    return json.dumps({**entry, "duration_ms": None, "metadata": {}, **more}).encode()


def post(n, status="ok"):
    return json.dumps(
        {"ts": f"2026-03-01T10:{n // 60:02d}:{n % 60:02d}+00:00", "agent_id": "scout", "action": "look",
         "status": status, "detail": "", "metadata": {}}
    ).encode()  # fmt: skip


def test_lines_are_numbered_stored_and_sent_again_without_harm(team):
    dump = streams.open(team, "voice-7")
    lines = [speech(n) for n in range(5)]
    assert streams.append(dump, 1, lines[:3])[:2] == (3, 0)
    assert streams.append(dump, 1, lines[:3])[:2] == (3, 3)
    assert streams.append(dump, 2, lines[1:])[:2] == (5, 2)
    dump.refresh_from_db()
    assert b"".join(store.pieces(dump)) == b"\n".join(lines) + b"\n"
    session = dump.sessions.get()
    assert (session.title, session.live, session.last_seq, session.user_turns) == ("voice-7", True, 5, 5)
    assert list(session.events.values_list("line", flat=True)) == [1, 2, 3, 4, 5]


def test_a_gap_is_refused_with_the_number_expected_and_another_line_with_its_number(team):
    dump = streams.open(team, "voice-7")
    with pytest.raises(streams.Gap) as gap:
        streams.append(dump, 2, [speech(1)])
    assert gap.value.expected == 1
    streams.append(dump, 1, [speech(1), speech(2)])
    with pytest.raises(streams.Differs) as differs:
        streams.append(dump, 1, [speech(1), speech(3), speech(4)])
    assert differs.value.line == 2
    assert Event.objects.count() == 2


def test_bad_and_blank_lines_count_and_harm_nobody(team):
    dump = streams.open(team, "voice-7")
    taken = streams.append(dump, 1, [speech(1), b"\xff{", b"", speech(2)])
    assert taken.through == 4
    assert (taken.dump.bad_line_count, taken.dump.blank_lines, taken.dump.events) == (1, 1, 2)
    assert BadLine.objects.get().line == 2


def test_many_small_batches_end_in_few_chunks_and_every_line_is_found(team):
    dump = streams.open(team, "voice-7")
    lines = [speech(n % 3000, "x" * (n % 700)) for n in range(400)]
    for n, line in enumerate(lines, 1):
        streams.append(dump, n, [line])
    dump.refresh_from_db()
    chunks = DumpChunk.objects.filter(dump=dump).order_by("number")
    assert chunks.count() == dump.chunk_count < 100
    assert [chunk.number for chunk in chunks] == list(range(dump.chunk_count))
    assert b"".join(store.pieces(dump)) == b"\n".join(lines) + b"\n"
    assert [store.line(dump, n) for n in (1, 63, 64, 65, 399, 400)] == [lines[n - 1] for n in (1, 63, 64, 65, 399, 400)]
    assert store.line(dump, 401) is None


def test_an_ended_stream_is_done_and_a_line_more_opens_it_again(team):
    dump = streams.open(team, "voice-7")
    streams.append(dump, 1, [speech(1), post(2)])
    session, bus = dump.sessions.get(), StatusBus.objects.get()
    assert streams.end(dump) == streams.end(dump) == 2
    dump.refresh_from_db()
    session.refresh_from_db()
    assert (dump.state, len(dump.sha256), session.live) == (State.DONE, 64, False)
    assert session.ended_at is not None
    streams.append(dump, 3, [speech(3)])
    dump.refresh_from_db()
    session.refresh_from_db()
    assert (dump.state, dump.sha256, session.live, session.ended_at) == (State.LIVE, "", True, None)
    assert (session.last_seq, bus.entries.count()) == (3, 1)


def test_a_session_of_several_streams_runs_until_the_last_has_ended(team):
    first, second = (streams.open(team, name, session="call") for name in ("speech", "tools"))
    streams.append(first, 1, [speech(1)])
    streams.append(second, 1, [speech(2)])
    session = Session.objects.get()
    streams.end(first)
    session.refresh_from_db()
    assert session.live
    streams.end(second)
    session.refresh_from_db()
    assert not session.live


def test_a_heartbeat_is_heard_and_stores_nothing(team):
    dump = streams.open(team, "voice-7")
    streams.append(dump, 1, [speech(1)])
    assert streams.heartbeat(dump) == 1
    session = Session.objects.get()
    assert session.heard_at is not None
    assert session.last_seq == 1


def test_a_stream_that_nobody_heard_for_an_hour_ends(team):
    dump = streams.open(team, "voice-7")
    streams.append(dump, 1, [speech(1)])
    assert streams.end_lost() == 0
    dump.__class__.objects.filter(pk=dump.pk).update(heartbeat_at=dump.created_at - streams.LOST_AFTER * 2)
    assert streams.end_lost() == 1
    assert not Session.objects.get().live


def test_the_zone_of_naive_lines_is_found_while_they_come_as_an_import_finds_it(team):
    naive = [json.dumps({"ts": f"2026-03-01T06:00:{n:02d}", "type": "speech", "role": "user", "content": "x",
                         "duration_ms": None, "metadata": {}}).encode() for n in range(0, 40, 2)]  # fmt: skip
    aware = [json.dumps({"ts": f"2026-03-01T10:00:{n:02d}+00:00", "agent_id": "a", "tool_name": "t", "arguments": {},
                         "result": "r", "status": "ok", "duration_ms": 1.0, "metadata": {}}).encode()
             for n in range(1, 41, 2)]  # fmt: skip
    lines = [line for pair in zip(naive, aware, strict=True) for line in pair]
    dump = streams.open(team, "voice-7")
    for n, line in enumerate(lines, 1):
        streams.append(dump, n, [line])
    dump.refresh_from_db()
    assert (dump.zone, dump.zone_source) == ("-04:00", "inferred")
    times = list(Session.objects.get().events.values_list("at_us", flat=True))
    assert times == sorted(times)
    assert times[-1] - times[0] == 39_000_000


def test_a_transaction_that_fails_leaves_nothing(team):
    dump = streams.open(team, "voice-7")
    with pytest.raises(RuntimeError), transaction.atomic():
        streams.append(dump, 1, [speech(1)])
        raise RuntimeError
    assert streams.append(dump, 1, [speech(1)])[:2] == (1, 0)


def test_a_stream_can_be_imported_again_when_it_has_ended_and_go_on_then(team):
    dump = streams.open(team, "voice-7")
    streams.append(dump, 1, [speech(1), speech(2)])
    with pytest.raises(store.Refused):
        jobs.reimport(dump)
    streams.end(dump)
    jobs.reimport(dump, zone="Europe/Paris")
    with pytest.raises(streams.Busy):
        streams.append(dump, 3, [speech(3)])
    jobs.run(dump.pk)
    assert streams.append(dump, 3, [speech(3)])[:2] == (3, 0)
    assert Event.objects.filter(dump=dump).count() == 3


@limits(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_way_of_sending_stores_every_line_once(team, data):
    lines = [speech(n, f"line {n}") for n in range(data.draw(st.integers(1, 40)))]
    with transaction.atomic():
        dump = streams.open(team, f"s{data.draw(st.integers(0, 10**9))}")
        at = 0
        while at < len(lines):
            first = data.draw(st.integers(0, at))
            last = data.draw(st.integers(at + 1, len(lines)))
            at = streams.append(dump, first + 1, lines[first:last]).through
        dump.refresh_from_db()
        assert b"".join(store.pieces(dump)) == b"".join(line + b"\n" for line in lines)
        texts = list(dump.sessions.get().events.values_list("text", flat=True))
        assert texts == [f"line {n}" for n in range(len(lines))]
        transaction.set_rollback(True)


def test_a_stream_that_was_told_another_zone_goes_on_in_it(team):
    naive = [json.dumps({"ts": f"2026-03-01T06:00:{n:02d}", "type": "speech", "role": "user", "content": "x",
                         "duration_ms": None, "metadata": {}}).encode() for n in range(3)]  # fmt: skip
    dump = streams.open(team, "voice-7")
    streams.append(dump, 1, naive[:2])
    jobs.tell(dump, zone="Europe/Paris", offset_ms=1000)
    streams.append(dump, 3, naive[2:])
    streams.end(dump)
    times = list(Session.objects.get().events.values_list("at_us", flat=True))
    assert [at - times[0] for at in times] == [0, 1_000_000, 2_000_000]
    assert times[0] == 1_772_341_201_000_000


def test_a_session_ends_with_the_last_stream_that_runs_even_when_that_is_deleted(team):
    first, second = (streams.open(team, name, session="call") for name in ("speech", "tools"))
    streams.append(first, 1, [speech(1)])
    streams.append(second, 1, [speech(2)])
    streams.end(first)
    jobs.delete(second)
    session = Session.objects.get()
    assert (session.live, session.event_count) == (False, 1)


def test_a_running_session_whose_streams_pass_each_other_is_brought_in_order_now_and_then(team):
    from sessions_app import tasks

    first, second = (streams.open(team, name, session="call") for name in ("late", "early"))
    streams.append(first, 1, [speech(n, "late") for n in (10, 30)])
    streams.append(second, 1, [speech(20, "early")])
    session = Session.objects.get()
    assert session.unordered
    tasks.bring_in_order()
    session.refresh_from_db()
    assert (session.unordered, session.revision) == (False, 1)
    streams.append(second, 2, [speech(25, "early")])
    tasks.bring_in_order()
    session.refresh_from_db()
    assert session.unordered, "it rests for a while"
    for dump in (first, second):
        streams.end(dump)
    session.refresh_from_db()
    assert not session.unordered
    assert [turn.first_seq for turn in session_turns(session)] == [1, 3, 4, 2]


def session_turns(session):
    from auditweb.log import id_range
    from sessions_app.models import Turn

    return Turn.objects.filter(id__range=id_range(session.pk)).order_by("id")
