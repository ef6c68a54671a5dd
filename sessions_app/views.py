"""Pages of one session: its transcript, and one event. Whole without scripts; static/js adds to them.

Keeps for itself how a page of rows in display order is cut without scripts.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.db.models import Count, Q, QuerySet
from django.http import Http404
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.dumps.models import Dump
from auditweb.formats import FLAGS, BadLine, Number, peek
from auditweb.log import entry_id, id_range, seq_of
from auditweb.teams import audit
from sessions_app import calls, fulltext, membership, outline, summary, terms, timeline
from sessions_app.chains import STAGES
from sessions_app.models import AgentRun, Event, Session, ToolCall, ToolStep, Turn
from sessions_app.projection import FAILED
from sessions_app.templatetags.timeline import OK

ROWS = 200  # of a transcript without scripts
SUMMARY_BYTES = 60_000  # of a text on the page; the link has all of it
FULL_TEXT = 200_000  # characters of one event on the page; the raw line has all of it
RAW_BYTES = 200_000  # of the raw line on the page

LANES = (
    ("user", "user"), ("assistant", "assistant"), ("tool", "tools"), ("vision", "vision"),
    ("interruption", "⌁ interruptions"), ("status", "status"), ("decision", "decisions"), ("memory", "memory"),
    ("run", "runs"), ("lifecycle", "session"), ("error", "✗ errors"), ("other", "other"),
)  # fmt: skip

# name of the address, what its link says, how much there is to see
VIEWS: tuple[tuple[str, str, Callable[[Session], int]], ...] = (
    ("session-detail", "Transcript", lambda session: 0),
    ("session-runs", "Runs", lambda session: session.run_count),
    ("session-tools", "Tools", lambda session: session.tool_calls),
    ("session-records", "Records", lambda session: records(session)),
    ("session-status", "Status", lambda session: session.status_bus.entry_count if session.status_bus else 0),
)

FILTERS = ("lane", "agent", "tool", "severity")  # chips that name values of a column
RUN_PARTS = 200  # callbacks, skills and events of a run in its details
PASSED = OK | {"none"}  # words of decisions that let a call pass
CHECKS = frozenset(kind for kind, stage in STAGES.items() if stage in ("policy", "permission", "loop"))
SAID = 40  # keys of a line that have no column
TELLING = ("decision", "memory", "run", "error")  # lanes whose lines say more than a text
SAYS = {
    "remember_for_session": "remembered", "memory_uri": "address", "size_bytes": "bytes", "from_agent": "from",
    "to_agent": "to", "source": "channel", "event_id": "trace event",
}  # fmt: skip
SEVERITIES = ("critical", "fatal", "error", "warning", "warn", "info", "debug", "trace")  # the worst first

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
        view = query.word("view", [name for name, *_ in VIEWS], "session-detail")
        return render(request, "sessions/_head.html", {"session": session, **head(request, session, view)})
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
        "untimed": _lane_counts(session)[1],
        "filtered": any(chosen.values()),
        **head(request, session),
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


def head(request, session: Session, view: str = "session-detail") -> dict:
    """What the header of a page about *session* shows; *view* is the name of the page's address."""
    dumps = list(session.dumps.order_by("pk")[:20])
    base = _address("api-session-detail", session.public_id) or f"/api/v1/sessions/{session.public_id}/"
    return {
        "dumps": dumps,
        "zone_notes": [note for note in map(_zone_note, dumps) if note],
        "exports": [(f"{base}export?as={name}", label) for name, label in EXPORTS],
        "texts": [(f"{base}summary.txt?of={of}", f"Summary text ({of})") for of in summary.available(session)],
        "agents": sorted(session.agents),
        "api": base,
        "head_url": f"{reverse('session-detail', args=[session.public_id])}?fragment=head&view={view}",
        "views": [
            {"name": name, "label": label, "number": count(session), "here": name == view}
            for name, label, count in VIEWS
            if name == view or name == "session-detail" or count(session)
        ],
        "socket_url": f"/ws/sessions/{session.public_id}/",
        "events_url": f"{reverse('session-detail', args=[session.public_id])}events/",
    }


def records(session: Session) -> int:
    """How many permissions, memory operations, tasks and observations *session* has."""
    asked = session.kinds.get("permission_request", 0)
    return asked + session.memory_count + session.task_count + session.observation_count


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
    chosen = {name: [v for v in request.GET.getlist(name) if v][:50] for name in FILTERS}
    chosen["status"] = ["failed"] if query.word("status", ("failed",)) else []
    chosen["checks"] = ["telling"] if query.word("checks", ("telling",)) else []
    chosen["q"] = [query.text("q")] if "q" in query else []
    return chosen


def _filter(session: Session, chosen: dict) -> QuerySet:
    events = session.events
    for name in FILTERS:
        if chosen[name]:
            events = events.filter(**{f"{name}__in": chosen[name]})
    if chosen["status"]:
        failing = Q(lane="error")
        for word in FAILED:
            failing |= Q(status__iexact=word)
        events = events.filter(failing)
    if chosen["checks"]:
        passed = Q()
        for word in PASSED:
            passed |= Q(status__iexact=word)
        events = events.exclude(passed, lane="decision")
    if chosen["q"]:
        found = fulltext.within(session, terms.parse(chosen["q"][0]))
        # Whole numbers, and more of them than a database takes as parameters.
        events = events.extra(where=[f"{Event._meta.db_table}.id IN ({', '.join(map(str, found)) or 'NULL'})"])  # noqa: S610
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
    events = _filter(session, chosen)
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
    _add_outcomes(session, rows)
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
        "earlier_rows": address_with(request, **{"from": None}, before=seq_of(ids[0]), at=None) if skipped else "",
        "later_rows": address_with(request, **{"from": seq_of(rest)}, before=None, at=None) if rest else "",
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
        at_us = microseconds(row["at"])
        if row["lane"] == "user":
            spoken = at_us
        elif row["lane"] == "assistant":
            if spoken is not None and at_us is not None:
                row["gap"] = (at_us - spoken) / 1000
            spoken = None


def _add_outcomes(session: Session, rows: list[dict]) -> None:
    """Give each attempt in *rows* its ``outcome``: what the call came to and after how many whole milliseconds."""
    attempts = {entry_id(session.pk, row["seq"]): row for row in rows if STAGES.get(row["kind"]) == "attempt"}
    joined = set(ToolStep.objects.filter(pk__in=attempts, stage="attempt").values_list("pk", flat=True))
    for call in ToolCall.objects.filter(pk__in=joined):
        if call.stamp != "both":
            attempts[call.id]["outcome"] = {"status": outline.OPEN, "ms": None}
            continue
        ms = outline.between(call.started_us, call.ended_us)
        attempts[call.id]["outcome"] = {"status": call.status, "ms": None if ms is None else round(ms)}


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: str | None) -> int | None:
    """Microseconds since the epoch of a time as rows have it."""
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1) if at else None


def _chips(request, session: Session, chosen: dict) -> dict:
    """The filters as links: each turns one value on or off and keeps the rest of the address.

    All lanes are there, those without events hidden: scripts show them when a live session gets some.
    """
    present, _ = _lane_counts(session)
    lanes = [_chip(request, chosen, "lane", lane, label, present.get(lane, 0)) for lane, label in LANES]
    return {
        "lanes": lanes,
        "agents": [_chip(request, chosen, "agent", name, name, n) for name, n in sorted(session.agents.items())][:100],
        "tools": [_chip(request, chosen, "tool", name, name, n) for name, n in sorted(session.tools.items())][:100],
        "severities": [
            _chip(request, chosen, "severity", name, name, n)
            for name, n in sorted(session.severities.items(), key=_by_severity)
        ][:20],
        "failed": _chip(request, chosen, "status", "failed", "✗ failed", None)
        | {"hidden": not (session.tool_failures or session.errors or session.status_count or session.denials)},
        "checks": _chip(request, chosen, "checks", "telling", "hide passed checks", None),
        "may_pass": not CHECKS.isdisjoint(session.kinds),
        "clear": address_with(request, status=None, checks=None, **dict.fromkeys(FILTERS)),
    }


def _by_severity(item: tuple[str, int]) -> tuple[int, str]:
    word = item[0].lower()
    return SEVERITIES.index(word) if word in SEVERITIES else len(SEVERITIES), word


def _lane_counts(session: Session) -> tuple[dict[str, int], int]:
    """How many events each lane has, and how many of all are known to have no readable time."""
    counts = {
        "user": session.user_turns, "assistant": session.assistant_turns, "tool": session.tool_calls,
        "vision": session.vision_count, "interruption": session.interruptions, "status": session.status_count,
        "error": session.errors,
    }  # fmt: skip
    rest = session.event_count - sum(counts.values())
    if rest == session.kinds.get("session", 0):
        return {**counts, "lifecycle": rest}, 0
    # A call may be several events, a turn may have an end: only the log knows. 100 000 events take about 60 ms.
    key = f"lanes:{outline.tag(session)}"
    known = cache.get(key)
    if known is None:
        lanes = session.events.order_by().values_list("lane").annotate(Count("id"), Count("at_us"))
        found = [(lane, number, timed) for lane, number, timed in lanes]
        known = {lane: number for lane, number, _ in found}, sum(number - timed for _, number, timed in found)
        cache.set(key, known, outline.SECONDS)
    return known


def _lane_rows(session: Session) -> int:
    """How many lanes the overview will most likely have (``lanesOf`` in overview.js): the page keeps room for them."""
    present = {lane for lane, number in _lane_counts(session)[0].items() if number} - {"interruption"}
    shared = {"other" if lane in ("lifecycle", "error") else lane for lane in present}
    rows = len(shared | {"user", "assistant", "status", "tool"})
    posters = len(session.status_bus.agents) if session.status_bus else 0
    rows += posters - 1 if 1 < posters <= 8 else 0
    # Producers of calls of several events may leave the agent out.
    if len(session.agents) > 1 or (session.agents and not STAGES.keys().isdisjoint(session.kinds)):
        made = ToolCall.objects.filter(id__range=id_range(session.pk))
        if session.first_us is not None:
            made = made.exclude(started_us=None, ended_us=None)  # no time places them: they are not drawn
        callers = len(made.values("agent").order_by("agent").distinct()[:9])
        rows += callers - 1 if 1 < callers <= 8 else 0
    return rows


def _chip(request, chosen: dict, name: str, value: str, label: str, number: int | None) -> dict:
    on = value in chosen[name]
    values = [v for v in chosen[name] if v != value] if on else [*chosen[name], value]
    return {
        "name": name, "value": value, "label": label, "number": number, "on": on, "hidden": number == 0,
        "href": address_with(request, **{name: values or None, "from": None, "before": None}),
    }  # fmt: skip


def address_with(request, **changes) -> str:
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
    belongs = membership.of_event(event)
    call = belongs.call and ToolCall.objects.filter(pk=entry_id(session.pk, belongs.call)).first()
    chain = (calls.rows([call]) or [{}])[0].get("chain", []) if call else []
    for step in chain:
        step["at_us"] = microseconds(step["at"])
    stage = STAGES.get(event.kind, "") if event.lane in ("tool", "decision") else ""
    text, extra = event.text, _extra(event)
    parts = _run_parts(session, event) if event.kind == "agent_run" else []
    says = _says(event, extra) if stage or event.visibility or event.lane in TELLING else []
    parameters = extra.get("parameters") if stage == "attempt" else None
    if parameters is not None:
        text = ""  # says the same, and only when it is short
    return {
        "event": event,
        "call": call,
        "chain": chain,
        "stage": stage,
        "attempt": next((step for step in chain if step["stage"] == "attempt"), None),
        "outcome": next((step for step in chain if step["stage"] == "result"), None),
        "between_ms": outline.between(call.started_us, call.ended_us) if call and call.stamp == "both" else None,
        "turn": belongs.turn and Turn.objects.filter(pk=entry_id(session.pk, belongs.turn)).first(),
        "run": belongs.run and AgentRun.objects.filter(pk=entry_id(session.pk, belongs.run)).first(),
        "run_parts": parts[:RUN_PARTS],
        "run_parts_cut": len(parts) > RUN_PARTS,
        "run_says": _run_says(extra) if event.kind == "agent_run" else None,
        "says": says[:SAID],
        "says_more": max(0, len(says) - SAID),
        "link": request.build_absolute_uri(
            f"{reverse('session-detail', args=[session.public_id])}?at={event.seq}#e{event.seq}"
        ),
        "quality": QUALITY.get(event.ts_quality, ""),
        "zone": event.dump.zone if event.ts_quality == "inferred" else "",
        "zone_source": event.dump.zone_source,
        "flags": [FLAGS.get(flag, flag) for flag in event.flag_list],
        "text": text[:FULL_TEXT],
        "text_more": max(0, len(text) - FULL_TEXT),
        "text_is": _text_is(event, stage),
        "arguments": _arguments(whole) if parameters is None else parameters,
        "result": _structure(text),
        "whole": whole,
        "raw": raw[:RAW_BYTES].decode("utf-8", "replace"),
        "raw_more": max(0, len(raw) - RAW_BYTES),
        "raw_size": len(raw),
    }


def _extra(event: Event) -> dict:
    """What of the line has no column, its numbers as written."""
    try:
        found = peek(event.extra.encode()) if event.extra else {}
    except BadLine:
        found = {}
    return found if isinstance(found, dict) else {}


def _text_is(event: Event, stage: str) -> str:
    if stage == "attempt":
        return "Arguments, as their producer wrote them"
    return "Result" if event.lane == "tool" else "Text"


def _says(event: Event, extra: dict) -> list[tuple[str, object]]:
    """The keys of the line that have no column, in words, with their values; what the page shows elsewhere left out."""
    if event.kind == "agent_run":
        return []
    shown = {"parameters", "arguments"} if event.lane == "tool" else set()
    if event.kind == "memory_operation":
        shown.add("metadata")  # the same again
    return [
        (SAYS.get(key, key.replace("_", " ")), value)
        for key, value in extra.items()
        if key not in shown and value is not None and value != "" and value != {} and value != []
    ]


def _run_says(extra: dict) -> dict:
    """The prompts of a run with their sources, what was sent and received, and the decision."""
    prompts = [
        {"name": name, "text": extra.get(key), "sources": _texts(extra.get(f"{key}_sources"))}
        for key, name in (("system_prompt", "System prompt"), ("user_prompt", "User prompt"))
    ]
    received = extra.get("llm_message_received")
    decision = extra.get("agent_decision")
    return {
        "caller": extra.get("caller_id") or "",
        "prompts": [p for p in prompts if isinstance(p["text"], str) and p["text"]],
        "sent": extra.get("llm_message_sent"),
        "received": (_structure(received) or received) if isinstance(received, str) else received,
        "response": extra.get("model_response"),
        "decision": {k: v for k, v in decision.items() if v not in (None, "", {}, [])}
        if isinstance(decision, dict)
        else decision,
    }


def _texts(value) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _run_parts(session: Session, event: Event) -> list[Event]:
    """Callbacks, skills and events of a run: they follow its event, from the same line."""
    following = session.events.filter(id__gt=event.id, id__lte=event.id + RUN_PARTS + 1)
    return list(following.filter(dump_id=event.dump_id, line=event.line))


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
