"""The live status log: which log, which rows, in which shape. No streaming logic."""

from functools import lru_cache

import msgspec

from auditweb.live.consumer import LogConsumer
from auditweb.live.hub import text_of
from auditweb.teams import access
from status_app import feed
from status_app.models import StatusBus

POSTED = "status_posted"
_ENTRIES = '{"type":"entries",'


class StatusConsumer(LogConsumer):
    """``/ws/status/<public id or name>/?after=<seq>``: the posts of one status bus.

    With ``&as=status_posted`` each comes as RoomKit's framework event of that name: ``{type: "status_posted", data:
    {ts, agent_id, action, status, detail, metadata}, seq}``.
    """

    model = StatusBus
    rows = staticmethod(feed.rows_after)
    still_signed_in = staticmethod(access.still_signed_in)

    async def talk(self) -> None:
        self.posted = self.asked("as") == POSTED
        if self.posted:
            self.scope = {**self.scope, "extensions": {}}  # frames that are the same for all would not pass `send_text`
        await super().talk()

    def _visible(self):
        buses = StatusBus.objects.visible_to(self.scope["user"])
        return buses.called(self.scope["url_route"]["kwargs"]["public_id"], self.asked("team"))

    async def send_text(self, text: str) -> None:
        for message in events(text) if self.posted and text.startswith(_ENTRIES) else (text,):
            await super().send_text(message)


@lru_cache(4)  # all who ask for it so get the same entries at the same time
def events(text: str) -> tuple[str, ...]:
    """The entries of a message as ``status_posted``, one message each."""
    return tuple(
        text_of(POSTED, data={name: row[name] for name in feed.POSTED}, seq=row["seq"])
        for row in msgspec.json.decode(text)["entries"]
    )
