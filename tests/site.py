"""A running site: ``manage.py serve`` as a process of its own, with its own data, like the one people start."""

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60
WAIT_SECONDS = 30


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """The first true value of *condition*; AssertionError naming *what* when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """True while a process *pid* runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class Site:
    """``url``, ``data`` (directory), ``link`` (the one-time sign-in address printed at the first start) and ``output``.

    With ``DATABASE_URL`` and ``REDIS_URL`` set it has a database of its own on those servers. It begins empty:
    ``AUDITWEB_DEMO="1"`` loads the demo sessions.
    """

    def __init__(self, *serve_args: str, **env: str):
        self.data = Path(tempfile.mkdtemp(prefix="auditweb-site-"))
        self.env = {k: v for k, v in os.environ.items() if k not in ("DJANGO_SETTINGS_MODULE", "PUBLIC_URL")}
        self.env |= {"AUDITWEB_DATA": str(self.data), "PYTHONUNBUFFERED": "1", "AUDITWEB_DEMO": "0"}
        self._database = _own_database(self.env.get("DATABASE_URL"))
        if self._database:
            self.env["DATABASE_URL"] = self._database[0]
        if redis_url := self.env.get("REDIS_URL"):
            self.env["REDIS_URL"] = _own_redis(redis_url)
        self.env |= env
        self.serve_args = serve_args
        self.output: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.url = self.link = ""
        self.start()

    def start(self, port: int = 0) -> None:
        """Serve (again) on *port*, by default a free one, and wait until it says where it is."""
        command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port), *self.serve_args]
        self.process = subprocess.Popen(
            command,
            env=self.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_hear_ctrl_c,
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, lines), daemon=True).start()
        self.url = self.link = ""
        deadline = time.monotonic() + START_SECONDS
        while not self.url or not self._answers():
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=0.05)
                if found := line and re.search(r"auditweb is at (\S+)", line):
                    self.url = found[1]
                if found := line and re.search(r"(http\S+/signin/\S+)", line):
                    self.link = found[1]
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("serve did not start:\n" + "".join(self.output))
        with contextlib.suppress(queue.Empty):  # the link follows the address
            while line := lines.get(timeout=0.2):
                if found := re.search(r"(http\S+/signin/\S+)", line):
                    self.link = found[1]

    def _read(self, process, lines):
        for line in process.stdout:
            self.output.append(line)
            lines.put(line)
        lines.put(None)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(self.url + "/healthz", timeout=5).status == 200
        except OSError:
            return False

    def manage(self, *args: str, check: bool = True, input: bytes | None = None) -> str:
        """What ``manage.py ARGS`` prints; AssertionError with its errors when it fails and *check* is set."""
        command = [sys.executable, str(ROOT / "manage.py"), *args]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, input=input, timeout=120)
        if check and done.returncode:
            raise AssertionError(f"manage.py {' '.join(args)}: status {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode()

    def import_file(self, path: Path | str, *args: str) -> dict:
        """The object that ``import_dump --json`` prints."""
        return json.loads(self.manage("import_dump", str(path), "--json", *args))

    def worker_pid(self) -> int | None:
        """The process id of the child worker; None while there is none."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in map(int, children):
            with contextlib.suppress(OSError):
                if b"work" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None

    def ready(self) -> dict:
        """What /readyz answers with status 200."""
        with urllib.request.urlopen(self.url + "/readyz", timeout=15) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """SIGKILL for the web process, as the kernel does when memory is out."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit status; AssertionError when it takes longer than 15 s."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("serve did not stop:\n" + "".join(self.output)) from None

    def stop(self) -> None:
        """End everything and remove the data."""
        try:
            self.terminate()
        finally:
            shutil.rmtree(self.data, ignore_errors=True)
            if self._database:
                self._database[1]()


def _hear_ctrl_c():
    """Whatever a shell starts in the background, tests too, inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _own_database(url: str | None):
    """(the URL of a new database beside *url*, a function that drops it); None without a server."""
    if not url or not url.startswith("postgres"):
        return None
    import psycopg
    from psycopg import sql

    name = "site_" + secrets.token_hex(6)

    def run(statement):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

    run("CREATE DATABASE {}")
    return f"{url.rpartition('/')[0]}/{name}", lambda: run("DROP DATABASE IF EXISTS {} WITH (FORCE)")


def _own_redis(url: str) -> str:
    """*url* with the number of an emptied database: a worker must not take the messages of another site."""
    import redis

    with redis.Redis.from_url(url) as connection:
        databases = int(connection.config_get("databases")["databases"])
    own = f"{url.rpartition('/')[0]}/{1 + secrets.randbelow(databases - 1)}"
    with redis.Redis.from_url(own) as connection:
        connection.flushdb()
    return own


@contextlib.contextmanager
def site(*serve_args: str, **env: str) -> Iterator[Site]:
    """A site for the length of a block; *env* adds to its environment."""
    running = Site(*serve_args, **env)
    try:
        yield running
    finally:
        running.stop()
