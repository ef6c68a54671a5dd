"""The embedded server: database up to date, web server, one child worker."""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import time

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from auditweb import upkeep, whereabouts
from auditweb.checks import is_local

logger = logging.getLogger("auditweb.serve")

LOOK_SECONDS = 0.25  # how often the worker is looked after
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a dead worker is started again; doubles while it keeps dying
LIVED_LONG = 60.0  # seconds after which a death is no longer taken for one of a series
WORKER_STOP_SECONDS = 5.0


class Command(BaseCommand):
    help = "Serves auditweb: brings the database up to date, starts the web server and one worker, stops both cleanly."

    def add_arguments(self, parser):
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
        parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 takes a free one")
        parser.add_argument("--no-worker", action="store_true", help="web server only; run `manage.py work` beside it")
        parser.add_argument("--no-link", action="store_true", help="print no first sign-in link; `prepare` has done so")

    def handle(self, *, host, port, no_worker, no_link, **options):
        if settings.DEBUG and not is_local(host):
            raise CommandError(f"AUDITWEB_DEBUG is on: refusing to listen on {host}: others would see tracebacks.")
        # Until the reactor installs handlers of its own, SIGTERM ends the start as ^C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.serve(host, port, with_worker=not no_worker, with_link=not no_link)
        except KeyboardInterrupt:
            pass

    def serve(self, host: str, port: int, with_worker: bool, with_link: bool = True) -> None:
        """Serve until SIGINT or SIGTERM; raises CommandError when the port or the database cannot be had."""
        from auditweb import server  # first of all, since it decides which reactor Twisted has

        try:
            sock = server.listen(host, port)
        except socket.gaierror as e:
            raise CommandError(f"cannot listen on {host}: {e.strerror}") from e
        except OSError as e:
            raise CommandError(f"cannot listen on {host}:{port}: {e.strerror}. Choose another port with --port.") from e
        upkeep.prepare()

        from auditweb.asgi import application
        from auditweb.teams.links import first_run
        from sessions_app import demo

        address = settings.PUBLIC_URL or _address(host, sock.getsockname()[1])
        link = first_run() if with_link else None  # of several, only the last one made is good
        if link and with_worker:
            demo.welcome()
        worker = Worker()
        try:
            if with_worker:
                worker.look_after()
                server.reactor.addSystemEventTrigger("before", "shutdown", worker.ask_to_stop)
            whereabouts.note(address)
            self.stdout.write(f"auditweb is at {address}")
            if link:
                self.stdout.write(f"Sign in for the first time (works once): {address}{link}")
            if not is_local(host) and not settings.PUBLIC_URL:
                self.stderr.write("This address is open to others, unencrypted: use a proxy with TLS, set PUBLIC_URL.")
            self.stdout.flush()
            server.Server(application, sock).run()
        finally:
            whereabouts.forget(address)
            worker.stop()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  only shown
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


class Worker:
    """The child process that runs imports: started, started again when it dies, stopped with the server.

    All of it happens in the main thread: Linux ties the child's life to the *thread* that started it.
    """

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.pause = FIRST_PAUSE
        self.started_at = 0.0
        self.start_at = 0.0
        self.stopping = False
        # The child reads from this pipe; the kernel closes our end whatever ends us.
        self.watched, self.held = os.pipe()

    def look_after(self) -> None:
        """Start the worker when there is none; call again every moment."""
        from auditweb.server import reactor

        now = time.monotonic()
        if self.process and self.process.poll() is not None and not self.stopping:
            if now - self.started_at > LIVED_LONG:
                self.pause = FIRST_PAUSE
            logger.error("the worker ended with status %s; next start in %g s", self.process.returncode, self.pause)
            self.process, self.start_at = None, now + self.pause
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
        if self.process is None and now >= self.start_at and not self.stopping:
            self._start()
        reactor.callLater(LOOK_SECONDS, self.look_after)

    def _start(self):
        path = os.pathsep.join(filter(None, [str(settings.BASE_DIR), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "auditweb", "work", "--watch-fd", str(self.watched)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            pass_fds=[self.watched],
            start_new_session=True,  # ^C in the terminal reaches only us: the order of stopping is ours
        )
        self.started_at = time.monotonic()

    def ask_to_stop(self) -> None:
        """Tell the worker to stop; it does so while the web server finishes its requests."""
        if self.process and self.process.poll() is None and not self.stopping:
            self.process.terminate()
        self.stopping = True

    def stop(self) -> None:
        """Wait a few seconds until the worker has stopped, then end it: its checkpoint is committed with its rows."""
        self.ask_to_stop()
        if self.process:
            try:
                self.process.wait(WORKER_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self.watched)
        os.close(self.held)
