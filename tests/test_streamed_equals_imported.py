"""Dumps sent line by line, interleaved, cut off and killed, end as if they had been imported in one piece."""

import itertools
import json
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import jobs, store, streams
from auditweb.dumps.models import BadLine, Dump, DumpChunk
from auditweb.log import id_range, seq_of
from sessions_app import outline, projection, summary, timeline
from sessions_app.models import Session
from status_app import summary as status_summary
from status_app.models import StatusBus
from tests.test_append import add, facts
from tests.test_ingest import SAMPLES

pytestmark = pytest.mark.django_db(transaction=True)

Files = list[tuple[str, bytes]]


def files(*names: str) -> Files:
    return [(Path(name).name, (SAMPLES / name).read_bytes()) for name in names]


def parted(name: str) -> Files:
    """What one conversation left in one file, as the three files that its auditors may as well write."""
    parts: dict[str, bytes] = {"session": b"", "tool": b"", "status": b""}
    for line in (SAMPLES / name).read_bytes().splitlines(keepends=True):
        entry = json.loads(line)
        parts["session" if "type" in entry else "tool" if "tool_name" in entry else "status"] += line
    assert all(parts.values())
    return [(f"{part}.jsonl", data) for part, data in parts.items()]


CASES = {
    "three files of one conversation": parted("roomkit_mixed/session_status_tool.jsonl"),
    "three files, two with naive times": files(
        "roomkit_session/v058_call_60_paris.jsonl",
        "roomkit_tool/v058_all_statuses.jsonl",
        "roomkit_status/v058_five_levels.jsonl",
    ),
    "naive and aware times in one file": files("roomkit_mixed/v058_session_and_status_paris.jsonl"),
    "two runs": files("roomkit_session/appended_two_runs.jsonl"),
    "times that go back": files("dirty/out_of_order.jsonl"),
    "every format": files("dirty/all_formats_concatenated.jsonl"),
    "a last line without its end": files("dirty/truncated_last_line.jsonl"),
    "Xerxes, several sessions": files("xerxes/multi_session_interleaved.jsonl"),
    "Xerxes, the real runtime": files("xerxes/real_runtime.jsonl"),
    "agent_framework": files("agent_framework/trace-260320_115602.jsonl"),
    "agent_framework, clocks go back": files("agent_framework/trace-261025_013000.jsonl"),
}

ACKNOWLEDGED, CUT_OFF, KILLED, LOOKED_AT, ENDED = FATES = "acknowledged", "cut off", "killed", "looked at", "ended"
STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 25), st.sampled_from(FATES)), max_size=24)


class Kill(Exception):
    """The process is gone before its transaction has committed."""


def rules(several: Files) -> dict:
    """How files of one conversation are told that they are."""
    return {"session": "call", "bus": "posts"} if len(several) > 1 else {}


def stream(team, several: Files, steps) -> list[Dump]:
    """The dumps that *several* become when they are sent in *steps*: (which of them, how many lines, what happens)."""
    dumps = [streams.open(team, f"stream of {name}", title=name, **rules(several)) for name, _ in several]
    whole = [data.removesuffix(b"\n").split(b"\n") for _, data in several]
    acked = [0] * len(dumps)
    rest = ((which, 10, ACKNOWLEDGED) for which in itertools.count())
    for which, size, fate in itertools.chain(steps, rest):
        which %= len(dumps)
        lines = whole[which][acked[which] : acked[which] + size]
        if fate in (CUT_OFF, KILLED):
            dump = dumps[which]  # as it was when the stream was opened
        else:
            dump = streams.find(team, dumps[which].stream)
        last = acked[which] + len(lines) == len(whole[which])
        newline = several[which][1].endswith(b"\n") or not last
        try:
            with transaction.atomic():
                taken = streams.append(dump, acked[which] + 1, lines, newline)
                if fate == KILLED:
                    raise Kill
        except Kill:
            cache.clear()
            continue
        assert taken.through >= acked[which] + len(lines)
        if fate == CUT_OFF:
            continue
        acked[which] += len(lines)
        if fate == LOOKED_AT:
            for session in Session.objects.filter(team=team):
                texts(session), outline.outline(session)
        if fate == ENDED:
            streams.end(dump)
        if acked == [len(lines) for lines in whole]:
            break
    for dump in dumps:
        streams.end(dump)
        dump.refresh_from_db()
    return dumps


def texts(session: Session) -> list[bytes]:
    return [
        b"".join(summary.text(session, of, style))
        for of in summary.available(session)
        for style in ("upstream", "docs", "auditweb")
    ]


NOT_TIME = {
    "id", "public_id", "team", "key", "created_at", "updated_at", "status_bus", "revision", "last_seq", "live",
    "heard_at", "ended_at", "order_dump", "order_us", "order_line", "unordered", "unfinished",
}  # fmt: skip


def told(team, dumps: list[Dump]) -> dict:
    """What people see of *dumps*, in the order of time: nothing of it says in which order it came."""
    place = {dump.pk: number for number, dump in enumerate(dumps)}
    found: dict = {}
    for session in Session.objects.filter(team=team).order_by("pk"):
        where, seen = {}, {}
        for event in session.events.order_by("id"):
            line = (place[event.dump_id], event.line)
            seen[line] = seen.get(line, -1) + 1
            where[seq_of(event.pk)] = (*line, seen[line])
        page = timeline.page(session, timeline.Query(order="time", limit=1000))
        assert not page["more"]
        order = [row["seq"] for row in page["entries"]]
        found[len(found)] = {
            "counters": {
                f.name: getattr(session, f.name) for f in Session._meta.concrete_fields if f.name not in NOT_TIME
            },
            "order": [where[seq] for seq in order],
            "rows": [placed(row, where) for row in page["entries"]],
            "texts": texts(session),
            **{model.__name__: derived(model, session, where, place) for model in projection.DERIVED},
        }
    for bus in StatusBus.objects.filter(team=team).order_by("pk"):
        entries = bus.entries.order_by("sort_us", "dump_id", "line").values()
        found[f"bus {bus.title}"] = (
            [tuple(v for k, v in row.items() if k not in ("id", "dump_id")) for row in entries],
            (bus.entry_count, bus.levels, bus.agents, bus.first_us, bus.last_us),
            b"".join(status_summary.text(bus)),
        )
    return found


def placed(row: dict, where: dict) -> dict:
    """A row of a timeline, with the lines of events in place of their numbers."""
    names = ("seq", "call", "run")
    return {k: v for k, v in row.items() if k not in ("dump", *names)} | {k: where.get(row[k]) for k in names}


def derived(model, session: Session, where: dict, place: dict) -> list[dict]:
    """The rows of *model*, with the lines of events in place of the numbers that they got when they came."""
    rows = list(model.objects.filter(id__range=id_range(session.pk)).order_by("id").values())
    for row in rows:
        for name in ("first_seq", "last_seq"):
            if row.get(name):
                row[name] = where[row[name]]
        number = seq_of(row["id"])  # of turns in the order of time, of all others that of an event
        row["id"] = number if model is projection.Turn else where[number]
        if "call" in row:
            row["call"] = where[seq_of(row["call"])]
        if "dump_id" in row:
            row["dump_id"] = place[row["dump_id"]]
    return sorted(rows, key=lambda row: row["id"])


@pytest.mark.parametrize("case", CASES)
def test_dumps_that_were_streamed_in_any_pieces_are_the_dumps_that_were_imported(case, team, other_team):
    several = CASES[case]
    told_so = {"session_key": "call", "bus_name": "posts"} if len(several) > 1 else {}
    imported = [add(other_team, data, name, **told_so) for name, data in several]
    expected = told(other_team, imported), [facts(dump) for dump in imported]
    assert expected[0]

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps=STEPS)
    def check(steps):
        dumps = stream(team, several, steps)
        try:
            assert [b"".join(store.pieces(dump)) for dump in dumps] == [data for _, data in several]
            assert [facts(dump) for dump in dumps] == expected[1]
            found = told(team, dumps)
            assert found.keys() == expected[0].keys()
            for log, said in expected[0].items():
                assert found[log] == said, log
        finally:
            for dump in Dump.objects.filter(team=team):
                jobs.delete(dump)

    check()
    for dump in imported:
        jobs.delete(dump)
    assert not (Session.objects.exists() or StatusBus.objects.exists())
    assert not (DumpChunk.objects.exists() or BadLine.objects.exists())
