"""Whether a session runs: what its streams and the clock say."""

from datetime import datetime, timedelta

from django.utils import timezone

from auditweb.pages import iso

FIELDS = ("live", "ended_at", "heard_at", "updated_at")

QUIET_AFTER = timedelta(seconds=10)  # without a line
STALE_AFTER = timedelta(seconds=30)  # without a line or a heartbeat; producers send one every 5 s


def state(
    live: bool,
    ended_at: datetime | None,
    heard_at: datetime | None,
    updated_at: datetime,
    now: datetime | None = None,
) -> dict:
    """``{live, quiet, stale, ended_at, last_line_at, heard_at}`` from the FIELDS of a session.

    *quiet*: its producers are there and say nothing; *stale*: nobody knows whether they are there. The last two are
    null where they say nothing new: a line that comes is its own news.
    """
    now = now or timezone.now()
    heard = max(heard_at or updated_at, updated_at)
    stale = live and now - heard >= STALE_AFTER
    quiet = live and not stale and now - updated_at >= QUIET_AFTER
    return {
        "live": live,
        "quiet": quiet,
        "stale": stale,
        "ended_at": _iso(ended_at) if not live else None,
        "last_line_at": _iso(updated_at) if quiet or stale else None,
        "heard_at": _iso(heard) if stale else None,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(round(moment.timestamp() * 1e6))
