"""Dumps and status logs in a real browser: dropping files, watching them, and what axe and the eye ask of each page."""

import json
import re
import secrets

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.conftest import SAMPLES

DROP = """([name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name));
  const fire = (type) => document.body.dispatchEvent(
    new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  fire("dragenter");
  const sheet = document.getElementById("drop-sheet").checkVisibility();
  fire("dragover");
  fire("drop");
  return sheet;
}"""


def speech(count: int) -> str:
    """*count* session lines that no other test has sent."""
    mark = secrets.token_hex(8)
    entry = {"type": "speech", "duration_ms": None, "metadata": {}}
    rows = (
        entry | {"ts": f"2026-01-01T10:{n // 60 % 60:02d}:{n % 60:02d}+00:00", "role": "user", "content": f"{mark} {n}"}
        for n in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def newest(page):
    return page.locator("#uploads .upload").first


def test_a_dropped_file_is_read_and_leads_to_its_session(server, alice_page):
    alice_page.goto(server.url + "/status/")
    assert alice_page.evaluate(DROP, ["dropped.jsonl", speech(40) + "{broken\n"]), "the page shows where to drop"
    expect(newest(alice_page)).to_contain_text("done", timeout=30_000)
    expect(newest(alice_page)).to_contain_text("41 lines · 40 events")
    newest(alice_page).get_by_role("link", name="1 line could not be read").click()
    expect(alice_page.locator("#quarantine tbody tr")).to_have_count(1)
    expect(alice_page.locator("#line-41 pre")).to_have_text("{broken")
    alice_page.get_by_role("link", name="dropped", exact=True).click()
    expect(alice_page).to_have_url(re.compile(r"/sessions/\w+/"))


def test_the_same_bytes_again_are_said_to_be_here(server, alice_page):
    alice_page.goto(server.url + "/dumps/")
    text = speech(3)
    for word in ("done", "already here"):
        alice_page.evaluate(DROP, ["twice.jsonl", text])
        expect(newest(alice_page)).to_contain_text(word, timeout=30_000)
    expect(newest(alice_page).get_by_role("link", name="twice")).to_be_visible()


def test_an_empty_file_gets_a_sentence_and_is_not_sent(server, alice_page):
    alice_page.goto(server.url + "/dumps/")
    sent = []
    alice_page.on("request", lambda request: request.method == "POST" and sent.append(request.url))
    alice_page.evaluate(DROP, ["nothing.jsonl", ""])
    expect(newest(alice_page)).to_contain_text("nothing.jsonl is empty (0 bytes)")
    assert not sent


def test_an_upload_goes_on_after_a_lost_connection_and_a_reload(server, alice_page, watched, tmp_path):
    watched.allowed.append("ERR_FAILED")
    path = tmp_path / "resumed.jsonl"
    path.write_text(speech(90_000))
    assert path.stat().st_size > 2 * 4 * 2**20, "three slices"
    slices = re.compile(r"/bytes\?")
    passed = []

    def first_only(route):
        passed.append(route.request.url)
        route.continue_() if len(passed) == 1 else route.abort()

    alice_page.route(slices, first_only)
    alice_page.on("dialog", lambda dialog: dialog.accept())
    alice_page.goto(server.url + "/dumps/")
    alice_page.set_input_files("#file-input", path)
    expect(newest(alice_page)).to_contain_text("Connection lost", timeout=30_000)
    alice_page.reload()
    alice_page.unroute(slices)
    offsets = []
    alice_page.on("request", lambda request: slices.search(request.url) and offsets.append(request.url.split("=")[1]))
    alice_page.set_input_files("#file-input", path)
    expect(newest(alice_page)).to_contain_text(re.compile("queued|reading|done"), timeout=30_000)
    assert offsets[0] == str(4 * 2**20), "the first slice is not sent again"
    alice_page.goto(server.url + "/status/")
    expect(newest(alice_page)).to_contain_text("resumed.jsonl")  # still watched on another page
    expect(newest(alice_page)).to_contain_text("done", timeout=60_000)


def test_a_dump_page_fills_while_it_is_read(server, alice_page, tmp_path):
    path = tmp_path / "growing.jsonl"
    path.write_text(speech(40_000))
    alice_page.goto(server.url + "/dumps/")
    alice_page.set_input_files("#file-input", path)
    newest(alice_page).get_by_role("link", name="Dump").click(timeout=30_000)
    alice_page.evaluate("window.__same_page = true")
    expect(alice_page.locator("#dump .dump-state")).to_have_text("done", timeout=60_000)
    expect(alice_page.locator("#dump")).to_contain_text("40\u202f000")
    expect(alice_page.locator("#dump").get_by_role("link", name="growing", exact=True)).to_be_visible()
    assert alice_page.evaluate("window.__same_page"), "without a reload"


def test_new_status_entries_appear_where_their_time_belongs(server, alice_page):
    bus = f"feed-{secrets.token_hex(4)}"

    path = server.data / f"{bus}.jsonl"
    entry = {"agent_id": "exec", "status": "ok", "detail": "", "metadata": {}}
    posts = [entry | {"ts": f"2026-01-01T10:00:{s}+00:00", "action": a} for a, s in (("first", 10), ("third", 30))]
    path.write_text("".join(json.dumps(post) + "\n" for post in posts))
    server.import_file(path)
    alice_page.goto(server.url + "/status/?q=" + bus)
    alice_page.get_by_role("row").get_by_role("link", name=bus).first.click()
    actions = alice_page.locator(".feed-entry .mono")
    expect(actions).to_have_text(["third", "first"])
    server.manage("shell", "-c", ADD.format(bus=bus))
    expect(actions).to_have_text(["third", "second", "first"], timeout=15_000)
    expect(alice_page.locator("h1 + span [data-count=entries]")).to_have_text("3")


# As a producer's next line would be stored, by a process that is not the server.
ADD = """
from django.db import transaction
from auditweb import log
from status_app.models import ENTRY_COLUMNS, StatusBus, StatusEntry
bus = StatusBus.objects.get(title__startswith="{bus}")
row = list(bus.entries.order_by("id").values_list(*ENTRY_COLUMNS).first())
for column in ("at_us", "sort_us"):
    row[ENTRY_COLUMNS.index(column)] += 10_000_000
row[ENTRY_COLUMNS.index("action")] = "second"
with transaction.atomic():
    log.append(bus, StatusEntry, ENTRY_COLUMNS, [tuple(row)])
    StatusBus.objects.filter(pk=bus.pk).update(entry_count=3)
"""


def test_theme_and_zone_are_kept_and_change_what_is_shown(server, alice_page):
    server.import_file(SAMPLES / "roomkit_status" / "five_levels.jsonl")
    alice_page.goto(server.url + "/status/?q=five_levels")
    alice_page.get_by_role("link", name="five_levels").first.click()
    when = alice_page.locator(".feed-entry time").first
    expect(when).not_to_contain_text("UTC")
    alice_page.get_by_text("Display").click()
    alice_page.get_by_role("radio", name="UTC").check()
    expect(when).to_contain_text("UTC")
    alice_page.get_by_role("radio", name="Dark").check()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = alice_page.evaluate(background)
    alice_page.reload()
    assert alice_page.evaluate(background) == dark
    expect(when).to_contain_text("UTC")
    alice_page.get_by_text("Display").click()
    alice_page.get_by_role("radio", name="Light").check()
    assert alice_page.evaluate(background) != dark


def test_the_keys_are_listed_and_do_not_run_while_somebody_types(server, alice_page):
    alice_page.goto(server.url + "/dumps/")
    alice_page.keyboard.press("/")
    alice_page.keyboard.type("a?b")
    expect(alice_page.get_by_label("Name contains")).to_have_value("a?b")
    alice_page.get_by_role("heading", level=1).click()
    alice_page.keyboard.press("?")
    dialog = alice_page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("all keys")
    alice_page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_axe_finds_nothing(server, alice_page, theme, width):
    found = server.import_file(SAMPLES / "dirty" / "prefixed_log.jsonl")["dumps"][0]
    server.import_file(SAMPLES / "roomkit_status" / "orchestration.jsonl")
    alice_page.emulate_media(color_scheme=theme)
    alice_page.set_viewport_size({"width": width, "height": 800})
    alice_page.goto(server.url + "/status/?q=orchestration")
    log = alice_page.get_by_role("link", name="orchestration").first.get_attribute("href")
    dump = f"/dumps/{found['id']}/"
    for path in (
        "/dumps/",
        "/dumps/?q=no-such-name",
        dump,
        dump + "delete/",
        "/status/",
        log,
        "/accounts/password/set/",
    ):
        alice_page.goto(server.url + path)
        problems = Axe().run(alice_page).response["violations"]
        assert not problems, (path, [(p["id"], [n["html"] for n in p["nodes"]]) for p in problems])
        assert alice_page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"


def test_the_sign_in_page_is_clean(server, stranger_page):
    stranger_page.goto(server.url + "/dumps/")
    expect(stranger_page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert not Axe().run(stranger_page).response["violations"]
