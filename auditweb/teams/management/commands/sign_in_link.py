from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.teams import audit, links
from auditweb.teams.management.commands import _common


class Command(DataCommand):
    help = "Print a link that signs a person in once."

    def add_arguments(self, parser):
        parser.add_argument("user", help="user name of the person")
        parser.add_argument("--minutes", type=int, default=60, help="how long it works; default: 60")

    def handle(self, user, minutes, **options):
        if not 1 <= minutes <= 60 * 24 * 30:
            raise CommandError("A link works for 1 to 43200 minutes.")
        person = _common.person(user)
        if not person.is_active:
            raise CommandError(f"{user} is disabled: a link would not let them in.")
        audit.record(None, "create_link", ("user", "", user), minutes=minutes)
        self.stdout.write(_common.address(links.make(person, minutes)))
