"""The yardsticks of the live path: a WebSocket server and nothing else, which hears of events through Redis.

``python bench/bare_live.py unbatched|batched REDIS_URL``: what is published on the channel ``rows``, one row as JSON
each, goes to every reader. Unbatched: each row as a message of its own, by websockets' broadcast. Batched: what comes
within 50 ms is one message, whose frame is made once and written to all. Prints its port.

No sign-in, no permission, no log to catch up from, no window, no numbers to check: whoever is in hears what comes, and
what readers acknowledge is read and forgotten.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import redis.asyncio
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

GATHER_SECONDS = 0.05
CHANNEL = "rows"
BEGIN, END = b'{"type":"entries","entries":[', b"]}"

readers: set[ServerConnection] = set()


async def reader(connection: ServerConnection) -> None:
    readers.add(connection)
    try:
        await connection.send('{"type":"ping"}')
        async for _ in connection:
            pass
    except ConnectionClosed:
        pass
    finally:
        readers.discard(connection)


def frame_of(payload: bytes) -> bytes:
    """A text message of a server, which is not masked."""
    size = len(payload)
    if size < 126:
        return bytes([0x81, size]) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


async def unbatched(next_row: Callable[[], Awaitable[bytes]]) -> None:
    while True:
        broadcast(readers, BEGIN + await next_row() + END, text=True)


async def batched(next_row: Callable[[], Awaitable[bytes]]) -> None:
    rows: list[bytes] = []
    loop = asyncio.get_running_loop()

    def send() -> None:
        frame = frame_of(BEGIN + b",".join(rows) + END)
        rows.clear()
        for connection in readers:
            connection.transport.write(frame)

    while True:
        row = await next_row()
        if not rows:
            loop.call_later(GATHER_SECONDS, send)
        rows.append(row)


async def main(kind: str, url: str) -> None:
    client = redis.asyncio.Redis.from_url(url)
    channel = client.pubsub(ignore_subscribe_messages=True)
    await channel.subscribe(CHANNEL)
    rows: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen() -> None:
        async for message in channel.listen():
            rows.put_nowait(message["data"])

    async with serve(reader, "127.0.0.1", 0, compression=None, ping_interval=10, ping_timeout=60) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.gather(listen(), {"unbatched": unbatched, "batched": batched}[kind](rows.get))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
