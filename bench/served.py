"""What people feel of a running server: its start, its memory, and how fast it answers while it imports.

``python bench/served.py LINES``: a real ``manage.py serve`` with its worker on the loopback address, on SQLite or on
what ``DATABASE_URL`` and ``REDIS_URL`` name. Prints JSON: milliseconds, MiB.
"""

import http.client
import http.cookiejar
import itertools
import json
import re
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import dump  # noqa: E402, I001
from processes import family, memory  # noqa: E402
from tests.site import Site, site, until  # noqa: E402

SESSION_LINES = 100_000  # of the session whose page is opened
REQUESTS = 60  # of each kind while nothing is imported


class Client:
    """One connection that is kept open, signed in by *cookies* or a *key*."""

    def __init__(self, url: str, headers: dict[str, str]):
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
        self._headers = headers

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[float, bytes]:
        """(milliseconds until the last byte of the answer, the answer)."""
        start = time.perf_counter()
        kind = "application/json" if body and body.startswith(b'{"name') else "application/octet-stream"
        self._connection.request(method, path, body, {**self._headers, "Content-Type": kind})
        answer = self._connection.getresponse()
        content = answer.read()
        taken = (time.perf_counter() - start) * 1e3
        assert answer.status < 300, (path, answer.status, content[:500])
        return taken, content


def sign_in(server: Site) -> dict[str, str]:
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    form = browser.open(server.link).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    assert token
    sent = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1]}).encode()
    browser.open(urllib.request.Request(server.link, sent, {"Origin": server.url, "Referer": server.link}))
    return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)}


def warm_start(server: Site) -> float:
    """Seconds from the command to the first 200 of a page, in a data directory that was used before."""
    server.terminate()
    start = time.perf_counter()
    server.start()
    with urllib.request.urlopen(server.url) as page:  # leads to the page to sign in
        assert page.status == 200
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p95": ordered[int(len(ordered) * 0.95)], "count": len(ordered)}


def main() -> None:
    lines = int(sys.argv[1])
    with (
        site(AUDITWEB_DEMO="0", AUDITWEB_REQUESTS_PER_MINUTE="0") as server,
        tempfile.TemporaryDirectory() as directory,
    ):
        cookies = sign_in(server)
        starts = [warm_start(server) for _ in range(3)]
        until(lambda: server.ready().get("worker") == "ok", "a worker")
        time.sleep(5)
        assert server.process
        idle = memory(family(server.process.pid))

        first = Path(directory) / "first.jsonl"
        with first.open("wb") as file:
            file.writelines(dump.lines(SESSION_LINES, seed=1, sessions=1))
        [imported] = server.import_file(first)["dumps"]
        [session] = imported["sessions"]
        words = ["--team", "default", "--scopes", "read,ingest", "--name", "bench", "--json"]
        key = json.loads(server.manage("create_api_key", *words))["key"]
        browser = Client(server.url, cookies)
        program = Client(server.url, {"Authorization": f"Bearer {key}"})
        page = f"/sessions/{session['id']}/"
        timeline = f"/api/v1/sessions/{session['id']}/timeline?limit=200&after_index="
        places = itertools.cycle(range(0, SESSION_LINES - 200, 7_919))

        def look(into: dict[str, list[float]]) -> None:
            into["page"].append(browser.ask(page)[0])
            into["timeline"].append(program.ask(timeline + str(next(places)))[0])

        quiet: dict[str, list[float]] = {"page": [], "timeline": []}
        busy: dict[str, list[float]] = {"page": [], "timeline": []}
        for _ in range(5):
            look({"page": [], "timeline": []})
        for _ in range(REQUESTS):
            look(quiet)

        started = json.loads(program.ask("/api/v1/dumps/", "POST", b'{"name": "second.jsonl"}')[1])
        offset = 0
        for part in dump.parts(lines, seed=2):
            address = f"/api/v1/dumps/{started['id']}/bytes?offset={offset}"
            offset = json.loads(program.ask(address, "PUT", part)[1])["received"]
        begun = time.perf_counter()
        state = json.loads(program.ask(f"/api/v1/dumps/{started['id']}/finish", "POST", b"")[1])
        while state["state"] in ("queued", "importing"):
            if state["state"] == "importing":
                look(busy)
            state = json.loads(program.ask(f"/api/v1/dumps/{started['id']}")[1])
        seconds = time.perf_counter() - begun
        assert (state["state"], state["lines"]) == ("done", lines), state
        for _ in range(REQUESTS):
            look(quiet)
        after = memory(family(server.process.pid))
    result = {"starts": starts, "idle": idle, "after": after, "lines": lines, "import_seconds": seconds}
    for name in ("page", "timeline"):
        result |= {f"{name} idle": spread(quiet[name]), f"{name} importing": spread(busy[name])}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
