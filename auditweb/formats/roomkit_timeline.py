"""What a RoomKit room remembers: the events of its timeline, its tasks and its observations, one object a line.

Source: roomkit/models/event.py, task.py and enums.py, version 0.109, as ``get_timeline``, ``list_tasks`` and
``list_observations`` return them and ``model_dump_json`` writes them. Keeps for itself who spoke in an event, and what
can be read of content that is more than text.
"""

from .fields import add_others, read_duration, read_name, read_text, read_time
from .record import Record, extra_text, json_text, once, promote, short

MESSAGE, TOOL_START, TOOL_END = "message", "tool_call_start", "tool_call_end"
_LANES = {
    TOOL_START: "tool",
    TOOL_END: "tool",
    "system": "lifecycle",
    "presence": "lifecycle",
    "recording_started": "lifecycle",
    "recording_stopped": "lifecycle",
    "observation": "run",
}
_LANES_BY_START = (
    (("channel_", "participant_", "room_", "voice_session_"), "lifecycle"),
    (("task_", "handoff", "delegat"), "run"),
    (("error",), "error"),
)
_EVENT_KEYS = frozenset(
    ("room_id", "type", "source", "content", "status", "visibility", "correlation_id", "created_at", "channel_data")
)
_TASK_KEYS = frozenset(("id", "room_id", "title", "status", "assigned_to", "created_at"))
_OBSERVATION_KEYS = frozenset(("id", "room_id", "content", "category", "created_at"))  # events have no channel
# Keys of content without a body that people read: of audio, media, location, delete, and media again.
_WORDS = ("transcript", "caption", "label", "address", "reason", "filename")


def is_event(obj: dict) -> bool:
    """A ``RoomEvent``: unlike other lines with a type and a content, these two are objects and there is a room."""
    return (
        "room_id" in obj
        and "type" in obj
        and "created_at" in obj
        and obj.get("source").__class__ is dict
        and obj.get("content").__class__ is dict
    )


def is_task(obj: dict) -> bool:
    """A ``Task``."""
    return "room_id" in obj and "title" in obj and "status" in obj and "created_at" in obj and "id" in obj


def is_observation(obj: dict) -> bool:
    """An ``Observation``."""
    return "room_id" in obj and "channel_id" in obj and "content" in obj and "confidence" in obj and "id" in obj


def event_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``RoomEvent`` → one Record whose kind is the type of the event.

    *obj*: ``{id, room_id, type, source, content, status, blocked_by, visibility, addressed_to, response_visibility,
    index, chain_depth, parent_event_id, responds_to, correlation_id, created_at, metadata, channel_data, …}``. The
    room is the session. A message is the user's or the assistant's by the role in its metadata, which spoken ones
    have, else by its source: an AI channel is the assistant whatever its direction, and is the agent; a system
    channel is neither; else "inbound" is the user. A tool call has its own status and duration, its result as text,
    and its ``arguments`` beside the rest of its content in ``extra``. Keys that hold nothing are left out.
    """
    found = list(flags)
    extra: dict = {}
    kind = read_name(obj, "type", extra, found) or "unknown"
    if obj["type"] is None:
        found.append("wrong_type")
    source, content = dict(obj["source"]), dict(obj["content"])
    role = _role(kind, source, obj.get("metadata"))
    ts_text, ts_us, ts_aware = read_time(obj["created_at"], found)
    record = Record(
        "roomkit_event",
        kind,
        _lane(kind, role),
        role,
        agent=short(source.get("channel_id"), found) if source.get("channel_type") == "ai" else "",
        ts_text=ts_text,
        ts_us=ts_us,
        ts_aware=ts_aware,
        visibility=read_name(obj, "visibility", extra, found),
        channel=promote(source, "channel_id", found),
        participant=promote(source, "participant_id", found),
        session=read_name(obj, "room_id", extra, found),
        ref=read_name(obj, "correlation_id", extra, found),
    )
    if content.get("type") == "tool_call":
        _take_call(record, content, extra, found)
        _add_filled(extra, "line.status", obj.get("status"))
    else:
        record.status = read_name(obj, "status", extra, found)
        record.text = _take_text(content, found)
    if kind in (TOOL_START, TOOL_END):
        record.ts_means = "start" if kind == TOOL_START else "end"
    _add_filled(extra, "source", _filled(source))
    content = _filled(content)
    if content != {"type": "text"}:
        _add_filled(extra, "content", content)
    channel_data = obj.get("channel_data")
    _add_filled(extra, "channel_data", _filled(channel_data) if channel_data.__class__ is dict else channel_data)
    add_others(extra, _filled(obj), _EVENT_KEYS)
    record.extra = extra_text(extra)
    record.flags = once(found)
    return [record]


def task_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """A ``Task`` → one Record of kind "task", at the time when it was created.

    *obj*: ``{id, room_id, title, description, assigned_to, status, created_at, metadata}``; the agent is whom it is
    assigned to.
    """
    found = list(flags)
    extra: dict = {}
    ts_text, ts_us, ts_aware = read_time(obj["created_at"], found)
    record = Record(
        "roomkit_task",
        "task",
        "run",
        agent=read_name(obj, "assigned_to", extra, found),
        status=read_name(obj, "status", extra, found),
        text=read_text(obj["title"], found),
        ts_text=ts_text,
        ts_us=ts_us,
        ts_aware=ts_aware,
        session=read_name(obj, "room_id", extra, found),
        ref=read_name(obj, "id", extra, found),
    )
    add_others(extra, _filled(obj), _TASK_KEYS)
    record.extra = extra_text(extra)
    record.flags = once(found)
    return [record]


def observation_records(obj: dict, flags: tuple[str, ...]) -> list[Record]:
    """An ``Observation`` → one Record of kind "observation"; its category is the status.

    *obj*: ``{id, room_id, channel_id, content, category, confidence, created_at, metadata}``, confidence from 0 to 1.
    """
    found = list(flags)
    extra: dict = {}
    ts_text, ts_us, ts_aware = read_time(obj.get("created_at"), found)
    record = Record(
        "roomkit_observation",
        "observation",
        "other",
        status=read_name(obj, "category", extra, found),
        text=read_text(obj["content"], found),
        ts_text=ts_text,
        ts_us=ts_us,
        ts_aware=ts_aware,
        channel=read_name(obj, "channel_id", extra, found),
        session=read_name(obj, "room_id", extra, found),
        ref=read_name(obj, "id", extra, found),
    )
    add_others(extra, _filled(obj), _OBSERVATION_KEYS)
    record.extra = extra_text(extra)
    record.flags = once(found)
    return [record]


def _role(kind: str, source: dict, metadata) -> str:
    if kind != MESSAGE:
        return ""
    spoken = metadata.get("role") if metadata.__class__ is dict else None
    if spoken == "user" or spoken == "assistant":
        return spoken  # a realtime voice channel writes what both say as "inbound"
    channel_type = source.get("channel_type")
    if channel_type == "system":
        return "system"
    # What an AI channel answers has the direction "inbound" too, unless it was delivered.
    if channel_type == "ai" or source.get("direction") == "outbound":
        return "assistant"
    return "user" if source.get("direction") == "inbound" else ""


def _lane(kind: str, role: str) -> str:
    if kind == MESSAGE:
        return role if role == "user" or role == "assistant" else "other"
    lane = _LANES.get(kind)
    return lane or next((lane for starts, lane in _LANES_BY_START if kind.startswith(starts)), "other")


def _take_call(record: Record, content: dict, extra: dict, flags: list[str]) -> None:
    """Move what columns hold of a tool call from *content* to *record*, and its arguments to *extra*."""
    record.tool = promote(content, "tool_name", flags)
    record.status = promote(content, "status", flags)
    record.duration_ms = read_duration(content, extra, flags)
    content.pop("duration_ms", None)
    _add_filled(extra, "arguments", content.pop("arguments", None))
    result, error = content.get("result"), content.get("error")
    key = "result" if result is not None and result != "" else "error"  # a failed call has either, or one text twice
    shown = content.pop(key, None)
    if shown is not None:
        record.text = shown if shown.__class__ is str else json_text(shown)
        if error == shown:
            content.pop("error", None)


def _take_text(content: dict, flags: list[str]) -> str:
    """The words of *content*; a string that is all of them is taken out of it."""
    if content.get("type") in ("composite", "edit"):
        pieces: list[str] = []
        _collect(content, pieces, flags)
        return "\n".join(pieces)
    if content.get("body") is not None:  # a string in every content that has one
        return read_text(content.pop("body"), flags)
    key = next((key for key in _WORDS if content.get(key).__class__ is str and content[key]), "")
    return content.pop(key) if key else _place(content)


def _collect(content, pieces: list[str], flags: list[str]) -> None:
    """Append the words of content that holds other content, and of all that it holds."""
    if content.__class__ is not dict:
        flags.append("wrong_type")
        return
    kind = content.get("type")
    if kind == "edit":
        _collect(content.get("new_content"), pieces, flags)
    elif kind == "composite":
        parts = content.get("parts")
        if parts.__class__ is not list:
            flags.append("wrong_type")
            return
        for part in parts:
            _collect(part, pieces, flags)
    elif text := _take_text(dict(content), flags):
        pieces.append(text)


def _place(content: dict) -> str:
    """Where something is: its address on the web, unless the address holds the whole file, or on earth."""
    url = content.get("url")
    if url.__class__ is str:
        return "" if url.startswith("data:") else url
    degrees = [content.get("latitude"), content.get("longitude")]
    return f"{degrees[0]}, {degrees[1]}" if all(d.__class__ in (int, float) for d in degrees) else ""


def _filled(obj: dict) -> dict:
    """*obj* without the keys that hold null, an empty object or an empty list, as models write what is not set."""
    return {key: value for key, value in obj.items() if value is not None and value != {} and value != []}


def _add_filled(extra: dict, key: str, value) -> None:
    if value is not None and value != {} and value != []:
        extra[key] = value
