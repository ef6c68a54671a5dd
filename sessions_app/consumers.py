"""The live timeline: which log, which rows. No streaming logic."""

from auditweb.live import LogConsumer
from auditweb.teams import access
from sessions_app import timeline
from sessions_app.models import Session


class TimelineConsumer(LogConsumer):
    """``/ws/sessions/<public id>/?after=<seq>``: the timeline of one session."""

    model = Session
    state_fields = ("live", "ended_at")
    rows = staticmethod(timeline.rows_after)
    still_signed_in = staticmethod(access.still_signed_in)
