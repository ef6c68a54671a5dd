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


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a fresh PostgreSQL server with an empty database ``auditweb``."""
    binaries = _postgres_binaries()
    account = _unprivileged()
    with _directory(account) as home:
        data, password, port = home / "data", secrets.token_hex(16), free_port()
        (home / "password").write_text(password)
        if account:
            os.chown(home / "password", account.pw_uid, account.pw_gid)
        command = [binaries / "initdb", "-D", data, "-U", "auditweb", f"--pwfile={home / 'password'}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        _run(command, home, account)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",  # the machine will not lose power within a test
            "full_page_writes": "off",
            "max_connections": "100",
        }
        command = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        server = f"postgres://auditweb:{password}@127.0.0.1:{port}"
        with _process(command, home, account, signal.SIGINT, lambda: _accepts(server + "/postgres")):
            import psycopg

            with psycopg.connect(server + "/postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE auditweb")
            yield server + "/auditweb"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The URL of a fresh Redis server that keeps nothing on disk."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if not binary:
        raise RuntimeError("redis-server is not installed")
    with _directory(None) as home:
        port = free_port()
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        command += ["--databases", "4096"]  # every site of a run takes one by lot
        with _process(command, home, None, signal.SIGTERM, lambda: _answers_ping(port)):
            yield f"redis://127.0.0.1:{port}/0"


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
def _directory(account: pwd.struct_passwd | None) -> Iterator[Path]:
    parent = next(p for p in (tempfile.gettempdir(), "/tmp", "/var/tmp") if account is None or _traversable(Path(p)))
    path = Path(tempfile.mkdtemp(prefix="auditweb-test-", dir=parent))
    try:
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _traversable(path: Path) -> bool:
    return all(p.stat().st_mode & stat.S_IXOTH for p in [path.resolve(), *path.resolve().parents])


def _as(account: pwd.struct_passwd | None) -> dict:
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(command, home: Path, account) -> None:
    done = subprocess.run(list(map(str, command)), cwd=home, capture_output=True, text=True, **_as(account))
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def _process(command: list[str], home: Path, account, stop: signal.Signals, ready: Callable[[], bool]):
    """Run a server until the block ends; it also ends when this process is killed (Linux)."""

    def with_parent():
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, stop)

    with open(home / "log", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # ^C is for the tests; the servers are stopped after them
            preexec_fn=with_parent,
            **_as(account),
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{(home / 'log').read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
