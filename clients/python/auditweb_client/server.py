"""One connection to an auditweb server, kept open between requests.

Keeps for itself how a request is made and repeated. Every request of this package may be sent twice without harm, so
one that a kept connection lost is sent again at once on a new one.
"""

import http.client
import json
import sys
from email.utils import parsedate_to_datetime
from hashlib import sha256
from time import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT_SECONDS = 10


class Answer(NamedTuple):
    """``json`` is empty when the body was no JSON object; ``retry_after`` in seconds, None when not said."""

    status: int
    json: dict[str, Any]
    retry_after: float | None = None

    @property
    def code(self) -> str:
        """The server's own word for a refusal: ``gap``, ``differs``, ``rate_limited`` …; "" when it gave none."""
        return str(self._error.get("code") or "")

    @property
    def detail(self) -> dict[str, Any]:
        detail = self._error.get("detail")
        return detail if isinstance(detail, dict) else {}

    @property
    def _error(self) -> dict[str, Any]:
        error = self.json.get("error")
        return error if isinstance(error, dict) else {}

    def __str__(self) -> str:
        return f"{self.status} {self._error.get('message') or ''}".strip()


class Server:
    """``ask`` requests of the server at *url*, in the name of *key*. One instance belongs to one thread at a time."""

    def __init__(self, url: str, key: str):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address of an auditweb server begins with http:// or https://, not {url!r}")
        self.url = url.rstrip("/")
        self.key = key
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._base = parts.path.rstrip("/")
        # Tells keys apart without telling them: lines that one key could not send are sent by the same only.
        self.fingerprint = sha256(key.encode()).hexdigest()[:16]
        self.origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._connection: http.client.HTTPConnection | None = None

    def again(self) -> "Server":
        """The same server for another thread."""
        return Server(self.url, self.key)

    def ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: dict[str, Any] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
    ) -> Answer:
        """The answer to a request below ``/api/v1/``; *path* in unquoted pieces, empty values of *query* left out.

        Raises OSError or http.client.HTTPException when there is none.
        """
        address = f"{self._base}/api/v1/" + "/".join(quote(piece, safe="") for piece in path)
        if said := {name: value for name, value in (query or {}).items() if value not in ("", None)}:
            address += "?" + urlencode(said)
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": USER_AGENT, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = kind
        elif method == "POST":
            body = b""
        kept = self._connection is not None
        try:
            return self._once(method, address, body, headers)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:  # a fresh connection that broke says that the server is not well
                raise
            return self._once(method, address, body, headers)

    def close(self) -> None:
        """Give the connection back; the next request makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _once(self, method: str, address: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=TIMEOUT_SECONDS)
        try:
            self._connection.request(method, address, body, headers)
            response = self._connection.getresponse()
            data = response.read()
        except BaseException:
            self.close()
            raise
        if response.will_close:
            self.close()
        return Answer(response.status, _object(data), _seconds(response.headers.get("Retry-After")))


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(header: str | None) -> float | None:
    """Seconds from now that a Retry-After header asks for: a number, or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return None


USER_AGENT = "auditweb-client Python/{}.{}".format(*sys.version_info)
