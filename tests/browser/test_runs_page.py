"""Calls with their chains, agent runs, tools and records in a browser."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import WAIT
from tests.browser.test_session_page import SHIFTS, selected, violations

REAL = "xerxes/real_runtime.jsonl"
EVERY = "xerxes/every_event.jsonl"
TRACE = "agent_framework/trace-260320_115602.jsonl"
ROOM = "other/roomkit_timeline.jsonl"


def event(kind: str, second: float, **more) -> str:
    at = datetime(2026, 7, 1, 8, tzinfo=UTC) + timedelta(seconds=second)
    line = {"event_type": kind, "timestamp": at.isoformat(), "agent_id": "a", "turn_id": "t1", "session_id": None,
            "severity": "info", "metadata": {}, **more}  # fmt: skip
    return json.dumps(line) + "\n"


def test_rows_drawn_by_the_script_are_those_of_the_server(server, opened, new_context, alice_state, show):
    read = """() => [...document.querySelectorAll('.transcript .row')].filter((row) => !row.hidden).map((row) =>
        [row.dataset.seq, row.className.replace(' selected', ''), row.querySelector('.row-label').textContent,
         row.querySelector('.row-text').textContent, row.querySelector('.row-badges').textContent])"""
    for name in (REAL, EVERY, TRACE, ROOM):
        path = opened(name)
        plain = new_context(storage_state=alice_state, java_script_enabled=False).new_page()
        plain.goto(server.url + path)
        before = {
            row.get_attribute("data-seq"): [
                row.get_attribute("data-seq"),
                row.get_attribute("class"),
                *(row.locator(part).text_content() for part in (".row-label", ".row-text", ".row-badges")),
            ]
            for row in plain.locator(".transcript .row").all()
        }
        page = show(path)
        expect(page.locator(".transcript .row.waiting:visible")).to_have_count(0, timeout=WAIT)
        for row in page.evaluate(read):
            assert row == before[row[0]]


def test_the_steps_of_a_call_lead_to_each_other(show, opened):
    page = show(opened(EVERY) + "?at=4")
    chain = page.locator(".event-details .chain-step")
    expect(chain).to_have_count(6, timeout=WAIT)
    expect(page.locator('.chain-step[aria-current="true"]')).to_contain_text("attempt")
    chain.filter(has_text="result").first.get_by_role("link").click()
    expect(selected(page)).to_have_attribute("data-seq", "6")
    expect(page.locator('.chain-step[aria-current="true"]')).to_contain_text("result", timeout=WAIT)
    page.locator(".event-facts").get_by_role("link", name="attempt").click()
    expect(selected(page)).to_have_attribute("data-seq", "4")


def test_a_failed_call_is_one_stop_of_the_failure_key(show, opened):
    page = show(opened(REAL))
    stops = []
    for _ in range(5):
        page.keyboard.press("e")
        stops.append(re.search(r"at=(\d+)", page.url)[1])
    assert stops == ["15", "20", "22", "27", "54"]


def test_a_severity_is_a_filter_that_lives_in_the_address(show, opened):
    page = show(opened(REAL))
    page.locator('[data-filter="severity"][data-value="error"]').click()
    expect(page.locator(".transcript .row:visible")).to_have_count(8, timeout=WAIT)
    assert "severity=error" in page.url
    page.locator('[data-filter="lane"][data-value="decision"]').click()
    expect(page.locator(".transcript .row:visible")).to_have_count(2, timeout=WAIT)
    page.reload()
    expect(page.locator(".transcript .row.lane-decision.failed:visible")).to_have_count(2, timeout=WAIT)
    page.get_by_role("link", name="all rows").click()
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", "59")


def test_passed_checks_can_be_hidden(show, opened):
    page = show(opened(REAL))
    page.locator('[data-filter="checks"]').click()
    hidden = 7 + 6  # policies that allowed, loop checks without a loop
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", str(59 - hidden))
    assert "checks=telling" in page.url
    page.locator('[data-filter="checks"]').click()
    expect(page.locator(".transcript .row:visible").first).to_have_attribute("aria-setsize", "59")


def test_an_outcome_that_arrives_live_closes_the_row_of_its_attempt(server, show, tmp_path):
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    first.write_text(event("tool_call_attempt", 1, tool_name="look_up", arguments_preview="{}"))
    second.write_text(event("tool_call_complete", 3, tool_name="look_up", status="success", duration_ms=1900.0))
    dump = server.import_file(first, "--session", "live-call")["dumps"][0]
    page = show(f"/sessions/{dump['sessions'][0]['id']}/")
    attempt = page.locator(".transcript .row[data-seq='1']")
    expect(attempt).to_contain_text("NO OUTCOME", timeout=WAIT)
    server.import_file(second, "--session", "live-call")
    expect(attempt).to_contain_text("SUCCESS", timeout=WAIT)
    expect(attempt).to_contain_text("2000 ms")
    live = attempt.inner_text()
    page.reload()
    expect(attempt).to_contain_text("2000 ms", timeout=WAIT)
    assert attempt.inner_text() == live


def test_the_tree_of_runs_folds_and_moves_by_keys(server, alice_page, opened):
    page = alice_page
    page.goto(server.url + opened(TRACE) + "runs/")
    tree = page.get_by_role("treegrid", name="Agent runs")
    rows = tree.locator("tbody tr")
    expect(rows).to_have_count(14)
    rows.nth(0).focus()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    expect(rows.nth(1)).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowLeft")
    expect(rows.nth(1)).to_have_attribute("aria-expanded", "false")
    expect(rows.nth(2)).to_be_hidden()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(5)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(rows.nth(2)).to_be_focused()
    expect(rows.nth(2)).to_have_attribute("aria-level", "2")
    page.keyboard.press("ArrowLeft")
    expect(rows.nth(1)).to_be_focused()
    rows.nth(1).locator(".twist").click()
    expect(rows.nth(3)).to_be_hidden()
    page.keyboard.press("End")
    expect(rows.nth(13)).to_be_focused()
    page.keyboard.press("Enter")
    expect(selected(page)).to_have_attribute("data-seq", "39", timeout=WAIT)
    expect(page.locator(".event-details h2")).to_have_text("Run of root")


def test_parts_of_a_session_are_reached_from_its_header_without_scripts(server, opened, new_context, alice_state):
    page = new_context(storage_state=alice_state, java_script_enabled=False).new_page()
    page.goto(server.url + opened(TRACE))
    for name, says in (("Runs", "Agent runs"), ("Tools", "Calls"), ("Records", "Grants in force")):
        page.get_by_role("navigation", name="Parts of this session").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name=says)).to_be_visible()
    page.get_by_role("link", name="Tools").click()
    page.get_by_label("tool", exact=True).select_option("Bash")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".calls-table tbody tr")).to_have_count(1)
    page.locator(".calls-table").get_by_role("link", name="Bash").click()
    expect(page.locator(".event-details h2")).to_contain_text("Bash")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_moves_while_these_pages_start(server, opened, alice_page, width):
    page = alice_page
    page.set_viewport_size({"width": width, "height": 800})
    page.add_init_script(SHIFTS)
    paths = [f"{opened(name)}?at=4" for name in (REAL, EVERY, TRACE, ROOM)]
    paths += [f"{opened(TRACE)}{part}/" for part in ("runs", "tools", "records")]
    for path in paths:
        page.goto(server.url + path)
        if "?at" in path:
            expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
        page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
        shifts = page.evaluate("window.__shifts")
        assert sum(value for value, _ in shifts) < 0.005, (path, shifts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_these_pages_have_no_accessibility_fault_and_fit(server, opened, alice_page, scheme, width):
    page = alice_page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    paths = [f"{opened(REAL)}?at=26", f"{opened(EVERY)}?at=20", f"{opened(TRACE)}?at=25", f"{opened(ROOM)}?at=1"]
    paths += [f"{opened(TRACE)}{part}/" for part in ("runs", "tools", "records")] + [f"{opened(REAL)}tools/"]
    for path in paths:
        page.goto(server.url + path)
        if "?at" in path:
            expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
            expect(selected(page)).to_be_visible(timeout=WAIT)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
