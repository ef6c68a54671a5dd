"""How fast a RoomKit dump imports, beside what the database can take at all.

``python bench/import_speed.py [--lines 200000]``: on SQLite in a temporary directory, or on the server that
``DATABASE_URL`` names (``python -m tests.servers -- python bench/import_speed.py``). Machines differ; the ratio counts.
The yardstick stores the same event tuples in a table of the same shape, in the same batches, by executemany or COPY.
"""

import argparse
import json
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
WORDS = "I would like to move my flight to Hamburg from Tuesday to Wednesday, please, and keep the seat by the window. "


def dump_lines(count: int, naive: bool):
    """A dump of *count* lines of about 330 bytes: speech, every tenth a tool call, every tenth a post.

    No two runs make the same bytes: what a database already holds would not be imported again.
    """
    run = secrets.token_hex(4)
    for n in range(count):
        second = n // 4
        at = f"2026-{1 + second // 2_419_200 % 12:02d}-{1 + second // 86_400 % 28:02d}T"
        at += f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{n % 4 * 250:03d}000"
        utc = at + "+00:00"
        if n % 10 == 8:
            meta = {"tool_name": f"search_{n % 7}", "status": "ok", "agent_id": "travel", "arguments": {"q": WORDS}}
            entry = {"ts": utc, "type": "tool_call", "role": None, "content": WORDS, "duration_ms": 12.5}
            entry["metadata"] = meta
        elif n % 10 == 9:
            entry = {"ts": utc, "agent_id": "travel", "action": "rebook", "status": "completed", "detail": WORDS}
            entry["metadata"] = {"step": n}
        else:
            entry = {"ts": at if naive else utc, "type": "speech", "role": "assistant" if n % 2 else "user"}
            entry |= {
                "content": f"{WORDS}{run} {n} {WORDS}"[:220],
                "duration_ms": None,
                "metadata": {"participant": "p-1"},
            }
        yield json.dumps(entry).encode() + b"\n"


def set_up() -> None:
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "auditweb.settings"
    sys.path.insert(0, str(ROOT))
    django.setup()


def import_one(dump_id: int) -> None:
    """In a process of its own, so that its peak of memory is that of an import."""
    set_up()
    from auditweb.dumps import jobs

    start, cpu = time.perf_counter(), time.process_time()
    assert jobs.run(dump_id)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "peak_mib": peak}))


def yardstick(dump) -> float:
    """Seconds that the event tuples of *dump* take into an empty table of the same shape."""
    from django.db import connection, transaction

    from auditweb import log
    from auditweb.dumps.jobs import BATCH
    from sessions_app.models import EVENT_COLUMNS, Event

    columns = ("id", *EVENT_COLUMNS)

    bare = SimpleNamespace(_meta=SimpleNamespace(db_table="bench_event"))
    with connection.schema_editor() as editor:
        table = editor.quote_name("bench_event")
        body = ", ".join(
            f"{editor.quote_name(f.column)} {f.db_type(connection)}{' PRIMARY KEY' if f.primary_key else ''}"
            f"{'' if f.null else ' NOT NULL'}"
            for f in Event._meta.concrete_fields
        )
        editor.execute(f"CREATE TABLE {table} ({body})")
    seconds, last = 0.0, 0
    events = Event.objects.filter(dump=dump).order_by("id").values_list(*columns)
    while rows := list(events.filter(id__gt=last)[:BATCH]):
        start = time.perf_counter()
        with transaction.atomic():
            log.insert(bare, columns, rows)
        seconds += time.perf_counter() - start
        last = rows[-1][0]
    with connection.schema_editor() as editor:
        editor.execute(f"DROP TABLE {table}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--naive", action="store_true", help="speech without an offset, as RoomKit before 0.108 wrote")
    parser.add_argument("--import-id", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.import_id:
        return import_one(options.import_id)
    with tempfile.TemporaryDirectory(prefix="auditweb-bench-") as data:
        os.environ["AUDITWEB_DATA"] = data
        os.environ["AUDITWEB_LOG_LEVEL"] = "ERROR"
        set_up()
        from django.core.management import call_command
        from django.db import connection

        from auditweb.dumps import jobs, store
        from auditweb.dumps.models import Dump
        from auditweb.teams.models import Team

        call_command("migrate", verbosity=0)
        team, _ = Team.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
        dump = store.begin(team, "bench.jsonl", zone="")
        received, part, offset = 0.0, [], 0
        for number, line in enumerate(dump_lines(options.lines, options.naive), 1):
            part.append(line)
            if number % 10_000 == 0 or number == options.lines:
                start = time.perf_counter()
                offset = store.append_bytes(dump, offset, b"".join(part))
                received += time.perf_counter() - start
                part = []
        dump, duplicate = store.finish(dump)
        assert not duplicate
        try:
            command = [sys.executable, __file__, "--import-id", str(dump.pk)]
            done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, text=True, check=True)
            took = json.loads(done.stdout)
            dump = Dump.objects.get(pk=dump.pk)
            assert (dump.state, dump.lines) == ("done", options.lines), dump.error
            bare = yardstick(dump)
            speed, size = options.lines / took["seconds"], dump.size / 2**20
            print(
                f"{connection.vendor}: {options.lines:,} lines ({size:.0f} MiB, received in {received:.1f} s): "
                f"import {speed:,.0f} lines/s ({took['seconds']:.1f} s, {took['cpu']:.1f} s on the processor; "
                f"peak {took['peak_mib']:.0f} MiB); bare tuples {options.lines / bare:,.0f}/s; "
                f"ratio {bare / took['seconds']:.2f}"
            )
        finally:
            jobs.delete(dump)
            connection.close()


if __name__ == "__main__":
    main()
