"""How a row, a duration or a value of the raw object looks. No queries.

``row_view`` says the same as ``view`` in static/js/row.js, word for word; a test holds the two against each other.
"""

import json
import re
from math import floor

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from sessions_app.projection import FAILED

register = template.Library()

LABELS = {
    "user": "USER",
    "assistant": "ASSISTANT",
    "tool": "TOOL",
    "vision": "VISION",
    "status": "STATUS",
    "decision": "DECISION",
    "memory": "MEMORY",
    "run": "RUN",
    "lifecycle": "SESSION",
    "error": "✗ ERROR",
}
LANES = {*LABELS, "interruption", "other"}
OK = {"ok", "success", "completed", "done", "allow", "allowed", "granted", "pass"}
PENDING = {"pending", "running", "started", "waiting"}
ICONS = {"ok": "+", "failed": "x", "pending": "?", "info": "~", "completed": "*"}

ROW_CHARACTERS = 400  # a row is one clipped line; more text only costs layout
GAP_MS = 1000  # a reply faster than a second is a conversation, not a wait

TREE_NODES = 600  # values drawn of one object; the raw line has all
TREE_CHILDREN = 60  # values drawn of one array or object
TREE_DEPTH = 12
TREE_OPEN = 2  # levels that are unfolded at first
STRING_CHARACTERS = 4000

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LATIN_CONTROL = re.compile("[\x80-\x9f]")
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


def state_of(status) -> str:
    """``ok``, ``failed``, ``pending`` or ``other``: the four ways a recorded status is drawn."""
    word = str(status or "").lower()
    if word in OK:
        return "ok"
    if word in FAILED:
        return "failed"
    return "pending" if word in PENDING else "other"


def is_failure(lane: str, status) -> bool:
    return lane == "error" or state_of(status) == "failed"


def visible(text) -> str:
    """Text with its invisible characters made visible: control pictures, and the code of a direction override."""
    text = _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])), str(text))
    text = _LATIN_CONTROL.sub("\ufffd", text.replace("\x7f", "\u2421"))
    return _DIRECTION.sub(lambda m: f"⟨U+{ord(m[0]):X}⟩", text)


@register.filter
def exact_text(text: str) -> str:
    """Text as a JSON string, for an attribute from which scripts copy it to the character; HTML changes a bare CR."""
    return json.dumps(text)


@register.filter
def milliseconds(ms) -> str:
    """Whole milliseconds, ``<1 ms`` below one; empty when unknown."""
    if ms is None:
        return ""
    return "<1 ms" if 0 < ms < 1 else f"{floor(ms + 0.5)} ms"


def gap_text(ms) -> str:
    if ms is None or ms < GAP_MS:
        return ""
    tenths = floor(ms / 100 + 0.5)
    if tenths < 600:
        return f"+{tenths // 10}.{tenths % 10} s"
    minutes, seconds = divmod(tenths // 10, 60)
    return f"+{minutes}m {seconds:02d}s" if minutes < 60 else f"+{minutes // 60}h {minutes % 60:02d}m"


def gap_warmth(ms) -> int:
    if ms is None or ms < GAP_MS:
        return 0
    return 3 if ms >= 8000 else 2 if ms >= 3000 else 1


def exact_time(at) -> str:
    return re.sub(r"(Z|\+00:00)$", "", at.replace("T", " ")) + " UTC" if at else "No readable time"


def _short(text: str) -> str:
    return text[:ROW_CHARACTERS] + "…" if len(text) > ROW_CHARACTERS else text


def _label(lane: str, kind: str) -> str:
    if lane == "interruption":
        return "⌁ BARGE-IN" if kind in ("", "barge_in") else f"⌁ {visible(kind)}"
    return LABELS.get(lane) or visible(kind or "other")


@register.simple_tag
def row_view(row: dict) -> dict:
    """What a row says, as plain values: ``view`` of row.js with the UTC clock and the gap in ``row["gap"]``."""
    gap = row.get("gap")
    lane = row["lane"] if row["lane"] in LANES else "other"
    status = visible(row["status"]) if row["status"] else ""
    warmth = gap_warmth(gap) if lane == "assistant" else 0
    named = lane == "tool" or (lane != "status" and row["tool"])
    return {
        "seq": row["seq"],
        "classes": f"row lane-{lane}{' failed' if is_failure(lane, row['status']) else ''}",
        "at": row["at"] or "",
        "time": row["at"][11:19] if row["at"] else "–",
        "exact": ("ended " if lane == "tool" and row["at"] else "") + exact_time(row["at"]),
        "guessed": bool(row["at"]) and row["ts_quality"] == "assumed",
        "gap": gap_text(gap) if warmth else "",
        "warmth": warmth,
        "label": _label(lane, row["kind"]),
        "name": visible(row["tool"] or "(no name)") if named else "",
        "state": state_of(row["status"]) if row["status"] else "",
        "state_word": f"{ICONS.get(row['status'], '·')} {status}" if lane == "status" else status.upper(),
        "duration": milliseconds(row["duration_ms"]) if row["duration_ms"] else "",
        "text": _short(visible(row["text"] or "")),
        "agent": visible(row["agent"] or ""),
        "cut": f"cut at {row['cut']}" if row["cut"] else "",
        "flags": sum(flag != "more" for flag in row["flags"] or ()),
    }


@register.simple_tag
def json_tree(value) -> SafeString:
    """A decoded JSON value as nested, foldable HTML; numbers keep their spelling, what is left out is said.

    At most TREE_NODES values, TREE_CHILDREN of each array or object and TREE_DEPTH levels are drawn.
    """
    return _tree(value, 0, [TREE_NODES])


def _tree(value, depth: int, left: list[int]) -> SafeString:
    left[0] -= 1
    if isinstance(value, dict | list):
        return _branch(value, depth, left)
    if value is None or isinstance(value, bool):
        return format_html('<span class="json-word">{}</span>', {None: "null", True: "true", False: "false"}[value])
    if isinstance(value, int | float) or type(value) is not str:
        return format_html('<span class="json-number">{}</span>', str(value))
    if len(value) > STRING_CHARACTERS:
        more = f"… {len(value) - STRING_CHARACTERS} more characters"
        return format_html(
            '<span class="json-string">{}</span> <span class="soft">{}</span>', visible(value[:STRING_CHARACTERS]), more
        )
    return format_html('<span class="json-string">{}</span>', visible(value) if value else "“”")


def _branch(value: dict | list, depth: int, left: list[int]) -> SafeString:
    size = len(value)
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    is_map = isinstance(value, dict)
    if not size:
        return format_html('<span class="json-word">{}</span>', "{ }" if is_map else "[ ]")
    named = f"{{ {size} }}" if is_map else f"[ {size} ]"
    if depth >= TREE_DEPTH:
        return format_html('<span class="soft">{} deeper: see the raw line</span>', named)
    drawn = []
    for key, child in pairs:
        if len(drawn) >= TREE_CHILDREN or left[0] <= 0:
            break
        drawn.append((visible(key), _tree(child, depth + 1, left)))
    rows = format_html_join("", '<div class="json-pair"><dt>{}</dt><dd>{}</dd></div>', drawn)
    rest = format_html('<p class="soft">{} more</p>', size - len(drawn)) if size > len(drawn) else ""
    opened = mark_safe(" open") if depth < TREE_OPEN else ""
    return format_html(
        '<details class="json"{}><summary>{}</summary><dl>{}</dl>{}</details>', opened, named, rows, rest
    )
