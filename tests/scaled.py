"""A scaled site without containers: the processes of docker-compose.yml, on this machine and for it alone.

``python -m tests.scaled --data DIRECTORY --port N`` (``make scaled``) runs one until ^C; ``with scaled() as site`` does
for tests. It is here because its PostgreSQL and Redis are those of the tests: for trying things out, not for users.
"""

import argparse
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import servers
from tests.servers import free_port
from tests.site import ROOT, until

LOOK_SECONDS = 0.1  # how often the processes are looked after
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a dead process is started again; doubles while it keeps dying
LIVED_LONG = 30.0  # seconds after which a death is no longer taken for one of a series
STOP_SECONDS = 15.0  # a web process finishes its requests within 6
START_SECONDS = 90.0
OURS = ("DJANGO_SETTINGS_MODULE", "PUBLIC_URL", "ALLOWED_HOSTS", "SECRET_KEY", "AUDITWEB_DATA", "AUDITWEB_DEBUG")


class Child:
    """One process of a site. ``look`` starts it, and again when it died, later each time that it dies young."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen], say: Callable[[str], None]):
        self.name, self._start, self._say = name, start, say
        self.process: subprocess.Popen | None = None
        self._pause = FIRST_PAUSE
        self._started_at = self._start_at = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            if now - self._started_at > LIVED_LONG:
                self._pause = FIRST_PAUSE
            self._say(f"{self.name} ended with status {self.process.returncode}; next start in {self._pause:g} s")
            self.process, self._start_at = None, now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self.process is None and now >= self._start_at:
            self._started_at = now
            try:
                self.process = self._start()
            except (OSError, RuntimeError) as e:
                self._start_at = now + self._pause
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                self._say(f"{self.name} cannot be started: {e}")

    def terminate(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, deadline: float) -> None:
        if self.process is not None:
            try:
                self.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._say(f"{self.name} does not stop and is killed")
                self.process.kill()
                self.process.wait()


class Scaled:
    """``url`` is where people go (the proxy, or the first of ``webs`` without Caddy), ``link`` signs in the first time.

    ``webs``: the addresses of the web processes. Processes have names: web-1, web-2, worker-1, worker-2, beat, proxy,
    postgres, redis. ``output``: what they logged.
    """

    def __init__(self, data: Path, port: int, say: Callable[[str], None], **env: str):
        self.data, self._tell = data.resolve(), say
        self.output: list[str] = []
        self.children: dict[str, Child] = {}
        self._stopping = threading.Event()
        self._watching: threading.Thread | None = None
        self._stack = contextlib.ExitStack()
        self.caddy = _caddy()
        port = port or free_port()
        ports = [free_port(), free_port()] if self.caddy else [port, free_port()]
        self.webs = [f"http://127.0.0.1:{port}" for port in ports]
        self.url, self.link = f"http://127.0.0.1:{port}", ""
        self.env = {k: v for k, v in os.environ.items() if k not in OURS} | {
            "AUDITWEB_DATA": str(self.data / "site"),
            "PYTHONUNBUFFERED": "1",
            **({"PUBLIC_URL": self.url} if self.caddy else {}),
            **env,
        }

    def start(self) -> None:
        """Start everything; return when pages are served and a worker is there. Raises RuntimeError with a sentence."""
        _check_free(self.url)
        if not self.data.exists():
            self.data.mkdir(parents=True)
            self.data.chmod(0o711)  # PostgreSQL may run as another account and has to get through
        try:
            postgres = self._stack.enter_context(servers.postgres_server(self.data / "postgres"))
            redis = self._stack.enter_context(servers.redis_server())
            self.env |= {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
            told = self.manage("prepare")
            if found := re.search(r"(\S+)?(/signin/\S+)", told):
                self.link = self.url + found[2]
            for name, server in (("postgres", postgres), ("redis", redis)):
                self.children[name] = Child(name, _again(server), self.say)
                self.children[name].process = server.process
            for n, address in enumerate(self.webs, 1):
                self._add(f"web-{n}", "serve", "--no-worker", "--no-link", "--port", address.rpartition(":")[2])
            for n in (1, 2):
                self._add(f"worker-{n}", "work", "--no-beat")
            self._add("beat", "beat")
            if self.caddy:
                self.children["proxy"] = Child("proxy", self._start_proxy, self.say)
            self._watching = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watching.start()
            until(self._is_up, "the site to be up", START_SECONDS)
        except AssertionError as e:
            self.stop()
            raise RuntimeError(f"{e}\n" + "".join(self.output[-40:])) from e
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything: who takes work first, the proxy when requests are answered, the databases last."""
        self._stopping.set()
        if self._watching is not None:
            self._watching.join()
        site = [child for name, child in self.children.items() if name not in ("proxy", "postgres", "redis")]
        proxy = [child for name, child in self.children.items() if name == "proxy"]
        for group in (site, proxy):
            for child in group:
                child.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for child in group:
                child.wait(deadline)
        self._stack.close()

    def manage(self, *args: str) -> str:
        """What ``manage.py ARGS`` prints; RuntimeError with its errors when it fails."""
        command = [sys.executable, str(ROOT / "manage.py"), *args]
        done = subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(args)} failed:\n{done.stderr}")
        return done.stdout

    def pid(self, name: str) -> int | None:
        """The process id of *name* at the moment; None while it is down."""
        process = self.children[name].process
        return process.pid if process is not None and process.poll() is None else None

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send *number* to the process *name*, whose id is returned. After a death it is started again."""
        pid = until(lambda: self.pid(name), name)
        os.kill(pid, number)
        return pid

    def say(self, line: str) -> None:
        self.output.append(line + "\n")
        self._tell(line)

    def _add(self, name: str, *words: str) -> None:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        self.children[name] = Child(name, lambda: self._run(name, command, self.env), self.say)

    def _start_proxy(self) -> subprocess.Popen:
        assert self.caddy
        home = self.data / "proxy"
        home.mkdir(mode=0o700, exist_ok=True)
        env = self.env | {
            "SITE": self.url,
            "BIND": "bind 127.0.0.1",
            "WEB": "to " + " ".join(web.removeprefix("http://") for web in self.webs),
            "ADMIN": f"unix/{home}/admin.sock",
            # Debian's 2.6 calls it otherwise, and before 2.11 what was sent to a process that died is gone.
            **({"BUFFER": "buffer_requests"} if self._caddy_version() < (2, 7) else {}),
            **({"AGAIN": ""} if self._caddy_version() < (2, 11) else {}),
            "XDG_DATA_HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
        }
        command = [self.caddy, "run", "--adapter", "caddyfile", "--config", str(ROOT / "Caddyfile")]
        with open(home / "log", "ab") as log:  # JSON for machines; what matters is in the logs of the web processes
            return self._run("proxy", command, env, log)

    def _caddy_version(self) -> tuple[int, int]:
        assert self.caddy
        told = subprocess.run([self.caddy, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
        found = re.match(r"v?(\d+)\.(\d+)", told)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _run(self, name: str, command: list[str], env: dict[str, str], log=subprocess.PIPE) -> subprocess.Popen:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # ^C in the terminal reaches only us: the order of stopping is ours
            preexec_fn=_die_with_parent,
        )
        if process.stderr:
            threading.Thread(target=self._read, args=(name, process.stderr), daemon=True).start()
        return process

    def _read(self, name: str, stderr) -> None:
        with stderr:
            for line in stderr:
                self.say(f"{name:9} {line.decode(errors='replace').rstrip()}")

    def _watch(self) -> None:
        # Always this thread: Linux ties the life of a child to the thread that started it.
        while not self._stopping.wait(LOOK_SECONDS):
            for child in self.children.values():
                child.look()

    def _is_up(self) -> bool:
        answers = [_get(f"{address}/readyz") for address in self.webs]
        return all(b'"worker": "ok"' in answer for answer in answers) and _get(self.url + "/accounts/login/") != b""


def _again(server: servers.Server) -> Callable[[], subprocess.Popen]:
    def start() -> subprocess.Popen:
        server.start()
        assert server.process
        return server.process

    return start


def _caddy() -> str | None:
    """Caddy, as installed or as unpacked by .ci/setup."""
    return shutil.which("caddy") or shutil.which("caddy", path=ROOT / ".cache/caddy/usr/bin")


def _check_free(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as e:
            raise RuntimeError(f"port {port} cannot be had: {e.strerror}. Choose another one with PORT=.") from e


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except OSError:
        return b""


@contextlib.contextmanager
def scaled(
    data: Path | None = None, port: int = 0, say: Callable[[str], None] = lambda line: None, **env: str
) -> Iterator[Scaled]:
    """A scaled site for the length of a block; *data* keeps what it stores, *env* adds to its environment."""
    with contextlib.ExitStack() as stack:
        if data is None:
            data = Path(tempfile.mkdtemp(prefix="auditweb-scaled-"))
            stack.callback(shutil.rmtree, data, ignore_errors=True)
        site = Scaled(data, port, say, **env)
        site.start()
        stack.callback(site.stop)
        yield site


def main() -> int:
    parser = argparse.ArgumentParser(description="A scaled site on this machine, until ^C.")
    parser.add_argument("--data", type=Path, required=True, help="directory of everything that it stores")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    asked = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with scaled(asked.data, asked.port, lambda line: print(line, file=sys.stderr, flush=True)) as site:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            if site.caddy:
                print(f"auditweb is at {site.url}; behind that proxy are {' and '.join(site.webs)}")
            else:
                print(f"There is no Caddy here, so auditweb is at two addresses: {' and '.join(site.webs)}")
            if site.link:
                print(f"Sign in for the first time (works once): {site.link}")
            print(f"2 web processes, 2 workers, beat, PostgreSQL and Redis run; data: {asked.data}", flush=True)
            stop.wait()
    except KeyboardInterrupt:
        pass
    except RuntimeError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
