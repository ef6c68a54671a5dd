"""``manage.py demo``: load the demo sessions into a team, or remove them."""

import time

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, State
from auditweb.teams.models import Team
from sessions_app import demo

WAIT_SECONDS = 0.2  # between two looks at an import that a worker does


class Command(DataCommand):
    help = "Load invented sessions of every format, each marked as demo; --remove takes them away again."

    def add_arguments(self, parser):
        parser.add_argument("--team", default="default", help="slug of the team (default: default)")
        parser.add_argument("--remove", action="store_true", help="remove the demo sessions; all else stays")

    def handle(self, *, team, remove, **options):
        found = Team.objects.filter(slug=team).first()
        if found is None and team == "default":
            found = Team.objects.get_or_create(slug=team, defaults={"name": "Default"})[0]
        if found is None:
            raise CommandError(f"There is no team {team!r}; make it with: manage.py create_team {team}")
        if remove:
            count = demo.remove(found)
            self.stdout.write(f"{count} demo dumps removed." if count else "There are no demo sessions to remove.")
            return
        try:
            dumps = demo.load(found)
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


def _imported(dump: Dump) -> Dump:
    """*dump* once its import has ended, here or in a worker that was faster."""
    jobs.run(dump.pk)
    while (dump := store.present(dump)).state in (State.QUEUED, State.IMPORTING):
        time.sleep(WAIT_SECONDS)
        jobs.run(dump.pk)
    return dump
