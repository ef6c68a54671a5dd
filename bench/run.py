"""``make bench``: every figure beside its yardstick, on SQLite and on PostgreSQL, in one run; tables in RESULTS.md.

``python -m tests.servers -- python bench/run.py [--quick] [--lines N] [--only sqlite]``. Each measurement is a process
of its own (``task.py``, ``raw.py``, ``served.py``) on a database of its own; what is compared takes turns, and medians
count. --quick: fewer and smaller, printed only. --lines: one import of N lines more, once, for how costs grow.
"""

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import dump  # noqa: E402

RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- written by make bench -->", "<!-- end of what make bench writes -->"
ROUNDS = {10_000: 3, 100_000: 3, 1_000_000: 3}
QUICK_ROUNDS = {10_000: 1, 100_000: 1}
BULK_LINES = 100_000  # bulk_create is measured with this size only; more takes it minutes and changes nothing
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Database:
    """A database for one measurement: the environment that leads to it, and what raw.py calls it."""

    def __init__(self, vendor: str, data: Path, server: str = "", template: str = ""):
        self.vendor, self.data, self.name = vendor, data, "bench_" + secrets.token_hex(6)
        self._server, self._template = server, template
        self.env = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE")}
        self.env |= {"AUDITWEB_DATA": str(data), "AUDITWEB_LOG_LEVEL": "ERROR"}
        if vendor == "sqlite":
            self.env.pop("REDIS_URL", None)
        else:
            self._on_server(f'CREATE DATABASE "{self.name}"' + (f' TEMPLATE "{template}"' if template else ""))
            self.env["DATABASE_URL"] = self.url = f"{server.rpartition('/')[0]}/{self.name}"

    def _on_server(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement)

    def task(self, *words: object) -> dict:
        return self._run("task.py", *words)

    def raw(self, path: Path, plain: bool = False) -> dict:
        """The yardstick: the lines of *path* into a fresh schema like ours; *plain*: with FTS5 as it is by default."""
        target = str(self.data / "raw.sqlite3") if self.vendor == "sqlite" else self.url
        plan = self.data / "schema.json"
        plan.write_text(json.dumps(self.task("schema", target) | {"plain": plain}))
        return self._run("raw.py", path, plan)

    def served(self, lines: int) -> dict:
        env = self.env if self.vendor == "sqlite" else {**self.env, "DATABASE_URL": self._server}
        return self._run("served.py", lines, env=env)

    def _run(self, program: str, *words: object, env: dict | None = None) -> dict:
        command = [sys.executable, str(HERE / program), *map(str, words)]
        done = subprocess.run(command, env=env or self.env, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        return json.loads(done.stdout.splitlines()[-1])

    def close(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        if self.vendor == "postgresql":
            self._on_server(f'DROP DATABASE "{self.name}" WITH (FORCE)')


class Maker:
    """Fresh databases of one vendor, as copies of one that was migrated once."""

    def __init__(self, vendor: str, directory: Path):
        self.vendor, self._directory, self._server = vendor, directory, os.environ.get("DATABASE_URL", "")
        self._template = self._make(None)
        self.empty_bytes = self._template.task("migrate")["bytes"]

    def _make(self, template: Database | None) -> Database:
        data = Path(tempfile.mkdtemp(dir=self._directory))
        if template:
            shutil.copytree(template.data, data, dirs_exist_ok=True)
        return Database(self.vendor, data, self._server, template.name if template else "")

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Database]:
        database = self._make(self._template)
        try:
            yield database
        finally:
            database.close()

    def close(self) -> None:
        self._template.close()


def say(*words: object) -> None:
    print(f"[{time.strftime('%H:%M:%S')}]", *words, file=sys.stderr, flush=True)


def median(values: list[dict], name: str) -> float:
    return statistics.median(value[name] for value in values)


def measure(
    vendor: str,
    rounds: dict[int, int],
    files: dict[int, Path],
    served_lines: int,
    big: tuple[int, int],
    directory: Path,
) -> dict:
    """All figures of one database."""
    maker = Maker(vendor, directory)
    found: dict = {"empty_bytes": maker.empty_bytes, "imports": {}}
    largest = max(rounds)
    try:
        for lines, times in rounds.items():
            ours, raw, plain, bulk = [], [], [], []
            for turn in range(times):
                with maker.fresh() as database:
                    received = database.task("receive", files[lines])
                    ours.append(database.task("importing", received["dump"], lines) | {"size": received["size"]})
                    say(vendor, f"{lines:,} lines, import {turn + 1}: {lines / ours[-1]['seconds']:,.0f}/s")
                    if lines == largest and turn == times - 1:
                        found |= reading(database)
                with maker.fresh() as database:
                    raw.append(database.raw(files[lines]))
                    say(vendor, f"{lines:,} lines, raw {turn + 1}: {lines / raw[-1]['seconds']:,.0f}/s")
                if vendor == "sqlite":
                    with maker.fresh() as database:
                        plain.append(database.raw(files[lines], plain=True))
                if lines == BULK_LINES:
                    with maker.fresh() as database:
                        bulk.append(database.task("bulk_create", files[lines]))
            found["imports"][lines] = {"ours": ours, "raw": raw, "plain": plain, "bulk": bulk}
        with maker.fresh() as database:
            say(vendor, "a database of {:,} sessions and {:,} events".format(*big))
            database.task("fill", *big)
            say(vendor, "searches and lists")
            found["searches"] = database.task("searches") | {"all_events": big[1]}
        with maker.fresh() as database:
            say(vendor, "a running server")
            found["served"] = database.served(served_lines)
    finally:
        maker.close()
    return found


def reading(database: Database) -> dict:
    say(database.vendor, "pages and outlines")
    return {"pages": database.task("pages"), "outline": database.task("outlines")}


# Tables


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def import_tables(found: dict) -> str:
    speeds, costs = [], []
    for vendor, figures in found.items():
        bulk = figures["imports"].get(BULK_LINES, {}).get("bulk")
        for lines, runs in figures["imports"].items():
            ours, raw = runs["ours"], runs["raw"]
            speed = lines / median(ours, "seconds")
            row = [NAMES[vendor], f"{lines:,}", str(len(ours)), f"{speed:,.0f}"]
            row += [f"{lines / median(raw, 'seconds'):,.0f}", f"{median(raw, 'seconds') / median(ours, 'seconds'):.2f}"]
            plain = runs["plain"]
            plain_ratio = median(plain, "seconds") / median(ours, "seconds") if plain else 0
            row += [f"{lines / median(plain, 'seconds'):,.0f}", f"{plain_ratio:.2f}"] if plain else ["", ""]
            bulk_speed = BULK_LINES / median(bulk, "seconds") if bulk else 0
            row += [f"{bulk_speed:,.0f}", f"{speed / bulk_speed:.1f}"] if bulk else ["", ""]
            speeds.append(row)
            size = median(ours, "size")
            grown = (median(ours, "bytes") - figures["empty_bytes"]) / size
            per_million = [f"{median(r, 'cpu') / lines * 1e6:.1f}" for r in (ours, raw)]
            costs.append(
                [NAMES[vendor], f"{lines:,}", f"{size / 2**20:,.0f} MiB", f"{grown:.2f}", *per_million]
                + [f"{max(run['peak_mib'] for run in ours):.0f} MiB"]
            )
    head = ["database", "lines", "runs", "import, lines/s", "raw + full text", "ratio", "raw + plain FTS5", "ratio"]
    head += ["bulk_create", "ratio"]
    costs_head = ["database", "lines", "dump", "disk / dump", "import: CPU s per million", "raw: CPU s", "peak memory"]
    return (
        "### Import (G1, G2)\n\n"
        "Import: everything done, from the job's claim to its end. Raw: `bench/raw.py`, the same lines decoded and "
        "stored with\ntheir full text in the same schema and the same batches, without Django, checks or anything "
        "derived; with plain FTS5,\nthe full text that SQLite makes by default (text, tool and extra, with positions). "
        f"bulk_create: the events alone, 1,000 at a\ntime, without full text, {BULK_LINES:,} lines.\n\n"
        + table(head, speeds)
        + "\n\n### Memory, disk and processor of an import (G3, G13)\n\n"
        "Disk: all that the database grew by, the received bytes included. CPU: of the importing process; PostgreSQL's "
        "own\nprocesses are not in it.\n\n" + table(costs_head, costs)
    )


def reading_tables(found: dict) -> str:
    pages, outlines = [], []
    for vendor, figures in found.items():
        page, outline = figures["pages"], figures["outline"]
        for place in ("first", "middle", "last", "any"):
            ours, bare = page[f"{place} page"], page[f"{place} bare"]
            pages.append(
                [NAMES[vendor], f"{page['events']:,}", place, f"{ours:.2f}", f"{bare:.2f}", f"{ours / bare:.1f}"]
                + [f"{page[f'{place} page'] / page['first page']:.2f}"]
            )
        outlines.append(
            [NAMES[vendor], f"{outline['events']:,}", f"{outline['built']:.0f}", f"{outline['bytes'] / 1e6:.2f}"]
            + [f"{outline['gzip'] / 1e6:.2f}", f"{outline['again']:.2f}"]
        )
    page_head = ["database", "events", "where", "JSON page, ms", "bare query, ms", "ratio", "to the first page"]
    outline_head = ["database", "events", "built, ms", "JSON, MB", "gzip, MB", "again, ms"]
    return (
        "### A page of 200 rows of one session as JSON (G5)\n\n"
        "In one process, without HTTP; the bare query reads the same columns of the same rows. Median of 40 each, in "
        "turns.\n\n"
        + table(page_head, pages)
        + "\n\n### The outline of the same session (G6)\n\n"
        + table(outline_head, outlines)
    )


def search_tables(found: dict) -> str:
    finds, lists = [], []
    for vendor, figures in found.items():
        asked = figures["searches"]
        whole, one = f"all {asked['all_events']:,} events, newest 50", f"a session of {asked['events']:,}"
        for where, questions in ((whole, asked["all"]), (one, asked["one"])):
            for name, (usual, slowest) in questions.items():
                bare = f"{asked['index'][name][0]:.1f}" if where == whole and name in asked["index"] else ""
                finds.append([NAMES[vendor], where, name, f"{usual:.1f}", f"{slowest:.1f}", bare])
        slow_first = sorted(asked["lists"].items(), key=lambda item: -item[1][0])
        within = sum(usual < 50 for usual, _ in asked["lists"].values())
        row = [NAMES[vendor], f"{asked['sessions']:,}", f"{within} of {len(slow_first)}"]
        row.append(f"{statistics.median(usual for usual, _ in asked['lists'].values()):.1f}")
        lists.append([*row, "; ".join(f"{name}: {usual:.0f}" for name, (usual, _) in slow_first[:4])])
    find_head = ["database", "where", "word", "median, ms", "slowest, ms", "index alone, ms"]
    list_head = ["database", "sessions", "below 50 ms", "median, ms", "the slowest four, ms"]
    return (
        "### Finding words (G10)\n\n"
        "Requests to the API through Django's test client, seven each after one that does not count; a tenth of all "
        "events are\nin one session. Index alone: the same 50 keys from the full text, without rows, marks and "
        "answers.\n\n" + table(find_head, finds) + "\n\n### Lists of sessions (G11)\n\n"
        "A page of 50 through the API in every order, and with filters and words in some; medians of seven.\n\n"
        + table(list_head, lists)
    )


def served_tables(found: dict) -> str:
    latency, starts = [], []
    for vendor, figures in found.items():
        served = figures["served"]
        for what in ("page", "timeline"):
            idle, busy = served[f"{what} idle"], served[f"{what} importing"]
            latency.append(
                [NAMES[vendor], {"page": "session page", "timeline": "timeline, 200 rows"}[what]]
                + [f"{idle['p50']:.1f} / {idle['p95']:.1f}", f"{busy['p50']:.1f} / {busy['p95']:.1f}"]
                + [f"{busy['p95'] / idle['p95']:.2f}", str(busy["count"])]
            )
        idle_memory = served["idle"]
        starts.append(
            [NAMES[vendor], f"{statistics.median(served['starts']):.1f}", f"{idle_memory['rss']:.0f}"]
            + [f"{idle_memory['pss']:.0f}", f"{served['after']['pss']:.0f}"]
        )
    latency_head = ["database", "request", "idle, p50 / p95 ms", "importing, p50 / p95 ms", "p95 ratio", "requests"]
    start_head = ["database", "warm start to the first 200, s", "idle, RSS MiB", "idle, PSS MiB", "at the end, PSS MiB"]
    return (
        "### A running server, idle and importing (G4)\n\n"
        "One client after another's answer on the loopback address, the page of a session of 100,000 events and its "
        "timeline\nin turns, while the worker imports another dump; idle is before and after.\n\n"
        + table(latency_head, latency)
        + "\n\n### Start and memory (G12)\n\n"
        "`manage.py serve` with its worker. PSS counts pages that several processes have in common once.\n\n"
        + table(start_head, starts)
    )


def machine(load: tuple[float, float]) -> str:
    processor = "an unknown processor"
    with contextlib.suppress(OSError, StopIteration):
        info = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    if url := os.environ.get("DATABASE_URL"):
        import psycopg

        with psycopg.connect(url) as connection:
            number = connection.info.server_version
        versions.append(f"PostgreSQL {number // 10000}.{number % 100} (without fsync, as the tests start it)")
    where = f"{os.cpu_count()} cores of {processor}, {memory:.0f} GiB"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, {', '.join(versions)};\n"
        f"load average {load[0]:.1f} before and {load[1]:.1f} after."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes; prints only")
    parser.add_argument("--lines", type=int, default=0, help="one more import of so many lines")
    parser.add_argument("--only", choices=NAMES, help="one database; prints only")
    options = parser.parse_args()
    rounds = dict(QUICK_ROUNDS if options.quick else ROUNDS)
    if options.lines:
        rounds |= {options.lines: rounds.get(options.lines, 1)}
    vendors = [options.only] if options.only else list(NAMES)
    if "postgresql" in vendors and not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        sys.exit("PostgreSQL is not there: python -m tests.servers -- python bench/run.py")
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="auditweb-bench-") as name:
        directory, files = Path(name), {}
        for lines in rounds:
            files[lines] = directory / f"{lines}.jsonl"
            with files[lines].open("wb") as file:
                file.writelines(dump.parts(lines))
        served_lines = 100_000 if options.quick else 400_000
        big = (10_000, 100_000) if options.quick else (100_000, 1_000_000)
        found = {vendor: measure(vendor, rounds, files, served_lines, big, directory) for vendor in vendors}
    text = "\n\n".join(
        [
            machine((load, os.getloadavg()[0])),
            import_tables(found),
            reading_tables(found),
            search_tables(found),
            served_tables(found),
        ]
    )
    print(text)
    say(f"{(time.monotonic() - began) / 60:.1f} minutes")
    if not options.quick and not options.only:
        before, _, rest = RESULTS.read_text().partition(BEGIN)
        RESULTS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
