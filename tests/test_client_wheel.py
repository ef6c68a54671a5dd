"""The package for agents, as this server gives it away."""

import os
import subprocess
import sys
import venv

import pytest
from django.test import Client

from auditweb import client_wheel
from tests.site import ROOT, site


def test_the_same_files_give_the_same_wheel_and_anybody_may_keep_it():
    content, sha256 = client_wheel.made()
    assert client_wheel.made.__wrapped__() == (content, sha256)
    client = Client()
    index, wheel = client.get("/clients/"), client.get(f"/clients/{client_wheel.NAME}")
    assert f'href="{client_wheel.NAME}#sha256={sha256}"' in index.content.decode()
    assert wheel.content == content
    for answer in (index, wheel):
        assert answer.headers["Cache-Control"].startswith("public")
    assert client.get("/clients/auditweb_client-9.9-py3-none-any.whl").status_code == 404


@pytest.mark.parametrize("way", ["by its address", "from the page"])
def test_pip_installs_it_from_a_running_server(way, served, tmp_path):
    venv.create(tmp_path / "agent", with_pip=False)
    python = str(tmp_path / "agent/bin/python")
    if way == "from the page":
        what = ["--find-links", f"{served.url}/clients/", "auditweb-client"]
    else:
        what = [f"{served.url}/clients/{client_wheel.NAME}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHONPATH"))}
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--no-index", "--no-cache-dir", *what], env=env, check=True, timeout=120)
    script = "from importlib.metadata import version; import auditweb_client as c; from auditweb_client import xerxes"
    script += "; print(c.__version__, version('auditweb-client'), c.__file__)"
    said = subprocess.run(
        [python, "-c", script], env=env, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.split()[:2] == [client_wheel.VERSION] * 2
    assert not said.split()[2].startswith(str(ROOT))


@pytest.fixture(scope="module")
def served():
    with site("--no-worker") as running:
        yield running
