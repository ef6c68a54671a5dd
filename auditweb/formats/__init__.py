"""Bytes → Records. Standard library and msgspec only: no Django, no I/O, nothing that outlives a line.

Every line is looked at by itself: a file may mix formats, and often does. A new format is one module with a test for
its lines and a function that turns one into Records, and one row in ``FORMATS``.
"""

import re

from . import agent_framework, roomkit, roomkit_timeline, unknown, xerxes
from .containers import HEAD_BYTES, first_lines
from .decode import BOM, MAX_DEPTH, MAX_LINE_BYTES, MAX_STRUCTURE, Number, decode, is_blank, peek
from .record import FLAGS, LANES, BadLine, Record

__all__ = [
    "FLAGS",
    "FORMATS",
    "LANES",
    "MAX_DEPTH",
    "MAX_LINE_BYTES",
    "MAX_STRUCTURE",
    "BadLine",
    "Number",
    "Record",
    "decode",
    "is_blank",
    "peek",
    "read_line",
    "sniff",
]

UNEXPECTED = "auditweb could not read this line"  # how the reason of a line begins that showed a fault of our own

# (name, matches(obj) → bool, records(obj, flags) → list of Record); the first that matches reads the line.
FORMATS = (
    ("xerxes", xerxes.is_event, xerxes.event_records),
    ("af_run", agent_framework.is_run, agent_framework.run_records),
    ("af_event", agent_framework.is_event, agent_framework.event_records),
    ("roomkit_tool", roomkit.is_tool, roomkit.tool_records),
    ("roomkit_session", roomkit.is_session, roomkit.session_records),
    ("af_trace", agent_framework.is_trace, agent_framework.trace_records),
    ("roomkit_status", roomkit.is_status, roomkit.status_records),
    ("roomkit_event", roomkit_timeline.is_event, roomkit_timeline.event_records),
    ("roomkit_task", roomkit_timeline.is_task, roomkit_timeline.task_records),
    ("roomkit_observation", roomkit_timeline.is_observation, roomkit_timeline.observation_records),
    ("unknown", lambda obj: True, unknown.records),
)


def read_line(raw: bytes, first: bool = False, max_bytes: int = MAX_LINE_BYTES) -> list[Record] | None:
    """The Records of one line without its newline; None for a blank one. *first*: this is line 1 of its file.

    Raises BadLine, and nothing else whatever the bytes are.
    """
    if len(raw) <= max_bytes and (usual := roomkit.usual_record(raw)) is not None:
        return [usual]
    if is_blank(raw):
        return None
    if first and raw.startswith(BOM) and is_blank(raw[len(BOM) :]):
        return None
    try:
        obj, flags = decode(raw, first, max_bytes)
        records = next(records for _, matches, records in FORMATS if matches(obj))  # the last row takes them all
        return records(obj, flags)
    except BadLine:
        raise
    except Exception as e:  # one line that a reader was not made for must not end the import of a million others
        raise BadLine(f"{UNEXPECTED} ({type(e).__name__}: {e})") from e


SNIFF_BYTES = HEAD_BYTES

_TELLING_STARTS = (
    (b"\x1f\x8b", "a gzip archive; unpack it first, for example with gunzip"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"BZh", "a bzip2 archive; unpack it first, for example with bunzip2"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it first, for example with unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first, for example with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture, not an audit dump"),
    (b"\xff\xd8\xff", "a JPEG picture, not an audit dump"),
    (b"GIF8", "a GIF picture, not an audit dump"),
    (b"%PDF-", "a PDF document, not an audit dump"),
    (b"SQLite format 3\0", "an SQLite database, not an audit dump"),
)
_WIDE_STARTS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")  # byte order marks of UTF-16 and UTF-32
_PER_LINE = "auditweb reads one JSON object per line"
_OBJECT = re.compile(rb"\{\s*(?:[\"'}]|$)", re.MULTILINE)
_CONTROL = bytes(b for b in range(32) if b not in b"\t\n\r\x0b\x0c\x1b\0")  # torn files hold NUL, logs hold ESC


def sniff(head: bytes) -> str | None:
    """Why a file that begins with *head* cannot be read, as sentences for people; None when it may be JSON lines.

    *head*: the first ``SNIFF_BYTES`` of the file, or all of it, unpacked already (see ``containers``). Damaged lines do
    not count against a file: one good line among the first ones, or anything that looks like an object behind a
    prefix, is enough.
    """
    whole = len(head) < SNIFF_BYTES
    for start, name in _TELLING_STARTS:
        if head.startswith(start):
            return f"This is {name}."
    if head.startswith(_WIDE_STARTS) or _looks_wide(head):
        return "The file is UTF-16 or UTF-32, not UTF-8; convert it first, for example with iconv -f UTF-16 -t UTF-8."
    text = head.removeprefix(BOM).strip(b" \t\r\n\0")
    if not text:
        return "The file has no lines." if whole else None
    lines, good = first_lines(text)
    if good or any(map(_OBJECT.match, lines)):
        return None
    if text.startswith(b"<"):
        if b"html" in text[:500].lower():
            return f"This is an HTML page, perhaps an error page saved in place of the file; {_PER_LINE}."
        return f"This is XML; {_PER_LINE}."
    if _looks_binary(text):
        return f"This is a binary file, not text; {_PER_LINE}."
    if _looks_like_csv(lines):
        return f"This looks like a table (CSV); {_PER_LINE}."
    if not _OBJECT.search(text):
        return f"The file holds no JSON object; {_PER_LINE}."
    return None


def _looks_wide(head: bytes) -> bool:
    """Whether every second byte is NUL, as in UTF-16 of plain English without a byte order mark."""
    sample = head[:1000]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    many, few = max(even, odd), min(even, odd)
    return len(sample) >= 4 and many > 0.4 * len(sample) and few < 0.1 * len(sample)


def _looks_binary(text: bytes) -> bool:
    sample = text[:4096]
    odd = len(sample) - len(sample.translate(None, _CONTROL))
    return (odd + sample.decode("utf-8", "replace").count("\ufffd")) > 0.1 * len(sample)


def _looks_like_csv(lines: list[bytes]) -> bool:
    for separator in b",;\t":
        counts = {line.count(separator) for line in lines[:3]}
        if len(lines) > 1 and len(counts) == 1 and counts != {0} and not any(b"{" in line for line in lines[:3]):
            return True
    return False
