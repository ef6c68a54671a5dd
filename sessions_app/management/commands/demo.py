"""``manage.py demo``: load the demo sessions into a team, play one live, or remove them."""

import math
import signal
import time
import urllib.error
import urllib.request
from argparse import ArgumentTypeError
from itertools import count
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError

from auditweb import whereabouts
from auditweb.checks import is_local
from auditweb.console import DataCommand
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, State
from auditweb.teams import keys
from auditweb.teams.models import Team
from sessions_app import demo
from sessions_app.demo import live
from sessions_app.demo.producer import Refused

WAIT_SECONDS = 0.2  # between two looks at an import that a worker does
PAUSE_SECONDS = 5.0  # between two calls


class Command(DataCommand):
    help = (
        "Load invented sessions of every format, each marked as demo. --live plays a call in real time into a running "
        "site; --remove takes all of them away again."
    )

    def add_arguments(self, parser):
        parser.add_argument("--team", default="default", help="slug of the team (default: default)")
        parser.add_argument("--remove", action="store_true", help="remove the demo sessions; all else stays")
        playing = parser.add_argument_group("a call as it happens")
        playing.add_argument("--live", action="store_true", help="play one into a site; ^C ends it")
        playing.add_argument("--url", help="address of the site (default: the one that this data directory serves)")
        playing.add_argument("--key", help="key of a team there (default: one for a day, made in this database)")
        playing.add_argument("--speed", type=_positive, default=1.0, help="2 is twice as fast (default 1)")
        playing.add_argument("--minutes", type=_positive, default=2.0, help="how long the call is; it has at least 2")
        playing.add_argument("--loop", action="store_true", help="call again and again")

    def handle(self, *, team, remove, **options):
        found = Team.objects.filter(slug=team).first()
        if found is None and team == "default":
            found = Team.objects.get_or_create(slug=team, defaults={"name": "Default"})[0]
        if found is None:
            raise CommandError(f"There is no team {team!r}; make it with: manage.py create_team {team}")
        if remove:
            gone = demo.remove(found)
            self.stdout.write(f"{gone} demo dumps removed." if gone else "There are no demo sessions to remove.")
        elif options["live"]:
            self.play(found, **options)
        else:
            self.load(found)

    def load(self, team: Team) -> None:
        try:
            dumps = demo.load(team)
        except store.Refused as e:
            raise CommandError(f"The demo cannot be loaded: {e}") from e
        if not dumps:
            self.stdout.write("The demo sessions are there already; nothing is new.")
        for dump in dumps:
            self.tell(_imported(dump))

    def tell(self, dump: Dump) -> None:
        line = f"{dump.name}: {dump.state}, {dump.lines:,} lines"
        if dump.bad_line_count:
            line += f", {dump.bad_line_count:,} not readable"
        self.stdout.write(line + (f" ({dump.error})" if dump.error else ""))

    def play(self, team: Team, *, url, key, speed, minutes, loop, **options) -> None:
        """Play one call after the other, until the first is over or, with *loop*, until somebody ends it."""
        site = (url or whereabouts.find()).rstrip("/")
        if not key and not is_local(urlsplit(site).hostname or ""):
            raise CommandError(f"{site} is not this machine: give a key with --key; an owner there makes one.")
        if not _answers(site):
            raise CommandError(
                f"No site answers at {site}. Start one with `make run` or `auditweb serve`, or name one with --url."
            )
        made = None
        if not key:
            made, key = keys.create(team, "demo", ["ingest"], days=1)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the stream before they end us
        try:
            for number in count():
                if number:
                    time.sleep(PAUSE_SECONDS / speed)
                live.play(site, key, f"call {number}", speed, minutes, self.say)
                if not loop:
                    break
        except Refused as e:
            hint = f" (This command used the data directory {settings.DATA_DIR}.)" if made else ""
            raise CommandError(f"{site} refused: {e}{hint}") from e
        except KeyboardInterrupt:
            self.say("The call was ended.")
        finally:
            if made:
                keys.revoke(made)

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _answers(site: str) -> bool:
    try:
        with urllib.request.urlopen(f"{site}/healthz", timeout=10) as answer:  # noqa: S310
            return answer.status == 200
    except urllib.error.HTTPError:
        return True  # somebody is there; what they say to lines is told later
    except (OSError, ValueError):
        return False


def _positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise ArgumentTypeError("a number above 0")
    return value


def _imported(dump: Dump) -> Dump:
    """*dump* once its import has ended, here or in a worker that was faster."""
    jobs.run(dump.pk)
    while (dump := store.present(dump)).state in (State.QUEUED, State.IMPORTING):
        time.sleep(WAIT_SECONDS)
        jobs.run(dump.pk)
    return dump
