"""Chromium against a running site; every page must stay free of script errors and of blocked content."""

import os
import re
import shutil

import pytest
from playwright.sync_api import expect

from tests.conftest import SAMPLES
from tests.site import Site

# The driver of the synchronous API keeps an event loop running in this thread.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

WAIT = 15_000  # ms; the machine of a test run may be slow

WATCH = """
window.__blocked = [];
addEventListener("securitypolicyviolation", (e) => {
  const what = e.blockedURI || "inline";
  window.__blocked.push(`${e.violatedDirective} blocked ${what} at ${e.sourceFile}:${e.lineNumber}`);
});
"""


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    """Options for a system Chromium that talks to nobody but the site."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.fail("Chromium is not installed; `make test` installs it")
    args = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ]
    if os.geteuid() == 0:
        args.append("--no-sandbox")
    return {**browser_type_launch_args, "executable_path": found, "args": args}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args):
    return {**browser_context_args, "viewport": {"width": 1280, "height": 800}, "timezone_id": "UTC", "locale": "en-GB"}


@pytest.fixture(scope="session")
def server():
    """One running site for all browser tests; give dumps names of their own."""
    running = Site()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def watched():
    """``watched(page)`` notes its script errors and blocked content; at the end of the test there must be none.

    ``watched.allowed`` takes regular expressions of messages that a test provokes.
    """
    watch = Watch()
    yield watch
    watch.check()


class Watch:
    def __init__(self):
        self.pages, self.problems, self.allowed = [], [], []

    def __call__(self, page):
        page.add_init_script(WATCH)
        page.on("console", lambda m: m.type == "error" and self.problems.append(f"console: {m.text} {m.location}"))
        page.on("pageerror", lambda e: self.problems.append(f"exception: {e}"))
        self.pages.append(page)
        return page

    def check(self):
        for page in self.pages:
            if not page.is_closed():
                self.problems += page.evaluate("window.__blocked || []")
        left = [p for p in self.problems if not any(re.search(pattern, p) for pattern in self.allowed)]
        assert not left, "\n".join(left)


@pytest.fixture(scope="session")
def alice_state(server, browser):
    """The cookies of alice, an owner of team ``default``, who signed in through a one-time link as people do."""
    return signed_in(server, browser, "alice", "default")


def signed_in(server, browser, name, team):
    """The cookies of *name*, who is made an owner of *team*, which is made if need be."""
    server.manage("shell", "-c", _MAKE.format(name=name, team=team))
    link = re.search(r"/signin/\S+", server.manage("sign_in_link", name))
    assert link, "sign_in_link printed no link"
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url + link[0])
    page.get_by_role("button", name=re.compile("sign in", re.I)).click()
    page.wait_for_load_state()
    assert "/signin/" not in page.url, page.content()
    state = context.storage_state()
    context.close()
    return state


_MAKE = """
from auditweb.teams.models import Membership, Role, Team, User
user, _ = User.objects.get_or_create(username="{name}", defaults={{"email": "{name}@example.org"}})
team, _ = Team.objects.get_or_create(slug="{team}", defaults={{"name": "{team}"}})
Membership.objects.get_or_create(team=team, user=user, defaults={{"role": Role.OWNER}})
"""


@pytest.fixture
def alice_context(new_context, alice_state):
    """A browser of alice, for tests that need several of her pages."""
    return new_context(storage_state=alice_state)


@pytest.fixture
def alice_page(alice_context, watched):
    """A page of alice; ``page.goto(server.url + path)``."""
    return watched(alice_context.new_page())


@pytest.fixture
def stranger_page(new_context, watched):
    """A page of somebody who never signed in."""
    return watched(new_context().new_page())


@pytest.fixture(scope="module")
def opened(server):
    """``opened("roomkit_session/x.jsonl")`` → the path of its session, imported once."""
    known = {}

    def find(name: str) -> str:
        if name not in known:
            dump = server.import_file(SAMPLES / name)["dumps"][0]
            known[name] = f"/sessions/{dump['sessions'][0]['id']}/"
        return known[name]

    return find


@pytest.fixture
def show(server, alice_page):
    """``show(path)`` opens a session and waits until its scripts have taken over."""

    def go(path: str):
        alice_page.goto(server.url + path)
        expect(alice_page.locator("[data-session][data-ready]")).to_be_attached(timeout=WAIT)
        return alice_page

    return go
