"""How many readers of one session one web process serves, and how soon they hear.

``python bench/fanout.py [--readers 100] [--rate 100] [--seconds 20]``: one real server (on SQLite, or on the servers
that ``DATABASE_URL`` and ``REDIS_URL`` name: ``python -m tests.servers -- python bench/fanout.py``), a process that
commits *rate* rows a second one by one, and readers that acknowledge as a browser does, in a third process.
Latency is from before the commit to the reader, by one clock; the readers' own work is in it.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.site import site  # noqa: E402

WRITER = """
import sys, time
import django
django.setup()
from sessions_app.models import Session
from tests.test_sockets import say
session = Session.objects.get(public_id=sys.argv[1])
rate, seconds = float(sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
began, count = time.monotonic(), int(rate * seconds)
for n in range(count):
    time.sleep(max(0, began + n / rate - time.monotonic()))
    say(session, f"{time.monotonic_ns()} and what is usual to say in a sentence or two, a hundred characters or so")
print(time.monotonic() - began, flush=True)
"""


class Row(msgspec.Struct):
    seq: int
    text: str


class Message(msgspec.Struct):
    entries: list[Row] = []


decode = msgspec.json.Decoder(Message).decode  # json.loads would keep 500 readers in one process busy by itself


async def follow(url: str, key: str, last: int, until: float, delays: list[int], ready: asyncio.Semaphore) -> int:
    """Read up to row *last* or the time *until*; how many rows came, each with its delay in ns."""
    import websockets

    seqs: list[int] = []
    headers = {"Authorization": f"Bearer {key}"}
    async with websockets.connect(url, additional_headers=headers, open_timeout=60, compression=None) as socket:
        ready.release()
        while (not seqs or seqs[-1] < last) and time.monotonic() < until:
            try:
                text = await asyncio.wait_for(socket.recv(), 5)
            except TimeoutError:
                continue
            now = time.monotonic_ns()
            entries = decode(text).entries
            if not entries:
                continue
            for row in entries:
                seqs.append(row.seq)
                delays.append(now - int(row.text.partition(" ")[0]))
            await socket.send(f'{{"ack": {seqs[-1]}}}')
    assert seqs == sorted(set(seqs)), "doubled or out of order"
    return len(seqs)


async def crowd(url: str, key: str, readers: int, first: int, rows: int, seconds: float) -> None:
    """What the readers' process does: it says when all are in, and what they heard."""
    delays: list[int] = []
    ready = asyncio.Semaphore(0)
    until = time.monotonic() + seconds + 90
    tasks = []
    for number in range(readers):
        tasks.append(asyncio.create_task(follow(url, key, first + rows, until, delays, ready)))
        if number % 20 == 19:
            await asyncio.sleep(0.2)
    for _ in range(readers):
        await ready.acquire()
    print("ready", flush=True)
    counts = await asyncio.gather(*tasks)
    delays.sort()
    heard = sum(counts)
    at = {name: delays[min(heard - 1, int(heard * share))] / 1e6 for name, share in (("p50", 0.5), ("p99", 0.99))}
    print(json.dumps({"heard": heard, "share": heard / (readers * rows), **at}), flush=True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=100, help="rows per second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS, metavar=("URL", "KEY", "FIRST"))
    args = parser.parse_args()
    rows = int(args.rate * args.seconds)
    if args.crowd:
        url, key, first = args.crowd
        asyncio.run(crowd(url, key, args.readers, int(first), rows, args.seconds))
        return
    with site("--no-worker") as server, tempfile.TemporaryDirectory() as directory:
        words = ["--team", "default", "--scopes", "read", "--name", "readers", "--json"]
        key = json.loads(server.manage("create_api_key", *words))["key"]
        seed = Path(directory) / "seed.jsonl"
        entry = {"type": "speech", "role": "user", "content": "0", "duration_ms": None, "metadata": {}}
        seed.write_text(json.dumps({"ts": "2026-03-01T10:00:00+00:00", **entry}) + "\n")
        public_id = server.import_file(seed, "--session", "fanout")["dumps"][0]["sessions"][0]["id"]
        url = server.url.replace("http", "ws") + f"/ws/sessions/{public_id}/?after=1"
        numbers = ["--readers", str(args.readers), "--rate", str(args.rate), "--seconds", str(args.seconds)]
        readers = subprocess.Popen(
            [sys.executable, __file__, *numbers, "--crowd", url, key, "1"], stdout=subprocess.PIPE, text=True
        )
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, public_id, str(args.rate), str(args.seconds)],
            cwd=ROOT,
            env={**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.process and readers.stdout and writer.stdin and writer.stdout
            assert writer.stdout.readline() == "ready\n"
            assert readers.stdout.readline() == "ready\n"
            before = cpu_seconds(server.process.pid)
            writer.stdin.write("go\n")
            writer.stdin.flush()
            took = float(writer.stdout.readline())
            heard = json.loads(readers.stdout.readline())
            spent = cpu_seconds(server.process.pid) - before
        finally:
            for child in (readers, writer):
                child.kill()
                child.wait()
    print(
        f"{args.readers} readers, {rows} rows in {took:.1f} s: {heard['share']:.2%} delivered, "
        f"p50 {heard['p50']:.0f} ms, p99 {heard['p99']:.0f} ms, {spent / heard['heard'] * 1e6:.1f} µs CPU per delivery"
    )


if __name__ == "__main__":
    main()
