"""The guarded server around an application that says what reached it: one JSON object per request.

``python -m tests.echo_server`` prints its port. ``/slow`` answers after a second, ``/stream?n`` in pieces of n bytes in
all, ``/whole?n`` in one, ``/breaks`` fails in the middle, ``/streams`` tells how many streams run;
``/ws`` echoes the size of messages, or as many x as "say N" asks ("flood N": as many in pieces of 1000).
"""

import asyncio
import json
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"

from django.conf import settings

from auditweb import server

if url := os.environ.get("ECHO_PUBLIC_URL"):
    settings.PUBLIC_URL = url
settings.MAX_REQUESTS = int(os.environ.get("ECHO_MAX_REQUESTS", settings.MAX_REQUESTS))
server.STALLED_SECONDS = float(os.environ.get("ECHO_STALLED_SECONDS", server.STALLED_SECONDS))
server.PUSHED_OUT_SECONDS = float(os.environ.get("ECHO_PUSHED_OUT_SECONDS", server.PUSHED_OUT_SECONDS))

PIECE = 128 * 1024
BLOCK = bytes(range(251)) * 1000  # a piece at a wrong place shows: its length is no power of two

streams = 0


def content(offset, size):
    """*size* bytes from *offset* on of the bytes that ``/stream`` and ``/whole`` send."""
    start = offset % len(BLOCK)
    return (BLOCK * (size // len(BLOCK) + 2))[start : start + size]


async def stream(size, send):
    global streams
    streams += 1
    try:
        for offset in range(0, size, PIECE):
            piece = content(offset, min(PIECE, size - offset))
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        streams -= 1
    await send({"type": "http.response.body"})


async def until_left(receive, work):
    """Do *work* as Django does: ended when the client leaves."""
    left, working = asyncio.ensure_future(receive()), asyncio.ensure_future(work)
    await asyncio.wait([left, working], return_when=asyncio.FIRST_COMPLETED)
    for task in (left, working):
        task.cancel()
    await asyncio.gather(left, working, return_exceptions=True)


async def echo(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            verb, _, many = message["text"].partition(" ")
            if verb == "flood":
                for _ in range(int(many) // 1000):
                    await send({"type": "websocket.send", "text": "x" * 1000})
            else:
                await send({"type": "websocket.send", "text": "x" * int(many) if many else str(len(verb))})
        return
    size, more, start = 0, True, b""
    while more:
        message = await receive()
        start = start or message.get("body", b"")[:20]
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    path = scope["path"]
    asked = int(scope["query_string"]) if path in ("/stream", "/whole") else 0
    if path == "/slow":
        await asyncio.sleep(1)
    answer = {
        "size": size,
        "start": start.decode("latin1"),
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "root_path": scope["root_path"],
        "headers": sorted(name.decode() for name, _ in scope["headers"]),
        "streams": streams,
    }
    length = [(b"content-length", b"%d" % asked)] if asked else []
    kind = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": 200, "headers": [kind, *length]})
    if path == "/stream":
        return await until_left(receive, stream(asked, send))
    if path == "/whole":
        return await send({"type": "http.response.body", "body": content(0, asked)})
    if path == "/breaks":
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError("in the middle")
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


if __name__ == "__main__":
    sock = server.listen("127.0.0.1", 0)
    print(sock.getsockname()[1], flush=True)
    server.Server(echo, sock).run()
