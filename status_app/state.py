"""Whether the producers of a status log run, by their streams and the clock; and whether their history was cut."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils import timezone

from auditweb.dumps.models import Dump, State
from status_app.posts import STREAM

STALE_AFTER = timedelta(seconds=30)  # without a post or a heartbeat
CAP = 500  # entries that RoomKit's bus, its file and its Redis list remember


class BusState(NamedTuple):
    """*word*: live, stale (live, and silent for a while), ended, or "" for a log that nobody streams to.

    *heard_at*: when a producer was last heard. *ended_at*: when the last of them ended.
    """

    word: str
    heard_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def goes_on(self) -> bool:
        return self.word in ("live", "stale")


def of(dumps: Iterable[Dump], now: datetime | None = None) -> BusState:
    """The state of the log that *dumps* feed."""
    streams = [dump for dump in dumps if dump.stream]
    heard = max((dump.heartbeat_at for dump in streams if dump.heartbeat_at), default=None)
    if any(dump.state == State.LIVE for dump in streams):
        silent = heard is not None and (now or timezone.now()) - heard >= STALE_AFTER
        return BusState("stale" if silent else "live", heard)
    if streams and all(dump.state == State.DONE for dump in streams):
        return BusState("ended", heard, max((dump.finished_at for dump in streams if dump.finished_at), default=None))
    return BusState("", heard)


def may_be_cut(dumps: Iterable[Dump]) -> bool:
    """Whether what was before the first posts of one of *dumps* may be lost: it has just as many as RoomKit keeps, or
    its relay found that many at its start. What agents post here one by one is never cut.
    """
    return any(
        any(gap["after"] == 0 for gap in dump.checkpoint.get("gaps", ()))
        or (dump.records.get("roomkit_status") == CAP and not dump.stream.startswith(STREAM))
        for dump in dumps
    )


def holes(dumps: Iterable[Dump]) -> list[str]:
    """Where a relay found that entries may be missing, in words."""
    return [
        f"{gap['why']} (after line {gap['after']:,} of {dump.name})"
        for dump in dumps
        for gap in dump.checkpoint.get("gaps", ())
        if gap["after"]
    ]
