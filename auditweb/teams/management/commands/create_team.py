import json

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.teams import members


class Command(DataCommand):
    help = "Create a team."

    def add_arguments(self, parser):
        parser.add_argument("slug", help="short name: letters, digits, - and _")
        parser.add_argument("--name", default="", help="name as people read it; default: the short name")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, slug, name, **options):
        try:
            team = members.create_team(slug, name)
        except ValueError as e:
            raise CommandError(f"{slug}: {e}") from e
        if options["json"]:
            self.stdout.write(json.dumps({"id": team.public_id, "slug": team.slug, "name": team.name}))
        else:
            self.stdout.write(f"Team {team.slug} ({team.name}) created.")
