"""The page of a status log while agents post to it, and the lane beside a session, in a real browser."""

import json
import re
import secrets
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import WAIT
from tests.site import until


@pytest.fixture(scope="module")
def agents(server):
    """``agents(bus, (agent, action, status), …)`` posts to the log named *bus*, as agents do."""
    key = server.manage("create_api_key", "--team", "default", "--scopes", "ingest,read,review").strip()

    def post(bus, *entries, method="POST", path="status/{}/?wait=1"):
        names = ("agent_id", "action", "status")
        lines = [json.dumps(e if isinstance(e, dict) else dict(zip(names, e, strict=True))) for e in entries]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{server.url}/api/v1/{path.format(bus)}", "\n".join(lines).encode(), headers, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    return post


@pytest.fixture
def office(server, agents):
    """(name, address of the page) of a log with one pending entry."""
    name = f"office-{secrets.token_hex(4)}"
    return name, server.url + agents(name, ("exec", "open", "pending"))["url"]


def test_a_pending_entry_ticks_until_its_end_comes_and_is_tied_to_it(alice_page, agents, office):
    name, address = office
    alice_page.goto(address)
    first = alice_page.locator("#e1 .tie")
    expect(first).to_contain_text("pending for")
    expect(alice_page.locator(".agent-lanes .wait.open")).to_have_count(1)
    said = first.inner_text()
    expect(first).not_to_have_text(said, timeout=WAIT)
    agents(name, ("exec", "open", "completed"), ("exec", "open", "pending"))
    expect(first).to_contain_text("→ completed after", timeout=WAIT)
    expect(alice_page.locator("#e3")).to_contain_text("↻ delegated again")
    expect(alice_page.locator(".agent-lanes .mark")).to_have_count(3)
    expect(alice_page.locator("#agent-lanes")).to_contain_text("1 delegated again within 5 s")
    expect(alice_page.locator("#recent-text")).to_contain_text("exec: open → completed")
    expect(alice_page.locator("h1 + span [data-count=entries]")).to_have_text("3")
    first.click()
    expect(alice_page).to_have_url(re.compile("#e2$"))
    expect(alice_page.locator("#e2 .tie")).to_contain_text("← pending for")


def test_a_paused_page_counts_what_is_new_and_shows_it_when_it_follows_again(alice_page, agents, office):
    name, address = office
    alice_page.goto(address + "?agent=exec")
    entries = alice_page.locator(".feed-entry")
    agents(name, ("exec", "look", "ok"))
    expect(entries).to_have_count(2, timeout=WAIT)
    alice_page.get_by_role("button", name="Pause").click()
    agents(name, ("exec", "read", "ok"), ("voice", "say", "ok"), ("exec", "write", "ok"))
    pill = alice_page.get_by_role("button", name="2 new")
    expect(pill).to_be_visible(timeout=WAIT)
    assert entries.count() == 2
    pill.click()
    expect(entries.locator(".mono")).to_have_text(["write", "read", "look", "open"], timeout=WAIT)
    expect(pill).to_be_hidden()
    alice_page.reload()
    expect(entries.locator(".mono")).to_have_text(["write", "read", "look", "open"])


def test_the_posts_of_a_linked_log_come_into_the_lane_of_a_running_session(server, show, agents):
    name, begun = secrets.token_hex(4), datetime.now(UTC) - timedelta(seconds=60)

    def line(second, text):
        stamp = (begun + timedelta(seconds=second)).isoformat()
        return {"ts": stamp, "type": "speech", "role": "user", "content": text, "duration_ms": 0, "metadata": {}}

    made = agents("", line(0, "Hello"), line(40, "Bye"), path=f"streams/call-{name}/lines?first=1")
    session = made["sessions"][0]
    early = {"ts": (begun + timedelta(seconds=20)).isoformat(), "agent_id": "exec", "action": "go", "status": "ok"}
    bus = agents(f"office-{name}", early)
    agents("", {"bus": bus["id"]}, method="PATCH", path=f"sessions/{session['id']}/status")
    page = show(session["url"])
    canvas, tip = page.locator('[data-part="canvas"]'), page.locator('[data-part="tip"]')

    def says(second, row, words):
        """Whether pointing at that second in that row says *words*."""
        box = canvas.bounding_box()
        share = 0.01 + 0.98 * second / 40
        for off in (-1, 0):  # only a pointer that moves is answered
            page.mouse.move(box["x"] + 92 + share * (box["width"] - 100) + off, box["y"] + row * 20 + 10)
        return words in tip.text_content()

    until(lambda: says(20, 2, "status · exec · ok"), "the post of the linked log")
    later = early | {"ts": (begun + timedelta(seconds=30)).isoformat(), "agent_id": "voice", "status": "failed"}
    agents(f"office-{name}", later)
    until(lambda: says(30, 3, "status · voice · failed"), "the post that came, in a lane of its agent")
    page.get_by_role("link", name="Status 2").click()
    expect(page.locator(".feed-entry")).to_have_count(2)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_axe_finds_nothing(alice_page, agents, office, theme):
    name, address = office
    agents(
        name, ("exec", "open", "completed"), ("exec", "open", "pending"), ("a-long-name-of-an-agent", "x" * 80, "odd")
    )
    alice_page.emulate_media(color_scheme=theme)
    for width in (1280, 390):
        alice_page.set_viewport_size({"width": width, "height": 800})
        alice_page.goto(address)
        problems = Axe().run(alice_page).response["violations"]
        assert not problems, [(p["id"], [n["html"] for n in p["nodes"]]) for p in problems]
        assert alice_page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_page_says_the_same(server, new_context, alice_state, agents, office):
    name, address = office
    agents(name, ("exec", "open", "completed"))
    page = new_context(storage_state=alice_state, java_script_enabled=False).new_page()
    page.goto(address)
    expect(page.locator("#e1 .tie")).to_contain_text("→ completed after")
    expect(page.locator(".agent-lanes .mark")).to_have_count(2)
    expect(page.locator("#recent-text")).to_contain_text("exec: open → completed")
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
