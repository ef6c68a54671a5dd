"""The Live wall in a browser: sessions that begin, grow, fail and end while somebody looks."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import signed_in
from tests.browser.producer import Producer

WAIT = 15_000  # ms; the machine of a test run may be slow


def speech(text, role="user", seconds_ago=0):
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"ts": at.isoformat(), "type": "speech", "role": role, "content": text, "duration_ms": None, "metadata": {}}


def call(tool, status):
    metadata = {"tool_name": tool, "arguments": {}, "status": status, "agent_id": "voice-7"}
    return {**speech("{}"), "type": "tool_call", "role": "assistant", "duration_ms": 900.0, "metadata": metadata}


def post(action, status):
    at = datetime.now(UTC).isoformat()
    return {
        "ts": at,
        "agent_id": "exec",
        "action": action,
        "status": status,
        "detail": "in the kitchen",
        "metadata": {},
    }


@pytest.fixture(scope="module")
def alice_state(server, browser):
    """Of somebody whose team has nothing but what these tests say: what others ran stays on a wall for a while."""
    return signed_in(server, browser, "wanda", "wall")


@pytest.fixture(scope="module")
def say(server, alice_state):
    """``say("stream", *entries)`` sends them in one request; ``say("stream")`` ends the stream."""
    words = ["--team", "wall", "--scopes", "ingest", "--name", "wall", "--json"]
    key = json.loads(server.manage("create_api_key", *words))["key"]
    producers = {}

    def send(name, *entries):
        producer = producers.setdefault(name, Producer(server.url, key, name))
        if entries:
            producer.send(*map(json.dumps, entries))
        else:
            producer.end()

    yield send
    for producer in producers.values():
        producer.end()


def violations(page):
    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found]


def test_a_session_is_seen_from_its_first_word_to_its_end(server, say, alice_page, alice_state, new_context):
    page = alice_page
    page.goto(f"{server.url}/live/")
    expect(page.get_by_role("heading", name="Nothing runs now")).to_be_visible()
    say("wall-one", speech("Close the window", seconds_ago=100), speech("It is closed", "assistant"))
    one = page.locator(".wall-card", has_text="wall-one")
    expect(one).to_contain_text("assistant It is closed", timeout=WAIT)
    expect(page.get_by_role("heading", name="Nothing runs now")).to_be_hidden()
    expect(one.locator(".wall-elapsed")).to_have_text("1m 50s", timeout=3 * WAIT)  # it ticks
    expect(page.locator("#running")).to_contain_text("1")
    say("wall-one", call("open_door", "failed"), post("open_door", "failed"))
    expect(one).to_contain_text("✗ failing", timeout=WAIT)
    expect(one).to_contain_text("✗ 1 failed")
    expect(page.locator(".post").first).to_contain_text("in the kitchen", timeout=WAIT)

    # New ones stand behind it; keys go from card to card.
    say("wall-two", speech("I am the second"))
    say("wall-three", speech("I am the third"))
    titles = page.locator(".wall-card h3 a")
    expect(titles).to_have_text(["wall-one", "wall-two", "wall-three"], timeout=WAIT)
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("j")
    expect(titles.nth(2)).to_be_focused()
    page.keyboard.press("k")
    expect(titles.nth(1)).to_be_focused()
    say("wall-one")
    expect(one.locator(".badge")).to_have_text("ended", timeout=WAIT)
    expect(titles.nth(1)).to_be_focused()

    # What arrived is what a page without scripts shows.
    plain = new_context(storage_state=alice_state, java_script_enabled=False).new_page()
    plain.goto(f"{server.url}/live/")
    expect(plain.locator(".wall-card")).to_have_count(2)
    for name in ("wall-two", "wall-three"):
        there, here = (one.locator(".wall-card", has_text=name) for one in (plain, page))
        for part in ("h3", ".wall-said", ".wall-agents", ".wall-counts"):
            assert there.locator(part).inner_text() == here.locator(part).inner_text()
    there, here = (one.locator(".post").first.locator("p").nth(1) for one in (plain, page))
    assert there.inner_text() == here.inner_text()

    page.keyboard.press("Enter")
    expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
    expect(page.locator("h1")).to_have_text("wall-two")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_wall_has_no_accessibility_fault_and_fits(server, say, alice_page, scheme):
    page = alice_page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    long = "Donaudampfschifffahrtsgesellschaftskapitän" * 6
    say(f"wall-{scheme}", speech(long), call(long, "failed"), post(long[:150], "pending"))
    page.goto(f"{server.url}/live/")
    card = page.locator(".wall-card", has_text=f"wall-{scheme}")
    expect(card).to_contain_text("✗ failing")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
    say(f"wall-{scheme}")
    expect(card.locator(".badge")).to_have_text("ended", timeout=WAIT)
    assert violations(page) == []
