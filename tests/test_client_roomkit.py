"""The drop-ins for RoomKit, with the real RoomKit in the environment that .ci/setup makes for it."""

import os
import subprocess

import pytest

from tests.site import ROOT, site

PYTHON = ROOT / ".venv-roomkit/bin/python"
ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'clients/python'}:{ROOT}"}


def roomkit_agent(*args: str) -> list[str]:
    """Command of a process with RoomKit; without an environment for it the test is skipped, which fails in CI."""
    if not PYTHON.exists():
        pytest.skip("no .venv-roomkit: `make test` makes it where there is Python 3.12 or newer")
    return [str(PYTHON), "-m", "tests.roomkit_agent", *args]


def run(*args: str) -> None:
    done = subprocess.run(roomkit_agent(*args), env=ENV, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_auditors_do_as_roomkits_own_and_more():
    run("checks")


@pytest.mark.parametrize("extra", ["with websockets", "without"])
def test_agents_on_two_hosts_share_a_bus(extra, running_site):
    key = running_site.manage("create_api_key", "--team", "default", "--scopes", "ingest,read").strip()
    run("check_agents_on_two_hosts_share_a_bus", running_site.url, key, extra)


@pytest.fixture(scope="module")
def running_site():
    with site() as running:
        yield running
