"""Pages about parts of one session: the runs of its agents, its tool calls, and what it kept. Whole without scripts.

Keeps for itself how much of each is drawn at a time.
"""

import zlib
from collections.abc import Iterable

import msgspec
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.db.models import Count, Max, Q, QuerySet, Sum
from django.shortcuts import render
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.formats import peek
from auditweb.log import entry_id, id_range
from auditweb.teams import audit
from sessions_app import calls, outline, runs
from sessions_app.models import AgentRun, Event, Session, ToolCall
from sessions_app.projection import HEALTHY
from sessions_app.views import find_session, head, microseconds

RUNS = 500  # on a page
# Trees are remembered in a fixed number of places, whatever the cache behind: one of 20 000 runs takes 240 ms to make.
TREES = 8
NAMED = 6  # of the things that a run called, by name
CALLS = 100  # on a page
TOTALS = 100  # tools with a line of their own above the calls
CHOICES = 500  # in the list of a filter
KEPT = 500  # permissions, memory operations, tasks and observations, each
SCOPED = 20_000  # memory operations whose bytes are added up

# name in the address → (heading, column, first direction)
CALL_COLUMNS = {
    "number": ("#", "number", ""),
    "duration": ("Duration", "duration_ms", "-"),
}
_CALLED = {
    "event:tool_call": "tool",
    "event:subagent_call": "agent",
    "skill": "skill",
    "callback": "callback",
}


def _open(request, public_id: str) -> Session:
    session = find_session(request, public_id)
    audit.viewed(request, session)
    return session


# Runs ----------------------------------------------------------------------------------------------------------


@login_required
@require_GET
def session_runs(request, public_id: str):
    """The runs of agents as a tree, RUNS a page: ``?from=`` is the place of the first."""
    session = _open(request, public_id)
    query = pages.Params(request.GET)
    tree = _tree(session)
    found = tree["runs"]
    start = min((query.integer("from", 1, 1) or 1) - 1, max(0, len(found) - 1))
    shown = found[start : start + RUNS]
    _add_called(session, shown)
    context = {
        "session": session,
        "runs": shown,
        "above": _above(found, start),
        "first": start + 1,
        "last": start + len(shown),
        "in_tree": len(found),
        "total": tree["total"],
        "cut": tree["total"] > runs.MAX_RUNS,
        "missing": sum(run["missing"] for run in found),
        "earlier": max(1, start + 1 - RUNS) if start else 0,
        "later": start + 1 + RUNS if start + RUNS < len(found) else 0,
        **head(request, session, "session-runs"),
    }
    return render(request, "sessions/session_runs.html", context)


def _tree(session: Session) -> dict:
    """``runs.tree``, remembered while the session stays as it is."""
    if session.run_count <= RUNS:
        return runs.tree(session)
    place = f"runs:{session.pk % TREES}"
    known = cache.get(place)
    if not known or known[0] != outline.tag(session):
        known = (outline.tag(session), zlib.compress(msgspec.msgpack.encode(runs.tree(session)), 1))
        cache.set(place, known, outline.SECONDS)
    return msgspec.msgpack.decode(zlib.decompress(known[1]))


def _above(found: list[dict], start: int) -> list[dict]:
    """The callers of the run at place *start*, the root first."""
    above: list[dict] = []
    place = found[start]["parent"] if found else None
    while place is not None:
        above.insert(0, found[place])
        place = found[place]["parent"]
    return above


def _add_called(session: Session, shown: list[dict]) -> None:
    """Give each run ``called``: [{what, names, more}] of its tools, agents, skills and callbacks."""
    ids = [entry_id(session.pk, run["seq"]) for run in shown if run["seq"]]
    by_line: dict[tuple[int, int], dict[str, dict[str, int]]] = {}
    if ids:
        # The parts of a run have the numbers behind its own; runs that stand together were written together.
        parts = Event.objects.filter(id__range=(min(ids), max(ids) + 1000), kind__in=_CALLED)
        for dump, line, kind, tool, text in parts.values_list("dump_id", "line", "kind", "tool", "text"):
            names = by_line.setdefault((dump, line), {}).setdefault(_CALLED[kind], {})
            name = (tool or text)[:60] or "?"
            names[name] = names.get(name, 0) + 1
    lines: dict[int, tuple[int, int]] = {}
    for some in (ids[i : i + 500] for i in range(0, len(ids), 500)):
        lines.update({run.seq: (run.dump_id, run.line) for run in AgentRun.objects.filter(pk__in=some)})
    for run in shown:
        run["started_us"] = microseconds(run["started_at"])
        called = by_line.get(lines.get(run["seq"], (0, 0)), {})
        run["called"] = [
            {"what": what, "names": list(called[what].items())[:NAMED], "more": max(0, len(called[what]) - NAMED)}
            for what in _CALLED.values()
            if what in called
        ]
        run["indent"] = min(run["depth"], 12)


# Tool calls ----------------------------------------------------------------------------------------------------


@login_required
@require_GET
def session_tools(request, public_id: str):
    """The tool calls: ``?tool=&agent=&status=&failed=1&sort=&cursor=``, with totals of each tool."""
    session = _open(request, public_id)
    query = pages.Params(request.GET)
    made = ToolCall.objects.filter(id__range=id_range(session.pk))
    sort, failed = query.text("sort") or "number", query.flag("failed")
    chosen = {name: query.text(name) for name in ("tool", "agent", "status")}
    filtered = made.filter(**{name: word for name, word in chosen.items() if word})
    if failed is not None:
        filtered = filtered.filter(failed=failed)
    fields = {name: column for name, (_, column, _) in CALL_COLUMNS.items()}
    page = pages.keyset(filtered, sort, query.text("cursor"), CALLS, fields)
    totals = _totals(made)
    context = {
        "session": session,
        "calls": _marked(page.items),
        "totals": totals[:TOTALS],
        "totals_more": max(0, len(totals) - TOTALS),
        "chosen": chosen,
        "failed": failed,
        "filtered": failed is not None or any(chosen.values()),
        "matching": filtered.count(),
        "sort": sort,
        "columns": {name: _heading(name, sort) for name in CALL_COLUMNS},
        "choices": {
            "tool": sorted(session.tools)[:CHOICES],
            "agent": sorted(set(made.values_list("agent", flat=True).order_by("agent").distinct()[:CHOICES]) - {""}),
            "status": sorted(word for word in session.tool_statuses if word)[:CHOICES],
        },
        "most_choices": CHOICES,
        "next": page.next,
        "prev": page.prev,
        **head(request, session, "session-tools"),
    }
    return render(request, "sessions/session_tools.html", context)


def _totals(made: QuerySet) -> list[dict]:
    """What each tool comes to, the one called most first."""
    refused = Q(status__in=("denied", "blocked"))
    return list(
        made.values("tool")
        .annotate(
            number=Count("id"),
            failures=Count("id", filter=Q(failed=True) & ~refused),
            refused=Count("id", filter=refused),
            timed=Count("duration_ms"),
            ms=Sum("duration_ms"),
            longest=Max("duration_ms"),
        )
        .order_by("-number", "tool")
    )


def _heading(name: str, sort: str) -> dict:
    label, _, first = CALL_COLUMNS[name]
    now = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
    then = {"ascending": f"-{name}", "descending": name}.get(now, f"{first}{name}")
    return {"label": label, "now": now, "then": then}


def _marked(made: list[ToolCall]) -> list[dict]:
    """*made* as ``calls.rows`` has them, each with ``marks``: what in its chain a reviewer would want to know of."""
    rows = calls.rows(made)
    for row in rows:
        row["marks"] = list(_marks(row["chain"]))
        row["started_us"] = microseconds(row["started_at"])
        row["is_open"] = bool(row["chain"]) and all(step["stage"] != "result" for step in row["chain"])
    return rows


def _marks(chain: Iterable[dict]) -> Iterable[dict]:
    for step in chain:
        stage, status = step["stage"], step["status"]
        if stage in ("attempt", "result") or (stage == "loop" and status.lower() in HEALTHY):
            continue
        loud = status in ("deny", "denied", "block", "blocked")
        yield {**step, "loud": loud, "words": " ".join(filter(None, (stage, status or step["text"][:40])))}


# What a session kept -------------------------------------------------------------------------------------------


@login_required
@require_GET
def session_records(request, public_id: str):
    """Permissions and the grants in force, memory, tasks and observations of a session."""
    session = _open(request, public_id)
    permissions = [_permission(event) for event in _of_kind(session, "permission_request")[:KEPT]]
    memory = [_memory(event) for event in _of_kind(session, "memory_operation")[:KEPT]] if session.memory_count else []
    tasks, seen = runs.tasks(session), runs.observations(session)
    for one in (*tasks[:KEPT], *seen[:KEPT]):
        one["created_us"] = microseconds(one["created_at"])
    context = {
        "session": session,
        "permissions": permissions,
        "permission_count": session.kinds.get("permission_request", 0),
        "grants": [one for one in permissions if one["remembered"] and one["status"] == "allowed"],
        "memory": memory,
        "memory_count": session.kinds.get("memory_operation", 0),
        "scopes": _scopes(session),
        "scoped": SCOPED,
        "tasks": tasks[:KEPT],
        "task_count": len(tasks),
        "observations": seen[:KEPT],
        "observation_count": len(seen),
        **head(request, session, "session-records"),
    }
    return render(request, "sessions/session_records.html", context)


def _of_kind(session: Session, kind: str) -> QuerySet:
    if not session.kinds.get(kind):
        return Event.objects.none()
    return session.events.filter(kind=kind).order_by("sort_us", "dump_id", "line", "id")


def _extra(text: str) -> dict:
    found = peek(text.encode()) if text else {}
    return found if isinstance(found, dict) else {}


def _permission(event: Event) -> dict:
    extra = _extra(event.extra)
    return {
        "seq": event.seq, "at_us": event.at_us, "tool": event.tool, "status": event.status, "text": event.text,
        "action": extra.get("action") or "", "resource": extra.get("resource") or "",
        "remembered": extra.get("remember_for_session") is True,
    }  # fmt: skip


def _memory(event: Event) -> dict:
    extra = _extra(event.extra)
    return {
        "seq": event.seq, "at_us": event.at_us, "operation": event.status, "text": event.text,
        "title": extra.get("title") or "", "uri": extra.get("memory_uri") or "", "scope": extra.get("scope") or "",
        "size": _whole(extra.get("size_bytes")), "version": extra.get("version") or "",
    }  # fmt: skip


def _scopes(session: Session) -> list[dict]:
    """Memory by scope: operations and the bytes that they wrote, of the first SCOPED operations."""
    scopes: dict[str, dict] = {}
    for text in _of_kind(session, "memory_operation").values_list("extra", flat=True)[:SCOPED]:
        extra = _extra(text)
        scope = str(extra.get("scope") or "")
        line = scopes.setdefault(scope, {"scope": scope, "operations": 0, "bytes": 0})
        line["operations"] += 1
        line["bytes"] += _whole(extra.get("size_bytes")) or 0
    return sorted(scopes.values(), key=lambda line: -line["operations"])


def _whole(value) -> int | None:
    try:
        number = int(str(value))
    except ValueError:
        return None
    return number if 0 <= number < 2**60 else None
