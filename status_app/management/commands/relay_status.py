"""``manage.py relay_status --redis URL``: the status bus that RoomKit keeps in Redis, mirrored here."""

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.dumps import store
from auditweb.dumps.management.commands import _common
from status_app.relay import Relay


class Command(DataCommand):
    help = "Mirror RoomKit's status bus in Redis. Any number of relays may run; each goes on where all of them stopped."

    def add_arguments(self, parser):
        parser.add_argument("--redis", required=True, metavar="URL", help="redis://host:6379/0, as RoomKit has it")
        parser.add_argument("--prefix", default="roomkit:status", help="RoomKit's key_prefix (default: roomkit:status)")
        parser.add_argument("--bus", default="", metavar="NAME", help="name of the status log (default: the prefix)")
        parser.add_argument("--team", default="default", help="slug of the team (default: default)")

    def handle(self, *, redis, prefix, bus, team, **options):
        _common.check_options(bus=bus, prefix=prefix)
        try:
            relay = Relay(_common.team(team), redis, prefix, bus)
        except ValueError as e:
            raise CommandError(f"--redis: {e}") from None
        try:
            _common.until_told(relay.run)
        except (store.Refused, store.Gone) as e:
            raise CommandError(f"The dump {relay.name} takes no more entries: {e}.") from None
