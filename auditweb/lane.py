"""A lane of their own for the requests of live producers: kept threads, kept connections to the database.

Under ASGI every request of Django's gets a new thread, and with it a new connection: on SQLite 9 ms of work around 4 ms
for storing twenty lines. Everything else about a request, middleware and views, is the same here.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.http import HttpResponse

from auditweb.live.hub import with_database

PATHS = "/api/v1/streams/"
THREADS = 4  # SQLite takes one writer at a time; PostgreSQL's pool has more to do than this

# Not the hub's threads: a writer waits for others, and watchers should not wait for writers.
threads = ThreadPoolExecutor(THREADS, thread_name_prefix="streams")


class Lane(BaseHandler):
    """An ASGI application that answers POST requests to PATHS, and leaves others, or with a callback all, to *app*."""

    def __init__(self, app):
        super().__init__()
        self.app = app
        self.load_middleware()

    async def __call__(self, scope, receive, send):
        # A callback may ask elsewhere and take seconds, which nobody else should wait for.
        if scope["method"] != "POST" or not scope["path"].startswith(PATHS) or settings.AUTH_CALLBACK:
            return await self.app(scope, receive, send)
        body = BytesIO()  # of bounded size: the server refuses more (auditweb/server.py)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body.write(message.get("body", b""))
            if not message.get("more_body", False):
                break
        body.seek(0)
        status, headers, content = await asyncio.get_running_loop().run_in_executor(
            threads, with_database, self._answer, scope, body
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return None

    def _answer(self, scope, body: BytesIO) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        response = self.get_response(ASGIRequest(scope, body))
        assert isinstance(response, HttpResponse)  # nothing here is streamed
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        headers += [(b"Set-Cookie", cookie.output(header="").strip().encode()) for cookie in response.cookies.values()]
        return response.status_code, headers, response.content
