"""How fast lists are sorted, filtered and searched, and events found, in 100,000 sessions with 1,000,000 events.

``python bench/searching.py``: in the database of the settings, filled by ``bench/big_database.py``, through the views
that people and programs ask (a test client, so without the network). Beside each the bare query that it comes down to.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 5


def median_ms(run, repeats: int = REPEATS) -> tuple[float, float]:
    """(median, slowest) milliseconds of *run*, called once before to open what is opened once."""
    run()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        taken.append((time.perf_counter() - begin) * 1000)
    return statistics.median(taken), max(taken)


def words() -> dict[str, str]:
    """name → a word of that frequency."""
    from bench.big_database import vocabulary

    known = vocabulary()
    return {"in 19 of 20 events": known[0], "common": known[50], "middling": known[1000], "rare": known[20_000],
            "nowhere": "zzzzzzzzzz", "beginning": known[300][:3]}  # fmt: skip


def lists(client) -> dict[str, tuple[float, float]]:
    """G11: what a page of 50 of the list takes, for every sort and filter."""
    from sessions_app.lists import SORTS

    asked = {f"sort {sign}{name}": {"sort": f"{sign}{name}"} for name in SORTS for sign in ("", "-")}
    filters = {
        "agent": {"agent": "planner"}, "tool": {"tool": "search_3"}, "status": {"status": "failed"},
        "live": {"live": "1"}, "not live": {"live": "0"}, "has error": {"has": "error"},
        "has tool": {"has": "tool"}, "from": {"from": "2026-06-01"}, "from, rare": {"from": "2026-10-26T12:00:00Z"},
    }  # fmt: skip
    for name, query in filters.items():
        for sort in ("-updated", "failures", "title", "-duration"):
            asked[f"{name}, {sort}"] = query | {"sort": sort}
    for name, word in words().items():
        for sort in ("-updated", "failures", "title"):
            asked[f"word {name}, {sort}"] = {"q": word, "sort": sort}
    asked["agent, has error and a common word"] = {"q": f"agent:planner has:error {words()['common']}"}
    asked["without a common word"] = {"q": f"-{words()['common']}"}
    return {name: median_ms(lambda q=query: _get(client, "/api/v1/sessions/", q)) for name, query in asked.items()}


def search(client) -> dict[str, tuple[float, float]]:
    """G10: the newest 50 events of all that have a word."""
    asked = {name: {"q": word} for name, word in words().items()}
    common = words()["common"]
    frequent = words()["in 19 of 20 events"]
    asked |= {
        "two words": {"q": f"{frequent} {common}"},
        "a kind": {"q": "kind:error"},
        "a word of a kind": {"q": f"kind:barge_in {common}"},
        "a quotation": {"q": f'"{common} {frequent}"'},
    }
    return {name: median_ms(lambda q=query: _get(client, "/api/v1/search/", q)) for name, query in asked.items()}


def in_session(client, session) -> dict[str, tuple[float, float]]:
    """G10: find in the session of 100,000 events: the first page of rows, and the places of all matches."""
    base = f"/api/v1/sessions/{session.public_id}/"
    taken = {}
    for name, word in words().items():
        taken[f"{name}, 200 rows"] = median_ms(lambda w=word: _get(client, base + "timeline", {"q": w, "limit": 200}))
        taken[f"{name}, all places"] = median_ms(lambda w=word: _get(client, base + "matches", {"q": w}))
    return taken


def bare(session) -> dict[str, tuple[float, float]]:
    """The yardsticks: the index alone, asked by hand."""
    from sessions_app import fulltext, terms

    teams = [session.team_id]
    return {name: median_ms(lambda w=word: fulltext.find(terms.parse(w), teams, 50)) for name, word in words().items()}


def _get(client, path: str, query: dict) -> None:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content


def signed_in(team):
    """A client of somebody who may read *team*."""
    from django.conf import settings
    from django.test import Client

    from auditweb.teams.models import Membership, Role, User

    settings.ALLOWED_HOSTS = ["testserver"]
    settings.RATES = dict.fromkeys(settings.RATES, 0)
    user, _ = User.objects.get_or_create(username="bench", defaults={"email": "bench@example.org"})
    Membership.objects.get_or_create(team=team, user=user, defaults={"role": Role.OWNER})
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "auditweb.settings"
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    from auditweb.teams.models import Team
    from sessions_app.models import Session

    team = Team.objects.get(slug="bench")
    session = Session.objects.filter(team=team).order_by("-event_count").first()
    client = signed_in(team)
    for title, taken in (
        ("the index alone", bare(session)),
        ("search in all events", search(client)),
        ("find in a session", in_session(client, session)),
        ("lists", lists(client)),
    ):
        print(title)
        for name, (median, slowest) in taken.items():
            print(f"  {name:45} {median:8.1f} ms   slowest {slowest:8.1f}")


if __name__ == "__main__":
    main()
