"""Whether anything grows that should not: producers, readers that come and go, walls and page views for minutes.

``python bench/soak.py [--seconds 600]`` (or ``SECONDS=600``): a real server with its worker, on SQLite or on the
servers that ``DATABASE_URL`` and ``REDIS_URL`` name. Four producers send 100 lines a second altogether, half of them
over the socket and half over HTTP, twenty readers and two walls stay, twenty more come and leave every ten seconds
without a word, and pages are fetched all the while. Memory, files and sockets of the server's processes are sampled.

Prints JSON: of each process and number the medians of the first and of the last third, and the slope an hour; what was
said on the way goes to standard error. The first tenth is left out: caches fill.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fanout import UNPACED, api, join, key_of, plan, say  # noqa: E402, I001
from processes import Child, family, handles, memory  # noqa: E402
from served import Client, sign_in  # noqa: E402
from tests.site import site, until  # noqa: E402

RATE = 100  # lines/s of all producers together
STAY_SECONDS = 10  # of a reader that comes and goes
STEP_SECONDS = 2  # between two samples
PAUSE_SECONDS = 0.25  # between two page views


class Background(threading.Thread):
    """Does *work* again and again until the block ends; what it raised is raised there."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self._work, self._over, self._error = work, threading.Event(), None
        self.times = 0

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._work()
                self.times += 1
        except BaseException as e:
            self._error = e

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error) -> None:
        self._over.set()
        self.join()
        if self._error:
            raise self._error


def name_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return next((word.decode() for word in words if word in (b"serve", b"work")), str(pid))


def sample(pid: int) -> dict[str, dict[str, float]]:
    """What each process of the server holds."""
    found: dict[str, dict[str, float]] = {}
    for one in family(pid):
        with contextlib.suppress(OSError):  # it has ended
            name, held = name_of(one), memory([one]) | handles(one)
            kept = found.setdefault(name, dict.fromkeys(held, 0.0) | {"processes": 0.0})
            for what, number in (held | {"processes": 1}).items():
                kept[what] += number
    return found


def trend(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Medians of the first and of the last third of (seconds, value), and the slope of all of them, an hour."""
    third = max(1, len(samples) // 3)
    values = [value for _, value in samples]
    slope = statistics.linear_regression(*zip(*samples, strict=True)).slope if len(samples) > 1 else 0.0
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    return {"first": first, "last": last, "per_hour": slope * 3600}


def soak(seconds: float) -> dict:
    with site(**UNPACED) as server, contextlib.ExitStack() as stack:
        assert server.process
        pid = server.process.pid
        until(lambda: server.ready().get("worker") == "ok", "a worker")
        key = key_of(server, "read,ingest")
        cookies = sign_in(server)
        producers = []
        sessions = []
        for way in ("post", "socket"):
            path = {"post": "/api/v1/streams/{}/lines?first={{n}}", "socket": "/ws/streams/{}/"}[way]
            child = stack.enter_context(Child("producers.py"))
            names = [f"soak-{way}-{number}" for number in range(2)]
            child.ask(plan(server.url, key, []) | {"way": way, "paths": [path.format(name) for name in names]})
            producers.append(child)
            sessions += [api(server, key, f"streams/{name}")["sessions"][0]["id"] for name in names]

        def followers(count: int) -> list[tuple[str, int, str]]:
            return [(f"/ws/sessions/{one}/?after=1", count // len(sessions), "usual") for one in sessions]

        staying = stack.enter_context(Child("readers.py"))
        join(staying, plan(server.url, key, [*followers(20), ("/ws/live/", 2, "wall")]))
        staying.ask({"expect": sys.maxsize, "seconds": seconds})
        for child in producers:
            child.say({"rate": RATE / 2, "seconds": seconds})

        def come_and_go() -> None:
            with Child("readers.py") as passing:
                join(passing, plan(server.url, key, followers(20)))
                passing.ask({"expect": sys.maxsize, "seconds": STAY_SECONDS})
                passing.hear()

        pages = itertools.cycle(["/", *(f"/sessions/{one}/" for one in sessions), "/live/", "/static/js/live_log.js"])
        browser = Client(server.url, cookies)

        def view() -> None:
            browser.ask(next(pages))
            time.sleep(PAUSE_SECONDS)

        began = time.monotonic()
        samples: list[tuple[float, dict]] = []
        with Background(come_and_go) as visits, Background(view) as views:
            while (now := time.monotonic() - began) < seconds:
                if now >= seconds / 10:
                    samples.append((now, sample(pid)))
                time.sleep(STEP_SECONDS)
        acknowledged = [child.hear() for child in producers]
        heard = staying.hear()
    assert not heard["disordered"] and not heard["closed"] and not heard["missing"], heard
    found: dict = {"processes": {}, "seconds": seconds, "visits": visits.times * 20, "views": views.times}
    found["events"] = sum(one["events"] for one in acknowledged)
    found["ack_p99"] = max(one["p99"] for one in acknowledged)
    found["heard"] = heard["heard"]
    for name in sorted({name for _, taken in samples for name in taken}):
        numbers = {}
        for what in ("rss", "pss", "files", "sockets", "processes"):
            of_name = [(at, taken[name][what]) for at, taken in samples if name in taken]
            numbers[what] = trend(of_name)
            first, last, slope = numbers[what].values()
            say(f"{name}, {what}: {first:.1f} → {last:.1f}, {slope:+.1f} an hour")
        found["processes"][name] = numbers
    say(f"{found['events']:,} events, {found['visits']} visits, {found['views']} page views")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECONDS", "600")))
    print(json.dumps(soak(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
