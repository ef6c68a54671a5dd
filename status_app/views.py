"""Pages of status logs: the list; of one log the lanes of its agents, its feed, and the texts that its producer prints.

Whole without scripts: an open page asks again for the parts that change.
"""

from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import Http404
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.log import entry_id, id_range
from auditweb.teams import access, audit
from status_app import state, story, summary
from status_app.lanes import LEVELS
from status_app.models import StatusBus

PAGE = 50  # logs
FEED = 100  # entries
NEWS = story.MOST  # entries in one answer to a page that is open
RECENT = 10  # entries in the text that an agent would be given


def find_bus(request, public_id: str) -> StatusBus:
    """The log if the caller may see it; a foreign one is as missing as one that never was."""
    bus = StatusBus.objects.visible_to(request.user).select_related("team").filter(public_id=public_id).first()
    if bus is None:
        raise Http404("no such status log")
    return bus


@login_required
@require_GET
def status_list(request):
    """Status logs, newest first: ``?q=&team=&cursor=``; ``?fragment=1`` answers the table alone."""
    query = pages.Params(request.GET)
    text = query.text("q", 200)
    buses = StatusBus.objects.visible_to(request.user)
    if "team" in query:
        buses = buses.filter(team=access.team_of(request))
    if text:
        buses = buses.filter(Q(title__icontains=text) | Q(name__icontains=text))
    page = pages.keyset(buses.prefetch_related("dumps", "sessions"), "-id", query.text("cursor"), PAGE)
    for bus in page.items:
        bus.level_rows = level_rows(bus.levels)
        bus.running = state.of(bus.dumps.all())
    context = {
        "buses": page.items,
        "total": buses.count(),
        "q": text,
        "live_url": _with(request, fragment="1"),
        "next_url": _with(request, cursor=page.next) if page.next else "",
        "prev_url": _with(request, cursor=page.prev) if page.prev else "",
    }
    return render(request, "status/_list.html" if "fragment" in request.GET else "status/status_list.html", context)


@login_required
@require_GET
def status_detail(request, public_id: str):
    """One log, newest time first: ``?agent=&status=&q=&order=oldest&cursor=``, ``?at=<seq>`` begins with that entry.

    For a page that is open, ``?fragment=1&after=<seq>`` answers what was posted after that seq and what it changed,
    ``?fragment=state`` whether its producers run.
    """
    bus = find_bus(request, public_id)
    query = pages.Params(request.GET)
    dumps = list(bus.dumps.order_by("-id")[:PAGE])
    running, now = state.of(dumps), timezone.now()
    context = {"bus": bus, "dumps": dumps, "running": running}
    context |= {"may_be_cut": state.may_be_cut(dumps), "holes": state.holes(dumps)}
    fragment = query.text("fragment", 10)
    if fragment == "state":
        return render(request, "status/_state.html", context | {"state_url": _with(request, fragment="state")})
    entries = bus.entries.select_related("dump")
    agent, status, text = query.text("agent", 200), query.text("status", 200), query.text("q", 200)
    if agent:
        entries = entries.filter(agent=agent)
    if status:
        entries = entries.filter(status=status)
    if text:
        entries = entries.filter(Q(detail__icontains=text) | Q(action__icontains=text))
    oldest_first = query.word("order", ["oldest", "newest"]) == "oldest"
    shown, at = entries, query.integer("at", most=2**32 - 1)
    if at and (found := bus.entries.filter(pk=entry_id(bus.pk, at)).first()):
        beyond = "gte" if oldest_first else "lte"
        shown = entries.filter(**{f"sort_us__{beyond}": found.sort_us})
    is_fragment = query.flag("fragment") or False
    sort, cursor = "sort_us" if oldest_first else "-sort_us", "" if is_fragment else query.text("cursor")
    page = pages.keyset(shown, sort, cursor, FEED, fields=["sort_us"])
    news = []
    if is_fragment:
        # Not beyond what the counters of this answer count: the page would not ask for those again.
        first, last = id_range(bus.pk, query.integer("after", most=2**32 - 1) or 0, bus.last_seq)
        news = list(entries.filter(id__range=(first, last)).order_by("id")[:NEWS])
    whole = _with(request, at=None, agent=None, status=None, q=None, order=None)
    told = story.tell(bus, page.items, news, now if running.goes_on else None, whole)
    context |= {
        "level_rows": level_rows(bus.levels),
        "selected_status": status,
        "recent_text": _text(summary.without_end(summary.recent_text(bus, RECENT))),
        "now_ms": round(now.timestamp() * 1000),
        **told,
    }
    if is_fragment:
        context |= {"after": news[-1].seq if len(news) == NEWS else bus.last_seq, "more": len(news) == NEWS}
        return render(request, "status/_news.html", context)
    audit.viewed(request, bus)
    filtered = bool(agent or status or text)
    context |= {
        "matching": entries.count() if filtered else bus.entry_count,
        "filtered": filtered,
        "agent": agent,
        "status": status,
        "q": text,
        "at": at,
        "oldest_first": oldest_first,
        "agent_rows": sorted(bus.agents.items()),
        "sessions": bus.sessions.order_by("first_us", "id")[:PAGE],
        "summary_text": _text(summary.text(bus)),
        "recent": RECENT,
        # Only the page on which new entries belong takes them.
        "feed_url": _with(request) if not oldest_first and not at and "cursor" not in query else "",
        "state_url": _with(request, fragment="state"),
        "socket_url": f"/ws/status/{bus.public_id}/",
        "next_url": _with(request, cursor=page.next) if page.next else "",
        "prev_url": _with(request, cursor=page.prev) if page.prev else "",
    }
    return render(request, "status/status_detail.html", context)


def _text(pieces) -> str:
    return b"".join(pieces).decode()


def level_rows(levels: dict[str, int]) -> list[tuple[str, str, int]]:
    """(icon, word, entries) of a log's levels, the producers' five first, other words behind them."""
    known = [(icon, word, levels[word]) for word, icon in LEVELS.items() if levels.get(word)]
    other = [("", word, n) for word, n in sorted(levels.items()) if word not in LEVELS and n]
    return known + other


def _with(request, **changes) -> str:
    """This page's address with some parameters changed; None takes one out. The cursor never survives a change."""
    query = request.GET.copy()
    for name in ("cursor", "fragment", "after"):
        if name in query and not (name == "cursor" and "fragment" in changes):
            del query[name]
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = value
    return f"{request.path}?{query.urlencode()}" if query else request.path
