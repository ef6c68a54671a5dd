"""Producers of live lines in one process: each has one connection that it keeps, and one stream.

``python bench/producers.py`` takes JSON lines. The first is the plan: ``{"host", "port", "headers", "way": "post" or
"socket", "paths": [one for each producer]}``. Each further one is a measurement, ``{"seconds", "batch"}``: every
producer sends so many lines as soon as those before are acknowledged; or ``{"seconds", "rate"}``: all together have
so many new lines a second, and each sends what it has as soon as it may. Answered by the lines acknowledged and the
milliseconds from when a line was there (with *batch*: was sent) to its acknowledgement.

Lines are those of ``bench/dump.py`` with times that go on; ``{n}`` in a path becomes the number of the first line.
"""

import asyncio
import collections
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import dump
from readers import quantiles

STEP = timedelta(milliseconds=250)
TEXTS = 2000
MOST_LINES = 1000  # of one request


class Producer:
    """One stream: what its next lines are, and how they are sent."""

    def __init__(self, plan: dict, path: str, seed: int):
        self.plan, self.path = plan, path
        self.next = 1
        self.now = datetime(2026, 1, 5, 8, tzinfo=UTC)
        found = dump.lines(TEXTS + 1, seed=seed, sessions=1)
        next(found)  # begins a session; this one only goes on
        self.rests = itertools.cycle([line[line.index(b'", "') :].rstrip(b"\n") for line in found])

    def lines(self, count: int) -> list[bytes]:
        made = []
        for rest in itertools.islice(self.rests, count):
            self.now += STEP
            made.append(b'{"ts": "' + self.now.isoformat(timespec="microseconds").encode() + rest)
        return made

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.plan["host"], self.plan["port"], limit=2**22)
        self.head = f"Host: {self.plan['host']}:{self.plan['port']}\r\n"
        self.head += "".join(f"{name}: {value}\r\n" for name, value in self.plan["headers"].items())
        if self.plan["way"] == "socket":
            upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            self.writer.write(f"GET {self.path} HTTP/1.1\r\n{self.head}{upgrade}{key}\r\n".encode())
            assert b" 101 " in await self.reader.readuntil(b"\r\n\r\n")
            self.messages: asyncio.Queue[dict | None] = asyncio.Queue()
            self.listening = asyncio.create_task(self.listen())
            self.next = (await self.message())["accepted_through"] + 1

    async def send(self, lines: list[bytes]) -> None:
        """Send the next lines; return when they are acknowledged."""
        if self.plan["way"] == "socket":
            said = json.dumps({"first": self.next, "lines": [line.decode() for line in lines]}).encode()
            size = len(said)
            if size < 126:
                length = bytes([0x80 | size])
            else:
                length = b"\xfe" + size.to_bytes(2, "big") if size < 2**16 else b"\xff" + size.to_bytes(8, "big")
            self.writer.write(b"\x81" + length + bytes(4) + said)
            answer = await self.message()
            assert answer["type"] == "accepted", answer
        else:
            body = b"\n".join(lines) + b"\n"
            path = self.path.replace("{n}", str(self.next))
            head = f"POST {path} HTTP/1.1\r\n{self.head}Content-Type: application/x-ndjson\r\n"
            self.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            found = await self.reader.readuntil(b"\r\n\r\n")
            at = found.lower().index(b"content-length:") + 15
            answer = json.loads(await self.reader.readexactly(int(found[at : found.index(b"\r\n", at)])))
            assert found.startswith(b"HTTP/1.1 200"), answer
        self.next += len(lines)
        assert answer["accepted_through"] == self.next - 1, answer

    async def message(self) -> dict:
        """The next message over the socket."""
        message = await self.messages.get()
        if message is None:
            await self.listening  # raises what ended it
            raise ConnectionResetError("the server closed the socket")
        return message

    async def listen(self) -> None:
        """Read what the server says, also while nobody waits for it: a ping must be answered."""
        try:
            while True:
                kind, length = await self.reader.readexactly(2)
                if length >= 126:
                    length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
                payload = await self.reader.readexactly(length)
                if kind == 0x81:
                    self.messages.put_nowait(json.loads(payload))
                    continue
                assert kind == 0x89, f"the server closes with {int.from_bytes(payload[:2], 'big')}"
                self.writer.write(bytes([0x8A, 0x80 | length]) + bytes(4) + payload)
        finally:
            self.messages.put_nowait(None)


async def in_batches(producer: Producer, size: int, until: float) -> AsyncIterator[tuple[int, int]]:
    """(lines, ns that they waited for) of each acknowledgement."""
    while time.monotonic() < until:
        lines = producer.lines(size)
        began = time.monotonic_ns()
        await producer.send(lines)
        yield size, time.monotonic_ns() - began


async def paced(producer: Producer, rate: float, phase: float, until: float) -> AsyncIterator[tuple[int, int]]:
    """The same for lines that come evenly; *phase* is when the first one does, in intervals."""
    began, sent = time.monotonic(), 0

    def due(number: int) -> float:
        return began + (number + phase) / rate

    while (now := time.monotonic()) < until:
        ready = min(MOST_LINES, int((now - began) * rate - phase) + 1 - sent)
        if now < due(sent) or ready <= 0:
            await asyncio.sleep(due(sent) - now)
            continue
        await producer.send(producer.lines(ready))
        now = time.monotonic()
        for number in range(sent, sent + ready):
            yield 1, round((now - due(number)) * 1e9)
        sent += ready


async def measured(producers: list[Producer], command: dict) -> dict:
    began, cpu = time.monotonic(), time.process_time()
    until = began + command["seconds"]
    tenths: collections.Counter[int] = collections.Counter()
    acknowledged = requests = 0

    async def produce(number: int, producer: Producer) -> None:
        nonlocal acknowledged, requests
        if "rate" in command:
            acks = paced(producer, command["rate"] / len(producers), number / len(producers), until)
        else:
            acks = in_batches(producer, command["batch"], until)
        async for lines, waited in acks:
            tenths[waited // 100_000] += 1
            acknowledged += lines
            requests += 1

    await asyncio.gather(*(produce(number, producer) for number, producer in enumerate(producers)))
    took = time.monotonic() - began
    return {
        "events": acknowledged,
        "took": took,
        "per_s": acknowledged / took,
        "acks": requests,
        "producer_cpu": time.process_time() - cpu,
        **quantiles(tenths),
    }


async def main() -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    plan = json.loads(await commands.readline())
    producers = [Producer(plan, path, seed) for seed, path in enumerate(plan["paths"], 1)]
    for producer in producers:
        await producer.open()
        await producer.send(producer.lines(1))
    answer({"ready": True})
    while line := await commands.readline():
        answer(await measured(producers, json.loads(line)))


def answer(said: dict) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
