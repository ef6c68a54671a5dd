"""The pictures of README, made from the sample dumps: ``python -m tests.browser.screenshots``.

Serves a site with data of its own, imports the samples and writes session-light.png, session-dark.png and sessions.png
(1280 × 800) into docs/images/.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.conftest import SAMPLES
from tests.site import ROOT, Site, site

SIZE = {"width": 1280, "height": 800}
MOST_BYTES = 200_000  # README is read over slow lines too
# sample → the name under which it is shown. The last one is the newest and stands first in the list.
SHOWN = {
    "roomkit_session/midnight_hour_long.jsonl": "night-shift.jsonl",
    "roomkit_session/long_results.jsonl": "knowledge-base-lookup.jsonl",
    "roomkit_session/multi_party.jsonl": "conference-room-4.jsonl",
    "roomkit_mixed/session_and_status.jsonl": "delivery-tracking.jsonl",
    "roomkit_session/big_5000.jsonl": "all-day-concierge.jsonl",
    "roomkit_tool/many_1000.jsonl": "tool-audit.jsonl",
    "roomkit_session/support_call_60.jsonl": "support-call.jsonl",
    "roomkit_mixed/session_status_tool.jsonl": "booking-and-billing.jsonl",
    "roomkit_session/tiny_doc_example.jsonl": "browser-assistant.jsonl",
}
SESSION = "booking-and-billing"


def latin_only(text: str) -> str:
    """The lines of *text* whose letters every machine has a font for."""
    return "".join(line for line in text.splitlines(keepends=True) if _is_latin(json.loads(line)))


def _is_latin(value) -> bool:
    return all(ord(char) < 0x250 or 0x2000 <= ord(char) < 0x2070 for char in json.dumps(value, ensure_ascii=False))


def fill(running: Site) -> str:
    """Import the samples; the path of the session that the pictures show."""
    shown = ""
    with tempfile.TemporaryDirectory() as directory:
        for sample, name in SHOWN.items():
            path = Path(directory) / name
            path.write_text(latin_only((SAMPLES / sample).read_text()))
            for session in running.import_file(path)["dumps"][0]["sessions"]:
                if path.stem == SESSION:
                    shown = f"/sessions/{session['id']}/"
    return shown


def settle(page: Page) -> None:
    """Wait until scripts, rows and the overview are there."""
    page.wait_for_selector("[data-session][data-ready]")
    # Not wait_for_function: the pages' content security policy forbids to evaluate strings.
    page.wait_for_selector(".row.waiting:not([hidden])", state="detached")
    page.evaluate("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")


def take(running: Site, chromium: str, folder: Path) -> list[Path]:
    """The three pictures, written into *folder*."""
    path = fill(running)
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        context = browser.new_context(viewport=SIZE, timezone_id="UTC", locale="en-GB", color_scheme="light")
        page = context.new_page()
        page.goto(running.link)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state()

        def keep(name: str) -> None:
            made.append(folder / name)
            page.screenshot(path=made[-1], animations="disabled")

        page.goto(running.url + "/")
        page.wait_for_function("!/UTC/.test(document.querySelector('#sessions time').textContent)")
        keep("sessions.png")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.goto(running.url + path)
            settle(page)
            page.keyboard.press("e")
            page.wait_for_selector(".event-details h2 code")
            settle(page)
            keep(f"session-{scheme}.png")
        browser.close()
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    folder = parser.parse_args().folder
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        print("Chromium is not installed", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with site() as running:
        made = take(running, chromium, folder)
    too_large = [path for path in made if path.stat().st_size > MOST_BYTES]
    for path in made:
        print(f"{path.name}: {path.stat().st_size:,} bytes{' - too large' if path in too_large else ''}")
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
