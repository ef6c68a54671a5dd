"""The background worker: imports, summaries and the sweeper, in one process."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand

from auditweb import upkeep

logger = logging.getLogger("auditweb.work")

STOP_SECONDS = 4  # a running import is cut after this; its checkpoint is committed, the next worker goes on there
ORPHAN_SECONDS = 1  # the same for a worker whose parent is gone: nobody waits for it
NICENESS = 10  # pages come first on a machine of two cores
BEAT_SECONDS = 5
ALONE_SECONDS = 2  # between two looks for imports that nobody can tell us of
PR_SET_PDEATHSIG = 1


class Command(BaseCommand):
    help = "Runs imports and summaries in the background until SIGINT or SIGTERM. Start as many as you have cores."

    def add_arguments(self, parser):
        parser.add_argument("--concurrency", type=int, default=2, help="jobs at once in this process (default 2)")
        parser.add_argument("--no-beat", action="store_true", help="do not start the sweeper here")
        parser.add_argument("--alive-file", type=Path, help="a file that is touched every 5 s, for a health check")
        parser.add_argument("--watch-fd", type=int, help="a pipe that ends when the parent does (used by serve)")

    def handle(self, *, concurrency, no_beat, alive_file, watch_fd, **options):
        if watch_fd is None:
            upkeep.prepare()
        else:
            os.nice(NICENESS)
            _die_with_parent()
            threading.Thread(target=_watch, args=(watch_fd,), daemon=True).start()
        from celery import signals
        from celery.apps import worker as celery_worker
        from celery.exceptions import SecurityWarning

        from auditweb import broker
        from auditweb.celery import app

        # Celery warns of pickled messages that run as root; ours are JSON, with ids as arguments.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        if watch_fd is not None:  # "Warm shutdown" in the terminal of the server, which stops by itself as well
            celery_worker.safe_say = lambda *args, **kwargs: None  # type: ignore[attr-defined]

        def stopping(**_):
            _exit_after(STOP_SECONDS, 0)

        signals.worker_shutting_down.connect(stopping, weak=False)
        threading.Thread(target=_say_hello, args=(alive_file,), daemon=True).start()
        if not settings.REDIS_URL:
            # Remote control would poll a second queue in the broker's directory; with one machine nobody asks.
            app.conf.worker_enable_remote_control = False
            broker.tidy(str(settings.CELERY_BROKER_TRANSPORT_OPTIONS["processed_folder"]))
        else:
            threading.Thread(target=_work_alone, daemon=True).start()
        if not no_beat:
            signals.worker_ready.connect(lambda **_: _start_beat(app), weak=False)
        app.worker_main(
            [
                "--quiet",
                "worker",
                "--pool=threads",
                f"--concurrency={concurrency}",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
            ]
        )


def _start_beat(app):
    """The schedule runs in a thread: ``-B`` would fork a process that outlives a killed worker."""
    from celery.beat import EmbeddedService, Scheduler

    EmbeddedService(app, thread=True, scheduler_cls=Scheduler).start()  # type: ignore[union-attr]


def _work_alone():
    """While Redis is away no message comes, not even the one to sweep: do here what is due."""
    from django.db import connection

    from auditweb import celery, outage
    from auditweb.dumps import jobs

    celery.alone.working = True
    while True:
        time.sleep(ALONE_SECONDS)
        if outage.redis.lasts:
            try:
                jobs.sweep()
            except Exception as e:
                logger.warning("cannot look for imports: %s", e)
            finally:
                connection.close()


def _die_with_parent():
    """Linux ends this process when its parent ends, however that happened; elsewhere the pipe alone tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(fd):
    try:
        while os.read(fd, 1):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    _exit_after(ORPHAN_SECONDS, 1)


def _exit_after(seconds, status):
    """End the process at once when it is idle, else after *seconds*; Celery alone takes up to 4 s when idle."""

    def end():
        deadline = time.monotonic() + seconds
        while state.reserved_requests and time.monotonic() < deadline:
            time.sleep(0.05)
        os._exit(status)

    from celery.worker import state

    threading.Thread(target=end, daemon=True).start()


def _say_hello(alive_file):
    from auditweb import health

    while True:
        try:
            if alive_file:
                alive_file.touch()
            health.worker_is_there()
        except Exception as e:
            logger.warning("cannot say that the worker is there: %s", e)
        time.sleep(BEAT_SECONDS)
