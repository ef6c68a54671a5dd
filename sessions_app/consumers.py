"""The live timeline and the Live wall: which log, which rows, which state, whose sessions. No streaming logic."""

from django.db.models import Q

from auditweb.live.consumer import LogConsumer
from auditweb.live.hub import hub
from auditweb.live.socket import NOT_FOUND, REVOKED, SIGNED_OUT, TRY_LATER, Refused, Socket
from auditweb.teams import access
from sessions_app import liveness, timeline
from sessions_app.models import Session
from sessions_app.wall_hub import WallReader


class TimelineConsumer(LogConsumer):
    """``/ws/sessions/<public id>/?after=<seq>``: the timeline of one session."""

    model = Session
    state_fields = liveness.FIELDS
    state = staticmethod(liveness.state)
    rows = staticmethod(timeline.rows_after)
    still_signed_in = staticmethod(access.still_signed_in)


class WallConsumer(Socket):
    """``/ws/live/?team=``: the running sessions of a team of the caller's, by default of all of them."""

    reader: WallReader | None = None

    async def talk(self) -> None:
        try:
            teams = await hub().ask(self._admit)
        except Refused:
            raise
        except Exception as e:
            hub().trouble(e)
            raise Refused(TRY_LATER) from e
        write = (self.scope.get("extensions") or {}).get("auditweb.write")
        self.reader = WallReader(teams, self._standing, self.send_text, write)
        await self.together(self.reader.run(), self.reader.beat(), self._listen())

    def left(self) -> None:
        if self.reader is not None:
            self.reader.leave()

    def _admit(self) -> list[int]:
        if not access.still_signed_in(self.scope):
            raise Refused(SIGNED_OUT)
        if (key := self.scope["auth"]) is not None and not key.has_scope("read"):
            raise Refused(REVOKED)
        return self._teams(NOT_FOUND)

    def _standing(self) -> list[int]:
        if not access.still_signed_in(self.scope):
            raise Refused(REVOKED)
        return self._teams(REVOKED)

    def _teams(self, otherwise: int) -> list[int]:
        teams, named = access.teams_of(self.scope["user"]), self.asked("team")
        if named:
            teams = teams.none() if "\0" in named else teams.filter(Q(slug=named) | Q(public_id=named))
        found = list(teams.values_list("pk", flat=True))
        if not found:
            raise Refused(otherwise)
        return found

    async def _listen(self) -> None:
        async for _ in self.messages():  # a wall has nothing to say; only its leaving counts
            pass
