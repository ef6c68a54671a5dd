"""Whoever makes a log grow, one row at a time and evenly: a process of its own.

``python bench/writers.py rows SESSION [LENGTH]`` commits rows to one session by ``log.append``; ``streams COUNT``
commits one line at a time to COUNT streams in turns, each a session of its own; ``publish REDIS_URL ROW`` commits
nothing and publishes ROW (JSON) for the bare servers. Answers ``{"rate", "seconds"}`` by ``{"rows", "took"}`` and how
long a commit took, in ms. A text begins with the monotonic time in ns before the commit.
"""

import collections
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bare_live import CHANNEL  # noqa: E402
from readers import quantiles  # noqa: E402

SENTENCE = " and what is usual to say in a sentence or two, a hundred characters or so"


def text(length: int = 0) -> str:
    return (str(time.monotonic_ns()) + SENTENCE).ljust(length, ".")


def rows(public_id: str, length: str = "0") -> Callable[[int], None]:
    from django.db import transaction

    from auditweb import log
    from sessions_app.models import EVENT_COLUMNS, Event, Session

    session = Session.objects.get(public_id=public_id)
    base = dict.fromkeys(EVENT_COLUMNS, "") | {
        "at_us": None, "sort_us": 0, "duration_ms": None, "cut": None, "dump_id": 0, "line": 1,
        "ts_quality": "missing", "kind": "speech", "lane": "user", "role": "user",
    }  # fmt: skip

    def write(_: int) -> None:
        row = tuple({**base, "text": text(int(length))}.values())
        with transaction.atomic():
            log.append(session, Event, EVENT_COLUMNS, [row])

    return write


def line() -> bytes:
    """A line as RoomKit writes it."""
    entry = {"ts": datetime.now(UTC).isoformat(), "type": "speech", "role": "user", "content": text()}
    return json.dumps(entry | {"duration_ms": None, "metadata": {}}).encode()


def streams(count: str) -> Callable[[int], None]:
    from auditweb.dumps import streams
    from auditweb.teams.models import Team

    team = Team.objects.get(slug="default")
    dumps = [streams.open(team, f"stream {n}") for n in range(int(count))]
    sessions = [streams.append(dump, None, [line()]).dump.sessions.get() for dump in dumps]
    answer({"sessions": [session.public_id for session in sessions]})

    def write(number: int) -> None:
        streams.append(dumps[number % len(dumps)], None, [line()])

    return write


def publish(url: str, row: str) -> Callable[[int], None]:
    import redis

    client = redis.Redis.from_url(url)
    template = json.loads(row)

    def write(number: int) -> None:
        client.publish(CHANNEL, json.dumps({**template, "seq": number + 2, "text": text()}, separators=(",", ":")))

    return write


def answer(said: dict) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    kind, *words = sys.argv[1:]
    if kind != "publish":
        import django

        django.setup()
    write = {"rows": rows, "streams": streams, "publish": publish}[kind](*words)
    answer({"ready": True})
    number = 0
    for said in sys.stdin:
        command = json.loads(said)
        rate, count = command["rate"], int(command["rate"] * command["seconds"])
        began = time.monotonic()
        tenths: collections.Counter[int] = collections.Counter()
        for n in range(count):
            time.sleep(max(0, began + n / rate - time.monotonic()))
            start = time.monotonic_ns()
            write(number)
            tenths[(time.monotonic_ns() - start) // 100_000] += 1
            number += 1
        answer({"rows": count, "took": time.monotonic() - began, "commit": quantiles(tenths)})


if __name__ == "__main__":
    main()
