"""A session while it runs: what a reader sees of it, and that nothing is missing or doubled whatever breaks."""

import json
import os
import re
import signal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import WAIT
from tests.browser.producer import Producer, speech
from tests.browser.transcript import READ_ALL
from tests.site import until

LONG = 60_000  # ms; a site that starts again on a busy machine, and a reader that waits up to 15 s to come back

# All rows in the order of the list, read by scrolling from the first to the last: [[position, seq, words], …].


def ready(page):
    expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=LONG)
    return page


def state(page):
    return page.locator("#session-state")


def said(page):
    return page.locator('[data-part="connection"]')


def pill(page):
    return page.locator('[data-part="pill"]')


def toggle(page):
    return page.locator('[data-part="follow"]')


def row(page, position: int):
    return page.locator(f'.transcript .row[aria-posinset="{position}"]:visible')


def has_rows(page, count: int, timeout: int = WAIT):
    expect(page.locator(".transcript .row:visible").first).to_have_attribute(
        "aria-setsize", str(count), timeout=timeout
    )


def stored(server, page, path: str) -> list:
    """The rows of the database as READ_ALL reads those of a page."""
    found, more = [], True
    while more:
        after = found[-1][1] if found else 0
        answer = page.request.get(f"{server.url}/api/v1{path}timeline?after_index={after}&limit=1000").json()
        found += [[len(found) + i, row["seq"], row["text"]] for i, row in enumerate(answer["entries"], 1)]
        more = answer["more"]
    return found


@pytest.fixture(scope="module")
def key(server):
    """An API key that may send lines to team ``default``."""
    made = server.manage("create_api_key", "--team", "default", "--scopes", "ingest", "--json")
    return json.loads(made)["key"]


@pytest.fixture
def producer(server, key, request):
    """A producer of a session of its own."""
    return Producer(server.url, key, request.node.name[:60])


def test_whatever_becomes_of_another_process_the_page_ends_with_the_events_of_the_database(
    server, alice_context, new_context, alice_state, watched, producer
):
    early = watched(alice_context.new_page())
    elsewhere = new_context(storage_state=alice_state)
    late = watched(elsewhere.new_page())
    watched.allowed += ["ERR_", "WebSocket", "503", "Failed to load resource"]
    port = urlsplit(server.url).port
    producer.send(speech("sentence 1"))
    path = producer.path

    def more(number: int = 15):
        reached = producer.sent + number
        until(lambda: producer.sent >= reached, f"{number} more lines", 60)

    early.goto(server.url + path)
    ready(early)
    with producer.talking():
        more()
        late.goto(server.url + path)  # somebody comes late …
        ready(late)
        more()
        late.reload()  # … and again
        elsewhere.set_offline(True)
        expect(said(late)).to_have_text("This machine is offline; the page goes on by itself.", timeout=LONG)
        elsewhere.set_offline(False)
        expect(said(late)).to_have_text("", timeout=LONG)
        server.terminate()
        server.start(port)
        more()
        server.kill()
        server.start(port)
        more()
        os.kill(until(server.worker_pid, "the worker to be there"), signal.SIGKILL)
        more()
        if url := server.env.get("REDIS_URL"):
            import redis

            with redis.Redis.from_url(url) as client:
                client.flushall()
            more()
    producer.end()
    expected = [[i, i, f"sentence {i}"] for i in range(1, producer.sent + 1)]
    assert stored(server, early, path) == expected
    for page in (early, late):
        expect(state(page)).to_have_text("ended", timeout=LONG)
        has_rows(page, producer.sent, LONG)
        assert page.evaluate(READ_ALL) == expected
    early.reload()
    assert ready(early).evaluate(READ_ALL) == expected


def test_a_running_session_is_followed_until_somebody_looks_at_something_else(show, producer):
    producer.send(*(speech(f"sentence {i}") for i in range(1, 61)))
    page = show(producer.path)
    expect(row(page, 60)).to_be_in_viewport(timeout=WAIT)  # opening it follows at once
    expect(toggle(page)).to_have_attribute("aria-pressed", "true")
    producer.send(speech("sentence 61"))
    expect(row(page, 61)).to_be_in_viewport(timeout=WAIT)

    page.locator('[data-part="transcript"]').hover()
    page.mouse.wheel(0, -200)
    expect(toggle(page)).to_have_attribute("aria-pressed", "false")
    first = page.locator(".transcript .row:visible").first
    top = first.bounding_box()
    producer.send(*(speech(f"sentence {i}") for i in range(62, 65)))
    expect(pill(page)).to_have_text("3 new ↓", timeout=WAIT)
    assert first.bounding_box() == top
    page.mouse.wheel(0, 10_000)  # returning to the end follows again
    expect(toggle(page)).to_have_attribute("aria-pressed", "true")
    expect(pill(page)).to_be_hidden()
    producer.send(speech("sentence 65"))
    expect(row(page, 65)).to_be_in_viewport(timeout=WAIT)

    row(page, 60).click()  # reading one row pauses too
    expect(toggle(page)).to_have_attribute("aria-pressed", "false")
    producer.send(*(speech(f"sentence {i}") for i in range(66, 90)))
    expect(pill(page)).to_have_text("24 new ↓", timeout=WAIT)
    expect(row(page, 60)).to_be_in_viewport()
    page.keyboard.press("f")
    expect(row(page, 89)).to_be_in_viewport()
    toggle(page).click()
    producer.send(*(speech(f"sentence {i}") for i in range(90, 95)))
    expect(pill(page)).to_have_text("5 new ↓", timeout=WAIT)
    pill(page).click()
    expect(row(page, 94)).to_be_in_viewport()

    producer.end()
    expect(state(page)).to_have_text("ended", timeout=WAIT)
    page.goto(page.url.split("?")[0])
    ready(page)
    expect(row(page, 1)).to_be_in_viewport(timeout=WAIT)  # an ended one is read from its beginning
    expect(toggle(page)).to_be_hidden()


def test_the_header_says_how_the_session_is_and_who_watches(server, show, new_context, alice_state, watched, producer):
    producer.send(speech("hello there"))
    page = show(producer.path)
    expect(state(page)).to_have_text("LIVE")
    elapsed = page.locator("#session-duration")
    before = elapsed.inner_text()
    expect(elapsed).not_to_have_text(before, timeout=WAIT)  # no line came: it ticks
    expect(page.locator("#session-watchers")).to_have_text("")  # oneself is no news

    link = re.search(r"/signin/\S+", server.manage("add_member", "default", "bob", "--role", "viewer"))
    other = watched(new_context().new_page())
    other.goto(server.url + link[0])
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_role("heading", name="Sessions", exact=True)).to_be_visible(timeout=WAIT)
    other.goto(server.url + producer.path)
    expect(page.locator("#session-watchers")).to_have_text("bob is watching", timeout=WAIT)
    expect(other.locator("#session-watchers")).to_have_text("alice is watching", timeout=WAIT)
    other.close()
    expect(page.locator("#session-watchers")).to_have_text("", timeout=LONG)

    spoken = page.locator('[data-part="provisional"]')
    producer.so_far("assistant", "I will have a <b>look</b>")
    expect(spoken).to_have_text("ASSISTANTI will have a <b>look</b> …", timeout=WAIT)
    producer.send(speech("I will have a look.", "assistant"))
    expect(row(page, 2)).to_contain_text("I will have a look.", timeout=WAIT)
    expect(spoken).to_have_text("")
    expect(page.locator('[data-filter="lane"][data-value="assistant"]')).to_have_text("assistant 1", timeout=WAIT)
    expect(page.locator("#session-head")).to_contain_text("1 user 1 assistant", timeout=WAIT)

    expect(state(page)).to_have_text("quiet", timeout=LONG)
    expect(page.locator("#session-words")).to_contain_text("no line for 1")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # else colours are on their way for 80 ms
        found = Axe().run(page).response["violations"]
        assert not found, [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found]
    producer.end()
    expect(state(page)).to_have_text("ended", timeout=WAIT)
    expect(page.locator("#session-words")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(page.locator('[data-pane="summary"]')).to_contain_text("1 user, 1 assistant", timeout=WAIT)


def test_after_a_long_absence_the_page_catches_up_page_by_page(server, alice_page, watched, producer, tmp_path):
    pages, blocked = [], []

    def pass_on(route):
        if blocked:
            route.close(code=1013)
        else:
            route.connect_to_server()
            pages.append(route)

    alice_page.route_web_socket(re.compile("/ws/sessions/"), pass_on)
    asked = []
    alice_page.on("request", lambda request: asked.append(request.url) if "after_index" in request.url else None)
    producer.send(speech("sentence 1"))
    alice_page.goto(server.url + producer.path)
    ready(alice_page)
    until(lambda: (alice_page.wait_for_timeout(50), pages)[1], "the socket of the page")
    blocked.append(True)
    pages[0].close(code=1012)
    expect(said(alice_page)).to_contain_text("connection was lost", timeout=WAIT)
    for first in range(2, 6002, 500):
        producer.send(*(speech(f"sentence {i}") for i in range(first, first + 500)))
    blocked.clear()
    has_rows(alice_page, 6001, LONG)
    expect(row(alice_page, 6001)).to_contain_text("sentence 6001", timeout=WAIT)  # and it still follows
    assert len(asked) == len(set(asked)) >= 10
    alice_page.keyboard.press("g")
    expect(row(alice_page, 2)).to_contain_text("sentence 2", timeout=WAIT)
    producer.send(speech("sentence 6002"))
    expect(pill(alice_page)).to_have_text("1 new ↓", timeout=WAIT)
    producer.end()


def test_the_list_shows_a_session_run_and_end(server, alice_page, producer):
    alice_page.goto(server.url + "/?sort=-started")
    expect(alice_page.locator("#sessions")).to_be_visible()
    producer.send(speech("good morning"))
    entry = alice_page.locator(f'tr:has(a[href="{producer.path}"])')
    expect(entry).to_contain_text("live", timeout=WAIT)
    expect(entry.locator('[data-label="Turns"]')).to_have_text("1u 0a")
    link = entry.get_by_role("link")
    link.focus()
    producer.send(speech("and good night", "assistant"))
    expect(entry.locator('[data-label="Turns"]')).to_have_text("1u 1a", timeout=WAIT)
    expect(link).to_be_focused()
    producer.end()
    expect(entry.locator(".badge")).to_have_count(0, timeout=WAIT)
    expect(link).to_be_focused()
