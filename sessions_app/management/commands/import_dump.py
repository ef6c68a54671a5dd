"""``manage.py import_dump PATH…``: import files in the foreground."""

import contextlib
import json
import sys
import time
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import transaction
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from auditweb.console import DataCommand
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, Stamp, State
from auditweb.formats.record import MAX_ID
from auditweb.teams import audit
from auditweb.teams.models import Team
from sessions_app import summary
from sessions_app.models import Session

WAIT_SECONDS = 0.5  # between two looks at an import that another process does

COUNTED = (
    "events", "user_turns", "assistant_turns", "tool_calls", "tool_ms", "tools", "vision", "interruptions",
    "duration_s",
)  # fmt: skip
# The words of "records", so that a reader finds each with a number; other formats are named where there are any.
RECORDS = ("roomkit_session", "roomkit_tool", "roomkit_status", "xerxes", "af_run", "af_event", "unknown")


class Command(DataCommand):
    help = "Import audit dumps in the foreground; the exit status is 1 when any of them failed."

    def add_arguments(self, parser):
        parser.add_argument(
            "paths", nargs="+", metavar="PATH", help="a JSONL file, .gz or .zip, or - for standard input"
        )
        parser.add_argument("--team", default="default", help="slug of the team (default: default)")
        parser.add_argument("--session", default="", metavar="KEY", help="put all lines into this session (id or key)")
        parser.add_argument("--bus", default="", metavar="NAME", help="put status lines on the bus with this name")
        parser.add_argument("--zone", default="", help="zone of times without one: Europe/Paris, +02:00, UTC")
        parser.add_argument("--offset-ms", type=int, default=0, metavar="MS", help="added to all times")
        parser.add_argument("--stamp", default="", choices=["", *Stamp.values], help="what the time of a tool call is")
        parser.add_argument("--join", action="store_true", help="session ids in the lines name sessions across dumps")
        parser.add_argument("--anyway", action="store_true", help="import what can be read of a damaged archive")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--no-progress", action="store_true")

    def handle(self, *args, **options):
        try:
            jobs.check_rules(options["zone"], options["offset_ms"], options["stamp"])
        except ValueError as e:
            raise CommandError(str(e)) from None
        for name in ("session", "bus"):
            if len(options[name]) > MAX_ID or not options[name].isprintable():
                raise CommandError(f"--{name} takes up to {MAX_ID} printable characters")
        team = _team(options["team"])
        told = {name: options[name] for name in ("zone", "offset_ms", "stamp", "join")}
        told |= {"session_key": options["session"], "bus_name": options["bus"]}
        self.anyway = options["anyway"]
        quiet = options["json"] or options["no_progress"] or not sys.stderr.isatty()
        reports = []
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[lines]:,} lines"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        ) as progress:
            for path in options["paths"]:
                reports += self.import_one(team, path, told, progress, quiet=options["json"])
        if options["json"]:
            self.stdout.write(json.dumps({"dumps": reports}, ensure_ascii=False, indent=1))
        if any(r["state"] != State.DONE for r in reports):
            sys.exit(1)

    def import_one(self, team: Team, path: str, told: dict, progress: Progress, quiet: bool) -> list[dict]:
        """Import one file and tell of it unless *quiet*; its part of the report, for a zip one for each file in it."""
        name = "stdin.jsonl" if path == "-" else store.clean_name(Path(path).name)
        grown, skipped = False, []
        try:
            with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
                first, duplicate = _receive(team, name, file, told)
            grown = first.grown
            first = store.present(self.run(first, progress))
            found = [report(self.run(dump, progress), duplicate) for dump in store.members(first)]
            skipped = first.upload.skipped if first.upload else []
        except (OSError, store.Refused, store.Gone) as e:
            found = [_refused(name, str(e))]
        for one in found if not quiet else ():
            self.tell(one, grown)
        for member in skipped if not quiet else ():
            self.stdout.write(f"  left out {member['name']}: {member['reason']}")
        return found

    def run(self, dump: Dump, progress: Progress) -> Dump:
        """*dump* once its import has ended, here or in a worker that was faster."""
        if dump.state not in (State.QUEUED, State.IMPORTING) and not (self.anyway and dump.waits_for_consent):
            return dump
        task = progress.add_task(dump.name, total=1, lines=0)

        def show(now: Dump) -> None:
            progress.update(task, description=now.name, completed=now.progress, lines=now.lines)

        jobs.run(dump.pk, show)
        dump = _done(dump)
        if self.anyway and jobs.import_anyway(dump):
            jobs.run(dump.pk, show)
            dump = _done(dump)
        progress.update(task, completed=1, lines=dump.lines)
        return dump

    def tell(self, found: dict, grown: bool) -> None:
        line = f"{found['name']}: {found['state']}"
        if found["error"]:
            line += f" ({found['error']})"
        elif found["duplicate"]:
            line += " (these bytes were imported before; nothing is new)"
        elif grown:
            line += f", grown to {found['lines']:,} lines, {found['events']:,} events"
        else:
            line += f", {found['lines']:,} lines, {found['events']:,} events, {len(found['bad_lines']):,} not readable"
        self.stdout.write(line)
        for session in found["sessions"]:
            self.stdout.write(f"  session {session['id']}: {session['events']:,} events")
        for bus in found["status_buses"]:
            self.stdout.write(f"  status log {bus['name']}: {bus['entries']:,} entries")


def _team(slug: str) -> Team:
    if slug == "default":
        return Team.objects.get_or_create(slug=slug, defaults={"name": "Default"})[0]
    team = Team.objects.filter(slug=slug).first()
    if team is None:
        raise CommandError(f"There is no team {slug!r}; make it with: manage.py create_team {slug}")
    return team


def _receive(team: Team, name: str, file, told: dict) -> tuple[Dump, bool]:
    """The dump that holds the bytes of *file*, and whether it did before. Its size is not asked: it may be growing."""
    with transaction.atomic():
        dump = store.begin(team, name, **told)
        audit.record(None, "upload", dump, team=team, name=dump.name)
    try:
        offset = 0
        while data := file.read(settings.MAX_SLICE_BYTES):
            offset = store.append_bytes(dump, offset, data)
        return store.finish(dump)
    except BaseException:  # also ^C: nobody will send the rest of these bytes
        with contextlib.suppress(Exception):
            jobs.delete(dump)
        raise


def _done(dump: Dump) -> Dump:
    """*dump* once its import has ended, here or in a worker; goes on with it when that worker dies."""
    while (dump := store.present(dump)).state in (State.QUEUED, State.IMPORTING):
        time.sleep(WAIT_SECONDS)
        jobs.run(dump.pk)
    return dump


def _refused(name: str, error: str) -> dict:
    empty = {"id": None, "name": name, "sha256": None, "state": State.FAILED.value, "error": error, "duplicate": False}
    counts = {"lines": 0, "blank_lines": 0, "events": 0, "records": dict.fromkeys(RECORDS, 0)}
    return {**empty, **counts, "bad_lines": [], "sessions": [], "status_buses": []}


def report(dump: Dump, duplicate: bool) -> dict:
    """What ``--json`` says of one dump."""
    return {
        "id": dump.public_id,
        "name": dump.name,
        "sha256": dump.sha256,
        "state": dump.state,
        "error": dump.error,
        "duplicate": duplicate,
        "lines": dump.lines,
        "blank_lines": dump.blank_lines,
        "events": dump.events,
        "records": {**dict.fromkeys(RECORDS, 0), **dump.records},
        "bad_lines": list(dump.bad_lines.order_by("line").values("line", "reason")),
        "sessions": [_session(s) for s in dump.sessions.order_by("pk")],
        "status_buses": [{"name": b.name, "entries": b.entry_count} for b in dump.status_buses.order_by("pk")],
    }


def _session(session: Session) -> dict:
    counts = summary.counters(session)
    return {"id": session.public_id, "key": session.key, **{name: counts[name] for name in COUNTED}}
