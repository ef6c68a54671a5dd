"""What the commands share that feed streams until they are told to stop."""

import signal
import threading
from collections.abc import Callable

from django.core.management.base import CommandError
from django.db import connection

from auditweb.dumps import jobs
from auditweb.formats.record import MAX_ID
from auditweb.teams.management.commands import _common
from auditweb.teams.models import Team

STOP_SECONDS = 5  # what is being stored is waited for so long; more would only be a database that is away


def team(slug: str) -> Team:
    """The team with this short name or id; the default one is made if need be. Raises CommandError."""
    if slug == "default":
        return Team.objects.get_or_create(slug=slug, defaults={"name": "Default"})[0]
    return _common.team(slug)


def check_options(zone: str = "", **keys: str) -> None:
    """Raise CommandError for a zone or a key that cannot be."""
    try:
        jobs.check_rules(zone, None, None)
    except ValueError as e:
        raise CommandError(str(e)) from None
    for name, key in keys.items():
        if len(key) > MAX_ID or not key.isprintable():
            raise CommandError(f"--{name} takes up to {MAX_ID} printable characters")


def until_told(work: Callable[[threading.Event], None]) -> None:
    """Run *work* until it returns, or until SIGTERM or SIGINT sets the event that it is given.

    It runs in a thread: a signal is not heard by one that waits for a locked SQLite. Raises what *work* raises.
    """
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work(stop)
        except BaseException as e:
            raised.append(e)
        finally:
            connection.close()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() and not stop.is_set():
        thread.join(0.5)
    thread.join(STOP_SECONDS)
    if raised:
        raise raised[0]
