"""Who else watches: the people behind open sockets, of all processes. Names only, for a minute at a time."""

import time

from django.db import transaction

from auditweb.live import bell
from auditweb.models import Watcher

LASTS_SECONDS = 60.0  # a process that was killed takes its people along after this
AGAIN_SECONDS = 20.0
MOST = 50  # names that are told of one log

CHANGED = {"type": "presence"}


def say(process: str, watched: dict[str, set[str]]) -> None:
    """*process* has these people (log key → names, maybe none) in front of it, and no others at these logs."""
    until = time.time() + LASTS_SECONDS
    with transaction.atomic():
        for key, names in watched.items():
            mine = Watcher.objects.filter(key=key, process=process)
            before = set(mine.values_list("name", flat=True))
            mine.exclude(name__in=names).delete()
            Watcher.objects.bulk_create(
                [Watcher(key=key, process=process, name=name, until=until) for name in names],
                update_conflicts=True,
                unique_fields=["key", "process", "name"],
                update_fields=["until"],
            )
            if before != names:
                bell.tell(key, CHANGED)
        Watcher.objects.filter(until__lt=time.time()).delete()


def of(keys: list[str]) -> dict[str, dict]:
    """Log key → what its readers are told: ``{people: [name, …]}``."""
    found: dict[str, set[str]] = {key: set() for key in keys}
    rows = Watcher.objects.filter(key__in=keys, until__gt=time.time())
    for key, name in rows.values_list("key", "name"):
        found[key].add(name)
    return {key: {"people": sorted(names)[:MOST]} for key, names in found.items()}
