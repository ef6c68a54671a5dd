"""Redis killed, emptied and frozen under a running site: pages answer, imports go through, open sockets hear."""

import contextlib
import http.cookiejar
import json
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import free_port
from tests.site import ROOT, Site, site, until

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

POLL_SECONDS = 2  # of the site whose readers must hear without the doorbell
HEARD_SECONDS = 2.5  # from commit to reader, with that poll
ANSWER_SECONDS = 3.0  # 1.5 s at most for Redis, the rest for a machine that others use too
BIG = 700  # events: from 500 on outlines are kept in the cache


class Redis:
    """A Redis server of our own that can be harmed."""

    def __init__(self):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None
        self.start()

    def start(self):
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        command = [binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self.answers, "Redis to answer")

    def answers(self):
        import redis

        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return client.ping()
        except redis.RedisError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def empty(self):
        import redis

        with redis.Redis.from_url(self.url) as client:
            client.flushall()


WRITER = """
    import sys
    import django
    django.setup()
    from sessions_app.models import Session
    from tests.test_sockets import say
    session = Session.objects.get(public_id=sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        say(session, line.strip())
        print("done", flush=True)
"""


class Writer:
    """Another process that appends a row when told; ``say`` returns when it is committed."""

    def __init__(self, server: Site, public_id: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), public_id],
            cwd=ROOT,
            env={**server.env, "DJANGO_SETTINGS_MODULE": "auditweb.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


class Follower:
    """An open socket: text of each row → when it came."""

    def __init__(self, server: Site, public_id: str, key: str):
        self.came: dict[str, float] = {}
        self.closed = None
        url = server.url.replace("http", "ws") + f"/ws/sessions/{public_id}/?after=0"
        self.undo = contextlib.ExitStack()
        opening = connect(url, additional_headers={"Authorization": f"Bearer {key}"}, open_timeout=20)
        self.socket = self.undo.enter_context(opening)
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        try:
            for text in self.socket:
                message = json.loads(text)
                if message["type"] == "entries":
                    for row in message["entries"]:
                        assert row["text"] not in self.came, "doubled"
                        self.came[row["text"]] = time.monotonic()
                    self.socket.send(json.dumps({"ack": message["entries"][-1]["seq"]}))
        except ConnectionClosed as e:
            self.closed = e

    def heard(self, text, seconds):
        """Seconds until *text* has come; None when it has not in time."""
        began = time.monotonic()
        while text not in self.came and time.monotonic() - began < seconds:
            assert self.thread.is_alive(), f"the socket ended: {self.closed}"
            time.sleep(0.01)
        return self.came[text] - began if text in self.came else None

    def end(self):
        self.undo.close()
        self.thread.join(20)


class Visitor:
    """Asks the site again and again for what needs the cache: wrong passwords and a large outline, and other pages."""

    def __init__(self, server: Site, public_id: str, key: str):
        self.server, self.key, self.public_id = server, key, public_id
        self.found: list[tuple[str, int, float]] = []
        self.cookies = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.visit, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.leaving.set()
        self.thread.join(60)

    def visit(self):
        api = {"Authorization": f"Bearer {self.key}"}
        while not self.leaving.is_set():
            page = self.ask("/accounts/login/")
            if token := re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page):
                form = {"csrfmiddlewaretoken": token[1].decode(), "login": "alice", "password": "wrong"}
                self.ask("/accounts/login/", urllib.parse.urlencode(form).encode(), {"Referer": self.server.url + "/"})
            for path in ("/api/v1/sessions/", f"/api/v1/sessions/{self.public_id}/outline", "/readyz"):
                self.ask(path, headers=api)
            self.leaving.wait(0.1)

    def ask(self, path, data=None, headers=None):
        request = urllib.request.Request(self.server.url + path, data, headers or {})
        began = time.monotonic()
        try:
            with self.cookies.open(request, timeout=60) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as e:
            status, body = e.code, e.read()
        self.found.append((path, status, time.monotonic() - began))
        return body


def lines(name, count):
    return b"".join(
        json.dumps(
            {"ts": "2026-03-01T10:00:00+00:00", "type": "speech", "role": "user", "content": f"{name} {n}",
             "duration_ms": None, "metadata": {}}
        ).encode() + b"\n"
        for n in range(count)
    )  # fmt: skip


@pytest.fixture(scope="module")
def harmed():
    redis = Redis()
    try:
        with site(REDIS_URL=redis.url, AUDITWEB_LIVE_POLL_SECONDS=str(POLL_SECONDS)) as server:
            harmed = Harmed(redis, server)
            # Its readers hear by the doorbell, or after a minute.
            with site(
                "--no-worker",
                REDIS_URL=redis.url,
                DATABASE_URL=server.env["DATABASE_URL"],
                AUDITWEB_LIVE_POLL_SECONDS="60",
            ) as harmed.patient:
                yield harmed
    finally:
        with contextlib.suppress(ProcessLookupError):
            redis.thaw()
        redis.kill()


class Harmed:
    """A site with a worker on a Redis of its own; ``patient`` is a second web process that hardly polls."""

    patient: Site

    def __init__(self, redis: Redis, server: Site):
        self.redis, self.server = redis, server
        words = ["--team", "default", "--scopes", "ingest,read", "--name", "watcher", "--json"]
        self.key = json.loads(server.manage("create_api_key", *words))["key"]

    def api(self, method, path, data=None):
        """(status, object, seconds)"""
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.server.url + "/api/v1/" + path, data, headers, method=method)
        began = time.monotonic()
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), time.monotonic() - began

    def send_dump(self, name, count=3):
        status, dump, seconds = self.api("PUT", f"dumps/{name}.jsonl?session_key={name}", lines(name, count))
        assert status == 202
        assert seconds < ANSWER_SECONDS
        return dump["id"]

    def imported(self, dump_id, seconds=60):
        """The public id of the session that the dump has become."""
        until(lambda: self.api("GET", f"dumps/{dump_id}")[1]["state"] == "done", "the import", seconds)
        return self.api("GET", f"dumps/{dump_id}")[1]["sessions"][0]["id"]


def killed(redis):
    redis.kill()
    yield
    redis.start()


def frozen(redis):
    redis.freeze()
    yield
    redis.thaw()


def emptied(redis):
    redis.empty()
    yield


@pytest.mark.parametrize("fault", [killed, emptied, frozen])
def test_nobody_notices_that_redis_is(fault, harmed):
    name = fault.__name__
    with contextlib.ExitStack() as stack:
        public_id = harmed.imported(harmed.send_dump(f"{name}-before", BIG))
        writer = Writer(harmed.server, public_id)
        stack.callback(writer.end)
        polling = Follower(harmed.server, public_id, harmed.key)
        stack.callback(polling.end)
        ringing = Follower(harmed.patient, public_id, harmed.key)
        stack.callback(ringing.end)
        for follower in (polling, ringing):
            assert follower.heard(f"{name}-before {BIG - 1}", 20) is not None
        visitor = stack.enter_context(Visitor(harmed.server, public_id, harmed.key))

        course = fault(harmed.redis)
        next(course)
        began = time.monotonic()
        during = harmed.send_dump(f"{name}-during")
        number = 0
        while time.monotonic() - began < 6:
            writer.say(f"during {number}")
            assert polling.heard(f"during {number}", HEARD_SECONDS) is not None
            number += 1
            time.sleep(0.3)
        harmed.imported(during)  # before Redis is back
        for _ in course:
            pass

        harmed.imported(harmed.send_dump(f"{name}-after"))
        began, number = time.monotonic(), 0
        while True:  # until the doorbell rings again: the other process would find nothing by itself for a minute
            writer.say(f"after {number}")
            if ringing.heard(f"after {number}", 1) is not None:
                break
            assert time.monotonic() - began < 40, "the doorbell stays silent"
            number += 1
        for again in range(3):
            writer.say(f"again {again}")
            assert ringing.heard(f"again {again}", HEARD_SECONDS) is not None
            assert polling.heard(f"again {again}", HEARD_SECONDS) is not None
        assert set(polling.came) == set(ringing.came)

    assert len(visitor.found) > 20
    assert [found for found in visitor.found if found[1] >= 500 or found[2] >= ANSWER_SECONDS] == []


def test_an_outage_costs_a_few_log_lines(harmed):
    assert "Redis is away" in "".join(harmed.server.output)
    for server in (harmed.server, harmed.patient):
        text = "".join(server.output)
        ours = [line for line in server.output if "Too Many Requests" not in line]  # the visitor's wrong passwords
        assert text.count("channels_redis") <= 2
        assert text.count("celery.beat") <= 2
        assert "Traceback" not in text
        assert len(ours) < 50, "".join(ours)
