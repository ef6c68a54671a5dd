"""Sessions and their events (log), and what is derived from them (derived)."""

from sessions_app.models.derived import AgentRun, Observation, Summary, Task, ToolCall, ToolStep, Turn
from sessions_app.models.log import EVENT_COLUMNS, Event, Session

__all__ = [
    "EVENT_COLUMNS",
    "AgentRun",
    "Event",
    "Observation",
    "Session",
    "Summary",
    "Task",
    "ToolCall",
    "ToolStep",
    "Turn",
]
