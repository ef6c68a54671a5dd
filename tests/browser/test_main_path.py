"""The whole way of a stranger, once, in a browser: from the link of the first start to a deleted session."""

import json
import re
from datetime import datetime

import pytest
from playwright.sync_api import expect

from tests.browser.transcript import READ_ALL
from tests.conftest import SAMPLES
from tests.site import site

WAIT = 30_000  # ms; the machine of a test run may be slow
LIVE_SECONDS = 10  # a second is what people get; a busy test machine may take longer

NAME = "support_call_60.jsonl"
LINES = (SAMPLES / "roomkit_session" / NAME).read_text().splitlines(keepends=True)
GOLDEN = (SAMPLES / "roomkit_session" / "support_call_60.summary.txt").read_text()
FIRST = 48  # lines that are dropped; the others are appended while two people look
BAR = 28  # the line of a call of describe_screen, 1.57 s long

# The name of a phase is written each time the entry of a file in the panel changes.
NOTE_PHASES = """
window.__phases = [];
document.addEventListener("DOMContentLoaded", () => {
  const note = () => {
    const phase = document.querySelector("#uploads .upload [data-part=phase]")?.textContent;
    if (phase && phase !== window.__phases.at(-1)) window.__phases.push(phase);
  };
  const panel = document.getElementById("uploads");  // not on the pages of somebody who is signed out
  if (panel) new MutationObserver(note).observe(panel, { childList: true, subtree: true, characterData: true });
});
"""

DROP = """([name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, { type: "application/x-ndjson" }));
  const target = document.querySelector("main h2");
  const fire = (type) => target.dispatchEvent(
    new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  fire("dragenter");
  const sheet = document.getElementById("drop-sheet").checkVisibility();
  const taken = !fire("dragover") && !fire("drop");  // or the browser would open the file
  return sheet && taken && !document.getElementById("drop-sheet").checkVisibility();
}"""

# Notes the time at which the transcript has `count` rows; a mark of this very page, gone after a reload.
NOTE_WHEN = """(count) => {
  const box = document.querySelector("[data-part=transcript]");
  const look = () => {
    if (!window.__seen && box.querySelector(`.row[aria-setsize="${count}"]`)) window.__seen = Date.now();
  };
  new MutationObserver(look).observe(box, { attributes: true, childList: true, subtree: true });
}"""

# All rows in the order of the list, read by scrolling from the first to the last: [[position, seq, words], …].


@pytest.fixture(scope="module")
def fresh_site():
    """A site that nobody has signed in to yet."""
    with site() as running:
        yield running


def sign_in(page, link: str) -> None:
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sessions", exact=True)).to_be_visible(timeout=WAIT)
    page.wait_for_load_state()  # its scripts run: it takes files from now on


def ready(page) -> None:
    expect(page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)


def check_rows(rows: list) -> None:
    """Every line is there once, in the order of the file, with the words of the file."""
    assert [position for position, _, _ in rows] == list(range(1, len(LINES) + 1))
    assert [seq for _, seq, _ in rows] == list(range(1, len(LINES) + 1))
    entries = [json.loads(line) for line in LINES]
    for (_, seq, words), entry in zip(rows, entries, strict=True):
        if entry["type"] in ("speech", "vision"):
            assert words == entry["content"], seq


def delete_dump(page, name: str) -> None:
    page.get_by_role("link", name="Delete…").click()
    page.get_by_label("Type the name of the dump").fill(name)
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", name="Dumps", exact=True)).to_be_visible(timeout=WAIT)


def test_from_the_first_link_to_a_deleted_session(fresh_site, new_context, watched, tmp_path, record_property):
    context = new_context(permissions=["clipboard-read", "clipboard-write"])
    page = watched(context.new_page())
    page.add_init_script(NOTE_PHASES)

    # The link of the first start opens an empty page, and works once.
    assert fresh_site.link
    sign_in(page, fresh_site.link)
    expect(page.get_by_role("heading", name="No sessions yet")).to_be_visible()

    # A file is dropped on it and watched until it is read.
    assert page.evaluate(DROP, [NAME, "".join(LINES[:FIRST])])
    entry = page.locator("#uploads .upload")
    expect(entry).to_contain_text("done", timeout=WAIT)
    expect(entry).to_contain_text(f"{FIRST} lines · {FIRST} events")
    phases = page.evaluate("window.__phases")
    assert phases[-1] == "done" and {"sending", "queued", "reading"} & set(phases), phases
    expect(page.locator("#sessions").get_by_role("link", name="support_call_60")).to_be_visible(timeout=WAIT)
    entry.get_by_role("link", name="support_call_60").click()
    ready(page)
    path = re.search(r"/sessions/\w+/", page.url)[0]
    said = [(entry["type"], entry["role"]) for entry in map(json.loads, LINES[:FIRST])]
    counts = f"{said.count(('speech', 'user'))} user {said.count(('speech', 'assistant'))} assistant"
    expect(page.locator("#session-head")).to_contain_text(counts)

    # A bar in the lane of tools leads to its row and its details.
    first, last, bar = (json.loads(LINES[i])["ts"] for i in (0, FIRST - 1, BAR - 1))
    start = datetime.fromisoformat(first)
    span = (datetime.fromisoformat(last) - start).total_seconds()
    middle = (datetime.fromisoformat(bar) - start).total_seconds() - json.loads(LINES[BAR - 1])["duration_ms"] / 2000
    canvas = page.locator('canvas[data-part="canvas"]')
    width = canvas.bounding_box()["width"] - 100  # without the names of the lanes, and the margin
    canvas.click(position={"x": 92 + width * (middle + 0.01 * span) / (1.02 * span), "y": 70})
    chosen = page.locator(".transcript .row.selected")
    expect(chosen).to_have_attribute("data-seq", str(BAR))
    expect(chosen).to_be_in_viewport()
    expect(page.locator(".event-details h2")).to_have_text("describe_screen", timeout=WAIT)

    # Its link, copied and opened in a new tab, leads to the same event and to the line as it stands in the file.
    page.locator(".details-pane").get_by_role("button", name="Copy link").click()
    expect(page.locator("#toast")).to_contain_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    tab = watched(context.new_page())
    tab.goto(link)
    ready(tab)
    expect(tab.locator(".transcript .row.selected")).to_have_attribute("data-seq", str(BAR))
    tab.keyboard.press("r")
    raw = tab.locator("#event-raw")
    expect(raw).to_be_visible()
    assert json.loads(raw.get_attribute("data-exact")) == LINES[BAR - 1].rstrip("\n")
    tab.close()

    # Somebody else has the session open when another process appends the rest.
    made = fresh_site.manage("add_member", "default", "rita", "--role", "reviewer")
    other = watched(new_context().new_page())
    sign_in(other, fresh_site.url + re.search(r"/signin/\S+", made)[0])
    other.goto(fresh_site.url + path)
    ready(other)
    for one in (page, other):
        one.evaluate(NOTE_WHEN, len(LINES))
    key = page.request.get(f"{fresh_site.url}/api/v1{path}").json()["key"]
    rest = tmp_path / "the_rest.jsonl"
    rest.write_text("".join(LINES[FIRST:]))
    appended = fresh_site.import_file(rest, "--session", key)["dumps"][0]
    assert appended["state"] == "done" and appended["events"] == len(LINES) - FIRST
    stored = page.request.get(f"{fresh_site.url}/api/v1/dumps/{appended['id']}/").json()["finished_at"]
    for who, one in (("first", page), ("second", other)):
        expect(one.locator(f'.transcript .row[aria-setsize="{len(LINES)}"]').first).to_be_attached(timeout=WAIT)
        late = one.evaluate("window.__seen") / 1000 - datetime.fromisoformat(stored).timestamp()
        print(f"the {who} reader saw the new rows {late:.2f} s after they were stored")
        record_property(f"seconds_{who}_reader", round(late, 2))
        assert late < LIVE_SECONDS
        check_rows(one.evaluate(READ_ALL))

    # What came live is what a reload shows.
    other.reload()
    ready(other)
    check_rows(other.evaluate(READ_ALL))

    # The summary is the text that RoomKit prints of the whole call.
    page.keyboard.press("s")
    summary = page.locator("#summary-session")
    expect(summary).to_be_visible(timeout=WAIT)
    assert summary.evaluate("pre => pre.textContent") == GOLDEN

    # With its dumps the session goes, for both.
    deleter = watched(context.new_page())
    for name in ("the_rest.jsonl", NAME):
        deleter.goto(fresh_site.url + "/dumps/")
        deleter.get_by_role("link", name=name, exact=True).click()
        delete_dump(deleter, name)
    for one in (page, other):
        expect(one.locator('[data-part="connection"]')).to_contain_text("deleted", timeout=WAIT)
    watched.allowed.append("404")
    for one in (page, other):
        assert one.goto(fresh_site.url + path).status == 404
    page.goto(fresh_site.url + "/")
    expect(page.get_by_role("heading", name="No sessions yet")).to_be_visible(timeout=WAIT)
