from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.teams import links, members
from auditweb.teams.management.commands import _common
from auditweb.teams.models import Role


class Command(DataCommand):
    help = "Make a person a member of a team, or change their role. A person who does not exist yet is created."

    def add_arguments(self, parser):
        parser.add_argument("team", help="short name of the team")
        parser.add_argument("user", help="user name of the person")
        parser.add_argument("--role", choices=Role.values, required=True)
        parser.add_argument("--email", default="", help="address of a new person")
        parser.add_argument("--link", action="store_true", help="print a one-time sign-in link also for a known person")

    def handle(self, team, user, role, email, link, **options):
        try:
            membership, created = members.add(_common.team(team), user, role, email=email)
        except ValueError as e:
            raise CommandError(f"{user}: {e}") from e
        self.stdout.write(f"{user} is {role} of {membership.team.slug}.")
        if created or link:
            self.stdout.write(f"One-time sign-in link: {_common.address(links.make(membership.user))}")
