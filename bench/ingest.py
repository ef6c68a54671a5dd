"""Live ingest: how many events a second are stored and acknowledged, and how long an acknowledgement takes.

``python bench/ingest.py [--batches 1 20 50 512] [--seconds 5]``: a real server (on SQLite, or on the servers that
``DATABASE_URL`` and ``REDIS_URL`` name), four producers that keep their connections (``producers.py``), over HTTP and
over the socket, first alone, then while a hundred readers watch their four sessions, and last at an even 300 events a
second altogether. Beside it, in turns, the bare view of ``bare_ingest.py`` for the same lines, with the full text that
ours keeps and without. Prints JSON; what is said on the way goes to standard error.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fanout import UNPACED, api, join, key_of, plan, say  # noqa: E402, I001
from processes import HERE, Child, cpu_seconds  # noqa: E402
from tests.site import Site, site  # noqa: E402

PRODUCERS, READERS = 4, 100
WAYS = ("post", "socket")
PACE = 300  # events/s of all producers together
CATCH_UP_SECONDS = 2  # readers may hear so much later than the producers


def streams(server: Site, key: str, way: str, name: str) -> dict:
    """A plan of producers with streams of their own, called after *name*."""
    path = {"post": "/api/v1/streams/{}/lines?first={{n}}", "socket": "/ws/streams/{}/"}[way]
    asked = plan(server.url, key, [])
    return asked | {"way": way, "paths": [path.format(f"{name}-{number}") for number in range(PRODUCERS)]}


def measured(name: str, pid: int, producers: Child, command: dict) -> dict:
    before = cpu_seconds(pid)
    found = producers.ask(command)
    found["server_us"] = (cpu_seconds(pid) - before) * 1e6 / found["events"]
    what = f"{command['batch']} lines a request" if "batch" in command else f"{command['rate']}/s"
    say(
        f"{name}, {what}: {found['per_s']:,.0f} events/s, acknowledged p50 {found['p50']:.1f} ms, "
        f"p99 {found['p99']:.1f} ms, {found['server_us']:.0f} µs an event"
    )
    return found


def watched(server: Site, key: str, way: str, batches: list[int], seconds: float) -> tuple[dict, dict]:
    """({lines in a request: figures}, the figures at an even pace), each while readers watch."""
    assert server.process
    pid = server.process.pid
    name = f"watched-{way}"
    with Child("producers.py") as producers, Child("readers.py") as crowd:
        producers.ask(streams(server, key, way, name))
        streams_made = [api(server, key, f"streams/{name}-{number}") for number in range(PRODUCERS)]
        sessions = [made["sessions"][0]["id"] for made in streams_made]
        each = READERS // PRODUCERS
        join(crowd, plan(server.url, key, [(f"/ws/sessions/{one}/?after=1", each, "usual") for one in sessions]))
        commands = [{"batch": batch, "seconds": seconds} for batch in batches]
        commands.append({"rate": PACE, "seconds": 2 * seconds})
        found = []
        for command in commands:
            crowd.ask({"expect": sys.maxsize, "seconds": command["seconds"] + CATCH_UP_SECONDS})
            figures = measured(f"{way}, {READERS} readers", pid, producers, command)
            heard = crowd.hear()
            assert not heard["disordered"] and not heard["closed"], heard
            figures["share"] = heard["heard"] / (figures["events"] * each)
            found.append(figures)
    return dict(zip(batches, found, strict=False)), found[-1]


@contextlib.contextmanager
def bare(server: Site, lean: bool):
    """Producers for a bare view with a database of its own: SQLite beside that of *server*, or a schema within it."""
    vendor = urlsplit(server.env.get("DATABASE_URL", "sqlite:")).scheme
    target = str(server.data / f"bare{lean}.sqlite3") if vendor == "sqlite" else server.env["DATABASE_URL"]
    env = {**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"}
    command = [sys.executable, str(HERE / "task.py"), "schema", target]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    schema = done.stdout.splitlines()[-1]
    if lean:
        schema = schema.replace("raw.", "lean.").replace("SCHEMA raw", "SCHEMA lean")
    file = server.data / f"schema{lean}.json"
    file.write_text(schema)
    with Child("bare_ingest.py", file, *["lean"] * lean) as view, Child("producers.py") as producers:
        asked = plan(f"http://127.0.0.1:{view.hear()}", "", [])
        producers.ask(asked | {"way": "post", "paths": [f"/{number}" for number in range(1, PRODUCERS + 1)]})
        yield view.pid, producers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 20, 50, 512], help="lines in a request")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    args = parser.parse_args()
    found: dict = {"alone": {}, "watched": {}, "paced": {}}
    with site("--no-worker", **UNPACED) as server, contextlib.ExitStack() as stack:
        key = key_of(server, "read,ingest")
        assert server.process
        who: dict[str, tuple[int, Child]] = {}
        for way in WAYS:
            producers = stack.enter_context(Child("producers.py"))
            producers.ask(streams(server, key, way, f"alone-{way}"))
            who[way] = server.process.pid, producers
        who["bare"] = stack.enter_context(bare(server, lean=False))
        who["lean"] = stack.enter_context(bare(server, lean=True))
        for batch in args.batches:
            for name, (pid, producers) in who.items():
                figures = measured(name, pid, producers, {"batch": batch, "seconds": args.seconds})
                found["alone"].setdefault(name, {})[batch] = figures
        for way in WAYS:
            found["watched"][way], found["paced"][way] = watched(server, key, way, args.batches, args.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
