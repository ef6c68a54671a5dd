"""Lines as auditors write them, and the ones that this package adds: what was lost, what was cut."""

import json
from datetime import UTC, datetime
from typing import Any

CUT_CHARACTERS = 1000  # what is left of each text of a line that was too long


def now() -> str:
    """The time as RoomKit and Xerxes write it."""
    return datetime.now(UTC).isoformat()


def encoded(entry: dict[str, Any]) -> bytes:
    """The line that the JSONL writers of RoomKit and Xerxes make of *entry*, without its newline."""
    return json.dumps(entry, default=str).encode()


def session_entry(kind: str, role: str | None, content: str, metadata: dict[str, Any], ts: str = "") -> dict[str, Any]:
    """An entry with the keys of RoomKit's ``SessionAuditEntry``, in their order."""
    return {
        "ts": ts or now(),
        "type": kind,
        "role": role,
        "content": content,
        "duration_ms": None,
        "metadata": metadata,
    }


def lost_entry(count: int) -> dict[str, Any]:
    """What stands in a stream where *count* lines are missing."""
    words = f"{count} {'line was' if count == 1 else 'lines were'} lost here: there was no room to keep them"
    return session_entry("lost", "system", words, {"lost_lines": count})


def cleaned(line: str | bytes) -> bytes:
    """*line* as one line. Between two tokens of JSON, the only place of a real newline, a space is the same."""
    data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else bytes(line)
    data = data.strip(b"\r\n")
    return data.replace(b"\n", b" ") if b"\n" in data else data


def shortened(line: bytes, most: int) -> bytes:
    """*line* with its texts cut until it has at most *most* bytes. The same line gives the same bytes each time."""
    try:
        data = encoded(_cut(json.loads(line)))
        if len(data) <= most:
            return data
    except (ValueError, RecursionError):
        pass
    begins = line[:CUT_CHARACTERS].decode("utf-8", "replace")
    return encoded({"type": "cut", "begins": begins, "bytes": len(line)})


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > CUT_CHARACTERS:
        return f"{value[:CUT_CHARACTERS]}… (cut here, {len(value)} characters)"
    if isinstance(value, list):
        return [_cut(item) for item in value]
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    return value
