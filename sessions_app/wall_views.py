"""The page of the Live wall: whole without scripts; live_wall.js keeps it up to date."""

import time

from django.contrib.auth.decorators import login_required
from django.shortcuts import render
from django.views.decorators.http import require_GET

from auditweb import pages
from auditweb.teams import access
from auditweb.templatetags.words import duration
from sessions_app.templatetags.timeline import ICONS, visible
from sessions_app.views import microseconds
from sessions_app.wall import CARDS, Wall
from status_app.latest import Latest


@login_required
@require_GET
def live_wall(request):
    """Running sessions, those that began first in front: ``?team=``; ``?fragment=count`` answers their number alone."""
    if pages.Params(request.GET).word("fragment", ("count",)):
        return render(request, "sessions/_running.html")
    teams = set(access.teams_of(request.user).values_list("pk", flat=True))
    if "team" in request.GET:
        teams = {access.team_of(request).pk}
    wall, latest = Wall(), Latest()
    wall.look(teams)
    latest.look(teams)
    running = wall.count(teams)
    context = {
        "cards": [_card(card.fields) for card in wall.of(teams)],
        "running": running,
        "cut": running > CARDS,
        "posts": [_post(post) for post in latest.of(teams)],
    }
    return render(request, "sessions/live.html", context)


def _card(fields: dict) -> dict:
    """What a card says, in the words of wall_card.js."""
    phase = next((word for word in ("stale", "quiet") if fields[word]), "live")
    now_us = time.time_ns() // 1000
    line_us, heard_us = microseconds(fields["last_line_at"]), microseconds(fields["heard_at"])
    began_us = (microseconds(fields["started_at"]) or now_us) + fields["clock_ms"] * 1000
    silence = ""
    if phase == "stale" and heard_us:
        silence = f"nothing heard for {_span(now_us - heard_us)}"
    elif phase == "quiet" and line_us:
        silence = f"no line for {_span(now_us - line_us)}"
    return fields | {
        "phase": phase,
        "silence": silence,
        "elapsed": _span((heard_us or now_us) - began_us),
        "last_text": visible(fields["last_text"]),
        "agents": ", ".join(fields["agents"]),
    }


def _span(us: int) -> str:
    seconds = max(0, us // 1_000_000)
    return f"{seconds} s" if seconds < 10 else duration(seconds)  # it ticks: no tenths


def _post(post: dict) -> dict:
    word = post["status"]
    return post | {
        "icon": ICONS.get(word, "·"),
        "css": word if word in ICONS else "other",
        "at_us": microseconds(post["at"]),
    }
