"""A producer for browser tests: numbered lines over plain HTTP, sent again until the site has taken them."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

AWAY_SECONDS = 60  # most that a site under test is away


def speech(text: str, role: str = "user", at: datetime | None = None) -> str:
    """A line of RoomKit's session auditor, said now if not *at* another time."""
    ts = (at or datetime.now(UTC)).isoformat()
    entry = {"ts": ts, "type": "speech", "role": role, "content": text, "duration_ms": None, "metadata": {}}
    return json.dumps(entry)


class Producer:
    """The stream *name* of the team that *key* belongs to, on the site at *url*; ``sent`` lines were acknowledged."""

    def __init__(self, url: str, key: str, name: str):
        self._address, self._key = f"{url}/api/v1/streams/{quote(name, safe='')}", key
        self.sent = 0
        self.path = ""  # of the session that it feeds

    def send(self, *lines: str) -> None:
        """Post *lines*; what the site does not answer is sent again."""
        answer = self._post(f"lines?first={self.sent + 1}", "\n".join(lines).encode())
        self.sent = answer["accepted_through"]
        self.path = answer["sessions"][0]["url"] if answer["sessions"] else ""

    def heartbeat(self) -> None:
        self._post("heartbeat")

    def so_far(self, role: str, text: str) -> None:
        """What *role* has said so far."""
        self._post("provisional", json.dumps({"role": role, "text": text}).encode(), "application/json")

    def end(self) -> None:
        self._post("end")

    @contextlib.contextmanager
    def talking(self, every: float = 0.03) -> Iterator[None]:
        """Send a line every so many seconds until the block ends."""
        over = threading.Event()
        failed: list[Exception] = []

        def talk():
            try:
                while not over.is_set():
                    number = self.sent + 1
                    self.send(speech(f"sentence {number}", "user" if number % 2 else "assistant"))
                    over.wait(every)
            except Exception as e:
                failed.append(e)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(AWAY_SECONDS + 5)
        assert not failed, failed

    def _post(self, what: str, data: bytes = b"", kind: str = "application/x-ndjson") -> dict:
        until = time.monotonic() + AWAY_SECONDS
        while True:
            request = urllib.request.Request(
                f"{self._address}/{what}",
                data,
                {"Authorization": f"Bearer {self._key}", "Content-Type": kind},
                method="POST",
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                if e.code < 500 or time.monotonic() > until:
                    raise
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.2)
