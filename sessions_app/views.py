"""Pages of sessions: the list, one session, one event. Whole without scripts; static/js adds to them.

Keeps for itself how a page of rows in display order is cut without scripts, and what a search in the list means.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import Http404, HttpResponse, HttpResponseNotModified
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.dumps.models import Dump
from auditweb.formats import FLAGS, BadLine, Number, peek
from auditweb.log import entry_id, id_range, seq_of
from auditweb.teams import access, audit
from sessions_app import summary, timeline
from sessions_app.models import Event, Session, ToolCall, Turn
from sessions_app.projection import FAILED

PAGE = 50  # sessions
ROWS = 200  # of a transcript without scripts
SUMMARY_BYTES = 60_000  # of a text on the page; the link has all of it
FULL_TEXT = 200_000  # characters of one event on the page; the raw line has all of it
RAW_BYTES = 200_000  # of the raw line on the page

# name in the address → (heading, column, first direction)
COLUMNS = {
    "updated": ("Updated", "updated_at", "-"),
    "title": ("Session", "title", ""),
    "started": ("Start", "first_us", "-"),
    "duration": ("Duration", "duration_us", "-"),
    "turns": ("Turns", "turn_count", "-"),
    "tools": ("Tools", "tool_calls", "-"),
    "interruptions": ("⌁", "interruptions", "-"),
    "vision": ("Vision", "vision_count", "-"),
    "status": ("Status", "status_count", "-"),
}
HAS = {
    "error": Q(errors__gt=0) | Q(tool_failures__gt=0),
    "interruption": Q(interruptions__gt=0),
    "status": Q(status_count__gt=0),
    "tool": Q(tool_calls__gt=0),
    "vision": Q(vision_count__gt=0),
}
_WORD = re.compile(r'(?:(tool|agent|status|has|kind):)?(?:"([^"]*)"|(\S+))')
WORDS = 12  # of a search; each is a condition of its own

LANES = (
    ("user", "user"), ("assistant", "assistant"), ("tool", "tools"), ("vision", "vision"),
    ("interruption", "⌁ interruptions"), ("status", "status"), ("decision", "decisions"), ("memory", "memory"),
    ("run", "runs"), ("lifecycle", "session"), ("error", "✗ errors"), ("other", "other"),
)  # fmt: skip

QUALITY = {
    "aware": "The stamp names its own offset.",
    "inferred": "The stamp carries no zone; it is read in the zone of its file.",
    "assumed": "The stamp carries no zone and nothing tells it; it is read as UTC.",
    "missing": "No readable time; the event keeps its place in the file.",
}
EXPORTS = (
    ("original", "Original file"),
    ("jsonl", "Events as JSONL"),
    ("csv", "Events as CSV"),
    ("markdown", "Transcript as Markdown"),
)


# The list ------------------------------------------------------------------------------------------------------


@login_required
@require_GET
def session_list(request):
    """Sessions: ``?q=&live=1&sort=-started&team=&cursor=``; ``?fragment=rows`` answers the table alone, by ETag."""
    query = pages.Params(request.GET)
    words, sort, live = query.text("q"), query.text("sort") or "-updated", query.flag("live")
    anything = sessions = _listed(request)
    if live is not None:
        sessions = sessions.filter(live=live)
    sessions = search(sessions, words).annotate(duration_us=F("last_us") - F("first_us"))
    fields = {name: column for name, (_, column, _) in COLUMNS.items()}
    page = pages.keyset(sessions, sort, query.text("cursor"), PAGE, fields)
    total = sessions.count()
    first = query.integer("n", 1, 1) or 1
    context = {
        "sessions": page.items,
        "total": total,
        "first": first,
        "last": min(total, first + len(page.items) - 1),
        "q": words,
        "live": live,
        "sort": sort,
        "live_count": anything.filter(live=True).count(),
        "failing_count": anything.filter(HAS["error"]).count(),
        "columns": [_heading(name, sort) for name in COLUMNS],
        "filtered": bool(words or live is not None),
        "rows_url": _with(request, fragment="rows"),
        "next_url": _with(request, cursor=page.next, n=first + len(page.items)) if page.next else "",
        "prev_url": _with(request, cursor=page.prev, n=max(1, first - PAGE)) if page.prev else "",
    }
    if request.GET.get("fragment") != "rows":
        return render(request, "sessions/session_list.html", context)
    text = render_to_string("sessions/_list.html", context, request)
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponseNotModified(headers={"ETag": etag})
    return HttpResponse(text, headers={"ETag": etag})


def _listed(request) -> QuerySet:
    """The sessions of the team named in the address, else of all teams of the caller."""
    if "team" in request.GET:
        return Session.objects.filter(team=access.team_of(request))
    teams = list(access.teams_of(request.user).values_list("pk", flat=True)[:2])
    if len(teams) == 1:
        # Not ``visible_to``: with the team as a value its index gives the order (1 ms; 100 ms at 100 000 sessions).
        return Session.objects.filter(team=teams[0])
    return Session.objects.visible_to(request.user)


def search(sessions: QuerySet, words: str) -> QuerySet:
    """*sessions* that have all of *words*: text in title, opening or agents; ``tool:``, ``agent:``, ``kind:`` and
    ``status:`` name one exactly; ``has:`` one of error, interruption, status, tool, vision. Quotes hold words together.
    """
    for key, quoted, plain in islice((m.groups() for m in _WORD.finditer(words)), WORDS):
        word = quoted if quoted is not None else plain
        if not word:
            continue
        if key == "has":
            sessions = sessions.filter(HAS[word]) if word in HAS else sessions.none()
        elif key:
            column = {"tool": "tools", "agent": "agents", "status": "tool_statuses", "kind": "kinds"}[key]
            sessions = sessions.filter(**{f"{column}__has_key": word})
        else:
            # Names of agents are the keys of a JSON object, which databases keep as ASCII text.
            stored = word.encode("ascii", "backslashreplace").decode() if not word.isascii() else word
            sessions = sessions.alias(agent_names=Cast("agents", TextField())).filter(
                Q(title__icontains=word)
                | Q(opening__icontains=word)
                | Q(agent_names__icontains=word)
                | Q(agent_names__icontains=stored)
            )
    return sessions


def _heading(name: str, sort: str) -> dict:
    label, _, first = COLUMNS[name]
    now = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
    then = {"ascending": f"-{name}", "descending": name}.get(now, f"{first}{name}")
    return {"name": name, "label": label, "now": now, "then": then}


# One session ---------------------------------------------------------------------------------------------------


def find_session(request, public_id: str) -> Session:
    """The session if the caller may see it; a foreign one is as missing as one that never was."""
    found = Session.objects.visible_to(request.user).select_related("team", "status_bus").filter(public_id=public_id)
    session = found.first()
    if session is None:
        raise Http404("no such session")
    return session


@login_required
@require_GET
def session_detail(request, public_id: str):
    """A session: header, overview, a page of rows, the details of ``?at=``.

    ``?lane=&agent=&tool=&status=failed&q=`` filter, ``?from=`` and ``?before=`` (a seq) page; ``?fragment=head`` and
    ``?fragment=summary`` answer one part alone.
    """
    query = pages.Params(request.GET)
    session = find_session(request, public_id)
    fragment = query.word("fragment", ("head", "summary"))
    if fragment == "head":
        return render(request, "sessions/_head.html", {"session": session, **_head(request, session)})
    if fragment == "summary":
        return render(request, "sessions/_summary.html", {"session": session, **_summary(session)})
    audit.viewed(request, session)
    seq = query.integer("at", most=2**32 - 1)
    selected = session.events.filter(pk=entry_id(session.pk, seq)).select_related("dump").first() if seq else None
    chosen = _chosen(request, query)
    tab = query.word("tab", ("details", "summary"), "details")
    context = {
        "session": session,
        "selected": selected,
        "selected_seq": selected.seq if selected else None,
        "missing_seq": seq if seq and not selected else None,
        "q": query.text("q"),
        "tab": tab,
        "chips": _chips(request, session, chosen),
        "lane_rows": _lane_rows(session),
        "filtered": any(chosen.values()),
        **_head(request, session),
        **_rows(request, session, selected, query, chosen),
        **(_summary(session) if tab == "summary" else {}),
        **(_details(request, session, selected) if selected else {}),
    }
    return render(request, "sessions/session_detail.html", context)


@login_required
@require_GET
def session_event(request, public_id: str, seq: int):
    """Everything about one event; ``?fragment=1`` answers the details alone."""
    session = find_session(request, public_id)
    event = None
    if seq < 2**32:
        event = session.events.filter(pk=entry_id(session.pk, seq)).select_related("dump").first()
    if event is None:
        raise Http404("no such event")
    context = {"session": session, "selected": event, **_details(request, session, event)}
    if "fragment" in request.GET:
        return render(request, "sessions/_details.html", context)
    audit.viewed(request, session)
    around = _in_order(session.events)
    context["earlier"] = seq_of(_before(around, event).values_list("id", flat=True).first() or 0)
    context["later"] = seq_of(_after(around, event).values_list("id", flat=True).first() or 0)
    return render(request, "sessions/event_detail.html", context)


def _head(request, session: Session) -> dict:
    dumps = list(session.dumps.order_by("pk")[:20])
    base = _address("api-session-detail", session.public_id) or f"/api/v1/sessions/{session.public_id}/"
    return {
        "dumps": dumps,
        "zone_notes": [note for note in map(_zone_note, dumps) if note],
        "exports": [(f"{base}export?as={name}", label) for name, label in EXPORTS],
        "texts": [(f"{base}summary.txt?of={of}", f"Summary text ({of})") for of in summary.available(session)],
        "agents": sorted(session.agents),
        "api": base,
        "head_url": f"{reverse('session-detail', args=[session.public_id])}?fragment=head",
        "socket_url": f"/ws/sessions/{session.public_id}/",
        "events_url": f"{reverse('session-detail', args=[session.public_id])}events/",
    }


def _zone_note(dump: Dump) -> str:
    if not dump.naive_lines:
        return ""
    if dump.zone_source == "assumed" or not dump.zone:
        return f"times without a zone in {dump.name} are read as UTC, assumed"
    zone = dump.zone.replace("-", "−") if dump.zone[0] in "+-" else dump.zone
    return f"times without a zone in {dump.name} are read as {zone}, {dump.zone_source or 'inferred'}"


def _summary(session: Session) -> dict:
    texts = []
    for of in summary.available(session):
        pieces, size = [], 0
        for piece in summary.text(session, of):
            pieces.append(piece)
            size += len(piece)
            if size > SUMMARY_BYTES:
                break
        text = b"".join(pieces)
        shown = text[:SUMMARY_BYTES].decode("utf-8", "replace")
        if len(text) > SUMMARY_BYTES:
            shown = shown[: shown.rfind("\n") + 1]
        texts.append({"of": of, "text": shown, "cut": len(text) > SUMMARY_BYTES})
    base = _address("api-session-detail", session.public_id) or f"/api/v1/sessions/{session.public_id}/"
    return {"summaries": texts, "counters": summary.counters(session), "api": base}


# Rows without scripts ------------------------------------------------------------------------------------------


def _chosen(request, query: pages.Params) -> dict:
    chosen = {name: [v for v in request.GET.getlist(name) if v][:50] for name in ("lane", "agent", "tool")}
    chosen["status"] = ["failed"] if query.word("status", ("failed",)) else []
    chosen["q"] = [query.text("q")] if "q" in query else []
    return chosen


def _filter(events: QuerySet, chosen: dict) -> QuerySet:
    for name in ("lane", "agent", "tool"):
        if chosen[name]:
            events = events.filter(**{f"{name}__in": chosen[name]})
    if chosen["status"]:
        failing = Q(lane="error")
        for word in FAILED:
            failing |= Q(status__iexact=word)
        events = events.filter(failing)
    if chosen["q"]:
        events = events.filter(text__icontains=chosen["q"][0])
    return events


def _in_order(events: QuerySet) -> QuerySet:
    return events.order_by("sort_us", "dump_id", "line", "id")


def _after(events: QuerySet, at: Event, itself: bool = False) -> QuerySet:
    """Those that stand after *at* in display order, the nearest first."""
    same = {"sort_us": at.sort_us, "dump_id": at.dump_id}
    last = Q(**same, line=at.line, **{"id__gte" if itself else "id__gt": at.id})
    return _in_order(events).filter(
        Q(sort_us__gt=at.sort_us) | Q(sort_us=at.sort_us, dump_id__gt=at.dump_id) | Q(**same, line__gt=at.line) | last
    )


def _before(events: QuerySet, at: Event) -> QuerySet:
    """Those that stand before *at* in display order, the nearest first."""
    same = {"sort_us": at.sort_us, "dump_id": at.dump_id}
    return events.order_by("-sort_us", "-dump_id", "-line", "-id").filter(
        Q(sort_us__lt=at.sort_us)
        | Q(sort_us=at.sort_us, dump_id__lt=at.dump_id)
        | Q(**same, line__lt=at.line)
        | Q(**same, line=at.line, id__lt=at.id)
    )


def _rows(request, session: Session, selected: Event | None, query: pages.Params, chosen: dict) -> dict:
    """One page of rows in display order: the one asked for, else the one around *selected*, else the first."""
    events = _filter(session.events, chosen)
    start, until = (_event(session, query.integer(name, most=2**32 - 1)) for name in ("from", "before"))
    ids: list[int]
    rest = None  # of the ids after them, whether there are any
    backwards = events.order_by("-sort_us", "-dump_id", "-line", "-id")
    if until:
        ids = list(_before(events, until).values_list("id", flat=True)[:ROWS])[::-1]
    elif selected:
        ids = list(_before(events, selected).values_list("id", flat=True)[: ROWS // 2])[::-1]
        ids += _after(events, selected, itself=True).values_list("id", flat=True)[: ROWS - len(ids)]
    elif session.live and not start:
        ids = list(backwards.values_list("id", flat=True)[:ROWS])[::-1]
    else:
        found = _after(events, start, itself=True) if start else _in_order(events)
        ids = list(found.values_list("id", flat=True)[: ROWS + 1])
        rest = ids[ROWS] if len(ids) > ROWS else 0
        ids = ids[:ROWS]
    filtered = any(chosen.values())
    total = events.count() if filtered else session.event_count
    if not ids:
        return {"rows": [], "row_count": total, "first_row": 0, "last_row": 0}
    at_start = not (until or start or selected or session.live)
    first = None if at_start else Event.objects.get(pk=ids[0])
    skipped = _before(events, first).count() if first else 0
    by_seq = {row["seq"]: row for row in timeline.rows_by_seqs(session.pk, [seq_of(pk) for pk in ids])}
    rows = [by_seq[seq_of(pk)] for pk in ids if seq_of(pk) in by_seq]
    for position, row in enumerate(rows, start=skipped + 1):
        row["position"] = position
    if not filtered:
        _add_gaps(session, first if skipped else None, rows)
    end = skipped + len(rows)
    if rest is None:
        rest = _after(events, Event.objects.get(pk=ids[-1])).values_list("id", flat=True).first() or 0
    return {
        "rows": rows,
        "row_count": total,
        "first_row": skipped + 1,
        "last_row": end,
        "earlier_rows": _with(request, **{"from": None}, before=seq_of(ids[0]), at=None) if skipped else "",
        "later_rows": _with(request, **{"from": seq_of(rest)}, before=None, at=None) if rest else "",
    }


def _event(session: Session, seq: int | None) -> Event | None:
    return session.events.filter(pk=entry_id(session.pk, seq)).first() if seq else None


def _add_gaps(session: Session, first: Event | None, rows: list[dict]) -> None:
    """Give each first reply in *rows* its ``gap``: milliseconds since the user's last words, where both are known.

    *first*: the event of the first row when others stand before it.
    """
    spoken = before = None
    if first:
        before = _before(session.events.filter(lane__in=("user", "assistant")), first).first()
    if before is not None and before.lane == "user":
        spoken = before.at_us
    for row in rows:
        at_us = _microseconds(row["at"])
        if row["lane"] == "user":
            spoken = at_us
        elif row["lane"] == "assistant":
            if spoken is not None and at_us is not None:
                row["gap"] = (at_us - spoken) / 1000
            spoken = None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(at: str | None) -> int | None:
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1) if at else None


def _chips(request, session: Session, chosen: dict) -> dict:
    """The filters as links: each turns one value on or off and keeps the rest of the address."""
    present = _lane_counts(session)
    lanes = [_chip(request, chosen, "lane", lane, label, present[lane]) for lane, label in LANES if present.get(lane)]
    return {
        "lanes": lanes,
        "agents": [_chip(request, chosen, "agent", name, name, n) for name, n in sorted(session.agents.items())][:100],
        "tools": [_chip(request, chosen, "tool", name, name, n) for name, n in sorted(session.tools.items())][:100],
        "failed": _chip(request, chosen, "status", "failed", "✗ failed", None),
        "may_fail": session.tool_failures or session.errors or session.status_count,
        "clear": _with(request, lane=None, agent=None, tool=None, status=None),
    }


def _lane_counts(session: Session) -> dict[str, int]:
    counts = {
        "user": session.user_turns, "assistant": session.assistant_turns, "tool": session.tool_calls,
        "vision": session.vision_count, "interruption": session.interruptions, "status": session.status_count,
        "error": session.errors,
    }  # fmt: skip
    rest = session.event_count - sum(counts.values())
    if rest:
        named = session.kinds.get("session", 0)
        counts["lifecycle"] = min(rest, named)
        counts["other"] = rest - counts["lifecycle"]
    return counts


def _lane_rows(session: Session) -> int:
    """How many lanes the overview will most likely have (``lanesOf`` in overview.js): the page keeps room for them."""
    present = {lane for lane, number in _lane_counts(session).items() if number} - {"interruption"}
    shared = {"other" if lane in ("lifecycle", "error") else lane for lane in present}
    rows = len(shared | {"user", "assistant", "tool"})
    if len(session.agents) > 1:
        calls = ToolCall.objects.filter(id__range=id_range(session.pk))
        callers = len(calls.values("agent").order_by("agent").distinct()[:9])
        rows += callers - 1 if 1 < callers <= 8 else 0
    return rows


def _chip(request, chosen: dict, name: str, value: str, label: str, number: int | None) -> dict:
    on = value in chosen[name]
    values = [v for v in chosen[name] if v != value] if on else [*chosen[name], value]
    return {
        "name": name, "value": value, "label": label, "number": number, "on": on,
        "href": _with(request, **{name: values or None, "from": None, "before": None}),
    }  # fmt: skip


def _with(request, **changes) -> str:
    """This address with *changes* to its query; None takes a parameter out, a list gives several."""
    query = {name: request.GET.getlist(name) for name in request.GET if name != "fragment"}
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = value
    return f"{request.path}?{urlencode(query, doseq=True)}"


def _address(name: str, *args) -> str:
    try:
        return reverse(name, args=args)
    except NoReverseMatch:
        return ""


# One event -----------------------------------------------------------------------------------------------------


def _details(request, session: Session, event: Event) -> dict:
    raw = timeline.raw_line(event)
    try:
        whole = peek(raw)
    except BadLine:
        whole = None
    calls = ToolCall.objects.filter(id__range=id_range(session.pk, 0, event.seq), last_seq__gte=event.seq)
    turns = Turn.objects.filter(id__range=id_range(session.pk))
    text = event.text
    return {
        "event": event,
        "call": calls.order_by("-id").first() if event.lane == "tool" else None,
        "turn": turns.filter(first_seq__lte=event.seq, last_seq__gte=event.seq).first(),
        "link": request.build_absolute_uri(
            f"{reverse('session-detail', args=[session.public_id])}?at={event.seq}#e{event.seq}"
        ),
        "quality": QUALITY.get(event.ts_quality, ""),
        "zone": event.dump.zone if event.ts_quality == "inferred" else "",
        "zone_source": event.dump.zone_source,
        "flags": [FLAGS.get(flag, flag) for flag in event.flag_list],
        "text": text[:FULL_TEXT],
        "text_more": max(0, len(text) - FULL_TEXT),
        "arguments": _arguments(whole),
        "result": _structure(text),
        "whole": whole,
        "raw": raw[:RAW_BYTES].decode("utf-8", "replace"),
        "raw_more": max(0, len(raw) - RAW_BYTES),
        "raw_size": len(raw),
    }


def _arguments(whole):
    """The arguments of a tool call, wherever its format keeps them; None when there are none."""
    if not isinstance(whole, dict):
        return None
    metadata = whole.get("metadata")
    if isinstance(metadata, dict) and "arguments" in metadata:
        return metadata["arguments"]
    return whole.get("arguments")


def _structure(text: str):
    """*text* as a JSON array or object when it is one, so that it can be folded; else None."""
    if not text[:200].lstrip().startswith(("{", "[")):
        return None
    try:
        value = peek(text.encode())
    except BadLine:
        return None
    return value if isinstance(value, dict | list) and not isinstance(value, Number) else None
