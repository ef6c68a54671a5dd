"""What a session comes to: its counters, and the text that its producer would print.

The text is made from the raw lines, because the producer's own wording shows what columns cannot hold (NaN, NUL,
lone surrogates), and is kept compressed as of a (revision, seq).
"""

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo

from django.db import transaction

from auditweb import pages
from auditweb.dumps import raw
from auditweb.dumps.models import Dump
from auditweb.formats import roomkit_text
from auditweb.formats.clock import zone_of
from sessions_app.models import Session, Summary

STYLES = ("upstream", "docs", "auditweb")
FORMAT_OF = {"session": "roomkit_session", "tool": "roomkit_tool", "status": "roomkit_status"}


def counters(session: Session) -> dict:
    """The numbers of a session; times in seconds and milliseconds, ``duration_s`` null when no time is readable."""
    return {
        "events": session.event_count,
        "user_turns": session.user_turns,
        "assistant_turns": session.assistant_turns,
        "tool_calls": session.tool_calls,
        "tool_failures": session.tool_failures,
        "tool_ms": round(session.tool_ms, 3),
        "tools": dict(sorted(session.tools.items())),
        "tool_statuses": dict(sorted(session.tool_statuses.items())),
        "agents": dict(sorted(session.agents.items())),
        "kinds": dict(sorted(session.kinds.items())),
        "vision": session.vision_count,
        "interruptions": session.interruptions,
        "errors": session.errors,
        "status_entries": session.status_count,
        "severities": dict(sorted(session.severities.items())),
        "runs": session.run_count,
        "denials": session.denials,
        "loops": session.loops,
        "memory": session.memory_count,
        "tasks": session.task_count,
        "observations": session.observation_count,
        "duration_s": session.duration_s,
    }


def available(session: Session) -> list[str]:
    """Which texts the lines of *session* give: of session, tool, status."""
    seen: set[str] = set()
    for records in session.dumps.values_list("records", flat=True):
        seen |= {name for name, count in records.items() if count}
    return [of for of, name in FORMAT_OF.items() if name in seen]


def text(
    session: Session, of: str = "session", style: str = "upstream", zone: str | None = None, clock: str | None = None
) -> Iterator[bytes]:
    """The text in pieces of UTF-8, as RoomKit prints it of the same lines.

    *of*: session, tool or status. *style*: "upstream", "docs" as its documentation shows it, or "auditweb", our own of
    the whole session in the order of time. *zone*: the reader's
    local zone (default UTC). *clock*: "naive" (RoomKit before 0.108 prints stamps as written) or "local" (since); by
    the stamps in the file when not given. Raises ValueError for a word or zone that does not exist.
    """
    if of not in FORMAT_OF:
        raise ValueError(f"there is a summary of {', '.join(FORMAT_OF)}; not of {of[:40]!r}")
    if clock not in (None, "naive", "local"):
        raise ValueError("clock is naive or local")
    if style not in STYLES:
        raise ValueError(f"style is one of {', '.join(STYLES)}")
    local = zone_of(zone or "UTC") or UTC
    if style == "auditweb":
        return _own_text(session, local)
    stored = None
    if style == "upstream" and clock is None and zone in (None, "", "UTC"):
        stored = session.summaries.filter(of=of, seq=session.last_seq, revision=session.revision).first()
    if stored:
        return iter([zlib.decompress(stored.text)])
    return roomkit_text.byte_pieces(_pieces(session, of, style, local, clock or "auto"))


def _pieces(session: Session, of: str, style: str, local, clock: str) -> Iterator[str]:
    dump = session.dumps.order_by("pk").first()
    name = dump.name if dump else session.title
    objects = lambda: _raw_objects(session, FORMAT_OF[of])  # noqa: E731 - a fresh pass for each reader
    if of == "session":
        return roomkit_text.session_text(name, objects, local, clock=clock, style=style)
    if of == "tool":
        return roomkit_text.tool_text(name, objects)
    return roomkit_text.status_text(objects, style=style)


def _lines(session: Session, dump: Dump) -> Iterator[int]:
    """The numbers of the lines of *dump* in *session*; of one dump, order of arrival is file order."""
    return (line for (line,) in pages.every(session.events.filter(dump=dump), "line"))


def _own_text(session: Session, zone: tzinfo) -> Iterator[bytes]:
    """The session in our words: what was counted, with the duration that naive times of known zone give, and each
    event in display order."""
    counts = counters(session)
    duration = "unknown" if counts["duration_s"] is None else f"{counts['duration_s']:.1f} s"
    yield f"{session.title}\n{'=' * 60}\n".encode()
    shown = ("at_us", "lane", "role", "agent", "tool", "status", "duration_ms", "text")
    order = list(session.events.order_by("sort_us", "dump_id", "line", "id").values_list("id", flat=True))
    for start in range(0, len(order), 500):
        part = order[start : start + 500]
        found = {pk: rest for pk, *rest in session.events.filter(id__in=part).values_list("id", *shown)}
        yield "".join(_own_line(zone, *found[pk]) for pk in part if pk in found).encode()
    yield (
        f"\nDuration {duration}; turns: {counts['user_turns']} user, {counts['assistant_turns']} assistant; "
        f"tool calls: {counts['tool_calls']} ({counts['tool_failures']} failed, {counts['tool_ms']:.0f} ms); vision: "
        f"{counts['vision']}; interruptions: {counts['interruptions']}; errors: {counts['errors']}; status entries: "
        f"{counts['status_entries']}\n"
    ).encode()


def _raw_objects(session: Session, format_name: str) -> Iterator[dict]:
    """What the lines of *session* say in their producer's words, dump by dump in file order."""
    for dump in session.dumps.order_by("pk"):
        yield from raw.objects(dump, _lines(session, dump), format_name)


def _own_line(zone: tzinfo, at_us, lane: str, role: str, agent: str, tool: str, status: str, ms, said: str) -> str:
    moment = "--:--:--" if at_us is None else f"{datetime.fromtimestamp(at_us / 1e6, zone):%H:%M:%S}"
    who = " ".join(word for word in (lane.upper(), tool or (agent if lane == "status" else role)) if word)
    outcome = f" [{status}]" if status else ""
    took = "" if ms is None else f" ({ms:.0f} ms)"
    return f"{moment} {who}{outcome}{took}: {' '.join(said.split())}\n"


def make(session: Session) -> None:
    """Write and keep the texts of *session* as of now."""
    texts = available(session)
    for of in texts:
        packer = zlib.compressobj(6)
        packed = [packer.compress(p) for p in roomkit_text.byte_pieces(_pieces(session, of, "upstream", None, "auto"))]
        packed.append(packer.flush())
        with transaction.atomic():
            Summary.objects.update_or_create(
                session=session,
                of=of,
                defaults={"seq": session.last_seq, "revision": session.revision, "text": b"".join(packed)},
            )
    session.summaries.exclude(of__in=texts).delete()
