"""The texts that RoomKit itself prints, made again from the lines of a dump.

Keeps for itself how each of them is laid out, what changed between RoomKit's versions, and how to tell from a dump
which version wrote it. For the lines that RoomKit wrote, the texts equal the library's own to the byte; on values of
types it never writes they stay readable, where the library would raise.

Every function takes decoded JSON objects of one kind of line, in file order, and yields the text in pieces: joined,
they are what the library returns or logs. Numbers and strings must be as ``json.loads`` gives them (NaN, NUL and lone
surrogates included). Only what the format needs is held in memory: counters for sessions and tools, at most 500
entries for the status bus. `to_bytes` and `byte_pieces` make files of the texts.

Sources: roomkit/orchestration/session_audit.py, tool_audit.py, status_bus.py and roomkit/_text.py, 0.58 and 0.109.
"""

import heapq
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import chain
from typing import Any, Generic, TypeVar

Entry = Mapping[str, Any]
Entries = Iterable[Entry] | Callable[[], Iterable[Entry]]  # a callable gives a fresh pass over the same lines

RULE = "=" * 60
BUS_MEMORY = 500  # entries a StatusBus remembers; its texts never reach further back
DETAIL_LIMIT = 200  # characters of a detail in a lifecycle post, and in a quote

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
BEFORE_ALL = -(2**63)  # microseconds; earlier than any stamp

T = TypeVar("T")


# Session


def detect_clock(entries: Entries) -> str:
    """Which clock RoomKit's session text shows for these session lines: ``"naive"`` or ``"local"``.

    Up to 0.107 the hooks (speech, vision, barge_in, session) stamp naive local time and the text shows each stamp's
    own wall time; since 0.108 they stamp UTC and the text shows the reader's local time. A ``session`` line that names
    channel and participant comes from the hook itself and decides at once; usually it is the first line, and no more
    is read. Without one, any aware hook line says ``"local"``, as old hooks never write one, and naive lines alone say
    ``"naive"``. Tool lines say nothing: their stamp is the caller's. No readable hook line: ``"local"``.
    """
    naive_seen = aware_seen = False
    for entry in _fresh(entries):
        kind = entry.get("type")
        if kind not in ("speech", "vision", "barge_in", "session"):
            continue
        when = _time(entry.get("ts"))
        if when is None:
            continue
        metadata = _metadata(entry)
        if kind == "session" and "channel_id" in metadata and "participant_id" in metadata:
            return "naive" if when.tzinfo is None else "local"
        if when.tzinfo is None:
            naive_seen = True
        else:
            aware_seen = True
    return "naive" if naive_seen and not aware_seen else "local"


def session_text(
    name: str, entries: Entries, zone: tzinfo | None = None, clock: str = "auto", style: str = "upstream"
) -> Iterator[str]:
    """The transcript of ``JSONLSessionAuditor.summary()`` in pieces.

    *name*: what stands in the title, for the library the path of the file. *entries*: the roomkit_session lines of one
    run (the library sums up what its own process recorded; a file that two runs appended to has two texts). *zone*:
    where the reader's clock stands, UTC when None. *clock*: ``"naive"`` (RoomKit before 0.108), ``"local"`` (since)
    or ``"auto"`` (`detect_clock`). *style*: ``"upstream"``, or ``"docs"`` with the counts on two lines as the
    documentation prints them. Raises ValueError on another clock or style.

    With ``"auto"``, entries that can be read twice (a sequence, a callable) are; of a one-way iterator the lines up to
    the deciding one are remembered.
    """
    _check("clock", clock, ("auto", "naive", "local"))
    _check("style", style, ("upstream", "docs"))
    return _session_pieces(name, entries, zone or UTC, clock, style)


def _session_pieces(name: str, entries: Entries, zone: tzinfo, clock: str, style: str) -> Iterator[str]:
    rows = _fresh(entries)
    if clock == "auto":
        if rows is entries:
            seen: list[Entry] = []
            clock = detect_clock(_remembered(rows, seen))
            rows = chain(seen, rows)
        else:
            clock = detect_clock(rows)
            rows = _fresh(entries)
    shown_in = zone if clock == "local" else None
    totals = _SessionTotals()
    for entry in rows:
        if not totals.lines:
            yield f"\nSession Audit ({name})\n{RULE}"
        totals.add(entry)
        yield "\n" + _session_line(entry, _wall_time(entry.get("ts"), shown_in))
    yield totals.text(style) if totals.lines else "\nNo session events recorded."


class _SessionTotals:
    """What the last lines of a session text count."""

    def __init__(self) -> None:
        self.lines = self.user = self.assistant = self.calls = self.vision = self.interruptions = 0
        self.tool_ms = 0.0
        self.by_tool: dict[str, int] = {}
        self.first_ts: Any = None
        self.last_ts: Any = None

    def add(self, entry: Entry) -> None:
        kind = entry.get("type")
        if not self.lines:
            self.first_ts = entry.get("ts")
        self.last_ts = entry.get("ts")
        self.lines += 1
        if kind == "speech":
            if entry.get("role") == "user":
                self.user += 1
            else:
                self.assistant += 1
        elif kind == "tool_call":
            self.calls += 1
            self.tool_ms += _number(entry.get("duration_ms")) or 0.0
            tool = _word(_metadata(entry).get("tool_name", "?"))
            self.by_tool[tool] = self.by_tool.get(tool, 0) + 1
        elif kind == "vision":
            self.vision += 1
        elif kind == "barge_in":
            self.interruptions += 1

    def text(self, style: str) -> str:
        talk = [f"Duration: {self._duration()}"]
        if self.user or self.assistant:
            talk.append(f"Turns: {self.user} user, {self.assistant} assistant")
        rest = []
        if self.calls:
            rest.append(f"Tool calls: {self.calls} ({self.tool_ms:.0f}ms)")
        if self.vision:
            rest.append(f"Vision: {self.vision}")
        if self.interruptions:
            rest.append(f"Interruptions: {self.interruptions}")
        rows = [talk, rest] if style == "docs" else [talk + rest]
        lines = [""] + ["  " + " | ".join(row) for row in rows if row]
        if self.by_tool:
            lines.append("  Tools: " + _tally(self.by_tool))
        return "\n" + "\n".join(lines)

    def _duration(self) -> str:
        """Last line minus first line as the library prints it: ``?`` for 0 and for what cannot be subtracted."""
        if self.lines < 2:
            return "?"
        first, last = _time(self.first_ts), _time(self.last_ts)
        if first is None or last is None or (first.tzinfo is None) != (last.tzinfo is None):
            return "?"
        seconds = (last - first).total_seconds()
        if not seconds:
            return "?"
        if seconds < 60:  # also when the clock went back: "-1080s"
            return f"{seconds:.0f}s"
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h {minutes}m {rest}s" if hours else f"{minutes}m {rest}s"


def _session_line(entry: Entry, at: str) -> str:
    kind, content = entry.get("type"), _text(entry.get("content"))
    if kind == "speech":
        label = "USER" if entry.get("role") == "user" else "ASSISTANT"
        return f'  [{at}] {label}: "{_preview(content, 200, flat=False)}"'
    if kind == "tool_call":
        metadata = _metadata(entry)
        given = metadata.get("arguments")
        arguments = f" {_json(given)}" if given else ""
        took = _number(entry.get("duration_ms"))
        took_text = f" ({took:.0f}ms)" if took else ""
        tool, status = _word(metadata.get("tool_name", "?")), _word(metadata.get("status", "ok")).upper()
        result = f"\n           {_preview(content, 120)}" if content else ""
        return f"  [{at}] TOOL {tool}{arguments} → {status}{took_text}{result}"
    if kind == "vision":
        return f"  [{at}] VISION {_preview(content, 150)}"
    if kind == "barge_in":
        return f"  [{at}] BARGE-IN {content}"
    if kind == "session":
        return f"  [{at}] SESSION {content}"
    return f"  [{at}] {_word(kind).upper()} {content[:200]}"


def _wall_time(ts: Any, zone: tzinfo | None) -> str:
    """``HH:MM:SS`` of a stamp in *zone*, as it is written when None; the first 8 characters of what is no time."""
    when = _time(ts)
    if when is None:
        return _text(ts)[:8]
    if zone is not None:
        try:
            # By way of UTC, naive stamps too: a wall time that the clocks skipped is shown an hour earlier, as by
            # the library (fold 1: read in the offset after the change; a time that comes twice stays what it is).
            aware = when if when.tzinfo else when.replace(tzinfo=zone, fold=1)
            when = aware.astimezone(UTC).astimezone(zone)
        except (OverflowError, ValueError):
            pass  # the years 1 and 9999: the library raises; the wall time as written is still true
    return f"{when:%H:%M:%S}"


# Tools


def tool_text(name: str, entries: Entries, console: bool = False) -> Iterator[str]:
    """The list of calls that ``JSONLToolAuditor.summary()`` returns, in pieces.

    *name*: what stands in the title, for the library the path of the file. *entries*: the roomkit_tool lines.
    *console*: the form of ``ConsoleToolAuditor`` instead: titled "console", with agents, without results and tools.
    """
    calls, total_ms = 0, 0.0
    by_tool: dict[str, int] = {}
    for calls, entry in enumerate(_fresh(entries), 1):
        if calls == 1:
            yield f"\nTool Audit ({'console' if console else name})\n{RULE}"
        tool, took = _word(entry.get("tool_name", "?")), _number(entry.get("duration_ms"))
        by_tool[tool] = by_tool.get(tool, 0) + 1
        total_ms += took or 0.0
        mark = "OK" if entry.get("status") == "ok" else "FAIL"
        ms = "?" if took is None else f"{took:.0f}"
        if console:
            yield f"\n  {calls:2d}. [{mark}] {_word(entry.get('agent_id', '?'))}.{tool}  ({ms}ms)"
        else:
            yield f"\n  {calls:2d}. [{mark}] {tool}  ({ms}ms)\n      → {_preview(_text(entry.get('result')), 100)}"
    if not calls:
        yield "\nNo tool calls recorded."
        return
    yield f"\n\n  Total: {calls} calls, {total_ms:.0f}ms"
    if not console:
        yield f"\n  Tools: {_tally(by_tool)}"


# Status bus


def status_text(entries: Entries, style: str = "upstream") -> Iterator[str]:
    """What ``StatusBus.print_summary()`` logs, in pieces: the last 500 entries by time, oldest first.

    *entries*: roomkit_status lines in file order, also newest first as Redis keeps them. *style*: ``"upstream"``
    ("0 fail, 1 done" in the last line) or ``"docs"`` ("0 failed, 1 completed", as the documentation prints it). Raises
    ValueError on another style.
    """
    _check("style", style, ("upstream", "docs"))
    return _status_pieces(entries, style)


def _status_pieces(entries: Entries, style: str) -> Iterator[str]:
    # Only what is printed is kept: 500 details of several MiB would be a lot.
    latest = _Latest[tuple[str, str, str, str]](BUS_MEMORY)
    for entry in _fresh(entries):
        row = (
            _text(entry.get("agent_id")),
            _text(entry.get("action")),
            _text(entry.get("status")),
            _text(entry.get("detail"))[:100],
        )
        latest.add(entry.get("ts"), row)
    rows = latest.in_order()
    if not rows:
        yield "No status entries."
        return
    yield f"\nStatus Log\n{RULE}"
    icons = {"ok": "+", "failed": "x", "info": "~", "completed": "*"}
    count = {"ok": 0, "failed": 0, "completed": 0}
    for number, (agent, action, status, detail) in enumerate(rows, 1):
        if status in count:
            count[status] += 1
        yield f"\n  {number:2d}. [{icons.get(status, '?')}] {agent:6s} {action}"
        if detail:
            yield f"\n      {detail}"
    failed, completed = ("failed", "completed") if style == "docs" else ("fail", "done")
    yield (
        f"\n\n  Total: {len(rows)} entries"
        f" ({count['ok']} ok, {count['failed']} {failed}, {count['completed']} {completed})"
    )


def recent_text(entries: Entries, n: int = 10, style: str = "auto", clock: str = "local") -> Iterator[str]:
    """What ``StatusBus.recent_text(n)`` returns, in pieces: the last *n* entries by time, oldest first.

    *entries*: roomkit_status lines in file order, also newest first. *n*: at most 500 are remembered, as by the bus; 0
    or less gives none. *style*: ``"plain"`` (RoomKit up to 0.95), ``"quoted"`` (since 0.99: names cleaned, details on
    one line between “ and ”) or ``"auto"``. Raises ValueError on another style or clock.

    ``"auto"`` goes by the newest entry that shows how its detail was cut when a strategy posted it: hard at 200
    characters (plain) or at a word with "…" (quoted). Without such an entry *clock* decides, which is what
    `detect_clock` says of session lines in the same dump: ``"naive"`` means plain (right before 0.99; from there to
    0.107 nothing in the dump tells), ``"local"`` means quoted.

    One thing is not followed: inside a detail longer than 200 characters the library replaces the blocks of its
    prompts (``<task>…</task>``) by their name, and finds closing tags in Unicode's look-alike letters too; here
    only ASCII tags are found.
    """
    _check("style", style, ("auto", "quoted", "plain"))
    _check("clock", clock, ("naive", "local"))
    return _recent_pieces(entries, n, style, clock)


def _recent_pieces(entries: Entries, n: int, style: str, clock: str) -> Iterator[str]:
    latest = _Latest[tuple[str, str, str, str, str]](min(n, BUS_MEMORY))
    signs = _Latest[str](1)
    for entry in _fresh(entries):
        ts = entry.get("ts")
        if style == "auto" and (sign := _cut_sign(entry)):
            signs.add(ts, sign)
        row = (
            _text(ts)[11:19],
            _text(entry.get("agent_id")),
            _text(entry.get("action")),
            _text(entry.get("status")),
            _text(entry.get("detail")),
        )
        latest.add(ts, row)
    if style == "auto":
        style = next(iter(signs.in_order()), "plain" if clock == "naive" else "quoted")
    rows = latest.in_order()
    if not rows:
        yield "No activity yet."
    for number, (at, agent, action, status, detail) in enumerate(rows):
        if style == "quoted":
            agent, action = _identifier(agent, "agent"), _identifier(action, "action")
            detail = detail and _quoted(detail)
        yield ("\n" if number else "") + f"[{at}] {agent}: {action} → {status}" + (f" | {detail}" if detail else "")


def _cut_sign(entry: Entry) -> str | None:
    """The style of the version that cut this entry's detail, None when the entry does not show it.

    Only lifecycle posts of the strategies are cut, at 200 characters. A post by hand may have any length and any end,
    so the metadata that strategies give are asked for.
    """
    detail, metadata = entry.get("detail"), _metadata(entry)
    if not isinstance(detail, str) or not ({"room_id", "strategy", "from_agent"} & metadata.keys()):
        return None
    if detail.endswith("…") and DETAIL_LIMIT // 2 < len(detail) <= DETAIL_LIMIT:
        if entry.get("status") != "completed":
            return "quoted"
        # Such an entry keeps its whole text beside the cut one, so "…" alone is the author's.
        whole = metadata.get("result")
        return "quoted" if isinstance(whole, str) and whole.startswith(detail[:-1]) else None
    return "plain" if len(detail) == DETAIL_LIMIT else None


class _Latest(Generic[T]):
    """The last *limit* items by time. Equal times keep the order of posting: that of the file, or the reverse of it in
    a dump whose times only ever fall, as Redis lists its entries newest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.heap: list[tuple[int, int, T]] = []  # (time, number of the line, item), oldest first
        self.head: list[T] = []  # the first lines, while the dump may be newest first
        self.lines = 0
        self.before: int | None = None
        self.rises = self.falls = False

    def add(self, ts: Any, item: T) -> None:
        at = _instant(ts)
        if at is None:
            at = self.before  # no readable time: beside the line before it
        elif self.before is not None:
            self.rises |= at > self.before
            self.falls |= at < self.before
        self.before = at
        self.lines += 1
        if self.limit < 1:
            return
        if self.rises:
            self.head.clear()
        elif self.lines <= self.limit:
            self.head.append(item)
        place = (BEFORE_ALL if at is None else at, self.lines, item)  # the number is unique: items are never compared
        if len(self.heap) < self.limit:
            heapq.heappush(self.heap, place)
        else:
            heapq.heappushpop(self.heap, place)

    def in_order(self) -> list[T]:
        """The items, oldest first."""
        if self.falls and not self.rises:
            return self.head[::-1]
        return [item for _, _, item in sorted(self.heap, key=lambda place: place[:2])]


def _instant(ts: Any) -> int | None:
    """A stamp in microseconds of UTC, None when it is no time; a naive one is read as UTC, which the bus writes."""
    when = _time(ts)
    if when is None:
        return None
    offset = when.utcoffset() or timedelta()
    return (when.replace(tzinfo=None) - EPOCH - offset) // MICROSECOND


# Quotes, as RoomKit gives text it did not write to a model (0.99 and later)

# Every double quote mark becomes a single one, so that nothing inside ends the quote; marks that turn the direction of
# writing are dropped. Written as code points: several of them cannot be told apart, or be seen at all, in an editor.
QUOTE_MARKS = (
    0x22, 0xAB, 0xBB, 0x2BA, 0x2DD, 0x2EE, 0x2F6, 0x5F2, 0x5F4, 0x1CD3, 0x201C, 0x201D, 0x201E, 0x201F, 0x2033, 0x2034,
    0x2036, 0x2057, 0x275D, 0x275E, 0x2760, 0x2E42, 0x3003, 0x301D, 0x301E, 0x301F, 0xFF02, 0x1F676, 0x1F677, 0x1F678,
    0xE0022,
)  # fmt: skip
DIRECTION_MARKS = (0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069)
UNQUOTE: dict[int, str | None] = {**dict.fromkeys(QUOTE_MARKS, "'"), **dict.fromkeys(DIRECTION_MARKS)}

# Letters, marks and digits that look like a colon or a double quote, hence never part of a name.
NAME_IMPOSTORS = frozenset(
    "\u02ba\u02d0\u02ee\u05f2\u0903\u0a83\ua4fd\U0001015b\U00011002\U00011082\U00011182\U000115be\U000116ac\U00011838"
)

BLOCKS = ("tool_result", "worker_output", "knowledge", "conversation_summary", "context", "task", "vision")


def _identifier(text: str, fallback: str) -> str:
    """A name of at most 64 letters, digits and ``_.@+-``; each run of anything else is one hyphen, none at the ends."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(char if char in "_.@+-" or _in_names(char) else "-" for char in composed)
    return "-".join(part for part in kept.split("-") if part)[:64] or fallback


def _in_names(char: str) -> bool:
    if char in NAME_IMPOSTORS or unicodedata.category(char)[0] not in "LMN":
        return False
    # A number such as ⑵ is "(2)" once folded, which reads as punctuation.
    return all(unicodedata.category(part)[0] not in "PS" for part in unicodedata.normalize("NFKC", char))


def _quoted(text: str) -> str:
    line = " ".join(text.split()).translate(UNQUOTE)
    if len(line) > DETAIL_LIMIT:
        for tag in BLOCKS:
            line = _without_blocks(line, tag)
    if len(line) > DETAIL_LIMIT:
        line = line[: DETAIL_LIMIT - 1]
        space = line.rfind(" ")
        if space > DETAIL_LIMIT // 2:
            line = line[:space]
        line = line.rstrip() + "…"
    return f"“{line}”"


def _without_blocks(line: str, tag: str) -> str:
    """*line* with ``[tag]`` for each block of that tag; a block that is not closed reaches to the end."""
    opening = re.compile(rf"< ?{tag}(?=[ />])[^>]*>", re.IGNORECASE)
    closing = re.compile(rf"< ?(?:\\?/ ?)+{tag}(?![A-Za-z0-9_])[^>]*>", re.IGNORECASE)
    parts, at = [], 0
    while found := opening.search(line, at):
        parts += [line[at : found.start()], f"[{tag}]"]
        end = closing.search(line, found.end())
        at = end.end() if end else len(line)
    return "".join(parts) + line[at:]


# Bytes


def byte_pieces(pieces: Iterable[str]) -> Iterator[bytes]:
    """A text as the bytes of a file: UTF-8, a newline at its end, and what UTF-8 cannot hold (lone surrogates) as
    backslash escapes."""
    for piece in pieces:
        yield piece.encode("utf-8", "backslashreplace")
    yield b"\n"


def to_bytes(text: str | Iterable[str]) -> bytes:
    """The same in one piece; *text* may be whole or in pieces."""
    return b"".join(byte_pieces([text] if isinstance(text, str) else text))


# Values of any type


def _fresh(entries: Entries) -> Iterator[Entry]:
    return iter(entries() if callable(entries) else entries)


def _remembered(rows: Iterator[Entry], seen: list[Entry]) -> Iterator[Entry]:
    for row in rows:
        seen.append(row)
        yield row


def _check(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}, not {value!r}")


def _time(ts: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(ts)
    except (TypeError, ValueError):
        return None


def _metadata(entry: Entry) -> Mapping[str, Any]:
    metadata = entry.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _number(value: Any) -> float | None:
    """A JSON number as a float, NaN and infinities too; None for anything else, an infinity for integers beyond it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _word(value: Any) -> str:
    """A value as the library's format strings print it, also null (``None``)."""
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except (RecursionError, ValueError):  # too deep; an integer of more than 4300 digits
        return "…"


def _text(value: Any) -> str:
    """A value where the library has a string; nothing for null."""
    return "" if value is None else _word(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except (RecursionError, TypeError, ValueError):
        return _word(value)


def _preview(text: str, limit: int, flat: bool = True) -> str:
    shown = text[:limit]
    if flat:
        shown = shown.replace("\n", " ")
    return shown + "..." if len(text) > limit else shown


def _tally(by_tool: dict[str, int]) -> str:
    return ", ".join(f"{tool}({count})" for tool, count in sorted(by_tool.items()))
