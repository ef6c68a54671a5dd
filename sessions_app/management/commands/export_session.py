"""``manage.py export_session ID``: a session to standard output."""

from django.conf import settings
from django.core.management.base import CommandError

from auditweb.console import DataCommand, write_bytes
from auditweb.formats.clock import zone_of
from auditweb.teams import audit
from sessions_app import export, summary
from sessions_app.models import Session


class Command(DataCommand):
    help = "Write a session to standard output."

    def add_arguments(self, parser):
        parser.add_argument("id", metavar="ID", help="public id of the session (its address ends with it)")
        parser.add_argument("--as", dest="form", default="original", choices=[*export.FORMS, "summary"])
        parser.add_argument("--style", default="upstream", choices=list(summary.STYLES))
        parser.add_argument("--of", default="session", choices=list(summary.FORMAT_OF))
        parser.add_argument("--zone", help="zone of the printed clock (default: the environment's TZ, else UTC)")
        parser.add_argument("--clock", choices=["naive", "local"], help="RoomKit before / since 0.108 (by the file)")

    def handle(self, *args, **options):
        session = Session.objects.filter(public_id=options["id"]).first()
        if session is None:
            raise CommandError(f"no session has the id {options['id']}")
        audit.record(None, "export", session, team=session.team, form=options["form"])
        if options["form"] == "summary":
            try:
                zone = options["zone"] or environment_zone()
                pieces = summary.text(session, options["of"], options["style"], zone, options["clock"])
            except ValueError as e:
                raise CommandError(str(e)) from None
        else:
            pieces = export.pieces(session, options["form"])
        write_bytes(self.stdout, pieces)


def environment_zone() -> str:
    """The zone that TZ named when the process began, as the producer's library would use it; UTC when it named none."""
    try:
        zone_of(settings.ENVIRONMENT_TZ)
    except ValueError:
        return "UTC"
    return settings.ENVIRONMENT_TZ or "UTC"
