"""``manage.py follow PATH…``: files that grow, shown while they do."""

import contextlib
import resource

from django.core.management.base import CommandError

from auditweb.console import DataCommand
from auditweb.dumps.following import Follower
from auditweb.dumps.management.commands import _common


class Command(DataCommand):
    help = (
        "Follow JSONL files that grow, and show their lines as they are written. Started again it goes on where it "
        "stopped; rotated and truncated files begin a session of their own."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "paths",
            nargs="+",
            metavar="PATH",
            help="a file, a directory (its .jsonl and .log files) or a pattern in quotes: 'logs/**/*.jsonl'",
        )
        parser.add_argument("--team", default="default", help="slug of the team (default: default)")
        parser.add_argument("--session", default="", metavar="KEY", help="put all lines into this session (id or key)")
        parser.add_argument("--bus", default="", metavar="NAME", help="put status lines on the bus with this name")
        parser.add_argument("--zone", default="", help="zone of times without one: Europe/Paris, +02:00, UTC")
        parser.add_argument("--once", action="store_true", help="store what is there now, and stop")
        parser.add_argument(
            "--end-after",
            type=float,
            metavar="SECONDS",
            help="a session has ended when its file was quiet for so long (default: never)",
        )

    def handle(self, *, paths, team, session, bus, zone, once, end_after, **options):
        _common.check_options(zone, session=session, bus=bus)
        if end_after is not None and not end_after >= 0:
            raise CommandError("--end-after takes a number of seconds")
        _allow_many_files()
        told = {"session": session, "bus": bus, "zone": zone, "end_after": end_after}
        follower = Follower(_common.team(team), paths, **told)
        _common.until_told(lambda stop: follower.run(stop, once))


def _allow_many_files() -> None:
    """As many open files as this account may have: each one that is followed is held open."""
    with contextlib.suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
