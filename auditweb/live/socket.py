"""A socket of ours: accepted before it is refused, bounded in what it may say, closed with a code that tells why."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Hashable
from urllib.parse import parse_qs

from channels.consumer import AsyncConsumer

# Close codes.
MALFORMED, SIGNED_OUT, REVOKED, NOT_FOUND = 4400, 4401, 4403, 4404
POLICY, RESTART, TRY_LATER = 1008, 1012, 1013

MESSAGE_BYTES = 16 * 1024
MESSAGES_PER_SECOND = 100


class Refused(Exception):
    """This socket may not stay; ``code`` is its close code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Socket(AsyncConsumer, ABC):
    """Closes 4400 an address that makes no sense, 4401 not signed in, 4404 foreign or missing, 4403 access taken back
    or scope missing, 1008 a message that we do not take, 1012 the server stops, 1013 try again later.

    A subclass says in ``talk`` what happens while it is open, and in ``left`` what when it is not any more.
    """

    message_bytes = MESSAGE_BYTES
    messages_per_second: int | None = MESSAGES_PER_SECOND

    @abstractmethod
    async def talk(self) -> None:
        """Until the client leaves; raises Refused when we end it."""

    def left(self) -> None:
        """The socket is closed, or about to be."""

    async def __call__(self, scope, receive, send):
        # Not channels' own dispatch: it takes a channel of the layer (a dead Redis would refuse the handshake and end
        # the socket) and goes through the one shared database thread for every message.
        self.scope, self._receive, self.base_send = scope, receive, send
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})  # before any refusal: a browser sees close codes of open sockets only
        try:
            await self.talk()
        except Refused as e:
            await self._close(e.code)
            await self._drain()
        except OSError:  # some servers raise when the client left while we spoke
            pass
        except asyncio.CancelledError:
            await self._close(RESTART)
            raise
        finally:
            self.left()

    async def together(self, *works: Coroutine) -> None:
        """Run *works* until the first of them ends, then stop the others; raises what it raised."""
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def messages(self) -> AsyncIterator[bytes]:
        """What the client says until it leaves. Raises Refused for binary, oversized and too many messages."""
        loop = asyncio.get_running_loop()
        second, heard = 0.0, 0
        while (message := await self._receive())["type"] != "websocket.disconnect":
            if loop.time() - second >= 1:
                second, heard = loop.time(), 0
            heard += 1
            text = message.get("text")
            if text is None or (self.messages_per_second is not None and heard > self.messages_per_second):
                raise Refused(POLICY)
            try:
                raw = text.encode()
            except ValueError as e:  # a lone surrogate
                raise Refused(POLICY) from e
            if len(raw) > self.message_bytes:
                raise Refused(POLICY)
            yield raw

    async def send_text(self, text: str) -> None:
        await self.base_send({"type": "websocket.send", "text": text})

    def asked(self, name: str) -> str:
        """The parameter *name* of the address, the last one of several; "" without one."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"), encoding="utf-8", errors="replace")
        return (query.get(name) or [""])[-1]

    @property
    def identity(self) -> Hashable:
        """Who is behind the socket: the same for all that one key or one sign-in opened."""
        if (key := self.scope["auth"]) is not None:
            return "key", key.pk
        return "session", self.scope["session"].session_key

    async def _close(self, code: int) -> None:
        with contextlib.suppress(Exception):  # the client is gone already
            await self.base_send({"type": "websocket.close", "code": code})

    async def _drain(self) -> None:
        """Wait until the client has closed too: daphne expects an application as long as there is a connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (await self._receive())["type"] != "websocket.disconnect":
                    pass
