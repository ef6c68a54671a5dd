"""Who watches the Live wall through this process: one look for all of them, and to each what changed since it was told.

Keeps for itself when to look. A reader who takes nothing costs nothing: what waits for it are cards, never messages,
and when it takes some again it gets the present state of each.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from weakref import WeakKeyDictionary

import msgspec
from django.utils import timezone

from auditweb import metrics
from auditweb.live.hub import PING_SECONDS, Hub, hub, text_of, wire_of
from auditweb.live.socket import Refused
from sessions_app.wall import Card, Wall
from status_app.latest import Latest

GATHER_SECONDS = 0.05  # between two looks
CARD_SECONDS = 0.2  # between two looks at one session: nobody reads faster
POLL_SECONDS = 2.0  # between two looks at all: what falls silent rings no bell
PART_BYTES = 256 * 1024  # of a message

Send = Callable[[str], Awaitable[None]]
Write = Callable[[bytes], bool]


class WallReader:
    """One wall: ``run`` and ``beat`` side by side until one of them raises Refused, then ``leave``.

    *standing* blocks and returns the teams (primary keys) whose sessions may be shown; it raises Refused when the wall
    may stay no longer. *send* waits until the client takes more; *write* takes a frame at once or says that it cannot.
    """

    def __init__(self, teams: Iterable[int], standing: Callable[[], Iterable[int]], send: Send, write: Write | None):
        self.teams = frozenset(teams)
        self._standing, self._send, self._write = standing, send, write
        self._board = board()
        self._awake = asyncio.Event()
        self._cards: dict[int, Card] = {}  # that changed since it was told of them
        self._told: frozenset[int] = frozenset()  # the teams whose sessions it has been told
        self._posts = self._ping = True
        self._board.join(self)

    def leave(self) -> None:
        self._board.leave(self)

    def saw(self, changed: dict[int, Card], news: set[int]) -> None:
        """A look found these cards changed, and news on the status logs of these teams."""
        mine = {pk: card for pk, card in changed.items() if card.team in self.teams}
        self._cards |= mine
        self._posts = self._posts or not news.isdisjoint(self.teams)
        if mine or self._posts or self._told != self.teams:
            self._awake.set()

    async def run(self) -> None:
        """Send what happens."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            for text in self._news():
                if self._write is None or not self._write(wire_of(text.encode())):
                    await self._send(text)

    async def beat(self) -> None:
        """Say every few seconds that we are there, after having asked what may be shown."""
        asking: asyncio.Future | None = None
        try:
            while True:
                await asyncio.sleep(PING_SECONDS)
                asking = asking or asyncio.ensure_future(self._board.hub.ask(self._standing))
                # Heard from without an answer too: with the database away nothing new can be read either.
                await asyncio.wait([asking], timeout=PING_SECONDS / 8)
                if asking.done():
                    self._stand(asking)
                    asking = None
                self._ping = True
                self._awake.set()
        finally:
            if asking is not None:
                asking.cancel()

    def _stand(self, answer: asyncio.Future) -> None:
        try:
            teams = frozenset(answer.result())
        except Refused:
            raise
        except Exception as e:
            self._board.hub.trouble(e)
            return
        if teams != self.teams:
            self.teams = teams
            self._board.look()

    def _news(self) -> Iterable[str]:
        """What the reader was not told yet, as messages."""
        shown = self._board
        cards, self._cards = self._cards, {}
        teams = self.teams
        if self._told != teams:
            if teams <= shown.teams:
                self._told, self._posts = teams, True
                yield from _all(shown.wall.of(teams), shown.wall.count(teams))
        elif cards:
            yield from _changes(cards, shown.wall.cards)
        if self._posts and self._told == teams:
            self._posts = False
            yield shown.posts(teams)
        if self._ping:
            self._ping = False
            yield text_of("ping", running=shown.wall.count(teams), now=timezone.now())


def _all(cards: list[Card], running: int) -> Iterable[str]:
    """All of a wall: the first message names every card, so that what is not among them leaves."""
    head = msgspec.json.encode({"running": running, "now": timezone.now(), "ids": [card.public_id for card in cards]})
    begin = '{"type":"sessions",' + head.decode()[1:-1] + ',"sessions":['
    part: list[str] = []
    size = 0
    for card in cards:
        if size + len(card.text) > PART_BYTES:
            yield begin + ",".join(part) + "]}"
            begin, part, size = '{"type":"sessions","sessions":[', [], 0
        part.append(card.text)
        size += len(card.text)
    yield begin + ",".join(part) + "]}"


def _changes(cards: dict[int, Card], known: dict[int, Card]) -> Iterable[str]:
    running = []
    for pk, card in cards.items():
        if known.get(pk) is not card:
            yield text_of("gone", id=card.public_id)
        elif card.live:
            running.append(card.text)
        else:
            yield '{"type":"ended",' + card.text[1:]
    if len(running) == 1:
        yield '{"type":"session",' + running[0][1:]
    elif running:
        yield '{"type":"sessions","sessions":[' + ",".join(running) + "]}"


class Board:
    """What the walls of this process show. Rests while there are none."""

    def __init__(self, of: Hub):
        self.hub = of
        self._readers: set[WallReader] = set()
        self._task: asyncio.Task | None = None
        self._begin()

    def _begin(self) -> None:
        self.wall, self._latest = Wall(), Latest()
        self.teams: frozenset[int] = frozenset()  # that were looked at as a whole
        self._sessions: set[int] = set()  # that were rung
        self._buses: set[int] = set()
        self._looked: dict[int, float] = {}  # session → when it was looked at last
        self._texts: dict[frozenset[int], str] = {}  # teams → their latest posts
        self._everything = True
        self._rung = asyncio.Event()

    def join(self, reader: WallReader) -> None:
        self._readers.add(reader)
        metrics.readers.labels("wall").inc()
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
            self.hub.on_rings(self._hear)
        self.look()

    def leave(self, reader: WallReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            metrics.readers.labels("wall").dec()
        if not self._readers and self._task is not None:
            self.hub.off_rings(self._hear)
            self._task.cancel()
            self._task = None
            self._begin()

    def look(self) -> None:
        """Look at everything as soon as may be."""
        self._everything = True
        self._rung.set()

    def posts(self, teams: frozenset[int]) -> str:
        """The latest status posts of *teams* as a message."""
        if teams not in self._texts:
            self._texts[teams] = text_of("status", entries=self._latest.of(teams))
        return self._texts[teams]

    def _hear(self, keys: set[str] | None) -> None:
        for key in keys or ():  # when all may have changed, the next poll is soon enough
            kind, _, pk = key.partition(":")
            if kind == "session":
                self._sessions.add(int(pk))
            elif kind == "statusbus":
                self._buses.add(int(pk))
        self._rung.set()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        polled = 0.0
        while True:
            began = loop.time()
            poll = self._everything or began - polled >= POLL_SECONDS
            ready = {pk for pk in self._sessions if began - self._looked.get(pk, 0.0) >= CARD_SECONDS}
            if poll or ready or self._buses:
                buses, self._buses = self._buses, set()
                self._sessions -= ready
                self._looked.update(dict.fromkeys(ready, began))
                try:
                    await self._look(None if poll else ready, None if poll else buses)
                except Exception as e:
                    self.hub.trouble(e)
                    self._everything = True
                    await asyncio.sleep(POLL_SECONDS / 2)
                if poll:
                    polled = began
                    self._looked = {pk: at for pk, at in self._looked.items() if began - at < CARD_SECONDS}
                await asyncio.sleep(began + GATHER_SECONDS - loop.time())
                continue
            waits = [polled + POLL_SECONDS, *(self._looked[pk] + CARD_SECONDS for pk in self._sessions)]
            self._rung.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(waits) - loop.time())):
                    await self._rung.wait()

    async def _look(self, sessions: set[int] | None, buses: set[int] | None) -> None:
        everything = sessions is None
        if everything:
            self._everything = False
        teams = frozenset().union(*(reader.teams for reader in self._readers))
        changed, news = await self.hub.ask(self._both, teams, sessions, buses)
        if everything:
            self.teams = teams
        if news:
            self._texts.clear()
        for reader in self._readers:
            reader.saw(changed, news)

    def _both(self, teams, sessions, buses) -> tuple[dict[int, Card], set[int]]:
        changed = self.wall.look(teams, sessions) if sessions is None or sessions else {}
        news = self._latest.look(teams, buses) if buses is None or buses else set()
        return changed, news


_boards: "WeakKeyDictionary[Hub, Board]" = WeakKeyDictionary()


def board() -> Board:
    """The board of the running event loop."""
    mine = hub()
    found = _boards.get(mine)
    if found is None:
        found = _boards[mine] = Board(mine)
    return found
