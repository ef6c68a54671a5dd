"""The demo: invented sessions of every format that a team can load, look around in and throw away again.

They are bytes that come in as any upload does. What tells them from the team's own dumps is ``Team.demo``: the public
ids and SHA-256 of the dumps that were loaded, or an empty list once they were removed. A team that never saw the demo
has nothing there. A call that is played live is a stream whose name begins with ``PLAYED``.
"""

import logging
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump
from auditweb.teams import audit
from auditweb.teams.links import FIRST_TEAM
from auditweb.teams.models import Team
from sessions_app.demo import stories

logger = logging.getLogger(__name__)

PLAYED = "demo-live-"  # how the streams of calls that ``demo --live`` plays are called


def load(team: Team, actor=None, now: datetime | None = None) -> list[Dump]:
    """Store the demo in *team*; its dumps, which wait for their import, the oldest story first.

    A team that has the demo keeps the one it has: the answer is then []. The stories happened in the days before *now*
    (default: this moment). *actor*: as in ``audit.record``. Raises store.Refused when dumps may not be that large.
    """
    with transaction.atomic():
        team = _locked(team)
        if _present(team):
            return []
        loaded = [_store(team, story, actor) for story in stories.tell_all(now or timezone.now())]
        mine = [dump for dump, duplicate in loaded if not duplicate]
        team.demo = {"dumps": {dump.public_id: dump.sha256 for dump in mine}}
        team.save(update_fields=["demo"])
        audit.record(actor, "load_demo", team, dumps=len(mine))
    return mine


def remove(team: Team, actor=None) -> int:
    """Remove the demo from *team*, calls that were played live too, with all that came from it; how many dumps.

    A dump to which somebody added lines of their own since is no longer the demo's, and stays.
    """
    with transaction.atomic():
        team = _locked(team)
        dumps = [*_present(team), *_played(team)]
        for dump in dumps:
            jobs.delete(dump)
        if dumps or team.demo.get("dumps"):
            team.demo = {"dumps": {}}
            team.save(update_fields=["demo"])
        if dumps:
            audit.record(actor, "remove_demo", team, dumps=len(dumps))
    return len(dumps)


def is_in(team: Team) -> bool:
    """Whether *team* has anything that ``remove`` would remove."""
    return bool(team.demo.get("dumps")) or _played(team).exists()


def welcome() -> None:
    """On the first start of an embedded server: load the demo into the first team and wake a worker.

    Nothing happens when ``AUDITWEB_DEMO`` is off, when anything was imported before or when the demo was removed. A
    fault is logged: nobody shall be without a server because of a demo.
    """
    if not (settings.DEMO and settings.SQLITE):
        return
    team = Team.objects.filter(slug=FIRST_TEAM, demo={}).first()
    if team is None or Dump.objects.exists():
        return
    try:
        for dump in load(team):
            jobs.wake(dump)
    except Exception:
        logger.exception("the demo sessions could not be loaded")


def _locked(team: Team) -> Team:
    return Team.objects.select_for_update(no_key=True).get(pk=team.pk)


def _present(team: Team) -> list[Dump]:
    """The dumps of the demo that *team* still has as they were loaded."""
    loaded = team.demo.get("dumps", {})
    dumps = Dump.objects.filter(team=team, public_id__in=list(loaded)).order_by("pk")
    return [dump for dump in dumps if dump.sha256 == loaded[dump.public_id]]


def _played(team: Team) -> QuerySet[Dump]:
    """The calls that were played live into *team*, or are being played."""
    return Dump.objects.filter(team=team, stream__gte=PLAYED, stream__lt=f"{PLAYED}~")


def _store(team: Team, story: stories.Dump, actor) -> tuple[Dump, bool]:
    """The dump with the bytes of *story*, and whether the team had uploaded the same ones by itself."""
    user = getattr(actor, "user", actor)
    dump = store.begin(team, story.name, len(story.content), user=user, bus_name=story.bus)
    store.append_bytes(dump, 0, story.content)
    dump, duplicate, *_ = store.finish(dump)
    return dump, duplicate
