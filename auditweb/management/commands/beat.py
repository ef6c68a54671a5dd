"""The schedule of a site with several workers, in a process of its own. A second one is harmless: sweeping twice is."""

import signal
import threading
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from auditweb import upkeep

LOOK_SECONDS = 1.0


class Command(BaseCommand):
    help = "Tells workers when to sweep, until SIGINT or SIGTERM; run one beside `work --no-beat`."

    def add_arguments(self, parser):
        parser.add_argument("--alive-file", type=Path, help="a file that is touched at every tick, for a health check")

    def handle(self, *, alive_file, **options):
        upkeep.prepare()
        from celery.beat import EmbeddedService, Scheduler

        from auditweb.celery import app

        class Ticking(Scheduler):
            def tick(self, *args, **kwargs):
                interval = super().tick(*args, **kwargs)
                if alive_file:
                    alive_file.touch()
                return interval

        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        beat = EmbeddedService(app, thread=True, scheduler_cls=Ticking)
        beat.start()  # type: ignore[union-attr]
        while not stop.wait(LOOK_SECONDS):
            if not beat.is_alive():  # type: ignore[union-attr]
                raise CommandError("the schedule has ended.")
