"""Every real RoomKit dump imports with the numbers that its producer had, once, however it is cut into batches."""

import contextlib
import hashlib
import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump
from sessions_app import projection
from sessions_app.models import Event, Session, ToolCall, Turn
from status_app import ingest as status_ingest
from status_app.models import StatusBus, StatusEntry

SAMPLES = Path(__file__).parent / "samples"
FILES = json.loads((SAMPLES / "manifest.json").read_text())["files"]
REAL = [f for f in FILES if f["path"].startswith("roomkit_")]

pytestmark = pytest.mark.django_db(transaction=True)


def us(stamp: str) -> int:
    """Microseconds since 1970 of an aware ISO time."""
    moment = datetime.fromisoformat(stamp) - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (moment.days * 86400 + moment.seconds) * 1_000_000 + moment.microseconds


class Stopped(BaseException):
    """Ends an import after a batch, as a kill would."""


def one_batch(dump: Dump) -> None:
    """Import one batch of *dump*, by a worker that starts from the checkpoint and dies after its commit."""

    def stop(_):
        raise Stopped

    Dump.objects.filter(pk=dump.pk).update(lease_until=0)
    with contextlib.suppress(Stopped):
        jobs.run(dump.pk, progress=stop)
    dump.refresh_from_db()


def upload(team, name: str, data: bytes, **told) -> Dump:
    dump = store.begin(team, name, len(data), **told)
    store.append_bytes(dump, 0, data)
    return store.finish(dump)[0]


@pytest.mark.parametrize("file", REAL, ids=[f["path"] for f in REAL])
def test_a_real_dump_imports_with_the_numbers_of_its_producer(file, team, import_sample):
    reading = file["reading"]
    zone = reading["timestamps"].get("naive_read_as", "")
    dump = import_sample(file["path"], team=team, zone=zone)

    assert dump.state == "done", dump.error
    assert dump.sha256 == file["sha256"]
    assert hashlib.sha256(b"".join(store.pieces(dump))).hexdigest() == file["sha256"]
    assert dump.lines == reading["physical_lines"]
    assert dump.blank_lines == len(reading["blank_lines"])
    assert dump.records == reading["records_by_kind"]
    assert sorted(dump.bad_lines.values_list("line", flat=True)) == sorted(
        m["line"] if isinstance(m, dict) else m for m in reading["malformed_lines"]
    )

    sessions = list(dump.sessions.order_by("pk"))
    events = Event.objects.filter(dump=dump)
    said, called, posted = reading.get("session", {}), reading.get("tool", {}), reading.get("status", {})
    if not said and not called:
        assert not sessions
    else:
        assert dump.events == events.count() == reading["records"]
        assert sum(s.user_turns for s in sessions) == said.get("user_turns", 0)
        assert sum(s.assistant_turns for s in sessions) == said.get("assistant_turns", 0)
        assert sum(s.tool_calls for s in sessions) == said.get("tool_calls", 0) + called.get("calls", 0)
        total = said.get("tool_ms", 0) + called.get("total_ms", 0)
        assert round(sum(s.tool_ms for s in sessions), 3) == pytest.approx(total, abs=0.002)
        assert add(s.tools for s in sessions) == add([said.get("by_tool", {}), called.get("by_tool", {})])
        assert add(s.tool_statuses for s in sessions) == add(
            [said.get("tools_by_status", {}), called.get("by_status", {})]
        )
        assert sum(s.vision_count for s in sessions) == said.get("vision", 0)
        assert sum(s.interruptions for s in sessions) == said.get("barge_ins", 0)
        assert sum(s.errors for s in sessions) == said.get("errors", 0)
        assert sum(s.status_count for s in sessions) == posted.get("entries", 0)
        kinds = add(s.kinds for s in sessions)
        for kind, count in said.get("events_by_type", {}).items():
            assert kinds[kind] == count + (called.get("calls", 0) if kind == "tool_call" else 0)
        if said.get("channels"):
            assert {s.channel for s in sessions} <= set(said["channels"])
            assert {s.participant for s in sessions} <= set(said["participants"])
    if posted:
        bus = dump.status_buses.get()
        assert bus.entry_count == bus.entries.count() == posted["entries"]
        assert bus.levels == posted["by_level"]
        assert bus.agents == posted["by_agent"]

    firsts = [x.first_us for x in sessions or dump.status_buses.all()]
    lasts = [x.last_us for x in sessions or dump.status_buses.all()]
    assert min(firsts) == us(reading["timestamps"]["utc_min"])
    assert max(lasts) == us(reading["timestamps"]["utc_max"])


def add(counts) -> dict:
    total: dict = {}
    for one in counts:
        for word, n in one.items():
            total[word] = total.get(word, 0) + n
    return total


def test_the_zone_of_naive_times_is_found_from_aware_neighbours(team, import_sample):
    dump = import_sample("roomkit_session/v058_tiny_toronto.jsonl", team=team)
    assert (dump.zone, dump.zone_source) == ("-04:00", "inferred")
    session = dump.sessions.get()
    assert session.first_us == us("2026-03-20T15:56:02.118204+00:00")
    assert session.duration_s == pytest.approx(100.886)
    order = session.events.order_by("sort_us", "line").values_list("line", flat=True)
    assert list(order) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_zone_that_is_told_later_moves_the_times_and_raises_the_revision(team, import_sample):
    dump = import_sample("roomkit_session/v058_dst_fall_back_toronto.jsonl", team=team)
    session = dump.sessions.get()
    assert dump.zone_source == "assumed"
    before = session.revision
    jobs.tell(dump, "America/Toronto")
    session.refresh_from_db()
    assert session.revision > before
    assert session.first_us == us("2026-11-01T05:40:00.700000+00:00")
    assert session.last_us == us("2026-11-01T06:22:00.700000+00:00")
    assert session.events.first().ts_text == "2026-11-01T01:40:00.700000"
    with pytest.raises(ValueError, match="zone"):
        jobs.tell(dump, "Mars/Olympus")


def test_importing_twice_changes_nothing(team, import_sample):
    first = import_sample("roomkit_mixed/session_status_tool.jsonl", team=team)
    counts = [m.objects.count() for m in (Dump, Session, Event, Turn, ToolCall, StatusBus, StatusEntry)]
    again = import_sample("roomkit_mixed/session_status_tool.jsonl", team=team)
    assert again.pk == first.pk
    assert counts == [m.objects.count() for m in (Dump, Session, Event, Turn, ToolCall, StatusBus, StatusEntry)]


def test_a_file_that_two_runs_appended_to_is_two_sessions(team, import_sample):
    dump = import_sample("roomkit_session/appended_two_runs.jsonl", team=team)
    assert [s.key for s in dump.sessions.order_by("pk")] == [dump.public_id, f"{dump.public_id}#2"]
    assert [s.event_count for s in dump.sessions.order_by("pk")] == [12, 9]


def test_one_session_key_holds_all_lines(team, import_sample):
    dump = import_sample("roomkit_session/appended_two_runs.jsonl", team=team, session_key="support-7")
    session = dump.sessions.get()
    assert (session.key, session.event_count) == ("support-7", 21)


def test_a_dump_of_status_lines_has_a_bus_and_no_session(team, import_sample):
    dump = import_sample("roomkit_status/five_levels.jsonl", team=team)
    assert not dump.sessions.exists()
    assert dump.status_buses.get().entry_count == 17


def test_status_lines_before_the_first_session_line_come_first(team, monkeypatch):
    status = b'{"ts": "2026-01-01T10:00:0%d+00:00", "agent_id": "a", "action": "go", "status": "ok", "detail": "d"}\n'
    speech = b'{"ts": "2026-01-01T10:00:09+00:00", "type": "speech", "role": "user", "content": "hi"}\n'
    dump = upload(team, "late.jsonl", b"".join(status % i for i in range(5)) + speech)
    monkeypatch.setattr(jobs, "BATCH", 2)
    one_batch(dump)
    assert not Session.objects.exists()
    assert StatusEntry.objects.count() == 2
    for _ in range(5):
        one_batch(dump)
    session = Session.objects.get()
    assert [(e.seq, e.line, e.kind) for e in session.events] == [
        *((i, i, "status") for i in range(1, 6)),
        (6, 6, "speech"),
    ]
    assert session.status_bus.entry_count == 5


KEYS = {
    "id", "public_id", "team", "key", "title", "created_at", "updated_at", "status_bus", "revision", "order_dump",
}  # fmt: skip


def snapshot(team) -> dict:
    """All that was derived, without keys that differ between two imports."""
    found = {}
    for session in Session.objects.filter(team=team).order_by("pk"):
        base = session.pk << 32
        counters = {f.name: getattr(session, f.name) for f in Session._meta.concrete_fields if f.name not in KEYS}
        events = [
            tuple(v for k, v in row.items() if k not in ("id", "dump_id")) + (row["id"] - base,)
            for row in session.events.values()
        ]
        derived = {}
        for model in projection.DERIVED:
            rows = list(model.objects.filter(id__range=(base, base + 2**32 - 1)).order_by("id").values())
            for row in rows:
                row.pop("dump_id", None)
                row["id"] -= base
                if "call" in row:
                    row["call"] -= base
            derived[model.__name__] = rows
        found[len(found)] = (counters, events, derived)
    for bus in StatusBus.objects.filter(team=team):
        rows = [
            tuple(v for k, v in row.items() if k not in ("id", "dump_id")) + (row["id"] - (bus.pk << 32),)
            for row in bus.entries.values()
        ]
        found["bus"] = (bus.entry_count, bus.levels, bus.agents, bus.first_us, bus.last_us, rows)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "roomkit_mixed/v058_session_and_status_paris.jsonl",
        "roomkit_session/appended_two_runs.jsonl",
        "xerxes/multi_session_interleaved.jsonl",
        "xerxes/real_runtime.jsonl",
        "agent_framework/trace-260501_090000.jsonl",
        "dirty/out_of_order.jsonl",
        "dirty/all_formats_concatenated.jsonl",
        "other/roomkit_timeline.jsonl",
    ],
)
def test_any_split_into_batches_gives_the_same_rows(name, team, import_sample, monkeypatch):
    data = (SAMPLES / name).read_bytes()
    whole = import_sample(name, team=team)
    expected = snapshot(team)
    jobs.delete(whole)

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
    def check(sizes):
        dump = upload(team, Path(name).name, data)
        for turn in range(200):
            if dump.state == "done":
                break
            monkeypatch.setattr(jobs, "BATCH", sizes[turn % len(sizes)])
            one_batch(dump)
        assert snapshot(team) == expected
        jobs.delete(dump)

    check()


def test_rebuild_gives_what_the_import_gave(team, import_sample):
    import_sample("roomkit_mixed/session_status_tool.jsonl", team=team)
    expected = snapshot(team)
    session = Session.objects.get(team=team)
    projection.rebuild(session)
    status_ingest.recount(StatusBus.objects.get(team=team))
    assert snapshot(team) == expected
    assert Session.objects.get(team=team).revision == session.revision + 1


def test_a_dump_of_ever_new_words_costs_no_more_than_others(team, import_bytes):
    line = b'{"ts": "2026-01-01T00:00:00Z", "type": "kind%d", "content": "", "role": null, "metadata": {}}\n'
    dump = import_bytes(b"".join(line % i for i in range(1200)), team=team)
    kinds = dump.sessions.get().kinds
    assert len(kinds) == 501
    assert kinds["…"] == 700
    assert sum(kinds.values()) == 1200
