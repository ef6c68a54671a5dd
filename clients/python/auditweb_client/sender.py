"""How the lines of a spool get to the server: by number, each once, whatever restarts in between.

Keeps for itself the numbering (line n of the spool is line n + ``shift`` of the stream), what a refusal means, and how
long to wait before the next try.
"""

import http.client
import json
import logging
import random
import re
import secrets
from typing import Any

from auditweb_client.lines import shortened
from auditweb_client.server import Answer, Server
from auditweb_client.spool import Spool

log = logging.getLogger("auditweb_client")

REQUEST_LINES = 1000  # the server takes no more
REQUEST_BYTES = 512 * 2**10  # half of what the server takes: proxies have limits of 1 MiB too
CUT_BYTES = 64 * 2**10  # a line that even a proxy lets through
FIRST_WAIT, LONGEST_WAIT, HOPELESS_WAIT = 0.25, 15.0, 60.0  # seconds; hopeless: the key is refused, say
MOST_WAIT = 600.0  # seconds, whatever Retry-After asks for
NAME_LENGTH = 200  # the server takes no longer names
_random = random.SystemRandom()


class Later(Exception):
    """Nothing could be done now; ``seconds`` until the next try makes sense."""

    def __init__(self, seconds: float):
        super().__init__(f"again in {seconds:.2f} s")
        self.seconds = seconds


class Sender:
    """Brings one spool to one server; one instance belongs to one thread.

    ``acked`` is the number in the spool of the last line that the server has; ``sessions`` what it told of the
    sessions that the stream feeds, ``[{"id", "url"}]``.
    """

    def __init__(self, spool: Spool, server: Server):
        self.spool, self.server = spool, server
        self.acked = spool.first - 1
        self.sessions: list[dict[str, Any]] = []
        self._most = REQUEST_LINES
        self._failures = self._renames = 0
        self._told = ""  # the trouble that was logged last

    @property
    def name(self) -> str:
        """The name of the stream at the server; another one than asked for after it had to be changed."""
        return str(self.spool.about["stream"])

    @property
    def failing(self) -> bool:
        """The last request got no answer, or a refusal."""
        return self._failures > 0

    @property
    def waiting(self) -> int:
        """How many lines the server does not have yet."""
        return self.spool.last - self.acked

    def push(self) -> None:
        """Send the next lines, one request. Raises Later."""
        shift = self._shift()
        first = self.acked + 1
        lines = self.spool.read(first, self._most, REQUEST_BYTES)
        if not lines:
            return self._skip()
        if self._most == 1 and self.spool.about.get("too_long") == first:
            lines = [shortened(lines[0], CUT_BYTES)]
        query = {"first": first + shift, **self.spool.about["options"]}
        body = b"\n".join(lines) + b"\n"
        answer = self._ask(("lines",), query, body, "application/x-ndjson")
        if answer.status == 200:
            self._renames = 0
            self._most = REQUEST_LINES
            self.acked = first + len(lines) - 1
            if sessions := answer.json.get("sessions"):
                self._note(sessions)
            self.spool.forget(self.acked)
        elif (
            answer.status == 409 and answer.code == "gap" and isinstance(expected := answer.detail.get("expected"), int)
        ):
            self._back_to(expected - shift)
        elif answer.status == 409:
            self._rename(str(answer))
        elif answer.status == 413 and len(lines) > 1:
            self._most = max(1, len(lines) // 2)
        elif answer.status == 413 and answer.code != "too_large" and self.spool.about.get("too_long") != first:
            # Not the server but something before it: this line alone is too much for it.
            self._most = 1
            self.spool.save(too_long=first)
        elif answer.status == 413:
            self._rename(str(answer))
        else:
            raise self._refused(answer)

    def heartbeat(self) -> None:
        """Say that the producer is there. Raises Later."""
        if self.acked < 1 or self.spool.about.get("shift") is None:
            return  # the server knows no such stream yet
        answer = self._ask(("heartbeat",))
        if answer.status == 200:
            through = answer.json.get("accepted_through")
            if isinstance(through, int) and through - self._shift() < self.acked:
                self._back_to(through + 1 - self._shift())
        elif answer.status != 404:
            raise self._refused(answer)

    def provisional(self, role: str, text: str) -> None:
        """Show what somebody has said so far; what fails is not repeated. Raises Later when the server is away."""
        if self.acked >= 1:
            self._ask(("provisional",), None, json.dumps({"role": role, "text": text}).encode())

    def end(self) -> None:
        """Everything was sent and the producer is done. Raises Later."""
        if self.spool.last >= 1 and self.spool.about.get("shift") is not None:
            answer = self._ask(("end",))
            if answer.status not in (200, 404, 409):
                raise self._refused(answer)

    def _shift(self) -> int:
        """What to add to a number of the spool. A stream whose name was chosen may have lines of earlier processes."""
        shift = self.spool.about.get("shift")
        if shift is None:
            answer = self._ask((), method="GET")
            if answer.status not in (200, 404):
                raise self._refused(answer)
            through = answer.json.get("accepted_through")
            shift = through - self.acked if answer.status == 200 and isinstance(through, int) else -self.acked
            self.spool.save(shift=shift)
        return int(shift)

    def _back_to(self, number: int) -> None:
        """The server lacks lines that it had: send them again, from *number* on, if they are still there."""
        if self.spool.first <= number <= self.acked + 1:
            if number <= self.acked:
                log.warning("%s goes back to line %d: the server has lost what came after", self.name, number)
            self.acked = number - 1
        else:
            self._rename(f"the server continues with line {number}, which is not kept here any more")

    def _rename(self, why: str) -> None:
        """Go on under another name with the lines that the server lacks. Raises Later when that does not help."""
        self._renames += 1
        if self._renames > 3:
            raise self._later(HOPELESS_WAIT)
        old = self.name
        base = re.sub(r" ~[0-9a-f]{4}$", "", old)[: NAME_LENGTH - 6]
        options = dict(self.spool.about["options"])
        if not options.get("session") and len(self.sessions) == 1:
            options["session"] = self.sessions[0]["id"]
        self.spool.save(stream=f"{base} ~{secrets.token_hex(2)}", shift=-self.acked, options=options)
        log.warning("the stream %s goes on as %s from here on: %s", old, self.name, why)

    def _skip(self) -> None:
        """The files of the spool were changed by somebody else: what is gone is gone, the numbers must not show it."""
        missing = self.waiting
        self.spool.save(shift=self._shift() - missing)
        self.acked += missing
        log.error("%d lines of %s are gone from the spool", missing, self.name)

    def _note(self, sessions: list[dict[str, Any]]) -> None:
        if not self.sessions:
            for session in sessions:
                log.info("%s is shown at %s%s", self.name, self.server.origin, session.get("url"))
        self.sessions = sessions

    def _ask(
        self,
        what: tuple[str, ...],
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        method: str = "POST",
    ) -> Answer:
        try:
            answer = self.server.ask(method, ("streams", self.name, *what), query, body, kind)
        except (OSError, http.client.HTTPException) as e:
            self._tell("away", f"no answer from {self.server.url}, lines wait in the spool: {e or type(e).__name__}")
            raise self._later(LONGEST_WAIT) from e
        if answer.status == 200:
            if self._told:
                log.warning("%s takes lines again", self.server.url)
            self._failures, self._told = 0, ""
        return answer

    def _refused(self, answer: Answer) -> Later:
        self._tell(str(answer.status), f"{self.server.url} takes no lines of {self.name} now: {answer}")
        hopeless = 300 <= answer.status < 500 and answer.status not in (408, 425, 429)
        return self._later(HOPELESS_WAIT if hopeless else LONGEST_WAIT, answer.retry_after)

    def _later(self, longest: float, retry_after: float | None = None) -> Later:
        wait = min(longest, FIRST_WAIT * 2 ** min(self._failures, 10))
        if longest == HOPELESS_WAIT:
            wait = longest
        self._failures += 1
        wait = _random.uniform(wait / 2, wait)
        if retry_after is not None:
            wait = max(wait, min(retry_after, MOST_WAIT) + _random.uniform(0, 0.5))
        return Later(wait)

    def _tell(self, kind: str, what: str) -> None:
        """Log a trouble once, not at every try."""
        if kind != self._told:
            log.warning("%s", what)
            self._told = kind
