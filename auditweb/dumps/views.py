"""Pages of dumps: the list, one dump with its quarantine, and what a member may do to it."""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlencode
from zoneinfo import available_timezones

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from auditweb import pages
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, Stamp, State
from auditweb.formats.clock import zone_of
from auditweb.formats.record import MAX_ID
from auditweb.teams import access, audit
from auditweb.templatetags.words import counted, size

PAGE = 50  # dumps
BAD_PAGE = 50  # lines of the quarantine
RAW_BYTES = 2000  # of one bad line on the page; the original has all
SESSIONS = 50  # found in one dump and shown there

FORMAT_WORDS = {
    "roomkit_session": "RoomKit session",
    "roomkit_tool": "RoomKit tool",
    "roomkit_status": "RoomKit status",
    "xerxes": "Xerxes",
    "af_run": "agent_framework run",
    "af_event": "agent_framework event",
    "unknown": "unknown kind",
}
CONTAINER_WORDS = {
    "gzip": "gzip archive",
    "zip": "zip archive",
    "array": "JSON array",
    "objects": "JSON objects over several lines or several on a line",
    "sequence": "JSON text sequence",
    "cr": "lines that end with carriage returns",
}
STAMPS = (("", "as its format says"), (Stamp.START, "its start"), (Stamp.END, "its end"))


def find_dump(request, public_id: str) -> Dump:
    """The dump if the caller may see it; a foreign one is as missing as one that never was."""
    visible = Dump.objects.visible_to(request.user).select_related("team", "created_by", "upload")
    dump = visible.filter(public_id=public_id).first()
    if dump is None:
        raise Http404("no such dump")
    return dump


@login_required
@require_GET
def dump_list(request):
    """Dumps, newest first: ``?state=&q=&team=&cursor=``; ``?fragment=1`` answers the table alone."""
    query = pages.Params(request.GET)
    state, text, cursor = query.word("state", State.values), query.text("q", 200), query.text("cursor")
    dumps = Dump.objects.visible_to(request.user)
    if "team" in query:
        dumps = dumps.filter(team=access.team_of(request))
    if state:
        dumps = dumps.filter(state=state)
    if text:
        dumps = dumps.filter(name__icontains=text)
    rows = dumps.select_related("created_by").prefetch_related("sessions", "status_buses")
    page = pages.keyset(rows, "-id", cursor, PAGE)
    context = {
        "dumps": page.items,
        "total": dumps.count(),
        "state": state,
        "states": State.values,
        "q": text,
        "filtered": bool(state or text),
        "live_url": _with(request, fragment="1"),
        "next_url": _with(request, cursor=page.next) if page.next else "",
        "prev_url": _with(request, cursor=page.prev) if page.prev else "",
    }
    return render(request, "dumps/_list.html" if "fragment" in request.GET else "dumps/dump_list.html", context)


@login_required
@require_GET
def dump_detail(request, public_id: str):
    """One dump; ``?bad=<line>`` shows the quarantine after that line, ``?fragment=1`` answers the live parts alone."""
    dump = find_dump(request, public_id)
    if "fragment" not in request.GET:
        audit.viewed(request, dump)
    return _detail(request, dump)


def _detail(request, dump: Dump, status: int = 200, **extra):
    sessions = list(dump.sessions.order_by("first_us", "id")[: SESSIONS + 1])
    left = dump.sessions.count() - SESSIONS if len(sessions) > SESSIONS else 0
    after = pages.Params(request.GET).integer("bad") or 0
    bad_lines = _quarantine(dump, after)
    may_change = access.may(request, dump.team, "upload")
    took = dump.finished_at - dump.started_at if dump.finished_at and dump.started_at else None
    context = {
        "dump": dump,
        "records": [(FORMAT_WORDS.get(name, name), n) for name, n in sorted(dump.records.items()) if n],
        "sessions": sessions[:SESSIONS],
        "sessions_left": left,
        "buses": dump.status_buses.order_by("id"),
        "took": took.total_seconds() if took is not None else None,
        "bad_lines": bad_lines,
        "bad_first": bad_lines[0].line if bad_lines else None,
        "bad_last": bad_lines[-1].line if bad_lines else None,
        "bad_next_url": _more_bad(request, dump, bad_lines),
        "bad_first_url": _with(request, bad=None) if after else "",
        "may_change": may_change,
        "may_retry": may_change and dump.state in (State.FAILED, State.CANCELLED),
        "zones": zone_names() if may_change and not dump.active else (),
        "stamps": STAMPS,
        "members": [one for one in store.members(dump) if one.pk != dump.pk] if dump.member is not None else [],
        "skipped": dump.upload.skipped if dump.upload else [],
        "container": [CONTAINER_WORDS[word] for word in dump.container.split()],
        "received_bytes": store.received_size(dump),
        "grew": list(dump.earlier_uploads.order_by("size")),
        "original_url": f"/api/v1/dumps/{dump.public_id}/original",
        "live_url": _with(request, fragment="1"),
        **extra,
    }
    template = "dumps/_fragment.html" if "fragment" in request.GET else "dumps/dump_detail.html"
    return render(request, template, context, status=status)


class Quarantined(NamedTuple):
    """A bad line as its row shows it: ``raw`` has at most RAW_BYTES, ``exact`` is its text as JSON (to copy)."""

    line: int
    offset: int
    size: int
    reason: str
    raw: bytes
    exact: str

    @property
    def cut(self) -> bool:
        return self.size > RAW_BYTES


def _quarantine(dump: Dump, after: int) -> list[Quarantined]:
    """Up to BAD_PAGE bad lines behind line *after*, in file order."""
    rows = []
    for bad in dump.bad_lines.filter(line__gt=after).order_by("line")[:BAD_PAGE]:
        raw = store.read(dump, bad.offset, min(bad.size, RAW_BYTES)).removesuffix(b"\n")
        exact = json.dumps(raw.decode("utf-8", "replace"))
        rows.append(Quarantined(bad.line, bad.offset, bad.size, bad.reason, raw, exact))
    return rows


def _more_bad(request, dump: Dump, bad_lines: list[Quarantined]) -> str:
    if len(bad_lines) < BAD_PAGE or not dump.bad_lines.filter(line__gt=bad_lines[-1].line).exists():
        return ""
    return _with(request, bad=bad_lines[-1].line)


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """Zones by place (Europe/Paris), for a list to choose from."""
    return tuple(sorted(name for name in available_timezones() if re.match(r"(?!Etc|SystemV|US/)[A-Z]\w+/", name)))


@login_required
@require_POST
def dump_zone(request, public_id: str):
    """Tell how times are read: ``zone=Europe/Paris`` (empty = as the file itself shows), ``offset_ms=``, ``stamp=``.
    What is not in the form stays as it is."""
    dump = _to_change(request, public_id)
    try:
        rules = _rules(request, dump)
        with transaction.atomic():
            jobs.tell(dump, **rules)
            audit.record(request, "change", dump, **rules)
    except (ValueError, store.Refused) as e:
        return _detail(request, dump, status=400, **_refused(request, e))
    messages.success(request, "The events of this dump were placed in time again.")
    return redirect(_address("dump-detail", request, dump))


@login_required
@require_POST
def dump_reimport(request, public_id: str):
    """Forget what came from the dump and import it again; the form has what ``dump_zone`` takes, and ``session=`` and
    ``join=``."""
    dump = _to_change(request, public_id)
    try:
        rules = _rules(request, dump) | {"join": "join" in request.POST}
        if "session" in request.POST:
            rules["session"] = request.POST["session"].strip()[:MAX_ID]
        with transaction.atomic():
            jobs.reimport(dump, **rules)
            audit.record(request, "reimport", dump, **rules)
    except (ValueError, store.Refused) as e:
        return _detail(request, dump, status=400, **_refused(request, e))
    messages.success(request, f"{dump.name} is imported again.")
    return redirect(_address("dump-detail", request, dump))


def _rules(request, dump: Dump) -> dict:
    """What a form says about times, as ``jobs.tell`` takes it. Raises ValueError."""
    rules: dict = {name: request.POST[name].strip()[:60] for name in ("zone", "stamp") if name in request.POST}
    if rules.get("zone") == dump.zone:
        del rules["zone"]  # nobody touched that field: what was inferred stays inferred
    if offset := request.POST.get("offset_ms", "").strip():
        try:
            rules["offset_ms"] = int(offset)
        except ValueError:
            raise ValueError("the offset is a whole number of milliseconds") from None
    return rules


def _refused(request, error: Exception) -> dict:
    """What the page of a dump says when a form of it was refused."""
    zone = request.POST.get("zone", "").strip()
    try:
        zone_of(zone)
        wrong = "offset_ms" if isinstance(error, ValueError) else ""
    except ValueError:
        wrong = "zone"
    typed = {"zone_typed": zone, "offset_typed": request.POST.get("offset_ms", "")}
    return {"rules_error": _sentence(error), "wrong": wrong, **typed}


@login_required
@require_POST
def dump_anyway(request, public_id: str):
    """Import what could be read of a damaged archive."""
    refusal = "This dump is no damaged archive that waits to be imported."
    return _change(request, public_id, "import anyway", jobs.import_anyway, refusal)


@login_required
@require_POST
def dump_bad_lines(request, public_id: str):
    """Read the lines of the quarantine once more."""
    dump = _to_change(request, public_id)
    try:
        with transaction.atomic():
            read = jobs.retry_bad_lines(dump)
            audit.record(request, "retry", dump, lines=read)
    except store.Refused as e:
        messages.info(request, _sentence(e))
    else:
        if read:
            messages.success(request, f"{counted(read, 'line')} could be read now.")
        else:
            messages.info(request, "None of these lines can be read by this version either.")
    return redirect(_address("dump-detail", request, dump))


@login_required
@require_POST
def dump_cancel(request, public_id: str):
    """Stop receiving or importing; what was imported stays."""
    return _change(request, public_id, "cancel", jobs.cancel, "There was nothing left to cancel.")


@login_required
@require_POST
def dump_retry(request, public_id: str):
    """Go on with a dump that failed or was cancelled."""
    refusal = "This dump neither failed nor was cancelled, so there is nothing to try again."
    return _change(request, public_id, "retry", jobs.retry, refusal)


def _change(request, public_id: str, what: str, act: Callable[[Dump], bool], refusal: str):
    """Do *act* to a dump and record it as *what*, or say *refusal*; back to its page."""
    dump = _to_change(request, public_id)
    with transaction.atomic():
        done = act(dump)
        if done:
            audit.record(request, what, dump)
    if not done:
        messages.info(request, refusal)
    return redirect(_address("dump-detail", request, dump))


@login_required
@require_http_methods(["GET", "POST"])
def dump_delete(request, public_id: str):
    """Says what will be gone, and deletes once the name of the dump was typed."""
    dump = _to_change(request, public_id)
    typed, error = "", ""
    if request.method == "POST":
        typed = request.POST.get("name", "")
        if typed.strip() == dump.name.strip():
            with transaction.atomic():
                audit.record(request, "delete", dump, sha256=dump.sha256, lines=dump.lines, events=dump.events)
                jobs.delete(dump)
            messages.success(request, f"{dump.name} ({size(dump.size)}) was deleted.")
            return redirect(_address("dump-list", request))
        error = "That is not the name of this dump. Nothing was deleted."
    sessions, buses = _only_and_shared(dump.sessions), _only_and_shared(dump.status_buses)
    context = {
        "dump": dump,
        "gone_sessions": sessions[0][:SESSIONS],
        "more_sessions": max(0, len(sessions[0]) - SESSIONS),
        "gone_buses": buses[0],
        "kept": sessions[1] + buses[1],
        "typed": typed,
        "error": error,
    }
    return render(request, "dumps/dump_delete.html", context, status=400 if error else 200)


def _only_and_shared(logs) -> tuple[list, list]:
    """Logs that this dump alone feeds, and logs that others feed too."""
    model = logs.model
    counted = model.objects.filter(pk__in=logs.values("pk")).annotate(feeders=Count("dumps")).order_by("id")
    return [log for log in counted if log.feeders == 1], [log for log in counted if log.feeders > 1]


def _to_change(request, public_id: str) -> Dump:
    dump = find_dump(request, public_id)
    access.require(request, dump.team, "upload")
    return dump


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _with(request, **changes) -> str:
    """This page's address with some parameters changed; None takes one out. The cursor never survives a change."""
    query = request.GET.copy()
    if "fragment" not in changes:
        query.pop("cursor", None)
        query.pop("fragment", None)
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = value
    return f"{request.path}?{query.urlencode()}" if query else request.path


def _address(name: str, request, dump: Dump | None = None) -> str:
    """The address of a page of this app, in the team that the person is looking at."""
    address = reverse(name, args=[dump.public_id] if dump else [])
    team = request.GET.get("team")
    return f"{address}?{urlencode({'team': team})}" if team else address
