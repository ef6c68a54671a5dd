"""The sessions list and the session page in a browser: what a reviewer does with eyes, mouse and keys."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import WAIT
from tests.conftest import SAMPLES


def selected(page):
    return page.locator(".transcript .row.selected")


def at(page) -> str:
    found = re.search(r"[?&]at=(\d+)", page.url)
    return found[1] if found else ""


def line(second: int, text: str, role: str = "user") -> str:
    ts = datetime(2026, 5, 1, 9, tzinfo=UTC) + timedelta(seconds=second)
    entry = {"ts": ts.isoformat(), "type": "speech", "role": role, "content": text, "duration_ms": None}
    entry["metadata"] = {}
    return json.dumps(entry) + "\n"


def violations(page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found]


def test_a_permalink_lands_on_its_event(show, opened):
    page = show(opened("roomkit_session/big_5000.jsonl") + "?at=2500")
    expect(selected(page)).to_have_attribute("data-seq", "2500", timeout=WAIT)
    expect(selected(page)).to_be_in_viewport()
    expect(page.locator(".event-facts")).to_contain_text("line 2 500".replace(" ", "\u202f"))
    expect(selected(page)).to_have_attribute("aria-setsize", "5000")


def test_keys_move_through_events_turns_failures_and_interruptions(show, opened):
    page = show(opened("roomkit_session/tiny_doc_example.jsonl"))
    for key, seq in [("j", "1"), ("j", "2"), ("j", "3"), ("k", "2"), ("]", "3"), ("]", "7"), ("[", "3"), ("i", "6"),
                     ("g", "1"), ("G", "8")]:  # fmt: skip
        page.keyboard.press(key)
        expect(selected(page)).to_have_attribute("data-seq", seq, timeout=WAIT)
        assert at(page) == seq
    expect(page.locator('[data-part="details"]')).to_contain_text("Great, thanks", timeout=WAIT)
    page.keyboard.press("e")
    expect(page.locator('[data-part="connection"]')).to_have_text("No later failure.")


def test_the_next_failure_is_found_and_shown(show, opened):
    page = show(opened("roomkit_mixed/session_status_tool.jsonl"))
    page.keyboard.press("e")
    expect(selected(page)).to_have_class(re.compile(r"\bfailed\b"), timeout=WAIT)
    first = at(page)
    page.keyboard.press("e")
    page.keyboard.press("E")
    expect(selected(page)).to_have_attribute("data-seq", first)


def test_a_bar_in_a_lane_selects_its_row(show, opened):
    page = show(opened("roomkit_session/tiny_doc_example.jsonl"))
    canvas = page.locator('canvas[data-part="canvas"]')
    width = canvas.bounding_box()["width"] - 100
    # describe_screen ran from 5.4 s to 11.3 s of 100.9 s; the lane of tools is the fourth.
    x = 92 + width * (8.3 + 1.009) / (100.9 * 1.02)
    canvas.hover(position={"x": x, "y": 70})
    expect(page.locator('[data-part="tip"]')).to_contain_text("describe_screen", timeout=WAIT)
    canvas.click(position={"x": x, "y": 70})
    expect(selected(page)).to_have_attribute("data-seq", "4")
    expect(page.locator(".event-details h2")).to_have_text("describe_screen", timeout=WAIT)
    assert at(page) == "4"


def test_the_overview_works_by_keyboard(show, opened):
    page = show(opened("roomkit_session/tiny_doc_example.jsonl") + "?at=2")
    page.locator('canvas[data-part="canvas"]').focus()
    page.keyboard.press("ArrowRight")
    expect(selected(page)).to_have_attribute("data-seq", "3")
    for key in ("+", "+", "-", "0"):
        page.keyboard.press(key)
    expect(page.locator('[data-part="said"]')).to_contain_text("assistant")
    page.locator(".overview-words summary").click()
    expect(page.locator('[data-part="counts"] tbody tr').filter(has_text="tool")).to_contain_text("5886 ms")


def test_the_raw_line_is_one_key_away_and_copied_exactly(show, opened, sample):
    page = show(opened("roomkit_session/hostile_text.jsonl") + "?at=5")
    page.keyboard.press("r")
    expect(page.locator("#event-raw")).to_be_visible()
    wanted = sample("roomkit_session/hostile_text.jsonl").read_text().splitlines()[4]
    assert json.loads(page.locator("#event-raw").get_attribute("data-exact")) == wanted
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy raw line").click()
    expect(page.locator("#toast")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == wanted


def test_text_of_a_dump_runs_nowhere(show, opened):
    page = show(opened("roomkit_session/hostile_text.jsonl"))
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for _ in range(12):
        page.keyboard.press("j")
        expect(page.locator(f'[data-part="details"][data-seq="{at(page)}"]')).to_be_attached(timeout=WAIT)
    assert dialogs == []
    assert page.locator(".transcript img, .transcript script, .details-pane img, .details-pane script").count() == 0


def test_filters_live_in_the_address(show, opened):
    page = show(opened("roomkit_mixed/session_status_tool.jsonl"))
    page.locator('[data-filter="lane"][data-value="tool"]').click()
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", "25")
    assert "lane=tool" in page.url
    page.locator('[data-filter="status"]').click()
    expect(page.locator(".transcript .row:visible")).to_have_count(6)
    page.reload()
    expect(page.locator(".transcript .row.failed:visible")).to_have_count(6, timeout=WAIT)
    page.get_by_role("link", name="all rows").click()
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", "150")
    assert "lane" not in page.url


def test_a_tool_filter_asks_the_server(show, opened):
    page = show(opened("roomkit_session/big_5000.jsonl"))
    page.get_by_text("Tool", exact=True).click()
    chip = page.locator('[data-filter="tool"][data-value="send_email"]')
    number = re.sub(r"\D", "", chip.locator(".soft").inner_text())
    chip.click()
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", number, timeout=WAIT)
    expect(page.locator(".transcript .row-tool").first).to_have_text("send_email", timeout=WAIT)


def test_find_goes_from_match_to_match(show, opened):
    page = show(opened("roomkit_session/big_5000.jsonl"))
    page.keyboard.press("/")
    page.keyboard.type("invoice from January")
    page.keyboard.press("Enter")
    count = page.locator('[data-part="find-count"]')
    expect(count).to_have_text(re.compile(r"^1 of \d+$"), timeout=WAIT)
    first = at(page)
    expect(selected(page)).to_contain_text("invoice from January", timeout=WAIT)
    page.keyboard.press("Enter")
    expect(count).to_have_text(re.compile(r"^2 of \d+$"))
    assert at(page) != first
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text(re.compile(r"^1 of"))
    assert at(page) == first and "q=invoice" in page.url
    page.keyboard.press("Escape")
    expect(count).to_have_text("")


def test_scrolling_anywhere_shows_rows_and_keeps_the_page_small(show, opened):
    page = show(opened("roomkit_session/big_5000.jsonl"))
    box = page.locator('[data-part="transcript"]')
    assert box.evaluate("box => box.scrollHeight") == 5000 * 28
    for share in (0.5, 0.9, 0.1):
        box.evaluate("(box, share) => { box.scrollTop = box.scrollHeight * share; }", share)
        wanted = str(int(5000 * share) + 3)
        row = box.locator(f'.row[aria-posinset="{wanted}"] .row-label')
        expect(row).not_to_be_empty(timeout=WAIT)
    assert box.locator(".row").count() < 80
    page.keyboard.press("G")
    expect(selected(page)).to_have_attribute("aria-posinset", "5000", timeout=WAIT)
    expect(selected(page)).to_be_in_viewport()


def test_lines_of_another_process_appear_by_themselves_once_and_in_order(server, show, tmp_path):
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first.write_text("".join(line(i, f"first {i}") for i in range(40)))
    dump = server.import_file(first, "--session", "live-page")["dumps"][0]
    page = show(f"/sessions/{dump['sessions'][0]['id']}/?at=2")
    second.write_text("".join(line(100 + i, f"second {i}") for i in range(30)))
    server.import_file(second, "--session", "live-page")
    expect(page.locator('[data-part="pill"]')).to_have_text("30 new ↓", timeout=WAIT)
    expect(selected(page)).to_have_attribute("data-seq", "2")
    page.locator('[data-part="pill"]').click()
    expect(page.locator('.transcript .row[aria-posinset="70"]')).to_contain_text("second 29", timeout=WAIT)
    third = tmp_path / "three.jsonl"
    third.write_text("".join(line(200 + i, f"third {i}") for i in range(5)))
    server.import_file(third, "--session", "live-page")
    last = page.locator('.transcript .row[aria-posinset="75"]')  # the view keeps to the end
    expect(last).to_contain_text("third 4", timeout=WAIT)
    expect(last).to_be_in_viewport()
    read = "() => [...document.querySelectorAll('.transcript .row')].filter((r) => !r.hidden && r.textContent)"
    read += ".sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map((r) => `${r.dataset.seq} ${r.innerText}`)"
    live = page.evaluate(read)
    assert len(live) == len(set(live)) > 5
    page.goto(page.url.split("?")[0] + "?at=75")
    expect(selected(page)).to_contain_text("third 4", timeout=WAIT)
    after = page.evaluate(read)
    assert set(live[-5:]) <= set(after)
    expect(page.locator("#session-head")).to_contain_text("75 user", timeout=WAIT)


def test_a_lost_connection_says_so_and_comes_back_without_loss(server, alice_page, tmp_path):
    sockets = []

    def pass_on(route):
        route.connect_to_server()
        sockets.append(route)

    alice_page.route_web_socket(re.compile("/ws/sessions/"), pass_on)
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first.write_text(line(0, "before"))
    dump = server.import_file(first, "--session", "lost-connection")["dumps"][0]
    alice_page.goto(f"{server.url}/sessions/{dump['sessions'][0]['id']}/")
    expect(alice_page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
    for _ in range(100):
        if sockets:
            break
        alice_page.wait_for_timeout(50)
    sockets[0].close(code=1012)
    said = alice_page.locator('[data-part="connection"]')
    expect(said).to_contain_text("connection was lost", timeout=WAIT)
    second.write_text(line(5, "while it was away"))
    server.import_file(second, "--session", "lost-connection")
    expect(alice_page.locator('.transcript .row[aria-posinset="2"]')).to_contain_text("while it was away", timeout=WAIT)
    expect(alice_page.locator(".transcript .row:visible")).to_have_count(2)
    expect(said).to_have_text("", timeout=WAIT)
    assert len(sockets) >= 2


SHIFTS = """
window.__shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    const names = one.sources.map(({ node }) => `${node?.nodeName}.${node?.className}`).join(" ");
    if (!one.hadRecentInput) window.__shifts.push([one.value, names]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_moves_while_the_scripts_start(server, opened, alice_page, width):
    page = alice_page
    page.set_viewport_size({"width": width, "height": 800})
    page.add_init_script(SHIFTS)
    for name in ("roomkit_mixed/session_status_tool.jsonl", "roomkit_session/tiny_doc_example.jsonl"):
        page.goto(server.url + opened(name) + "?at=2")
        expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
        page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
        shifts = page.evaluate("window.__shifts")
        assert sum(value for value, _ in shifts) < 0.005, shifts


def test_the_copied_summary_is_the_text_of_the_producer(show, opened, sample):
    page = show(opened("roomkit_mixed/session_status_tool.jsonl") + "?tab=summary")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator('[data-copy="#summary-session"]').click()
    expect(page.locator("#toast")).to_contain_text("Copied")
    golden = sample("roomkit_mixed/session_status_tool.summary.txt").read_text()
    assert page.evaluate("navigator.clipboard.readText()") == golden


def test_a_link_within_the_page_and_going_back_do_what_a_person_expects(server, show, opened):
    path = opened("roomkit_session/tiny_doc_example.jsonl")
    page = show("/".join(path.split("/")[:3]) + "/")
    page.evaluate("window.__same_page = true; location.hash = 'main'")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(selected(page)).to_have_attribute("data-seq", "2")
    assert page.evaluate("window.__same_page")
    page.goto(server.url + "/dumps/")
    page.go_back()
    expect(selected(page)).to_have_attribute("data-seq", "2", timeout=WAIT)


def test_the_summary_stands_beside_the_transcript(show, opened):
    page = show(opened("roomkit_session/tiny_doc_example.jsonl"))
    page.keyboard.press("s")
    expect(page.locator('[data-pane="summary"]')).to_contain_text("tool calls", timeout=WAIT)
    page.get_by_role("link", name="Details", exact=True).click()
    expect(page.locator('[data-pane="summary"]')).to_be_hidden()


def test_everything_can_be_read_without_scripts(server, opened, new_context, alice_state):
    context = new_context(storage_state=alice_state, java_script_enabled=False)
    page = context.new_page()
    page.goto(server.url + opened("roomkit_session/tiny_doc_example.jsonl"))
    expect(page.locator(".transcript .row")).to_have_count(8)
    page.locator(".row-time").nth(3).click()
    expect(page.locator(".event-details h2")).to_have_text("describe_screen")
    page.locator("details.fold summary").last.click()
    expect(page.locator("#event-raw")).to_be_visible()
    page.locator('[data-filter="lane"][data-value="user"]').click()
    expect(page.locator(".transcript .row")).to_have_count(2)
    page.goto(server.url + opened("roomkit_session/big_5000.jsonl"))
    page.get_by_role("link", name="Later").click()
    expect(page.locator(".transcript .row").first).to_have_attribute("aria-posinset", "201")


def test_the_list_grows_by_itself_and_keeps_the_focus(server, alice_page, tmp_path):
    server.import_file(SAMPLES / "roomkit_session/tiny_doc_example.jsonl")
    alice_page.goto(server.url + "/?sort=title")
    link = alice_page.get_by_role("link", name="tiny_doc_example").first
    expect(link).to_be_visible()
    link.focus()
    fresh = tmp_path / "a-new-session.jsonl"
    fresh.write_text(line(0, "good morning"))
    server.import_file(fresh)
    expect(alice_page.get_by_role("link", name="a-new-session")).to_be_visible(timeout=WAIT)
    expect(link).to_be_focused()


def test_search_and_sort_of_the_list_live_in_the_address(server, alice_page, opened):
    opened("roomkit_mixed/session_status_tool.jsonl")
    alice_page.goto(server.url + "/")
    alice_page.get_by_role("searchbox").first.fill("has:status session_status")
    alice_page.keyboard.press("Enter")
    expect(alice_page.locator(".session-title")).to_have_count(1)
    alice_page.get_by_role("link", name="Tools").click()
    assert "q=has" in alice_page.url and "sort=-tools" in alice_page.url
    expect(alice_page.locator('th[aria-sort="descending"]')).to_have_text("Tools")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_have_no_accessibility_fault_and_fit(server, opened, alice_page, scheme, width):
    alice_page.emulate_media(color_scheme=scheme)
    alice_page.set_viewport_size({"width": width, "height": 800})
    mixed = opened("roomkit_mixed/session_status_tool.jsonl")
    for path in ("/", "/?q=nothing-like-this", f"{mixed}?at=30", f"{mixed}?tab=summary", f"{mixed}events/30/"):
        alice_page.goto(server.url + path)
        if "?at" in path:
            expect(alice_page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
            expect(selected(alice_page)).to_be_visible(timeout=WAIT)
        assert violations(alice_page) == [], path
        assert alice_page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
