"""`make scaled` and docker-compose.yml: the same processes; each may die, and only the proxy is outside."""

import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from tests.site import ROOT, is_alive, until

LINE = '{"ts":"2026-03-01T10:00:00+00:00","type":"speech","role":"user","content":"line %d","duration_ms":null}'
STARTS = 90  # seconds for a dozen processes on two cores that others use, too


class Running:
    """``make scaled`` as a process: what it printed, and its children by what they run."""

    def __init__(self, data: Path):
        command = [sys.executable, "-m", "tests.scaled", "--data", str(data), "--port", "0"]
        env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        self.told: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        until(lambda: self.process.poll() is not None or self._told("processes"), "the site to be up", STARTS)
        assert self.process.poll() is None
        self.url, *self.webs = re.findall(r"http://127\.0\.0\.1:\d+", self._told("auditweb is at"))
        self.pids = {pid for _, pid in self.children()}

    def _read(self):
        for line in self.process.stdout:
            self.told.append(line)

    def _told(self, words: str) -> str:
        return next((line for line in self.told if words in line), "")

    @property
    def link(self) -> str:
        return self._told("/signin/").split()[-1]

    def children(self) -> list[tuple[str, int]]:
        """(command line, process id) of every child."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in map(int, (task / "children").read_text().split()):
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if is_alive(pid):
                        found.append((line, pid))
        return found

    def one(self, words: str, but: int = 0) -> int:
        """The process whose command line has *words*, and is not *but*."""
        return until(lambda: next((pid for line, pid in self.children() if words in line and pid != but), 0), words)

    def end(self):
        self.pids |= {pid for _, pid in self.children()}
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        assert not [pid for pid in self.pids if is_alive(pid)]


@pytest.fixture
def running():
    # Not below pytest's own directories, which only their owner may enter: PostgreSQL may run as another account.
    data = Path(tempfile.mkdtemp(prefix="auditweb-scaled-"))
    data.chmod(0o711)
    site = Running(data)
    yield site
    if site.process.poll() is None:
        site.process.terminate()
        site.process.wait(60)
    shutil.rmtree(data)


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


@pytest.mark.postgres
@pytest.mark.redis
def test_a_scaled_site_starts_lives_through_deaths_and_leaves_nothing_behind(running):
    from websockets.sync.client import connect

    # A person comes in through the proxy and makes a key.
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    page = browser.open(running.link).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    browser.open(urllib.request.Request(running.link, f"csrfmiddlewaretoken={token}".encode(), {"Origin": running.url}))
    page = browser.open(running.url + "/team/").read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    form = f"csrfmiddlewaretoken={token}&name=producer&scopes=ingest&scopes=read&days="
    made = urllib.request.Request(running.url + "/team/keys/create/", form.encode(), {"Origin": running.url})
    key = re.search(r"awk_[0-9a-f]{64}", browser.open(made).read().decode())[0]
    bearer = {"Authorization": f"Bearer {key}"}

    def post(web, first, last):
        lines = "".join(LINE % n + "\n" for n in range(first, last + 1)).encode()
        url = f"{web}/api/v1/streams/call/lines?first={first}&session=call"
        while (answer := ask(url, lines, **bearer))[0] == 502:  # sent to a process that died: a producer sends it again
            pass
        assert answer[0] == 200, answer
        return json.loads(answer[1])

    # Lines that one process takes are heard of at another, directly and through the proxy.
    session = post(running.webs[0], 1, 3)["sessions"][0]["id"]
    seen = {}

    def follow(web):
        seqs = seen[web] = []
        url = f"{web.replace('http', 'ws')}/ws/sessions/{session}/?after=0"
        with contextlib.suppress(Exception), connect(url, additional_headers=bearer) as socket:
            for text in socket:
                seqs += [row["seq"] for row in json.loads(text).get("entries", ())]

    for web in (running.webs[1], running.url):
        threading.Thread(target=follow, args=[web], daemon=True).start()
    until(lambda: list(seen.values()) == [[1, 2, 3]] * 2, "the first lines")
    post(running.webs[0], 4, 5)
    until(lambda: list(seen.values()) == [[1, 2, 3, 4, 5]] * 2, "what another process took")

    # What is for monitors is not for the outside, also where the proxy would let it through.
    for path in ("/metrics", "/readyz", "/healthz"):
        assert ask(running.url + path)[0] == 404
        assert ask(running.webs[0] + path, Host="10.0.0.7:8000")[0] == 200
    assert ask(running.webs[0] + "/metrics", X_Forwarded_For="203.0.113.7")[0] == 404

    # A web process dies: the proxy goes to the other one, and the dead one is back. So is a worker.
    port = running.webs[0].rpartition(":")[2]
    web, worker = running.one(f"serve --no-worker --no-link --port {port}"), running.one("work --no-beat")
    for pid in (web, worker):
        os.kill(pid, signal.SIGKILL)
    post(running.url, 6, 6)
    running.one(f"--port {port}", but=web)
    until(lambda: sum("work --no-beat" in line for line, _ in running.children()) == 2, "two workers again")
    until(lambda: ask_safely(running.webs[0] + "/readyz") == 200, "the web process to serve again", STARTS)
    post(running.webs[0], 7, 7)
    until(lambda: seen[running.webs[1]] == [1, 2, 3, 4, 5, 6, 7], "every line, once and in order")

    # A file is imported by whichever worker hears of it.
    upload = urllib.request.Request(running.url + "/api/v1/dumps/x.jsonl", (LINE % 1).encode(), bearer, method="PUT")
    with urllib.request.urlopen(upload, timeout=30) as answer:
        dump = f"{running.url}/api/v1/dumps/{json.load(answer)['id']}"
    until(lambda: json.loads(ask(dump, **bearer)[1])["state"] == "done", "the import")
    running.end()


def ask_safely(url):
    try:
        return ask(url)[0]
    except OSError:
        return 0


# --- docker-compose.yml, which no test can start -------------------------------------------------------------------

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "auditweb"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_bounded_and_nobody_important(name):
    service = SERVICES[name]
    ends = service["restart"] == "no"
    assert service["healthcheck"] == {"disable": True} if ends else service["healthcheck"]["test"][0] == "CMD"
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    if name in OURS:
        users = re.findall(r"^USER (\w+)$", (ROOT / "Dockerfile").read_text(), re.M)
        assert users == ["auditweb"]
    else:
        assert service["user"].split(":")[0] not in ("root", "0")


def test_only_the_proxy_can_be_reached_from_outside():
    assert COMPOSE["networks"]["inside"]["internal"]
    for name, service in SERVICES.items():
        outside = name == "proxy"
        assert ("outside" in service["networks"], "ports" in service) == (outside, outside), name


def test_no_secret_has_a_default():
    text = (ROOT / "docker-compose.yml").read_text()
    for variable, more in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert not more or more == ":-" or more.startswith(":?"), variable
    assert "${POSTGRES_PASSWORD:?" in text


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_that_there_is_after_the_tables_are_up_to_date(name):
    program, command, *options = SERVICES[name]["command"]
    parser = load_command_class(get_commands()[command], command).create_parser(program, command)
    assert parser.parse_args(options)
    if name != "migrate":
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    told = [option for option in options if option.startswith("/")]
    assert set(told) <= {"/dev/shm/alive"} and all(path in str(SERVICES[name]["healthcheck"]) for path in told)


def test_the_proxy_lets_a_slice_of_a_dump_through_and_not_much_more():
    from django.conf import settings

    from auditweb.server import SLICE_MARGIN

    (size,) = re.findall(r"max_size (\d+)MB", (ROOT / "Caddyfile").read_text())
    assert settings.MAX_SLICE_BYTES + SLICE_MARGIN < int(size) * 10**6 < 2 * settings.MAX_SLICE_BYTES
