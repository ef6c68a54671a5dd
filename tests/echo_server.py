"""The guarded server around an application that says what reached it: one JSON object per request.

``python -m tests.echo_server`` prints its port. ``/slow`` answers after a second; ``/ws`` echoes the size of messages, or as many x as "say N" asks.
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


async def echo(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            text = message["text"]
            many = text.removeprefix("say ") if text.startswith("say ") else ""
            await send({"type": "websocket.send", "text": "x" * int(many) if many else str(len(text))})
        return
    size, more, start = 0, True, b""
    while more:
        message = await receive()
        start = start or message.get("body", b"")[:20]
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    answer = {
        "size": size,
        "start": start.decode("latin1"),
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "root_path": scope["root_path"],
        "headers": sorted(name.decode() for name, _ in scope["headers"]),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


if __name__ == "__main__":
    sock = server.listen("127.0.0.1", 0)
    print(sock.getsockname()[1], flush=True)
    server.Server(echo, sock).run()
