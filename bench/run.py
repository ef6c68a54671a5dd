"""``make bench``: every figure beside its yardstick, on SQLite and on PostgreSQL, in one run; tables in RESULTS.md.

``python -m tests.servers -- python bench/run.py [--what stored live soak] [--quick] [--lines N] [--only sqlite]``. Each
measurement is a process of its own (``task.py``, ``raw.py``, ``served.py``; ``fanout.py``, ``ingest.py``, ``soak.py``)
on a database of its own; what is compared takes turns, and medians count. --what: imports and reading (stored), the
live path, ten minutes of it (soak); only what was measured is written anew. --quick: fewer and smaller, printed only.
--lines: one import of N lines more, once, for how costs grow.
"""

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import dump  # noqa: E402
import tables  # noqa: E402
from tables import BULK_LINES, NAMES  # noqa: E402

RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- written by make bench: {} -->", "<!-- end of what make bench writes: {} -->"
PARTS = {
    "stored": (tables.import_tables, tables.reading_tables, tables.search_tables, tables.served_tables),
    "live": (tables.fanout_table, tables.crowd_tables, tables.ingest_tables),
    "soak": (tables.soak_table,),
}
ROUNDS = {10_000: 3, 100_000: 3, 1_000_000: 3}
QUICK_ROUNDS = {10_000: 1, 100_000: 1}


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

    def site(self, program: str, *words: object) -> Any:
        """What a program found with a site of its own on the same servers."""
        env = self.env if self.vendor == "sqlite" else {**self.env, "DATABASE_URL": self._server}
        return self._run(program, *words, env=env)

    def _run(self, program: str, *words: object, env: dict | None = None) -> Any:
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
            found["served"] = database.site("served.py", served_lines)
    finally:
        maker.close()
    return found


def live(vendor: str, quick: bool, directory: Path) -> dict:
    """All figures of the live path on one database."""
    maker = Maker(vendor, directory)
    try:
        with maker.fresh() as database:
            few = ["--seconds", 3] if quick else []
            one = ["--readers", 50, 500, *few] if quick else []
            batches = ["--batches", 20, 512, *few] if quick else []
            return {
                "one": database.site("fanout.py", "one", *one),
                "many": database.site("fanout.py", "many", *few),
                "slow": database.site("fanout.py", "slow", *(few or ["--seconds", 60])),
                "ingest": database.site("ingest.py", *batches),
            }
    finally:
        maker.close()


def soak(vendor: str, quick: bool, directory: Path) -> dict:
    maker = Maker(vendor, directory)
    try:
        with maker.fresh() as database:
            return {"soak": database.site("soak.py", *(["--seconds", 30] if quick else []))}
    finally:
        maker.close()


def reading(database: Database) -> dict:
    say(database.vendor, "pages and outlines")
    return {"pages": database.task("pages"), "outline": database.task("outlines")}


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


def stored(vendors: list[str], rounds: dict[int, int], quick: bool, directory: Path) -> dict:
    """All figures of imports and reading."""
    files = {}
    for lines in rounds:
        files[lines] = directory / f"{lines}.jsonl"
        with files[lines].open("wb") as file:
            file.writelines(dump.parts(lines))
    served_lines = 100_000 if quick else 400_000
    big = (10_000, 100_000) if quick else (100_000, 1_000_000)
    return {vendor: measure(vendor, rounds, files, served_lines, big, directory) for vendor in vendors}


def written(text: str, part: str, tables_of_part: str) -> str:
    """*text* of RESULTS.md with other tables between the marks of *part*."""
    begin, end = BEGIN.format(part), END.format(part)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{tables_of_part}\n\n{end}{rest.partition(end)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--what", nargs="+", choices=PARTS, default=["stored", "live"], help="by default all but soak")
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
    for part in options.what:
        began, load = time.monotonic(), os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="auditweb-bench-") as name:
            directory = Path(name)
            if part == "stored":
                found = stored(vendors, rounds, options.quick, directory)
            else:
                measured = {"live": live, "soak": soak}[part]
                found = {vendor: measured(vendor, options.quick, directory) for vendor in vendors}
        text = "\n\n".join([machine((load, os.getloadavg()[0])), *(made(found) for made in PARTS[part])])
        print(text, flush=True)
        say(f"{part}: {(time.monotonic() - began) / 60:.1f} minutes")
        if not options.quick and not options.only:
            RESULTS.write_text(written(RESULTS.read_text(), part, text))


if __name__ == "__main__":
    main()
