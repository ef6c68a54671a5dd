"""Sessions and their events (log), and what is derived from them (derived)."""

from sessions_app.models.derived import Summary, ToolCall, Turn
from sessions_app.models.log import EVENT_COLUMNS, Event, Session

__all__ = ["EVENT_COLUMNS", "Event", "Session", "Summary", "ToolCall", "Turn"]
