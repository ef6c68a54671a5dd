"""A file that grew: the dump that it begins with goes on with the rest, once, and ends as one import of all of it."""

import json
import os
import random
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import jobs, store
from auditweb.dumps.models import BadLine, Dump, DumpChunk, State, Upload
from sessions_app.models import Event, Session
from status_app.models import StatusBus
from tests.site import until
from tests.test_concurrency import assert_nothing_is_left, assert_whole, at_once, is_stopped, said, upload, worker
from tests.test_ingest import SAMPLES, one_batch, snapshot
from tests.test_jobs import speech

pytestmark = pytest.mark.django_db(transaction=True)

GROWING = [
    "roomkit_mixed/session_status_tool.jsonl",
    "roomkit_mixed/v058_session_and_status_paris.jsonl",
    "roomkit_session/v058_tiny_toronto.jsonl",
    "roomkit_session/appended_two_runs.jsonl",
    "xerxes/multi_session_interleaved.jsonl",
    "agent_framework/trace-260320_115602.jsonl",
    "dirty/truncated_last_line.jsonl",
]


def add(team, data: bytes, name="a.jsonl", **told) -> Dump:
    """Upload *data* and import it to its end."""
    dump, _ = upload(team, data, name, **told)
    jobs.run(dump.pk)
    found = Dump.objects.get(pk=dump.pk)
    found.grown = dump.grown
    return found


def facts(dump: Dump) -> tuple:
    """What an import says of its lines."""
    bad = list(dump.bad_lines.order_by("line").values_list("line", "offset", "size", "reason"))
    return (dump.state, dump.lines, dump.blank_lines, dump.bad_line_count, dump.naive_lines, dump.events, dump.records,
            dump.zone, dump.zone_source, dump.size, dump.sha256, bad)  # fmt: skip


def test_a_longer_file_adds_only_its_tail_to_the_dump_it_begins_with(team):
    short, long = said(40), said(40) + said(30, "later")
    first = add(team, short)
    seen = list(Event.objects.order_by("id").values_list("id", flat=True))
    again = add(team, long, "b.jsonl")
    assert again.grown and again.pk == first.pk and again.public_id == first.public_id
    assert (again.state, again.lines, again.events, again.name) == ("done", 70, 70, "a.jsonl")
    assert b"".join(store.pieces(again)) == b"".join(store.received(again)) == long
    assert list(Event.objects.order_by("id").values_list("id", flat=True))[: len(seen)] == seen
    assert [store.line(again, n) for n in (1, 40, 41, 70)] == [long.splitlines()[n - 1] for n in (1, 40, 41, 70)]
    assert_whole(team)


def test_every_length_that_was_sent_stays_known(team):
    steps = [said(n) for n in (10, 20, 30)]
    first = add(team, steps[0])
    for data in steps[1:]:
        assert add(team, data).pk == first.pk
    for data in steps:
        dump, duplicate = upload(team, data)
        assert duplicate and dump.pk == first.pk and not dump.grown
    assert (Dump.objects.count(), Upload.objects.count(), Event.objects.count()) == (1, 3, 30)
    assert sorted(Upload.objects.values_list("size", flat=True)) == [len(data) for data in steps]
    jobs.delete(Dump.objects.get())
    assert_nothing_is_left()


def test_of_several_dumps_that_a_file_begins_with_the_longest_grows(team):
    one = add(team, said(10), session_key="one")
    two = add(team, said(20), session_key="two")
    assert one.pk != two.pk
    assert add(team, said(30)).pk == two.pk
    assert Session.objects.get(key="two").event_count == 30


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (said(10).rstrip(b"\n"), {}),  # its last line may have been half of one
        (said(9) + said(1, "other"), {}),
        (said(10), {"session_key": "another"}),
        (said(10), {"zone": "Asia/Tokyo"}),
        (said(10), {"offset_ms": 5}),
        (b"\n", {}),
    ],
    ids=["no newline", "other bytes", "other session", "other zone", "other offset", "other first line"],
)
def test_what_does_not_continue_a_dump_is_a_dump_of_its_own(team, before, told):
    first = add(team, before)
    second = add(team, said(20), "b.jsonl", **told)
    assert second.pk != first.pk and not second.grown
    assert second.lines == 20


def test_another_teams_dump_never_grows(team, other_team):
    theirs = add(other_team, said(10))
    mine = add(team, said(20))
    assert mine.pk != theirs.pk
    theirs.refresh_from_db()
    assert (theirs.lines, theirs.size) == (10, len(said(10)))


def test_a_longer_file_from_five_at_once_is_imported_once(team):
    first = add(team, said(300))
    long = said(900)
    found = at_once([lambda: upload(team, long) for _ in range(5)])
    assert {dump.pk for dump, _ in found} == {first.pk}
    assert sorted(duplicate for _, duplicate in found) == [False, True, True, True, True]
    assert sorted(dump.grown for dump, _ in found) == [False, False, False, False, True]
    jobs.run(first.pk)
    assert (Dump.objects.count(), Upload.objects.count(), Event.objects.count()) == (1, 2, 900)
    assert sum(DumpChunk.objects.values_list("size", flat=True)) == len(long)
    assert_whole(team)


def test_files_of_many_lengths_at_once_end_as_the_longest(team):
    """A log that is sent by a timer: whatever the order of arrival, no line is lost or there twice in one session."""
    add(team, said(100))
    found = at_once([lambda n=n: upload(team, said(n)) for n in (200, 300, 400, 500)])
    for dump, _ in found:
        jobs.run(dump.pk)
    longest = max(Dump.objects.all(), key=lambda dump: dump.size)
    assert longest.size == len(said(500)) and longest.state == "done"
    assert all(dump.lines == dump.events for dump in Dump.objects.all())
    assert_whole(team)


def test_a_dump_grows_while_it_is_imported(team, monkeypatch):
    monkeypatch.setattr(jobs, "BATCH", 10)
    short, long = said(30), said(75)
    dump, _ = upload(team, short)
    grown = []

    def grow(now):
        if now.lines in (20, 30) and len(grown) < 2:  # in the middle, and after what was the last line
            grown.append(upload(team, long[: len(said(50))] if not grown else long))

    assert jobs.run(dump.pk, grow)
    assert [(d.pk, d.grown, duplicate) for d, duplicate in grown] == [(dump.pk, True, False)] * 2
    dump.refresh_from_db()
    assert (dump.state, dump.lines, dump.events, dump.size) == ("done", 75, 75, len(long))
    assert_whole(team)


@pytest.mark.parametrize("state", [State.CANCELLED, State.FAILED])
def test_a_dump_that_stopped_goes_on_when_it_grows(team, monkeypatch, state):
    monkeypatch.setattr(jobs, "BATCH", 10)
    dump, _ = upload(team, said(40))
    jobs.run(dump.pk, progress=lambda d: jobs.cancel(d))
    Dump.objects.filter(pk=dump.pk).update(state=state, error="stopped")
    grown = add(team, said(60))
    assert (grown.pk, grown.state, grown.error, grown.lines, grown.events) == (dump.pk, "done", "", 60, 60)
    assert_whole(team)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_file_that_arrives_in_growing_lengths_ends_like_one_import_of_it(team, other_team, data):
    """Any sample, cut after any lines, in chunks of any size, each import killed after any number of batches."""
    name = data.draw(st.sampled_from(GROWING))
    whole = (SAMPLES / name).read_bytes()
    lines = whole.splitlines(keepends=True)
    cuts = data.draw(st.lists(st.integers(1, len(lines) - 1), max_size=4, unique=True).map(sorted))
    keep = store.CHUNK_BYTES, jobs.BATCH
    store.CHUNK_BYTES, jobs.BATCH = data.draw(st.integers(50, 5000)), data.draw(st.integers(1, 40))
    try:
        one = add(other_team, whole, "a.jsonl")
        for number, cut in enumerate([*cuts, len(lines)]):
            dump, duplicate = upload(team, b"".join(lines[:cut]))
            assert not duplicate and dump.grown == (number > 0)
            for _ in range(data.draw(st.integers(0, 2))):
                one_batch(dump)
            if data.draw(st.booleans()):
                Dump.objects.filter(pk=dump.pk).update(lease_until=0)
                jobs.run(dump.pk)
        Dump.objects.filter(pk=dump.pk).update(lease_until=0)
        jobs.run(dump.pk)
        dump.refresh_from_db()
        assert facts(dump) == facts(one)
        assert json.loads(json.dumps(snapshot(team), default=str).replace(dump.public_id, one.public_id)) == json.loads(
            json.dumps(snapshot(other_team), default=str)
        )
    finally:
        store.CHUNK_BYTES, jobs.BATCH = keep
        for dump in Dump.objects.all():
            jobs.delete(dump)
    assert not (Upload.objects.exists() or DumpChunk.objects.exists() or BadLine.objects.exists())
    assert not (Session.objects.exists() or StatusBus.objects.exists())


def test_growing_under_a_worker_that_is_killed_loses_and_doubles_nothing(team):
    short, long = said(4000), said(9000)
    dump, _ = upload(team, short)
    at = random.randrange(200, 3800)
    print("stopped at", at)  # shown when this fails
    with worker(dump, batch=100, stop_at=at) as process:
        until(lambda: is_stopped(process), "the worker stops itself")
        grown, _ = upload(team, long)
        assert grown.pk == dump.pk
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.lines, dump.events) == ("done", 9000, 9000)
    assert_whole(team)


def test_the_api_answers_with_the_dump_that_grew(alice_client):
    def put(data):
        return alice_client.put("/api/v1/dumps/a.jsonl", data, content_type="application/octet-stream")

    first = put(speech(1)).json()
    jobs.run(Dump.objects.get().pk)
    answer = put(speech(1) + speech(2))
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["grown"], answer.json()["duplicate"]) == (first["id"], True, False)
    jobs.run(Dump.objects.get().pk)
    again = put(speech(1))
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["grown"], again.json()["duplicate"]) == (first["id"], False, True)
    original = alice_client.get(f"/api/v1/dumps/{first['id']}/original")
    assert b"".join(original.streaming_content) == speech(1) + speech(2)
    page = alice_client.get(f"/dumps/{first['id']}/").content.decode()
    assert "<dt>Grew</dt>" in page


def test_a_dump_is_added_to_a_session_by_its_id_or_its_key(team, other_team, alice_client):
    first = add(team, said(10))
    session = first.sessions.get()
    theirs = add(other_team, said(11)).sessions.get()
    for number, told in enumerate((session.public_id, session.key)):
        data = said(5, f"more {number}")
        url = f"/api/v1/dumps/{number}.jsonl?session={told}"
        answer = alice_client.put(url, data, content_type="application/octet-stream")
        assert answer.status_code == 202
        jobs.run(Dump.objects.get(public_id=answer.json()["id"]).pk)
    session.refresh_from_db()
    assert (session.event_count, session.dumps.count()) == (20, 3)
    answer = alice_client.put(
        f"/api/v1/dumps/x.jsonl?session={theirs.public_id}", said(3, "x"), content_type="application/octet-stream"
    )
    jobs.run(Dump.objects.get(public_id=answer.json()["id"]).pk)
    theirs.refresh_from_db()
    assert (theirs.event_count, Session.objects.get(key=theirs.public_id).team) == (11, team)
