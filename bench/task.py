"""One measurement in a process of its own, which prints JSON; ``bench/run.py`` starts them.

``python bench/task.py NAME ARGUMENTS``: the functions below, by name. The environment says which database
(``DATABASE_URL``, else SQLite in ``AUDITWEB_DATA``), which is migrated and may hold what an earlier one put there.
"""

import gzip
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import raw  # noqa: E402


def migrate() -> dict:
    """The tables; ``bytes`` that they take while empty."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return {"bytes": _bytes_on_disk()}


def receive(path: str) -> dict:
    """Receive a file as a dump, as slices of an upload arrive: ``{dump, size, seconds}``."""
    from auditweb.dumps import store
    from auditweb.teams.models import Team

    team, _ = Team.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
    start = time.perf_counter()
    incoming = store.begin(team, Path(path).name)
    offset = 0
    with open(path, "rb") as file:
        while piece := file.read(8 * 2**20):
            offset = store.append_bytes(incoming, offset, piece)
    incoming, duplicate = store.finish(incoming)
    assert not duplicate
    return {"dump": incoming.pk, "size": offset, "seconds": time.perf_counter() - start}


def importing(dump_id: str, lines: str) -> dict:
    """Import a received dump: seconds, seconds on the processor, the peak of memory of this process in MiB."""
    from django.db import connection

    from auditweb.dumps import jobs
    from auditweb.dumps.models import Dump

    start, cpu = time.perf_counter(), time.process_time()
    assert jobs.run(int(dump_id))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    done = Dump.objects.get(pk=dump_id)
    assert (done.state, done.lines, done.bad_line_count) == ("done", int(lines), 0), done.error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    disk = _bytes_on_disk()
    connection.close()
    return {"seconds": seconds, "cpu": cpu, "peak_mib": peak, "bytes": disk}


def bulk_create(path: str) -> dict:
    """Seconds that Django's bulk_create takes for the events of a file alone, 1,000 at a time."""
    from django.db import transaction

    from sessions_app.models import Event

    names = raw.COLUMNS
    start, cpu = time.perf_counter(), time.process_time()
    batch: list[Event] = []
    base = (2**20) << raw.SESSION_BITS  # beside the sessions that are there
    for row in raw.rows(path):
        batch.append(Event(**dict(zip(names, (base + row[0], *row[1:]), strict=True))))
        if len(batch) == 1000:
            with transaction.atomic():
                Event.objects.bulk_create(batch)
            batch = []
    if batch:
        Event.objects.bulk_create(batch)
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def schema(target: str) -> dict:
    """What ``raw.py`` needs to make the events' table, its indexes and its full text at *target*, as ours are."""
    from django.db import connection

    from auditweb.dumps.jobs import BATCH
    from sessions_app import fulltext
    from sessions_app.models import Event

    events, words = Event._meta.db_table, fulltext.TABLE
    found = {"vendor": connection.vendor, "url": target, "batch": BATCH}
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT sql FROM sqlite_master WHERE tbl_name IN (%s, %s) AND sql != ''", [events, words])
            return found | {"events": events, "words": words, "create": [sql for (sql,) in cursor.fetchall()]}
    create = ["CREATE SCHEMA raw", *(f"CREATE TABLE raw.{t} (LIKE public.{t} INCLUDING ALL)" for t in (events, words))]
    return found | {"events": f"raw.{events}", "words": f"raw.{words}", "create": create}


def _bytes_on_disk() -> int:
    from django.conf import settings
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
            return cursor.fetchone()[0]
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(settings.DATABASES["default"]["NAME"]).stat().st_size


# Reading


def _ms(work: Callable[[], object], times: int) -> float:
    """Median milliseconds of *work*, after one run that does not count."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def _in_turns(works: dict[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Median milliseconds of each of *works*, run in turns, so that what disturbs one disturbs all."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(times):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) * 1e3 for name, values in taken.items()}


def pages(times: str = "40") -> dict:
    """G5: a page of 200 rows as JSON, and the same rows by a bare query, at three places of the longest session."""
    from django.db import connection

    from auditweb.log import entry_id
    from sessions_app import timeline
    from sessions_app.models import Event, Session

    session = Session.objects.order_by("-last_seq").first()
    assert session
    columns = ", ".join(c for c in raw.COLUMNS if c != "extra")
    sql = f"SELECT {columns} FROM {Event._meta.db_table} WHERE id > %s ORDER BY id LIMIT 200"

    def ours(after: int) -> bytes:
        return timeline.encode(timeline.page(session, timeline.Query(limit=200, after_index=after)))

    def bare(after: int) -> list:
        with connection.cursor() as cursor:
            cursor.execute(sql, [entry_id(session.pk, after)])
            return cursor.fetchall()

    last = session.last_seq
    places = {"first": 0, "middle": last // 2, "last": last - 200}
    draw = random.Random(1)
    works: dict[str, Callable[[], object]] = {}
    for name, after in places.items():
        assert len(bare(after)) == 200
        assert len(json.loads(ours(after))["entries"]) == 200
        works[f"{name} page"] = lambda after=after: ours(after)
        works[f"{name} bare"] = lambda after=after: bare(after)
    works["any page"] = lambda: ours(draw.randrange(last - 200))
    works["any bare"] = lambda: bare(draw.randrange(last - 200))
    return {"events": last, **_in_turns(works, int(times))}


def outlines(times: str = "5") -> dict:
    """G6: the outline of the longest session: built, its bytes, and asked for again."""
    from sessions_app import outline
    from sessions_app.models import Session

    session = Session.objects.order_by("-last_seq").first()
    assert session
    built = _ms(lambda: outline.build(session), int(times))
    packed = outline.outline_gzip(session)
    again = _ms(lambda: outline.outline_gzip(session), int(times) * 4)
    return {
        "events": session.last_seq,
        "built": built,
        "bytes": len(gzip.decompress(packed)),
        "gzip": len(packed),
        "again": again,
    }


# Searching (the questions are those of searching.py)


def fill(sessions: str, events: str) -> dict:
    """Write a database of many sessions past the import."""
    import big_database

    from auditweb.teams.models import Team

    team, _ = Team.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
    start = time.perf_counter()
    big_database.fill(team, int(sessions), int(events))
    return {"seconds": time.perf_counter() - start}


def searches() -> dict:
    """G10 and G11 in what ``fill`` wrote: question → (median, slowest) milliseconds."""
    import searching

    from auditweb.teams.models import Team
    from sessions_app.models import Session

    team = Team.objects.get(slug="bench")
    session = Session.objects.filter(team=team).order_by("-event_count").first()
    assert session
    client = searching.signed_in(team)
    return {
        "sessions": Session.objects.filter(team=team).count(),
        "events": session.event_count,
        "index": searching.bare(session),
        "all": searching.search(client),
        "one": searching.in_session(client, session),
        "lists": searching.lists(client),
    }


TASKS = {
    task.__name__: task for task in (migrate, receive, importing, bulk_create, schema, pages, outlines, fill, searches)
}


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "auditweb.settings"
    import django

    django.setup()
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))


if __name__ == "__main__":
    main()
