"""``manage.py rebuild``: derive turns, tool calls, counters, summaries and the search index again from the log."""

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from sessions_app import fulltext, projection, summary
from sessions_app.models import Session
from status_app import ingest as status_ingest
from status_app import summary as status_summary
from status_app.models import StatusBus


class Command(DataCommand):
    help = "Derive everything of sessions and status logs again from what was stored: of all, or of those named."

    def add_arguments(self, parser):
        parser.add_argument("ids", nargs="*", metavar="ID", help="public ids of sessions or status logs (default: all)")

    def handle(self, *args, **options):
        sessions, buses = Session.objects.order_by("pk"), StatusBus.objects.order_by("pk")
        if options["ids"]:
            sessions = sessions.filter(public_id__in=options["ids"])
            buses = buses.filter(public_id__in=options["ids"])
            missing = set(options["ids"]) - set(sessions.values_list("public_id", flat=True))
            missing -= set(buses.values_list("public_id", flat=True))
            if missing:
                raise CommandError(f"no session or status log has the id {', '.join(sorted(missing))}")
        for session in _present(sessions):
            session = projection.rebuild(session)
            summary.make(session)
            self.stdout.write(f"session {session.public_id}: {session.event_count:,} events")
        for bus in _present(buses):
            status_ingest.recount(bus)
            status_summary.make(bus)
            self.stdout.write(f"status log {bus.public_id}: {bus.entry_count:,} entries")
        if not options["ids"]:
            self.stdout.write(f"search index: {fulltext.rebuild():,} entries")


def _present(logs):
    """Each of *logs* as it is when its turn comes, without those that were deleted by then."""
    for pk in list(logs.values_list("pk", flat=True)):
        if found := logs.model.objects.filter(pk=pk).first():
            yield found
