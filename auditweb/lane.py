"""A lane of their own for the requests of live producers: kept threads, kept connections to the database.

Under ASGI every request of Django's gets a new thread, and with it a new connection: on SQLite 9 ms of work around 2 ms
for storing twenty lines. And what nearly every request here is, lines of a stream that is under way, sent with a key,
goes without middleware and view (another 3 ms). Whatever is unusual about a request takes the usual way, which says
what is wrong; lines that were stored before it turned out are found and skipped there, because they have numbers.
"""

import asyncio
import contextlib
import re
from io import BytesIO

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.db import DatabaseError
from django.http import HttpResponse

from auditweb.dumps import stream_api
from auditweb.dumps.store import Refused
from auditweb.live.threads import with_database, writers

PATHS = "/api/v1/streams/"
LINES = re.compile(PATHS + "([^/]+)/lines/?")

Headers = list[tuple[bytes, bytes]]


class Lane(BaseHandler):
    """An ASGI application that answers POST requests to PATHS, and leaves others, or with a callback all, to *app*."""

    def __init__(self, app):
        super().__init__()
        self.app = app
        self.load_middleware()
        self._headers: dict[bytes, Headers] = {}  # Host of a request → those of an answer that took the usual way

    async def __call__(self, scope, receive, send):
        # A callback may ask elsewhere and take seconds, which nobody else should wait for.
        if scope["method"] != "POST" or not scope["path"].startswith(PATHS) or settings.AUTH_CALLBACK:
            return await self.app(scope, receive, send)
        parts = []  # of bounded size: the server refuses more (auditweb/server.py)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        status, headers, content = await asyncio.get_running_loop().run_in_executor(
            writers, with_database, self._answer, scope, b"".join(parts)
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return None

    def _answer(self, scope, body: bytes) -> tuple[int, Headers, bytes]:
        asked = {name: value for name, value in scope["headers"] if name in (b"host", b"authorization", b"origin")}
        lines, host = LINES.fullmatch(scope["path"]), asked.get(b"host", b"")
        if lines and host in self._headers and b"origin" not in asked:
            scheme, _, key = asked.get(b"authorization", b"").decode("latin-1").partition(" ")
            if scheme == "Bearer":
                with contextlib.suppress(Refused, DatabaseError):
                    if content := stream_api.usual(lines[1], scope["query_string"].decode("latin-1"), key, body):
                        return 200, [*self._headers[host], (b"Content-Length", b"%d" % len(content))], content
        response = self.get_response(ASGIRequest(scope, BytesIO(body)))
        assert isinstance(response, HttpResponse)  # nothing here is streamed
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        if lines and response.status_code == 200 and not response.cookies and b"origin" not in asked:
            self._headers = {host: [one for one in headers if one[0] != b"Content-Length"], **self._headers}
        headers += [(b"Set-Cookie", cookie.output(header="").strip().encode()) for cookie in response.cookies.values()]
        return response.status_code, headers, response.content
