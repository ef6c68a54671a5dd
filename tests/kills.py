"""Producers that send without pause while what they send to is killed, and what of it arrived, at its watchers too.

``python -m tests.kills [--seconds 120] [--every 10]`` does so for long, on SQLite, or on the servers that are named in
the environment (``python -m tests.servers -- python -m tests.kills``), where Redis is harmed afterwards; it prints the
figures.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import socket
import struct
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.servers import free_port
from tests.site import Site, site, until
from tests.test_redis_faults import Follower, Redis, emptied, frozen, killed

RATE = 200  # lines per second of all producers together
CUT_EVERY = 20  # pieces of what the server says of which one is swallowed, with its connection
BATCH = 20  # lines of one request at most
ANSWER_SECONDS = 20
RETRY_SECONDS = 0.1


class Away(Exception):
    """No answer, or one that does not say whether the lines were taken."""


class Producer(threading.Thread, ABC):
    """Sends the lines ``<name> 1``, ``<name> 2`` … to a stream of its own and believes nothing but acknowledgements."""

    def __init__(self, name: str, url: str, key: str, session: str, rate: float):
        super().__init__(daemon=True, name=name)
        self.url = urlsplit(url)
        self.headers = {"Authorization": f"Bearer {key}"}
        self.session = session
        self.rate = rate
        self.random = random.Random(name)
        self.lines: list[bytes] = []
        self.acked_at: list[float] = []  # of each line that was acknowledged
        self.duplicates = 0  # lines that were acknowledged as being there already
        self.refused: Counter[int] = Counter()  # answers with a status from 500 on
        self.longest_outage = 0.0  # seconds from the first try to the answer
        self.failure: Exception | None = None
        self.leaving = threading.Event()

    @property
    def acked(self) -> int:
        return len(self.acked_at)

    def run(self) -> None:
        began = time.monotonic()
        try:
            while not (self.leaving.is_set() and self.acked == len(self.lines)):
                if not self.leaving.is_set():
                    self._write(int((time.monotonic() - began) * self.rate) - len(self.lines))
                if self.acked == len(self.lines):
                    self.leaving.wait(1 / self.rate)
                    continue
                self._until_acked(self.random.randint(1, BATCH))
        except Exception as e:
            self.failure = e
        finally:
            self.hang_up()

    def text(self, number: int) -> str:
        return f"{self.name} {number}"

    def _write(self, count: int) -> None:
        for _ in range(count):
            number = len(self.lines) + 1
            entry = {
                "ts": datetime.now(UTC).isoformat(),
                "type": "speech",
                "role": "user" if number % 2 else "assistant",
                "content": self.text(number),
                "duration_ms": None,
                "metadata": {},
            }
            self.lines.append(json.dumps(entry).encode())

    def _until_acked(self, count: int) -> None:
        began = time.monotonic()
        while True:
            first = self.acked + 1
            batch = self.lines[first - 1 : first - 1 + count]
            try:
                through, duplicates = self.send(first, batch)
            except Away:
                self.hang_up()
                time.sleep(RETRY_SECONDS)
                continue
            now = time.monotonic()
            self.longest_outage = max(self.longest_outage, now - began)
            assert through == first + len(batch) - 1, f"{self.name}: {through} instead of line {first + len(batch) - 1}"
            self.duplicates += duplicates
            self.acked_at += [now] * (through - self.acked)
            return

    @abstractmethod
    def send(self, first: int, lines: list[bytes]) -> tuple[int, int]:
        """(number of the last line that is stored, how many were there before). Raises Away."""

    @abstractmethod
    def hang_up(self) -> None:
        """Close the connection, if there is one."""


class HttpProducer(Producer):
    """One request after the other over one connection."""

    connection: http.client.HTTPConnection | None = None

    def send(self, first, lines):
        try:
            if self.connection is None:
                assert self.url.hostname
                self.connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=ANSWER_SECONDS)
            path = f"/api/v1/streams/{self.name}/lines?first={first}&session={self.session}&title={self.name}"
            self.connection.request("POST", path, b"\n".join(lines) + b"\n", self.headers)
            answer = self.connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise Away from e
        if answer.status >= 500:
            self.refused[answer.status] += 1
            raise Away
        assert answer.status == 200, f"{self.name}, line {first}: {answer.status} {said}"
        return said["accepted_through"], said["duplicates"]

    def hang_up(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class SocketProducer(Producer):
    """One message after the other over one WebSocket."""

    socket: ClientConnection | None = None

    def send(self, first, lines):
        try:
            if self.socket is None:
                self._open()
            assert self.socket
            self.socket.send(json.dumps({"first": first, "lines": [line.decode() for line in lines]}))
            said = json.loads(self.socket.recv(ANSWER_SECONDS))
        except InvalidStatus as e:
            if e.response.status_code >= 500:
                self.refused[e.response.status_code] += 1
            raise Away from e
        except (OSError, WebSocketException) as e:
            raise Away from e
        assert said["type"] == "accepted", f"{self.name}, line {first}: {said}"
        return said["accepted_through"], said["duplicates"]

    def _open(self):
        address = f"ws://{self.url.netloc}/ws/streams/{self.name}/?session={self.session}&title={self.name}"
        opening = connect(address, additional_headers=self.headers, open_timeout=ANSWER_SECONDS)
        self._undo = contextlib.ExitStack()
        self.socket = self._undo.enter_context(opening)
        through = json.loads(self.socket.recv(ANSWER_SECONDS))["accepted_through"]
        assert through >= self.acked, f"{self.name}: {through} lines are there, {self.acked} were acknowledged"

    def hang_up(self):
        if self.socket:
            self._undo.close()
        self.socket = None


class Cutter:
    """A proxy that swallows every CUT_EVERYth piece of what the server says, and cuts the connection there."""

    def __init__(self, url: str):
        to = urlsplit(url)
        self.to = (to.hostname, to.port)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.cuts = 0
        self._said = itertools.count(1)
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(self.to, 5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, target, cutting: bool):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if cutting and next(self._said) % CUT_EVERY == 0:
                    self.cuts += 1
                    break
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no farewell: a reset
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass
class Report:
    """What arrived of what was sent."""

    acked: int = 0
    lost: int = 0  # acknowledged, and not in the database
    doubled: int = 0
    gaps: list = field(default_factory=list)  # sessions whose numbers are not 1, 2, 3 …
    refused: Counter = field(default_factory=Counter)  # answers from 500 on
    duplicates: int = 0  # lines that were sent again although they were stored
    cuts: int = 0
    kills: int = 0
    longest_outage: float = 0.0
    longest_lag: float = 0.0  # seconds from an acknowledgement to who watches

    def __str__(self):
        return (
            f"{self.acked} acknowledged, {self.lost} lost, {self.doubled} doubled, "
            f"{len(self.gaps)} sessions with gaps, {self.kills} kills, "
            f"{self.cuts} answers cut off, {self.duplicates} lines sent again that were stored, "
            f"5xx: {dict(self.refused) or 0}, longest outage {self.longest_outage:.1f} s, "
            f"longest from acknowledgement to watcher {self.longest_lag:.2f} s"
        )


class Producers:
    """Four at once, over HTTP and WebSockets, two of them through a Cutter; two feed one session together."""

    def __init__(self, server: Site):
        self.server = server
        words = ["--team", "default", "--scopes", "ingest,read", "--name", "producers", "--json"]
        self.key = json.loads(server.manage("create_api_key", *words))["key"]
        self.cutter = Cutter(server.url)
        cut, direct, each = self.cutter.url, server.url, RATE / 4
        self.all: list[Producer] = [
            HttpProducer("http", direct, self.key, "together", each),
            SocketProducer("socket", direct, self.key, "together", each),
            HttpProducer("http-cut", cut, self.key, "alone", each),
            SocketProducer("socket-cut", cut, self.key, "apart", each),
        ]
        for producer in self.all:
            producer.start()

    def check(self) -> None:
        """AssertionError when one of them met something that may not be."""
        for producer in self.all:
            if producer.failure:
                raise AssertionError(f"{producer.name} stopped: {producer.failure}") from producer.failure

    def finish(self) -> Report:
        """Let them send what they have, and look for all of it in the database."""
        for producer in self.all:
            producer.leaving.set()
        for producer in self.all:
            producer.join(120)
            assert not producer.is_alive(), f"{producer.name} did not come to its end"
        self.check()
        self.cutter.close()
        report = Report(cuts=self.cutter.cuts)
        found: Counter[str] = Counter()
        for public_id in {self.session_of(producer) for producer in self.all}:
            rows = self.rows(public_id)
            found.update(row["text"] for row in rows)
            if [row["seq"] for row in rows] != list(range(1, len(rows) + 1)):
                report.gaps.append(public_id)
        for producer in self.all:
            report.acked += producer.acked
            report.lost += sum(not found[producer.text(n + 1)] for n in range(producer.acked))
            report.refused += producer.refused
            report.duplicates += producer.duplicates
            report.longest_outage = max(report.longest_outage, producer.longest_outage)
            original = self.get(f"dumps/{self.stream(producer)['id']}/original")
            assert original == b"".join(line + b"\n" for line in producer.lines), f"{producer.name}: other bytes"
        report.doubled = sum(number - 1 for number in found.values())
        assert found.total() == report.acked + report.doubled - report.lost, "lines that nobody sent"
        return report

    def stream(self, producer: Producer) -> dict:
        return json.loads(self.get(f"streams/{producer.name}"))

    def session_of(self, producer: Producer) -> str:
        until(lambda: producer.acked, f"a line of {producer.name}")
        return self.stream(producer)["sessions"][0]["id"]

    def rows(self, public_id: str) -> list[dict]:
        """All rows of a session, in the order of their numbers."""
        rows: list[dict] = []
        while True:
            after = rows[-1]["seq"] if rows else 0
            page = json.loads(self.get(f"sessions/{public_id}/timeline?after_index={after}&limit=1000"))["entries"]
            if not page:
                return rows
            rows += page

    def get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self.server.url}/api/v1/{path}")
        request.add_header("Authorization", f"Bearer {self.key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()


class Watchers:
    """Open sockets at *server*, one for each session that *producers* feed."""

    def __init__(self, server: Site, producers: Producers):
        self.producers = producers
        self.undo = contextlib.ExitStack()
        self.followers = []
        for public_id in {producers.session_of(producer) for producer in producers.all}:
            self.followers.append(Follower(server, public_id, producers.key))
            self.undo.callback(self.followers[-1].end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.undo.close()

    def longest_lag(self) -> float:
        """Seconds from the acknowledgement of a line to its watcher, the longest; AssertionError when one misses."""
        acked = {p.text(n): at for p in self.producers.all for n, at in enumerate(p.acked_at, 1)}

        def missing() -> set[str]:
            return acked.keys() - {text for follower in self.followers for text in follower.came}

        until(lambda: not missing(), "every line at its watcher")
        return max(at - acked[text] for follower in self.followers for text, at in follower.came.items())


def under_kills(kills: int, every: float) -> Report:
    """Let producers send to a site whose web process is killed *kills* times, *every* so many seconds; who watches
    does so at another process."""
    with site() as server, contextlib.ExitStack() as beside:
        same = {name: server.env.get(name, "") for name in ("AUDITWEB_DATA", "DATABASE_URL", "REDIS_URL")}
        watched = beside.enter_context(site("--no-worker", **same))
        producers = Producers(server)
        watchers = beside.enter_context(Watchers(watched, producers))
        port = urlsplit(server.url).port or 0
        for _ in range(kills):
            time.sleep(every)
            server.kill()
            server.start(port)
            producers.check()
        report = producers.finish()
        report.kills, report.longest_lag = kills, watchers.longest_lag()
        return report


def under_redis_faults(seconds: float) -> Report:
    """Let producers send to a site whose Redis is killed, frozen and emptied, each for *seconds*."""
    redis = Redis()
    try:
        with site(REDIS_URL=redis.url) as server, contextlib.ExitStack() as beside:
            producers = Producers(server)
            watchers = beside.enter_context(Watchers(server, producers))
            for fault in (killed, frozen, emptied):
                course = fault(redis)
                next(course)
                time.sleep(seconds)
                for _ in course:
                    pass
                time.sleep(seconds / 2)
                producers.check()
            report = producers.finish()
            report.longest_lag = watchers.longest_lag()
            return report
    finally:
        with contextlib.suppress(ProcessLookupError):
            redis.thaw()
        redis.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="Producers under kills: what was acknowledged, lost, doubled.")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--every", type=float, default=10, help="seconds between two kills")
    options = parser.parse_args()
    scaled = bool(os.environ.get("DATABASE_URL"))
    where = "PostgreSQL and Redis" if scaled else "SQLite"
    print(f"{where}, killed: {under_kills(int(options.seconds / options.every), options.every)}", flush=True)
    if scaled:
        print(f"{where}, Redis killed, frozen, emptied: {under_redis_faults(options.seconds / 6)}")


if __name__ == "__main__":
    main()
