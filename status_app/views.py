"""Pages of status logs: the list, and the feed of one log with its filters and the texts that its producer prints."""

from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import Http404
from django.shortcuts import render
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.log import id_range
from auditweb.teams import access, audit
from status_app import summary
from status_app.models import StatusBus

PAGE = 50  # logs
FEED = 100  # entries
NEWS = 200  # entries in one answer to a page that is open
RECENT = 10  # entries in the text that an agent would be given
SHORT = 5000  # entries whose raw lines are read for a text while somebody waits; longer logs show a link

# The five levels of the producers: icon (theirs) and word. Any other word is shown as it is.
LEVELS = {"ok": "+", "failed": "x", "pending": "?", "info": "~", "completed": "*"}


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
    """The feed of one log, newest time first: ``?agent=&status=&q=&order=oldest&cursor=``.

    ``?after=<seq>&fragment=1`` answers what was posted after that seq, for a page that is open.
    """
    bus = find_bus(request, public_id)
    query = pages.Params(request.GET)
    entries = bus.entries.select_related("dump")
    agent, status, text = query.text("agent", 200), query.text("status", 200), query.text("q", 200)
    if agent:
        entries = entries.filter(agent=agent)
    if status:
        entries = entries.filter(status=status)
    if text:
        entries = entries.filter(Q(detail__icontains=text) | Q(action__icontains=text))
    context = {"bus": bus, "level_rows": level_rows(bus.levels), "selected_status": status}
    if query.flag("fragment"):
        first, last = id_range(bus.pk, after=query.integer("after", most=2**32 - 1) or 0)
        news = list(entries.filter(id__range=(first, last)).order_by("id")[:NEWS])
        context |= {
            "entries": decorate(news),
            "after": news[-1].seq if len(news) == NEWS else bus.last_seq,
            "more": len(news) == NEWS,
        }
        return render(request, "status/_news.html", context)
    audit.viewed(request, bus)
    oldest_first = query.word("order", ["oldest", "newest"]) == "oldest"
    page = pages.keyset(
        entries, "sort_us" if oldest_first else "-sort_us", query.text("cursor"), FEED, fields=["sort_us"]
    )
    filtered = bool(agent or status or text)
    context |= {
        "entries": decorate(page.items),
        "matching": entries.count() if filtered else bus.entry_count,
        "filtered": filtered,
        "agent": agent,
        "status": status,
        "q": text,
        "oldest_first": oldest_first,
        "agent_rows": sorted(bus.agents.items()),
        "dumps": bus.dumps.order_by("-id")[:PAGE],
        "sessions": bus.sessions.order_by("first_us", "id")[:PAGE],
        "summary_text": _text(summary.text(bus)) if bus.entry_count <= SHORT else None,
        "recent_text": _text(summary.recent_text(bus, RECENT)) if bus.entry_count <= SHORT else None,
        "text_url": f"/api/v1/status/{bus.public_id}",
        "recent": RECENT,
        # Only the page on which new entries belong takes them.
        "feed_url": _with(request) if not oldest_first and "cursor" not in query else "",
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


def decorate(entries: list) -> list:
    """Entries with what the template says of each: ``icon``, ``css`` and whether its time is only assumed."""
    for entry in entries:
        entry.icon = LEVELS.get(entry.status, "·")
        entry.css = entry.status if entry.status in LEVELS else "other"
    return entries


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
