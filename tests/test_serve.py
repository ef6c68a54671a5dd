"""The processes of an embedded site: what starts, what is started again, and that nothing is left behind."""

import contextlib
import ctypes
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.servers import free_port
from tests.site import ROOT, is_alive, site, until


@pytest.fixture(scope="module")
def one_site():
    with site() as found:
        yield found


@pytest.fixture
def running(one_site):
    """A running site, started again when the test before ended it."""
    if one_site.process.poll() is not None:
        one_site.start()
    return one_site


def worker_of(running, other_than=None):
    return until(lambda: (pid := running.worker_pid()) != other_than and pid, "a worker")


def worker_is_up(running):
    return (ready := running.ready())["worker"] == "ok" and ready["worker_seen_s"] < 6


def test_the_first_start_prints_an_address_and_a_link_to_sign_in():
    with site() as running:
        assert running.url.startswith("http://127.0.0.1:")
        assert running.link.startswith(running.url + "/signin/")
        with urllib.request.urlopen(running.link) as page:
            assert page.status == 200
        assert stat.S_IMODE((running.data / "secret_key").stat().st_mode) == 0o600
        assert stat.S_IMODE(running.data.stat().st_mode) == 0o700


def test_a_warm_start_answers_within_four_seconds(running):
    running.terminate()
    started = time.monotonic()
    running.start()
    assert time.monotonic() - started < 4


def test_sigterm_ends_server_and_worker_with_status_0(running):
    worker = worker_of(running)
    started = time.monotonic()
    assert running.terminate() == 0
    assert time.monotonic() - started < 10
    assert not is_alive(worker)


def test_ctrl_c_ends_both_as_well(running):
    worker = worker_of(running)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(10) == 0
    assert not is_alive(worker)


def test_a_killed_worker_is_started_again(running):
    first = worker_of(running)
    os.kill(first, signal.SIGKILL)
    second = worker_of(running, other_than=first)
    assert is_alive(second)
    assert running.process.poll() is None


def test_no_worker_outlives_a_killed_server(running):
    worker = worker_of(running)
    until(lambda: worker_is_up(running), "the worker to be up")
    running.kill()
    until(lambda: not is_alive(worker), "the worker to end", 3)


def test_a_worker_ends_by_the_pipe_alone_when_the_kernel_tells_it_nothing(running):
    # Started by a helper that dies at once: the parent that Linux would watch is not the one that holds the pipe.
    read, write = os.pipe()
    command = [sys.executable, "-m", "auditweb", "work", "--watch-fd", str(read)]
    worker = subprocess.Popen(command, cwd=ROOT, env=running.env, pass_fds=[read], stderr=subprocess.DEVNULL)
    try:
        os.close(read)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(3)
        os.close(write)
        assert worker.wait(3) is not None
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def test_messages_that_a_crash_left_behind_do_no_harm(running):
    if running.env.get("REDIS_URL"):
        worker_of(running)  # Redis has no files; the worker is simply there
        return
    worker = worker_of(running)
    until(lambda: worker_is_up(running), "the worker to be up")
    messages = running.data / "broker" / "messages"
    for name, text in {"0_a": "", "0_b": '{"half', "0_c": "[]", "0_d": '{"body": 1}', "0_e": "null"}.items():
        (messages / f"{name}.celery.msg").write_text(text)
    until(lambda: not list(messages.glob("0_*")), "the messages to be read")
    time.sleep(0.5)
    assert running.worker_pid() == worker
    assert not list((running.data / "broker" / "processed").glob("0_*"))


def test_a_taken_port_is_named_in_one_sentence(running):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve_once(running.env, "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"CommandError: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another port with --port."
    )


def test_two_first_starts_at_once_share_one_database():
    with site() as first:
        first.terminate()
        for name in ("auditweb.sqlite3", "auditweb.sqlite3-wal", "auditweb.sqlite3-shm"):
            (first.data / name).unlink(missing_ok=True)
        command = [sys.executable, "-m", "auditweb", "serve", "--port", "0", "--no-worker"]
        both = [
            subprocess.Popen(
                command, cwd=ROOT, env=first.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        try:
            for process in both:
                assert "auditweb is at" in process.stdout.readline()
        finally:
            for process in both:
                process.terminate()
                process.communicate(timeout=60)
        assert [process.returncode for process in both] == [0, 0]


def test_healthz_and_readyz_say_how_it_is(running):
    with urllib.request.urlopen(running.url + "/healthz") as answer:
        assert answer.read() == b"ok\n"
    until(lambda: worker_is_up(running), "the worker to report")
    ready = running.ready()
    assert ready.pop("worker_seen_s") < 30
    assert ready.pop("loop_stall_ms") >= 0
    assert ready == {
        "ready": True,
        "database": "ok",
        "worker": "ok",
        "queued": 0,
        "importing": 0,
        "last_import_at": None,
    }


@pytest.mark.postgres
def test_readyz_is_503_while_postgresql_is_away_and_healthz_is_not():
    from tests import servers

    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.ExitStack())
        url = database.enter_context(servers.postgres())
        running = stack.enter_context(site("--no-worker", DATABASE_URL=url))
        assert running.ready()["database"] == "ok"
        database.close()
        with pytest.raises(urllib.error.HTTPError) as refused:
            running.ready()
        assert refused.value.code == 503
        assert refused.value.headers["Retry-After"]
        assert b"auditweb:" not in refused.value.read()  # no address, no account
        with urllib.request.urlopen(running.url + "/healthz") as answer:
            assert answer.status == 200


def serve_once(env, *args, **kwargs):
    """How a start ends that must not succeed."""
    command = [sys.executable, "manage.py", "serve", "--port", "0", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, **kwargs)


@pytest.fixture
def bare_env(tmp_path):
    """The environment without anything of auditweb's but an empty data directory."""
    ours = ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "ALLOWED_HOSTS", "SECRET_KEY")
    env = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith("AUDITWEB_")}
    return env | {"AUDITWEB_DATA": str(tmp_path / "data")}


def _not_even_root():
    """Take the right to write everywhere (CAP_DAC_OVERRIDE, 1) from the program that is started next."""
    ctypes.CDLL(None).prctl(24, 1)


def test_a_data_directory_that_cannot_be_written_is_one_sentence(tmp_path, bare_env):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    for path, reason in (
        (locked, "Permission denied"),
        (locked / "inside", "Permission denied"),
        ("/dev/null", "File"),
    ):
        done = serve_once(bare_env | {"AUDITWEB_DATA": str(path)}, preexec_fn=_not_even_root)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(f"auditweb: the data directory {path} cannot be used: {reason}")


def test_a_database_that_a_newer_version_made_is_left_alone(bare_env):
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=bare_env, check=True, timeout=60)
    path = os.path.join(bare_env["AUDITWEB_DATA"], "auditweb.sqlite3")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('dumps', '0999_later', '2030-01-01')"
        )
    done = serve_once(bare_env)
    assert done.returncode == 1
    assert done.stderr == (
        f"CommandError: the database {path} was made by another version of auditweb (it has dumps.0999_later). "
        "Install that version again, or take another data directory.\n"
    )


def test_a_file_that_is_no_database_is_one_sentence(bare_env):
    os.mkdir(bare_env["AUDITWEB_DATA"], 0o700)
    path = os.path.join(bare_env["AUDITWEB_DATA"], "auditweb.sqlite3")
    with open(path, "w") as f:
        f.write("not a database " * 100)
    done = serve_once(bare_env)
    assert (done.returncode, done.stderr) == (
        1,
        f"CommandError: cannot use the database {path}: file is not a database.\n",
    )


def test_a_postgresql_that_does_not_answer_is_one_sentence_without_its_password(bare_env):
    done = serve_once(bare_env | {"DATABASE_URL": f"postgres://auditweb:sesame@127.0.0.1:{free_port()}/auditweb"})
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: cannot use the database of DATABASE_URL: connection failed")
    assert len(done.stderr.splitlines()) == 1
    assert "sesame" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AUDITWEB_MAX_REQUESTS": "many"}, "AUDITWEB_MAX_REQUESTS must be a number, not 'many'."),
        ({"AUDITWEB_MAX_DUMP_BYTES": "0"}, "AUDITWEB_MAX_DUMP_BYTES must be at least 1, not 0."),
        ({"AUDITWEB_LIVE_POLL_SECONDS": "nan"}, "AUDITWEB_LIVE_POLL_SECONDS must be at least 0.01, not nan."),
        ({"AUDITWEB_LOG_LEVEL": "loud"}, "AUDITWEB_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR."),
        (
            {"DATABASE_URL": "mysql://auditweb:sesame@db/auditweb"},
            "DATABASE_URL must be postgres://user:password@host:5432/name; without it SQLite is used.",
        ),
        ({"REDIS_URL": "cache:6379"}, "REDIS_URL must be redis://host:6379/0; without it no Redis is used."),
    ],
)
def test_a_variable_that_makes_no_sense_is_one_sentence(bare_env, variables, sentence):
    done = serve_once(bare_env | variables)
    assert (done.returncode, done.stderr) == (1, f"auditweb: {sentence}\n")


def test_an_empty_variable_counts_as_not_set(bare_env):
    names = ("AUDITWEB_MAX_REQUESTS", "AUDITWEB_LOG_LEVEL", "AUDITWEB_LEASE_SECONDS", "DATABASE_URL", "REDIS_URL")
    command = [sys.executable, "manage.py", "check"]
    env = bare_env | dict.fromkeys(names, "")
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_port_that_no_machine_has_is_refused(bare_env):
    done = serve_once(bare_env, "--port", "65536")
    assert done.returncode == 2
    assert done.stderr.endswith("a port is a number from 0 to 65535\n")


def test_a_proper_deployment_passes_the_deployment_check(bare_env):
    env = bare_env | {"PUBLIC_URL": "https://audit.example.org", "ALLOWED_HOSTS": "audit.example.org,127.0.0.1"}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"ALLOWED_HOSTS": "*"}, "E001"),
        ({"AUDITWEB_DEBUG": "1", "ALLOWED_HOSTS": "audit.example.org"}, "E002"),
        ({"AUDITWEB_DEBUG": "1", "PUBLIC_URL": "https://audit.example.org"}, "E002"),
        ({"SECRET_KEY": "changeme"}, "E003"),
        ({"SECRET_KEY": "django-insecure-" + "0123456789abcdef" * 3}, "E003"),
        ({"PUBLIC_URL": "audit.example.org"}, "E004"),
        ({"PUBLIC_URL": "https://audit.example.org/audit", "ALLOWED_HOSTS": "audit.example.org"}, "E004"),
        ({"PUBLIC_URL": "http://audit.example.org", "ALLOWED_HOSTS": "audit.example.org"}, "E005"),
        ({"PUBLIC_URL": "https://audit.example.org"}, "E006"),
    ],
)
def test_dangerous_settings_are_refused_at_the_start(tmp_path, variables, code):
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"} | {"AUDITWEB_DATA": str(tmp_path)}
    command = [sys.executable, "manage.py", "serve", "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=env | variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"auditweb.{code}" in done.stderr


def test_debug_is_not_served_to_the_network(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    env |= {"AUDITWEB_DATA": str(tmp_path), "AUDITWEB_DEBUG": "1"}
    command = [sys.executable, "manage.py", "serve", "--port", "0", "--host", "0.0.0.0"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "refusing to listen on 0.0.0.0" in done.stderr


def test_the_default_settings_and_a_proper_proxy_are_accepted(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    env |= {"AUDITWEB_DATA": str(tmp_path / "data")}
    for variables in ({}, {"PUBLIC_URL": "https://audit.example.org", "ALLOWED_HOSTS": "audit.example.org,127.0.0.1"}):
        command = [sys.executable, "manage.py", "check", "--fail-level", "WARNING"]
        done = subprocess.run(command, cwd=ROOT, env=env | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_a_chunk_of_a_dump_may_pass_and_a_form_that_large_may_not(running):
    def put(path, size):
        request = urllib.request.Request(running.url + path, data=b"x" * size, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code

    assert put("/api/v1/dumps/x.jsonl", 8 * 2**20) in (401, 403)  # heard in full, refused for want of a key
    assert put("/accounts/login/", 2 * 2**20) == 413
