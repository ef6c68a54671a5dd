"""The latest posts to the status logs of some teams, remembered between two looks: what stands beside the Live wall."""

import time
from collections.abc import Collection

from django.urls import reverse

from status_app import feed
from status_app.models import StatusBus

POSTS = 20  # shown
BUSES = 20  # logs of one team whose last posts are compared
BUSES_SECONDS = 10  # between two looks for other logs than those known; a post to a new one rings
DETAIL = 300  # characters

_FIELDS = ("id", "team_id", "public_id", "name", "title", "last_seq", "revision", "updated_at")
_SHOWN = ("seq", "ts", "at", "agent_id", "action", "status")


class Latest:
    """The latest posts of the status logs of some teams, as of the last look."""

    def __init__(self):
        # primary key → its row, with its latest posts as "posts"; a look leaves another one behind
        self._buses: dict[int, dict] = {}
        self._looked: dict[int, float] = {}  # team → monotonic seconds of the last look for logs that are not known

    def look(self, teams: Collection[int], keys: Collection[int] | None = None) -> set[int]:
        """Look at the logs with these primary keys, by default at all of *teams*; the teams with news."""
        buses = {pk: bus for pk, bus in self._buses.items() if bus["team_id"] in teams}
        asked = set(buses if keys is None else keys)
        if keys is None:
            now = time.monotonic()
            before, self._looked = self._looked, {team: self._looked.get(team, now) for team in teams}
            for team in teams:
                if team not in before or now - before[team] >= BUSES_SECONDS:
                    self._looked[team] = now
                    newest = StatusBus.objects.filter(team=team).order_by("-updated_at", "-pk")
                    asked.update(newest.values_list("pk", flat=True)[:BUSES])
        rows = {row["id"]: row for row in StatusBus.objects.filter(pk__in=asked, team__in=teams).values(*_FIELDS)}
        news = {buses.pop(pk)["team_id"] for pk in (asked & buses.keys()) - rows.keys()}
        for pk, row in rows.items():
            known = buses.get(pk)
            if known and (known["last_seq"], known["revision"]) == (row["last_seq"], row["revision"]):
                continue
            buses[pk] = row | {"posts": feed.rows_after(pk, max(0, row["last_seq"] - POSTS), POSTS)}
            news.add(row["team_id"])
        for team in news:
            of_team = [bus for bus in buses.values() if bus["team_id"] == team]
            for bus in sorted(of_team, key=lambda bus: bus["updated_at"])[:-BUSES]:
                del buses[bus["id"]]
        self._buses = buses
        return news

    def of(self, teams: Collection[int]) -> list[dict]:
        """The latest posts of *teams*, newest first: ``{seq, ts, at, agent_id, action, status, detail, bus}``.

        As in feed.py, with the detail cut; ``bus`` is ``{id, title, url}``.
        """
        found = []
        for bus in self._buses.values():
            if bus["team_id"] in teams:
                url = reverse("status-detail", args=[bus["public_id"]])
                named = {"id": bus["public_id"], "title": bus["title"] or bus["name"], "url": url}
                for post in bus["posts"]:
                    said = {"detail": post["detail"][:DETAIL], "bus": named}
                    found.append({name: post[name] for name in _SHOWN} | said)
        found.sort(key=lambda post: (post["at"] or "", post["seq"]), reverse=True)
        return found[:POSTS]
