import json

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.teams import keys
from auditweb.teams.management.commands import _common


class Command(DataCommand):
    help = "Create an API key of a team and print it: the only time that it is shown."

    def add_arguments(self, parser):
        parser.add_argument("--team", required=True, help="short name of the team")
        parser.add_argument("--scopes", required=True, help=f"comma-separated, of: {', '.join(keys.SCOPES)}")
        parser.add_argument("--name", default="command line", help="what the key is for")
        parser.add_argument("--days", type=int, help="days until it expires; default: never")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, team, scopes, name, days, **options):
        try:
            key, text = keys.create(_common.team(team), name, scopes.replace(",", " ").split(), days=days)
        except ValueError as e:
            raise CommandError(str(e)) from e
        if not options["json"]:
            self.stdout.write(text)
            return
        made = {
            "id": key.public_id,
            "key": text,
            "team": key.team.slug,
            "name": key.name,
            "scopes": key.scopes.split(),
            "expires_at": key.expiry.isoformat() if key.expiry else None,
        }
        self.stdout.write(json.dumps(made))
