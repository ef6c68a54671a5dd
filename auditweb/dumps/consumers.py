"""Streams over a socket: the same numbered lines as over HTTP, each message answered when it is stored."""

import asyncio
import time
from typing import Annotated

import msgspec
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, QueryDict

from auditweb import metrics
from auditweb.dumps import store, stream_api, streams
from auditweb.dumps.models import Dump
from auditweb.live.hub import text_of
from auditweb.live.socket import MALFORMED, NOT_FOUND, POLICY, REVOKED, SIGNED_OUT, TRY_LATER, Refused, Socket
from auditweb.live.threads import with_database, writers
from auditweb.pages import MAX_INT
from auditweb.teams import access

STANDING_SECONDS = 4.0  # between two questions whether the producer may go on


class _SoFar(msgspec.Struct):
    role: str
    text: Annotated[str, msgspec.Meta(max_length=20_000)]


class _Said(msgspec.Struct):
    first: Annotated[int, msgspec.Meta(ge=1, le=MAX_INT)] | None = None
    lines: Annotated[list[str], msgspec.Meta(max_length=stream_api.MAX_LINES)] = []
    heartbeat: bool = False
    provisional: _SoFar | None = None
    end: bool = False


_hear = msgspec.json.Decoder(_Said).decode


class StreamConsumer(Socket):
    """``/ws/streams/<name>/``: a producer says ``{"first": n, "lines": ["…"]}``, ``{"heartbeat": true}``,
    ``{"provisional": {"role", "text"}}`` or ``{"end": true}`` and hears ``accepted``, ``refused`` or ``ended``.

    The options of the address are those of ``POST streams/<name>/lines``.
    """

    message_bytes = 2 * 2**20
    messages_per_second = None  # each is read when the one before it is answered
    dump: Dump

    async def talk(self) -> None:
        self.dump = await self._ask(self._admit)
        await self._say("accepted", accepted_through=self.dump.lines)
        await self.together(self._listen(), self._stand())

    async def _listen(self) -> None:
        async for raw in self.messages():
            try:
                said = _hear(raw)
            except (ValueError, RecursionError) as e:
                raise Refused(POLICY) from e
            try:
                await self._do(said)
            except streams.Gap as e:
                await self._say("refused", code="gap", expected=e.expected)
            except streams.Differs as e:
                await self._say("refused", code="differs", line=e.line)
            except store.Refused as e:
                await self._say("refused", code="busy" if isinstance(e, streams.Busy) else "closed", message=str(e))

    async def _do(self, said: _Said) -> None:
        if said.lines:
            await self._take(said)
        if said.provisional is not None:
            if said.provisional.role not in ("user", "assistant"):
                raise Refused(POLICY)
            await self._ask(streams.provisional, self.dump, said.provisional.role, said.provisional.text)
        if said.heartbeat:
            await self._say("accepted", accepted_through=await self._ask(streams.heartbeat, self.dump))
        if said.end:
            await self._say("ended", accepted_through=await self._ask(streams.end, self.dump))

    async def _take(self, said: _Said) -> None:
        if said.first is None or any("\n" in line for line in said.lines):
            raise Refused(POLICY)
        lines, began = [line.encode() for line in said.lines], time.perf_counter()
        accepted = await self._ask(lambda: stream_api.accepted_json(streams.append(self.dump, said.first, lines)))
        metrics.accepted("socket", began, len(lines), accepted["duplicates"])
        await self._say("accepted", **accepted)

    async def _stand(self) -> None:
        """Ask now and then whether the producer may go on."""
        while True:
            await asyncio.sleep(STANDING_SECONDS)
            if not await self._ask(self._standing):
                raise Refused(REVOKED)

    def _admit(self) -> Dump:
        if not self.scope["user"].is_authenticated or not access.still_signed_in(self.scope):
            raise Refused(SIGNED_OUT)
        self.request = _request(self.scope)
        try:
            team = access.team_of(self.request)
        except (Http404, BadRequest) as e:
            raise Refused(NOT_FOUND) from e
        if not access.may(self.request, team, "upload"):
            raise Refused(REVOKED)
        options = {name: self.asked(name) for name in ("session", "bus", "zone", "title")}
        if any("\0" in told for told in options.values()):
            raise Refused(MALFORMED)
        name = self.scope["url_route"]["kwargs"]["name"]
        try:
            return streams.open(team, name, self.scope["user"], **options)
        except ValueError as e:
            raise Refused(MALFORMED) from e

    def _standing(self) -> bool:
        return access.still_signed_in(self.scope) and access.may(self.request, self.dump.team, "upload")

    async def _ask(self, call, *args):
        """A blocking call in a thread of ours; a database that is away ends the socket, its producer comes again."""
        try:
            return await asyncio.get_running_loop().run_in_executor(writers, with_database, call, *args)
        except (Refused, streams.Gap, streams.Differs, streams.Busy):
            raise
        except store.Gone as e:
            raise Refused(NOT_FOUND) from e
        except store.Refused:
            raise
        except Exception as e:
            raise Refused(TRY_LATER) from e

    async def _say(self, kind: str, **fields) -> None:
        await self.send_text(text_of(kind, **fields))


def _request(scope) -> HttpRequest:
    """The handshake as the request that ``teams.access`` asks about."""
    request = HttpRequest()
    request.GET = QueryDict(scope["query_string"])
    request.user, request.auth = scope["user"], scope["auth"]  # type: ignore[attr-defined]
    return request
