"""The live path: how many readers one web process serves, how soon they hear, and what each delivery costs.

``python bench/fanout.py one|many|slow``: a real server (on SQLite, or on the servers that ``DATABASE_URL`` and
``REDIS_URL`` name: ``python -m tests.servers -- python bench/fanout.py one``), a process that commits rows one by one,
and readers that acknowledge as a browser does, in a third process (``readers.py``). Prints JSON; what is said on the
way goes to standard error. Latency is from before the commit to the reader, by one clock; the readers' own work is in
it, which is why the bare servers of ``bare_live.py`` are read by the same process, in the same run.

``one``: many readers of one session, beside both bare servers. ``many``: 200 running sessions with two readers each,
and five walls. ``slow``: a hundred readers alone, then beside forty that are slow or mute; rows are long there.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from processes import Child, cpu_seconds, memory  # noqa: E402, I001
from tests import servers  # noqa: E402
from tests.site import Site, site  # noqa: E402

PATIENCE_SECONDS = 30  # for what is not yet heard when the last row is written
LONG_ROW = 2000  # characters; 100 rows/s are 12 MB for each reader in a minute
SESSIONS, WALLS = 200, 5
UNPACED = {f"AUDITWEB_{what}_PER_MINUTE": "0" for what in ("REQUESTS", "INGESTS", "STREAM_POSTS")}


def say(*words: object) -> None:
    print(f"[{time.strftime('%H:%M:%S')}]", *words, file=sys.stderr, flush=True)


def key_of(server: Site, scopes: str = "read") -> str:
    words = ["--team", "default", "--scopes", scopes, "--name", "bench", "--json"]
    return json.loads(server.manage("create_api_key", *words))["key"]


def seeded(server: Site) -> str:
    """The id of a session with one entry."""
    entry = {"type": "speech", "role": "user", "content": "0", "duration_ms": None, "metadata": {}}
    with tempfile.TemporaryDirectory() as directory:
        seed = Path(directory) / "seed.jsonl"
        seed.write_text(json.dumps({"ts": "2026-03-01T10:00:00+00:00", **entry}) + "\n")
        return server.import_file(seed, "--session", "fanout")["dumps"][0]["sessions"][0]["id"]


def api(server: Site, key: str, path: str) -> dict:
    """What ``GET /api/v1/<path>`` answers."""
    asked = urllib.request.Request(f"{server.url}/api/v1/{path}", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def plan(url: str, key: str, readers: list[tuple[str, int, str]]) -> dict:
    address = urlsplit(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"host": address.hostname, "port": address.port, "headers": headers, "readers": readers}


def join(crowd: Child, asked: dict) -> float:
    """Seconds until all readers of the plan are in."""
    began = time.monotonic()
    joined = crowd.ask(asked)
    assert joined["joined"] == sum(count for _, count, _ in asked["readers"]), joined
    return time.monotonic() - began


def measure(pid: int, crowd: Child, writer: Child, rate: float, seconds: float, readers_of_a_row: int) -> dict:
    """What the crowd heard of *rate* rows a second, and what each delivery cost the server *pid*."""
    rows = int(rate * seconds)
    crowd.ask({"expect": rows * readers_of_a_row, "seconds": seconds + PATIENCE_SECONDS})
    before = cpu_seconds(pid)
    written = writer.ask({"rate": rate, "seconds": seconds})
    heard = crowd.hear()
    spent = cpu_seconds(pid) - before
    per = 1e6 / max(1, heard["heard"])
    return heard | {
        "rate": rate,
        "rows": rows,
        "took": written["took"],
        "commit": written["commit"],
        "server_us": spent * per,
        "server_us_message": spent * 1e6 / max(1, heard["messages"]),
        "server_load": spent / written["took"],
        "reader_us_message": heard["reader_cpu"] * 1e6 / max(1, heard["messages"]),
    }


def told(name: str, readers: int, found: dict) -> dict:
    say(
        f"{name}: {readers} readers × {found['rate']:g}/s: {found['share']:.2%}, p50 {found['p50']:.0f} ms, "
        f"p99 {found['p99']:.0f} ms, of commits {found['commit']['p99']:.0f} ms; {found['server_us']:.1f} µs a delivery"
    )
    assert not found["disordered"], found
    return found


# --- one session -------------------------------------------------------------------------------------------------


def ours(readers: int, rates: list[float], seconds: float) -> tuple[dict, str]:
    """({rate: figures}, a row as the socket says it)."""
    with site("--no-worker", **UNPACED) as server:
        key, public_id = key_of(server), seeded(server)
        writer_env = {**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"}
        with Child("writers.py", "rows", public_id, env=writer_env) as writer, Child("readers.py") as crowd:
            assert server.process
            writer.hear()
            joined = join(crowd, plan(server.url, key, [(f"/ws/sessions/{public_id}/?after=1", readers, "usual")]))
            figures = {}
            for rate in rates:
                found = measure(server.process.pid, crowd, writer, rate, seconds, readers)
                figures[rate] = told("auditweb", readers, found | {"join_seconds": joined})
        [row] = api(server, key, f"sessions/{public_id}/timeline?after_index=1&limit=1")["entries"]
    return figures, json.dumps(row)


def bare(kind: str, row: str, redis_url: str, readers: int, rates: list[float], seconds: float) -> dict:
    with (
        Child("bare_live.py", kind, redis_url) as server,
        Child("writers.py", "publish", redis_url, row) as writer,
        Child("readers.py") as crowd,
    ):
        url = f"http://127.0.0.1:{server.hear()}"
        writer.hear()
        joined = join(crowd, plan(url, "", [("/", readers, "usual")]))
        figures = {}
        for rate in rates:
            found = measure(server.pid, crowd, writer, rate, seconds, readers)
            figures[rate] = told(kind, readers, found | {"join_seconds": joined})
        return figures


@contextlib.contextmanager
def some_redis() -> Iterator[str]:
    """The Redis that ``REDIS_URL`` names, or one for the length of the block."""
    if url := os.environ.get("REDIS_URL"):
        yield url
    else:
        with servers.redis() as url:
            yield url


def one(args: argparse.Namespace) -> list[dict]:
    found = []
    with some_redis() as redis_url:
        for readers in args.readers:
            figures = {}
            figures["auditweb"], row = ours(readers, args.rates, args.seconds)
            for kind in ("unbatched", "batched"):
                figures[kind] = bare(kind, row, redis_url, readers, args.rates, args.seconds)
            for rate in args.rates:
                found.append({"readers": readers, "rate": rate} | {name: f[rate] for name, f in figures.items()})
    return found


# --- many sessions -----------------------------------------------------------------------------------------------


def many(args: argparse.Namespace) -> dict:
    """Running sessions that are watched by two each, and walls that show them all."""
    with site("--no-worker", **UNPACED) as server:
        key = key_of(server)
        writer_env = {**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"}
        with Child("writers.py", "streams", SESSIONS, env=writer_env) as writer, Child("readers.py") as crowd:
            assert server.process
            sessions = writer.hear()["sessions"]
            writer.hear()
            readers = [(f"/ws/sessions/{public_id}/?after=1", 2, "usual") for public_id in sessions]
            joined = join(crowd, plan(server.url, key, [*readers, ("/ws/live/", WALLS, "wall")]))
            measure(server.process.pid, crowd, writer, 100, SESSIONS / 100, 2)  # every card is made once
            found = measure(server.process.pid, crowd, writer, 100, args.seconds, 2)
    walls = found["walls"]
    say(f"walls: {walls['shown'] / WALLS / found['rows']:.0%} shown, p50 {walls['p50']:.0f} ms, p99 {walls['p99']:.0f}")
    figures = {"join_seconds": joined, "sessions": SESSIONS, "wall_count": WALLS}
    return told(f"{SESSIONS} sessions", 2 * SESSIONS, found | figures)


# --- slow readers ------------------------------------------------------------------------------------------------


def slow(args: argparse.Namespace) -> dict:
    """A hundred readers of long rows, without and with forty that do not keep up."""
    manners = [("slow", 20), ("mute", 10), ("silent", 10)]
    with site("--no-worker", **UNPACED) as server:
        key, public_id = key_of(server), seeded(server)
        path = f"/ws/sessions/{public_id}/?after=1"
        writer_env = {**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"}
        assert server.process
        pid = server.process.pid
        with (
            Child("writers.py", "rows", public_id, LONG_ROW, env=writer_env) as writer,
            Child("readers.py") as crowd,
            Child("readers.py") as laggards,
        ):
            writer.hear()
            join(crowd, plan(server.url, key, [(path, 100, "usual")]))
            measure(pid, crowd, writer, 100, 3, 100)  # what grows once does not count
            idle = memory([pid])
            alone = told("alone", 100, measure(pid, crowd, writer, 100, args.seconds, 100))
            before = memory([pid])
            address = path.replace("after=1", f"after={1 + int(100 * (3 + args.seconds))}")
            join(laggards, plan(server.url, key, [(address, count, manner) for manner, count in manners]))
            beside = told("beside 40", 100, measure(pid, crowd, writer, 100, args.seconds, 100))
            after = memory([pid])
            closed = laggards.ask({"expect": 1, "seconds": 0}) and laggards.hear()["closed"]
    say(f"memory {before['pss']:.0f} → {after['pss']:.0f} MiB, closed {closed}")
    return {
        "alone": alone | {"grown": before["pss"] - idle["pss"]},
        "beside": beside | {"grown": after["pss"] - before["pss"], "closed_laggards": closed},
        "laggards": sum(count for _, count in manners),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["one", "many", "slow"])
    parser.add_argument("--readers", type=int, nargs="+", default=[50, 500, 1000, 2000])
    parser.add_argument("--rates", type=int, nargs="+", default=[10, 100], help="rows per second")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    args = parser.parse_args()
    print(json.dumps({"one": one, "many": many, "slow": slow}[args.what](args)))


if __name__ == "__main__":
    main()
