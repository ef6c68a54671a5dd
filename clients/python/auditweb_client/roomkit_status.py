"""A backend for RoomKit's status bus: agents on several hosts share one status log of auditweb.

Keeps for itself which entries are our own: those reach the agents of this process at once and without the server, so
that none of them ever waits for it, and are not told again when the server tells everybody.
"""

import asyncio
import contextlib
import http.client
import inspect
import json
import logging
import queue
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

from roomkit.orchestration import status_bus
from roomkit.orchestration.status_bus import StatusCallback, StatusEntry

from auditweb_client.lines import encoded
from auditweb_client.server import Answer, Server
from auditweb_client.stream import Stream

try:
    from websockets.asyncio.client import connect
except ImportError:  # without the extra "ws" the log is asked instead
    connect = None  # type: ignore[assignment,misc]

log = logging.getLogger("auditweb_client")
_of_sockets = logging.getLogger("auditweb_client.socket")  # of the library: a connection that broke is no error here
_of_sockets.setLevel(logging.CRITICAL)

POLL_SECONDS = 0.5
ANSWER_SECONDS = 3.0  # that an agent waits for the log of all; after that it gets what this process knows
AWAY_SECONDS = 5.0  # for which a server that gave no answer is not asked again
CLOSE_SECONDS = 2.0
KEPT = 500  # own entries; RoomKit's own backends keep as many
UNSEEN = 10_000  # own entries that are expected to come back from the server
PAGE = 1000  # entries; the server gives no more at once

_Mark = tuple[str, str, str, str, str]


class StatusBackend(status_bus.StatusBackend):
    """The status log *bus* of the server at *url*; ``StatusBus(backend=StatusBackend(url, key, bus="house"))``.

    The key needs the scopes ``ingest`` and ``read``. *stream*: one that a ``SessionAuditor`` made with the same *bus*
    has, for entries that shall also stand in the session; else one of its own, made from *options* as for ``Stream``.
    ``publish`` never waits for the server and nothing raises because of it.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        bus: str,
        agent: str = "status",
        stream: Stream | None = None,
        poll_seconds: float = POLL_SECONDS,
        **options: Any,
    ):
        if stream is not None and stream.bus != bus:
            raise ValueError(f"the stream feeds the bus {stream.bus!r}, not {bus!r}")
        self.bus = bus
        self._shares = stream is not None
        self.stream = stream or Stream(url, key, agent=agent, bus=bus, **options)
        self._poll_seconds = poll_seconds
        self._asker = _Asker(self.stream.server)
        self._own: deque[StatusEntry] = deque(maxlen=KEPT)
        self._seen: deque[StatusEntry] = deque(maxlen=KEPT)
        self._unseen: OrderedDict[_Mark, int] = OrderedDict()
        self._callbacks: list[StatusCallback] = []
        self._follower: asyncio.Task[None] | None = None
        self._after: int | None = None
        self._closed = False

    async def publish(self, entry: StatusEntry) -> None:
        """Tell the subscribers of this process, and everybody else through the server."""
        if self._closed:
            return
        self._own.append(entry)
        self._seen.append(entry)
        if self._callbacks:
            mark = _mark(entry.model_dump())
            self._unseen[mark] = self._unseen.get(mark, 0) + 1
            if len(self._unseen) > UNSEEN:
                self._unseen.popitem(last=False)
        try:
            self.stream.send(encoded(entry.model_dump()))
        except Exception:
            log.exception("a status entry was not taken")
        await self._tell(entry)

    async def recent(self, n: int, *, agent_id: str | None = None, status: str | None = None) -> list[StatusEntry]:
        """The last *n* entries of all processes by time, oldest first; while the server is away those known here."""
        query = {"n": max(1, min(n, PAGE)), "agent_id": agent_id, "status": status}
        answer = await self._asker.ask(("status", self.bus, "recent"), query)
        if answer is None:
            found = list(self._seen)
        else:
            found = _parsed(answer.json.get("entries"))
            known = {_mark(entry.model_dump()) for entry in found}
            found += [entry for entry in self._own if _mark(entry.model_dump()) not in known]
        if agent_id is not None:
            found = [entry for entry in found if entry.agent_id == agent_id]
        if status is not None:
            found = [entry for entry in found if entry.status == status]
        return sorted(found, key=_time)[-n:]

    async def subscribe(self, callback: StatusCallback) -> None:
        """Call *callback* with every new entry, of this and of every other process."""
        if self._closed:
            raise RuntimeError("the status backend is closed")
        self._callbacks.append(callback)
        if self._follower is None:
            # From here on: what was there before is history. Without an answer, from the first one on.
            await self._find_head()
            if self._follower is None and not self._closed:
                self._follower = asyncio.create_task(self._follow(), name="auditweb-status")

    async def unsubscribe(self, callback: StatusCallback) -> None:
        with contextlib.suppress(ValueError):
            self._callbacks.remove(callback)

    async def close(self) -> None:
        """Stop following, send what is left and end the stream, unless it is shared."""
        if self._closed:
            return
        self._closed = True
        self._callbacks.clear()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._asker.close()
        if not self._shares:
            await asyncio.to_thread(self.stream.close, CLOSE_SECONDS)

    async def _tell(self, entry: StatusEntry) -> None:
        for callback in list(self._callbacks):
            try:
                result = callback(entry)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("a subscriber of the status bus failed")

    async def _follow(self) -> None:
        while True:
            try:
                await self._catch_up()
                if connect is None or self._after is None:
                    await asyncio.sleep(self._poll_seconds)
                else:
                    async for rows in self._pushed(self._after):
                        await self._take(rows)
            except asyncio.CancelledError:
                raise
            except Exception as e:  # of the socket: the log is asked until it can be opened again
                log.debug("the status log is asked for news: %r", e)
                await asyncio.sleep(self._poll_seconds)

    async def _find_head(self) -> None:
        answer = await self._asker.ask(("status", self.bus, "recent"), {"n": 1})
        if answer is not None:
            head = answer.json.get("last_seq")
            self._after = head if isinstance(head, int) else 0

    async def _catch_up(self) -> None:
        """Take all pages behind the last entry that was told."""
        if self._after is None:
            return await self._find_head()
        more = True
        while more:
            query = {"after": self._after, "limit": PAGE}
            answer = await self._asker.ask(("status", self.bus, "entries"), query)
            rows = answer.json.get("entries") if answer is not None else None
            more = bool(rows) and bool(answer and answer.json.get("more"))
            await self._take(rows or [])

    async def _pushed(self, after: int) -> AsyncIterator[list[Any]]:
        """Pages of new rows from the socket, until it closes or has left some out."""
        server = self.stream.server
        address = f"{server.url}/ws/status/{quote(self.bus, safe='')}/?after={after}".replace("http", "ws", 1)
        headers = {"Authorization": f"Bearer {server.key}"}
        async with connect(address, additional_headers=headers, max_size=2**24, logger=_of_sockets) as socket:
            async for message in socket:
                said = json.loads(message)
                if said.get("type") in ("skipped", "gap", "deleted"):
                    return
                if said.get("type") == "entries" and (rows := said.get("entries")):
                    yield rows
                    await socket.send(json.dumps({"ack": self._after}))

    async def _take(self, rows: list[Any]) -> None:
        for row in rows:
            if not isinstance(row.get("seq"), int) or row["seq"] <= (self._after or 0):
                continue
            self._after = row["seq"]
            mark = _mark(row)
            if expected := self._unseen.pop(mark, 0):
                if expected > 1:
                    self._unseen[mark] = expected - 1
                continue
            for entry in _parsed([row]):
                self._seen.append(entry)
                await self._tell(entry)


class _Asker:
    """Asks the server in a thread of its own, which the end of the process does not wait for."""

    def __init__(self, server: Server):
        self._server = server.again()
        self._jobs: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._away_until = 0.0

    async def ask(self, path: tuple[str, ...], query: dict[str, Any]) -> Answer | None:
        """The answer to a GET, one of a log that is not there yet being empty; None when there is none in time."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="auditweb-status", daemon=True)
            self._thread.start()
        future: asyncio.Future[Answer] = loop.create_future()
        self._jobs.put((loop, future, path, query))
        try:
            answer = await asyncio.wait_for(future, ANSWER_SECONDS)
            if answer.status in (200, 404):
                self._away_until = 0.0
                return answer
            trouble = str(answer)
        except (OSError, http.client.HTTPException) as e:  # a TimeoutError is one, too
            trouble = str(e) or type(e).__name__
        if not self._away_until:
            log.warning("the status log cannot be read: %s", trouble)
        self._away_until = loop.time() + AWAY_SECONDS
        return None

    def close(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        result: Any
        while job := self._jobs.get():
            loop, future, path, query = job
            if future.done():
                continue
            call = future.set_result
            try:
                result = self._server.ask("GET", path, query)
            except Exception as e:
                call, result = future.set_exception, e
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_unless_done, future, call, result)
        self._server.close()


def _unless_done(future: "asyncio.Future[Answer]", call: Any, result: Any) -> None:
    if not future.done():
        call(result)


def _parsed(rows: Any) -> list[StatusEntry]:
    entries = []
    for row in rows if isinstance(rows, list) else []:
        try:
            entries.append(StatusEntry.model_validate({name: row[name] for name in StatusEntry.model_fields}))
        except (KeyError, TypeError, ValueError) as e:  # somebody posted what RoomKit itself would not
            log.debug("a status entry that RoomKit does not know: %r", e)
    return entries


def _mark(row: dict[str, Any]) -> _Mark:
    """What tells entries apart: times have microseconds."""
    return row["ts"], row["agent_id"], row["action"], str(row["status"]), row["detail"]


def _time(entry: StatusEntry) -> float:
    try:
        return datetime.fromisoformat(entry.ts).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
