"""PostgreSQL and Redis for the tests: own servers on free loopback ports, stopped and removed afterwards.

``python -m tests.servers -- COMMAND …`` runs a command with ``DATABASE_URL`` and ``REDIS_URL`` set to them.
"""

import contextlib
import ctypes
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 20


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process of ours: ``url`` and ``process``. It also ends when this one is killed (Linux)."""

    def __init__(
        self, command: list[str], home: Path, account, stop: signal.Signals, url: str, ready: Callable[[], bool]
    ):
        self.command, self.home, self.account, self.url = command, home, account, url
        self._stop, self._ready = stop, ready
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it (again) and wait until it answers. Raises RuntimeError with its log when it does not."""

        def with_parent():
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(1, self._stop)

        with open(self.home / "log", "w") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ^C is for the tests; the servers are stopped after them
                preexec_fn=with_parent,
                **_as(self.account),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[0]} did not start:\n{(self.home / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self._stop)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """*server*, for the length of a block."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh PostgreSQL server with an empty database ``auditweb``."""
    with postgres_server() as server:
        yield server.url


@contextlib.contextmanager
def postgres_server(keep: Path | None = None) -> Iterator[Server]:
    """A PostgreSQL server with a database ``auditweb``: a fresh one, or that of the directory *keep*, which is made."""
    account = _unprivileged()
    with _directory(account, keep) as home:
        new = not (home / "data" / "PG_VERSION").exists()
        server = _postgres_in(home, account, new, durable=keep is not None)
        with running(server):
            import psycopg

            with psycopg.connect(f"{server.url.rpartition('/')[0]}/postgres", autocommit=True) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = 'auditweb'").fetchall():
                    connection.execute("CREATE DATABASE auditweb")
            yield server


def _postgres_in(home: Path, account, new: bool, durable: bool) -> Server:
    binaries, data, secret = _postgres_binaries(), home / "data", home / "password"
    if new:
        secret.write_text(secrets.token_hex(16))
        secret.chmod(0o600)
        if account:
            os.chown(secret, account.pw_uid, account.pw_gid)
        command = [binaries / "initdb", "-D", data, "-U", "auditweb", f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        _run(command, home, account)
    password, port = secret.read_text(), free_port()
    safe = "on" if durable else "off"  # the machine will not lose power within a test
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": safe,
        "full_page_writes": safe,
        "max_connections": "100",
    }
    command = [str(binaries / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    address = f"postgres://auditweb:{password}@127.0.0.1:{port}"
    ready = lambda: _accepts(address + "/postgres")  # noqa: E731
    return Server(command, home, account, signal.SIGINT, address + "/auditweb", ready)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The URL of a fresh Redis server that keeps nothing on disk."""
    with redis_server() as server:
        yield server.url


@contextlib.contextmanager
def redis_server() -> Iterator[Server]:
    """A fresh Redis server that keeps nothing on disk."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if not binary:
        raise RuntimeError("redis-server is not installed")
    with _directory(None) as home:
        port = free_port()
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        command += ["--databases", "4096"]  # every site of a run takes one by lot
        url, ready = f"redis://127.0.0.1:{port}/0", lambda: _answers_ping(port)
        with running(Server(command, home, None, signal.SIGTERM, url, ready)) as server:
            yield server


def _postgres_binaries() -> Path:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda p: int(Path(p).parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    if not initdb:
        raise RuntimeError("PostgreSQL's initdb is not installed")
    return Path(initdb).resolve().parent


def _unprivileged() -> pwd.struct_passwd | None:
    """The account for PostgreSQL, which refuses to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("no unprivileged account for PostgreSQL: neither postgres nor nobody exists")


@contextlib.contextmanager
def _directory(account: pwd.struct_passwd | None, keep: Path | None = None) -> Iterator[Path]:
    """A directory of *account*: *keep*, or one that is removed afterwards."""
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account and not _traversable(keep.parent):
            raise RuntimeError(f"PostgreSQL runs as {account.pw_name}, who cannot reach {keep}: take another directory")
        path = keep
    else:
        parents = map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))
        parent = next(path for path in parents if account is None or _traversable(path))
        path = Path(tempfile.mkdtemp(prefix="auditweb-test-", dir=parent))
    try:
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)
        yield path
    finally:
        if keep is None:
            shutil.rmtree(path, ignore_errors=True)


def _traversable(path: Path) -> bool:
    return all(p.stat().st_mode & stat.S_IXOTH for p in [path.resolve(), *path.resolve().parents])


def _as(account: pwd.struct_passwd | None) -> dict:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(command, home: Path, account) -> None:
    done = subprocess.run(list(map(str, command)), cwd=home, capture_output=True, text=True, **_as(account))
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _accepts(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
            s.sendall(b"PING\r\n")
            return s.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def main() -> int:
    if sys.argv[1:2] != ["--"] or len(sys.argv) < 3:
        print("usage: python -m tests.servers -- COMMAND …", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with postgres() as database, redis() as broker:
        child = subprocess.Popen(sys.argv[2:], env={**os.environ, "DATABASE_URL": database, "REDIS_URL": broker})
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # a terminal's ^C reaches the command too; a TERM is passed on
                child.terminate()


if __name__ == "__main__":
    sys.exit(main())
