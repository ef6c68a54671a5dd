"""Pages of many sessions: the list, the search in all events, loading and removing the demo. Whole without scripts."""

import hashlib
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpResponse, HttpResponseNotModified
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from auditweb import pages
from auditweb.dumps import jobs, store
from auditweb.teams import access, audit
from auditweb.teams.models import Team
from sessions_app import demo, fulltext, search, terms
from sessions_app.fulltext import TRIED
from sessions_app.lists import Listing
from sessions_app.models import Session
from sessions_app.views import address_with, microseconds

PAGE = 50  # sessions

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


@login_required
@require_GET
def session_list(request):
    """Sessions: ``?q=&live=1&sort=-started&team=&cursor=``; ``?fragment=rows`` answers the table alone, by ETag."""
    query = pages.Params(request.GET)
    words, sort, live = query.text("q"), query.text("sort") or "-updated", query.flag("live")
    teams = _teams(request)
    listing = Listing(teams, terms.parse(words), live=live)
    page = listing.page(sort, query.text("cursor"), PAGE)
    total = listing.total(most=False)
    first = query.integer("n", 1, 1) or 1
    context = {
        "sessions": page.items,
        "total": total,
        "first": first,
        "last": first + len(page.items) - 1,
        "tried": listing.tried and TRIED,
        "q": words,
        "live": live,
        "sort": sort,
        "live_count": Session.objects.filter(team__in=teams, live=True).count(),
        "failing_count": fulltext.count_facet(teams, "has", "error"),
        "columns": [_heading(name, sort) for name in COLUMNS],
        "filtered": bool(words or live is not None),
        "rows_url": address_with(request, fragment="rows"),
        "next_url": address_with(request, cursor=page.next, n=first + len(page.items)) if page.next else "",
        "prev_url": address_with(request, cursor=page.prev, n=max(1, first - PAGE)) if page.prev else "",
    }
    if request.GET.get("fragment") != "rows":
        return render(request, "sessions/session_list.html", context)
    text = render_to_string("sessions/_list.html", context, request)
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    if request.headers.get("If-None-Match") == etag:
        return HttpResponseNotModified(headers={"ETag": etag})
    return HttpResponse(text, headers={"ETag": etag})


def _teams(request) -> list[int]:
    """The team named in the address, else all teams of the caller (their primary keys)."""
    if "team" in request.GET:
        return [access.team_of(request).pk]
    return list(access.teams_of(request.user).values_list("pk", flat=True))


def _heading(name: str, sort: str) -> dict:
    label, _, first = COLUMNS[name]
    now = {name: "ascending", f"-{name}": "descending"}.get(sort, "")
    then = {"ascending": f"-{name}", "descending": name}.get(now, f"{first}{name}")
    return {"name": name, "label": label, "now": now, "then": then}


@login_required
@require_GET
def search_events(request):
    """Events of all sessions that have the words: ``?q=&team=&cursor=``, newest session first."""
    query = pages.Params(request.GET)
    words, cursor = query.text("q"), query.text("cursor")
    teams = _teams(request)
    context = {"q": words, "items": [], "next_url": "", "first_url": "", "tried": None}
    if words:
        found = search.events(teams, words, cursor)
        note_search(request, teams, words, cursor)
        context |= {
            "items": [
                item | {"pieces": search.pieces(item), "at_us": microseconds(item["at"])} for item in found["items"]
            ],
            "next_url": address_with(request, cursor=found["next"]) if found["next"] else "",
            "first_url": address_with(request, cursor=None) if cursor else "",
            "tried": found["tried"],
        }
    return render(request, "sessions/search.html", context)


def note_search(request, teams: list[int], words: str, cursor: str) -> None:
    """Record that the caller searched the events of *teams*: once a search, not for each of its pages.

    What was looked for stays out: it is words of transcripts.
    """
    if cursor:
        return
    asked = terms.parse(words)
    with transaction.atomic():
        for team in Team.objects.filter(pk__in=teams):
            audit.record(
                request, "search", team=team, words=len(asked.words), fields=sorted({t.field for t in asked.fields})
            )


# The demo ------------------------------------------------------------------------------------------------------


@login_required
@require_POST
def demo_load(request):
    """Load the demo sessions into ``team``; a worker imports them."""
    team = _team_to_fill(request)
    try:
        dumps = demo.load(team, request)
    except store.Refused as e:
        messages.error(request, f"The demo sessions were not loaded: {e}.")
    else:
        for dump in dumps:
            jobs.wake(dump)
        if not dumps:
            messages.info(request, "The demo sessions are there already.")
    return redirect(_list_of(request, team))


@login_required
@require_POST
def demo_remove(request):
    """Remove the demo sessions of ``team``; what the team brought in itself stays."""
    team = _team_to_fill(request)
    if demo.remove(team, request):
        messages.success(request, "The demo sessions were removed.")
    else:
        messages.info(request, "There are no demo sessions to remove.")
    return redirect(_list_of(request, team))


def _team_to_fill(request) -> Team:
    team = access.team_of(request, request.POST.get("team"))
    access.require(request, team, "upload")
    return team


def _list_of(request, team: Team) -> str:
    """The address of the list, in *team* when the person has several."""
    address = reverse("session-list")
    return f"{address}?{urlencode({'team': team.slug})}" if access.teams_of(request.user).count() > 1 else address
