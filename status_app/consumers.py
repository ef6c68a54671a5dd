"""The live status log: which log, which rows. No streaming logic."""

from auditweb.live import LogConsumer
from auditweb.teams import access
from status_app import feed
from status_app.models import StatusBus


class StatusConsumer(LogConsumer):
    """``/ws/status/<public id>/?after=<seq>``: the posts of one status bus."""

    model = StatusBus
    rows = staticmethod(feed.rows_after)
    still_signed_in = staticmethod(access.still_signed_in)
