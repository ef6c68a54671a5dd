"""``manage.py export_status BUS``: a status log to standard output."""

import json

from django.core.management.base import CommandError
from django.db.models import Q

from auditweb import pages
from auditweb.console import DataCommand, write_bytes
from auditweb.teams import audit
from status_app import summary
from status_app.models import StatusBus


class Command(DataCommand):
    help = "Write a status log to standard output."

    def add_arguments(self, parser):
        parser.add_argument("bus", metavar="BUS", help="public id or name of the status log")
        parser.add_argument("--as", dest="form", default="summary", choices=["summary", "recent", "jsonl"])
        parser.add_argument("--style", choices=["upstream", "docs", "plain", "quoted"])
        parser.add_argument("-n", type=int, default=10, help="entries of recent (default: 10)")

    def handle(self, *args, **options):
        buses = StatusBus.objects.filter(Q(public_id=options["bus"]) | Q(name=options["bus"]))
        if buses.count() != 1:
            found = "several status logs have" if buses.exists() else "no status log has"
            raise CommandError(f"{found} the id or name {options['bus']}")
        bus = buses.get()
        audit.record(None, "export", bus, team=bus.team, form=options["form"])
        try:
            if options["form"] == "summary":
                pieces = summary.text(bus, options["style"] or "upstream")
            elif options["form"] == "recent":
                pieces = summary.recent_text(bus, options["n"], options["style"] or "auto")
            else:
                pieces = (_line(*row) for row in pages.every(bus.entries, *_COLUMNS))
        except ValueError as e:
            raise CommandError(str(e)) from None
        write_bytes(self.stdout, pieces)


_COLUMNS = ("ts_text", "agent", "action", "status", "detail", "extra")


def _line(ts: str, agent: str, action: str, status: str, detail: str, extra: str) -> bytes:
    """One entry in the keys of its producer."""
    metadata = json.loads(extra) if extra else {}
    entry = {"ts": ts, "agent_id": agent, "action": action, "status": status, "detail": detail, "metadata": metadata}
    return json.dumps(entry).encode() + b"\n"
