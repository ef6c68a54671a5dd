"""A producer as anybody could write one: numbered lines over plain HTTP, sent again until the site has taken them."""

import contextlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from urllib.parse import quote, urlencode

HEARTBEAT_SECONDS = 5.0  # without anything else to send
ANSWER_SECONDS = 10.0
BATCH = 200  # lines of one request; the site takes 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds before something is sent again


class Refused(Exception):
    """The site will not take the lines, however often they are sent. The text is a sentence."""


class _Away(Exception):
    """Nobody answered, or not in a way that says whether the lines were taken."""


class Producer:
    """Sends lines to the stream *name* of *site*, in order and each once; words that are not over, when there is time.

    A thread of its own does so: nobody who calls ``line`` or ``words`` waits, and while the site is away lines stay
    here. *rules*: ``title``, ``session``, ``bus``, ``zone`` of the stream. *tell* gets a sentence when the site goes
    and when it comes back. ``refused`` is why it stopped for good, "" as long as it has not.
    """

    def __init__(self, site: str, key: str, name: str, rules: dict[str, str], tell: Callable[[str], None]):
        self.address = f"{site}/api/v1/streams/{quote(name, safe='')}"
        self.site = site
        self.key = key
        self.rules = rules
        self.tell = tell
        self.accepted = 0  # lines that the site has
        self.sessions: list[dict] = []  # {"id", "url"} of those that they went to
        self.refused = ""
        self.first_answer = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()  # lines from number accepted + 1 on
        self._words: dict | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"producer of {name}")
        self._thread.start()

    def line(self, raw: bytes) -> None:
        """Send *raw*, without its newline, as the next line."""
        with self._changed:
            self._waiting.append(raw)
            self._words = None  # the line has all of them
            self._changed.notify()

    def words(self, role: str, text: str) -> None:
        """Show what *role* has said so far; later words replace these if they were not sent yet."""
        with self._changed:
            self._words = {"role": role, "text": text}
            self._changed.notify()

    def close(self, seconds: float) -> bool:
        """Send what is left and end the stream; False when the site did not confirm that within *seconds*."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive() and not self.refused

    def _run(self) -> None:
        try:
            while self._send():
                pass
        except Refused as e:
            self.refused = str(e)
        finally:
            self.first_answer.set()

    def _send(self) -> bool:
        """Send what is due, or a heartbeat when nothing was for a while; False when all of it is said."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._words or self._closing, HEARTBEAT_SECONDS)
            lines = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            words, self._words = self._words, None
            closing = self._closing
        if lines:
            self._send_lines(lines)
        elif words and not closing:
            with contextlib.suppress(_Away):  # later ones will come, or the line
                self._ask("provisional", json.dumps(words).encode(), "application/json")
        else:
            self._until_answered("end" if closing else "heartbeat")
            return not closing
        return True

    def _send_lines(self, lines: list[bytes]) -> None:
        query = urlencode({"first": self.accepted + 1, **self.rules})
        answer = self._until_answered(f"lines?{query}", b"\n".join(lines) + b"\n")
        with self._changed:
            for _ in lines:
                self._waiting.popleft()
            self.accepted += len(lines)
        self.sessions = answer["sessions"]
        self.first_answer.set()

    def _until_answered(self, path: str, body: bytes = b"") -> dict:
        """Ask again and again: a line that was taken already is known by its number."""
        pause, said = FIRST_PAUSE, False
        while True:
            try:
                answer = self._ask(path, body, "application/x-ndjson")
            except _Away as e:
                if not said:
                    self.tell(f"{self.site} does not take lines ({e}). They wait here.")
                said = True
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if said:
                    self.tell(f"{self.site} takes lines again.")
                return answer

    def _ask(self, path: str, body: bytes, content_type: str) -> dict:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": content_type}
        request = urllib.request.Request(f"{self.address}/{path}", body, headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as e:
            with e:
                code, message = _reason(e)
            if e.code >= 500 or e.code in (408, 429):
                raise _Away(message) from e
            if self.accepted and (e.code == 404 or code == "gap"):
                raise Refused("The stream was removed from the site meanwhile.") from e
            raise Refused(message) from e
        except urllib.error.URLError as e:
            raise _Away(str(e.reason)) from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise _Away(str(e) or type(e).__name__) from e


def _reason(error: urllib.error.HTTPError) -> tuple[str, str]:
    """Code and sentence of a refusal."""
    try:
        found = json.load(error)["error"]
        return found["code"], found["message"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return "", f"status {error.code}"
