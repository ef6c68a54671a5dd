"""A real RoomKit agent, from its hooks through the client package and the site to the page that somebody watches."""

import json
import re
import subprocess
from datetime import datetime
from statistics import median, quantiles
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.test_live_page import LONG, READ_ALL, has_rows, ready, state, stored
from tests.site import ROOT
from tests.test_client_roomkit import ENV, roomkit_agent

ROUND = 11  # lines of a round of tests/roomkit_agent.py

# Notes when the page first shows a row: {seq: milliseconds since the epoch}.
NOTE_ROWS = """() => {
  window.__shown = {};
  const box = document.querySelector("[data-part=transcript]");
  const look = () => {
    for (const row of box.querySelectorAll(".row[data-seq]:not([hidden]):not(.waiting)")) {
      window.__shown[row.dataset.seq] ??= Date.now();
    }
  };
  look();
  window.__before = Object.keys(window.__shown).map(Number);
  new MutationObserver(look).observe(box, { attributes: true, childList: true, subtree: true });
}"""


class Agent:
    """A process with RoomKit that is on the telephone; see tests/roomkit_agent.py."""

    def __init__(self, url: str, key: str, spool):
        self.process = subprocess.Popen(
            roomkit_agent("call", url, key, str(spool)),
            env=ENV,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command: str) -> dict:
        assert self.process.stdin and self.process.stdout
        print(command, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, "the agent is gone"
        return json.loads(answer)


@pytest.fixture
def agent(server, tmp_path):
    key = server.manage("create_api_key", "--team", "default", "--scopes", "ingest,read").strip()
    running = Agent(server.url, key, tmp_path / "spool")
    yield running
    running.process.kill()
    running.process.wait()


def test_a_roomkit_call_grows_in_the_page_and_survives_a_restart_of_the_site(
    agent, server, alice_page, alice_context, watched, capsys, record_property
):
    watched.allowed += ["ERR_", "WebSocket", "503", "Failed to load resource"]
    agent("talk 1")
    (session,) = agent("flush")["sessions"]
    lines = 1 + ROUND + 1  # the start of the session, a round, a post on the status bus
    ready(alice_page.goto(server.url + session["url"]) and alice_page)
    has_rows(alice_page, lines, LONG)
    alice_page.evaluate(NOTE_ROWS)

    # While it is watched.
    agent("talk 6")
    lines += 6 * (ROUND + 1)
    has_rows(alice_page, lines, LONG)
    p50, p95 = latency(server, alice_page, session["url"])
    record_property("line_to_page_p95_ms", p95)
    with capsys.disabled():
        print(f"\nfrom RoomKit's hook to the page: p50 {p50:.0f} ms, p95 {p95:.0f} ms", flush=True)

    # The site dies in the middle of a call, and the call goes on meanwhile.
    server.kill()
    told = agent("talk 2")
    assert told["waiting"]
    server.start(urlsplit(server.url).port)
    agent("talk 1")
    lines += 3 * (ROUND + 1)
    assert agent("flush")["accepted"] == lines
    has_rows(alice_page, lines, LONG)
    late = ready((page := watched(alice_context.new_page())).goto(server.url + session["url"]) and page)
    told = agent("hang up")
    assert told == {"accepted": lines, "sessions": [session], "lost": 0, "waiting": False}

    in_the_database = stored(server, alice_page, session["url"])
    assert [seq for _, seq, _ in in_the_database] == list(range(1, lines + 1))
    words = {seq: text for _, seq, text in in_the_database}
    for page in (alice_page, late):
        expect(state(page)).to_have_text("ended", timeout=LONG)
        has_rows(page, lines, LONG)
        shown = rows(page)
        assert [position for position, _, _ in shown] == list(range(1, lines + 1))
        assert sorted(seq for _, seq, _ in shown) == list(range(1, lines + 1))
        assert [text for _, seq, text in shown if "Question" in words[seq]] == [
            f"Question {n}: is there a table tonight?" for n in range(1, 11)
        ]


def rows(page) -> list:
    """All rows of the page; the list draws them in frames, which are far apart on a busy machine."""
    page.bring_to_front()
    frames = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(go))))"
    read, changed = re.subn(r"(const pause = ).+;", rf"\1{frames};", READ_ALL)
    assert changed
    return page.evaluate(read)


def latency(server, page, path: str) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds between the stamp of an entry and its row in the page."""
    shown, before = page.evaluate("[window.__shown, window.__before]")
    entries = page.request.get(f"{server.url}/api/v1{path}timeline?limit=1000").json()["entries"]
    waits = [shown[str(e["seq"])] - stamp(e) for e in entries if str(e["seq"]) in shown and e["seq"] not in before]
    assert len(waits) > 50
    return median(waits), quantiles(waits, n=20)[-1]


def stamp(entry: dict) -> float:
    return datetime.fromisoformat(entry["at"]).timestamp() * 1000
