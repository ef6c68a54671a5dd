"""How a row, a duration or a value of the raw object looks. No queries.

``row_view`` says the same as ``view`` in static/js/row.js, word for word; a test holds the two against each other.
"""

import json
import re
from math import floor

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from auditweb.templatetags import words
from sessions_app import liveness
from sessions_app.chains import STAGES
from sessions_app.projection import FAILED, HEALTHY

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
STAGE_LABELS = {
    "policy": "POLICY",
    "sandbox": "SANDBOX",
    "permission": "PERMISSION",
    "hook": "HOOK",
    "loop": "LOOP CHECK",
}
RUN_LABELS = {
    "agent_run": "RUN",
    "callback": "CALLBACK",
    "event:callback": "CALLBACK",
    "skill": "SKILL",
    "skill_used": "SKILL",
    "skill_authored": "SKILL",
    "skill_feedback": "SKILL",
    "event:subagent_call": "SUB-AGENT",
    "event:subagent_result": "SUB-AGENT",
    "event:subagent_error": "SUB-AGENT",
    "event:subagent_batch_started": "BATCH",
    "event:subagent_batch_finished": "BATCH",
    "agent_switch": "HAND-OVER",
    "task": "TASK",
}
REFUSED = {"deny", "block"}  # words of decisions that say no, beside those of FAILED
CALM = {"", "info", "debug", "trace", "notice"}  # severities that a row need not mention
PLAIN = {"user", "assistant", "lifecycle"}  # lanes where "delivered" goes without saying
MAX_DEPTH = 5  # RoomKit stops a chain of answers here (max_chain_depth)
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


@register.simple_tag
def state_of(status) -> str:
    """``ok``, ``failed``, ``pending`` or ``other``: the four ways a recorded status is drawn."""
    word = str(status or "").lower()
    if word in OK:
        return "ok"
    if word in FAILED or word in REFUSED:
        return "failed"
    return "pending" if word in PENDING else "other"


def is_failure(lane: str, status) -> bool:
    """True for what counts as a failure; a decision that says no is drawn like one and counted apart."""
    return lane == "error" or str(status or "").lower() in FAILED


def visible(text) -> str:
    """Text with its invisible characters made visible: control pictures, and the code of a direction override."""
    text = _CONTROL.sub(lambda m: chr(0x2400 + ord(m[0])), str(text))
    text = _LATIN_CONTROL.sub("\ufffd", text.replace("\x7f", "\u2421"))
    return _DIRECTION.sub(lambda m: f"⟨U+{ord(m[0]):X}⟩", text)


@register.filter
def alive(session) -> dict:
    """``{phase, silent_s}``: "live", "quiet", "stale", "ended" or "", and how long there was no line, or no word."""
    told = liveness.state(*(getattr(session, name) for name in liveness.FIELDS))
    phase = next((word for word in ("stale", "quiet", "live") if told[word]), "ended" if told["ended_at"] else "")
    heard = max(session.heard_at or session.updated_at, session.updated_at)
    since = {"quiet": session.updated_at, "stale": heard}.get(phase)
    return {"phase": phase, "silent_s": (timezone.now() - since).total_seconds() if since else None}


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


@register.filter
def took(ms) -> str:
    """``5 886 ms``, ``<1 ms`` for what is shorter, a dash for None."""
    return "<1 ms" if ms is not None and 0 < ms < 0.5 else words.milliseconds(ms)


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


def _label(lane: str, kind: str, stage: str, part: bool) -> str:
    if lane == "interruption":
        return "⌁ BARGE-IN" if kind in ("", "barge_in") else f"⌁ {visible(kind)}"
    if lane == "run":
        return RUN_LABELS.get(kind) or visible(re.sub("^(event|trace):", "", kind) or "RUN")
    if stage == "result" and part:
        return "→ RESULT"
    return STAGE_LABELS.get(stage) or LABELS.get(lane) or visible(kind or "other")


@register.simple_tag
def row_view(row: dict) -> dict:
    """What a row says, as plain values: ``view`` of row.js with the UTC clock, the gap in ``row["gap"]`` and, on an
    attempt, what its call came to in ``row["outcome"]``."""
    gap, outcome = row.get("gap"), row.get("outcome")
    lane = row["lane"] if row["lane"] in LANES else "other"
    kind, depth, severity = row["kind"], row.get("depth") or 0, row.get("severity") or ""
    stage = STAGES.get(kind, "") if lane in ("tool", "decision") else ""
    in_call = bool(stage) and row.get("call") is not None
    part = in_call and row["call"] != row["seq"]
    word, ms = row["status"], row["duration_ms"]
    if stage == "attempt" and outcome:
        word, ms = outcome["status"], outcome["ms"]
    elif lane in PLAIN and word == "delivered":
        word = ""
    is_open = stage == "attempt" and word == "?"
    healthy = kind == "tool_loop_warning" and (word or "").lower() in HEALTHY
    state = "open" if is_open else state_of(word) if word else ""
    if stage == "loop" and state == "other" and not healthy:
        state = "pending"
    status = "no outcome" if is_open else visible(word) if word else ""
    shown = row["visibility"] if row.get("visibility") not in (None, "", "all") else ""
    failed = is_failure(lane, row["status"]) or (lane == "decision" and state == "failed")
    warmth = gap_warmth(gap) if lane == "assistant" else 0
    named = lane == "tool" or (lane != "status" and row["tool"])
    text = f"altered {row['text']}" if stage == "hook" and row["text"] else row["text"] or ""
    classes = [
        "row", f"lane-{lane}", "failed" if failed else "", "in-call" if in_call else "", "call-part" if part else "",
        "healthy" if healthy else "", "hidden-from-some" if shown else "",
        f"depth-{min(depth, MAX_DEPTH)}" if depth else "",
    ]  # fmt: skip
    if stage == "attempt" and ms is not None:
        ms = ms or 0.5  # between the lines of a call whole milliseconds are known: none of them means less than one
    edge = "ended " if lane == "tool" and row["at"] else ""
    return {
        "seq": row["seq"],
        "classes": " ".join(filter(None, classes)),
        "at": row["at"] or "",
        "time": row["at"][11:19] if row["at"] else "–",
        "exact": ("began " if edge and stage == "attempt" else edge) + exact_time(row["at"]),
        "guessed": bool(row["at"]) and row["ts_quality"] == "assumed",
        "gap": gap_text(gap) if warmth else "",
        "warmth": warmth,
        "label": _label(lane, kind, stage, part),
        "name": visible(row["tool"] or "(no name)") if named else "",
        "state": state,
        "state_word": f"{ICONS.get(word, '·')} {status}" if lane == "status" else status.upper(),
        "duration": milliseconds(ms) if ms else "",
        "text": _short(visible(text)),
        "agent": visible(row["agent"] or ""),
        "shown": visible(shown),
        "severity": visible(severity) if severity.lower() not in CALM and not failed and not stage else "",
        "depth": f"depth {depth} of {MAX_DEPTH}" if depth >= MAX_DEPTH - 1 else "",
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
