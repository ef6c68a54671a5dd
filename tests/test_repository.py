"""What the checkout promises to strangers: the README is true, and no file knows the machine that it was written on."""

import ast
import json
import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

import yaml

from tests.site import ROOT, site, until

README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The part of the README under the heading *title*."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found, f"the README has no section {title}"
    return found[1]


def table(title: str) -> list[list[str]]:
    """The cells of the table in a section, without its head."""
    rows = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def tracked() -> list[Path]:
    """Every file of the project: known to git or new, and not ignored; without git, all but hidden ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        hidden = re.compile(r"/(\.(?!ci/|gitignore|dockerignore)|data/|node_modules/|__pycache__/)")
        paths = [path for path in ROOT.rglob("*") if not hidden.search(f"/{path.relative_to(ROOT)}")]
    return [path for path in paths if path.is_file()]


def read_in_settings() -> dict[str, ast.expr | None]:
    """The variables that settings.py reads, with the expression of their default."""
    found: dict[str, ast.expr | None] = {}
    for node in ast.walk(ast.parse((ROOT / "auditweb/settings.py").read_text())):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        called = ast.unparse(node.func)
        if called == "_number":
            found[node.args[0].value] = node.args[1]
        elif re.fullmatch(r"env\.\w+", called) or called == "os.environ.get":
            found[node.args[0].value] = next((k.value for k in node.keywords if k.arg == "default"), None)
    return found


def as_told(default: ast.expr | None) -> str:
    """A default as the README writes it."""
    value = eval(ast.unparse(default)) if default is not None else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "`" + ",".join(value) + "`"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_of_variables_is_the_settings():
    told = {row[0].strip("`"): row[1] for row in table("Environment")}
    read = read_in_settings()
    assert set(told) == set(read)
    # Two defaults are worked out: the directory beside the checkout, and a level whose empty value counts as not set.
    assert told.pop("AUDITWEB_DATA") == "`./data`"
    assert told.pop("AUDITWEB_LOG_LEVEL") == "`INFO`"
    for name, default in told.items():
        assert re.sub(r" \(.+\)$", "", default) == (as_told(read[name]) or "none"), name


def test_sizes_and_times_in_the_table_are_the_same_twice():
    units = {"MiB": 2**20, "GiB": 2**30, "day": 86400, "days": 86400, "hours": 3600}
    for name, default, _ in table("Environment"):
        if found := re.fullmatch(r"(\d+) \((\d+) (\w+)\)", default):
            assert int(found[1]) == int(found[2]) * units[found[3]], name


def test_no_other_module_reads_the_environment():
    for package in ("auditweb", "sessions_app", "status_app"):
        for path in (ROOT / package).rglob("*.py"):
            for found in re.findall(r"environ(?:\.get\(|\[)\s*\"(\w+)\"", path.read_text()):
                assert path.name == "settings.py" or found == "PYTHONPATH", f"{path} reads {found}"


def test_every_command_of_the_table_is_there():
    from django.core.management import get_commands

    named = set()
    for command, _ in table("Commands"):
        words = command.strip("`").split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        else:
            assert words[0] == "auditweb"
            named.add(words[1])
    ours = {name for name, app in get_commands().items() if app.startswith(("auditweb", "sessions_app", "status_app"))}
    assert named == ours


def test_every_link_to_a_file_leads_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        links = re.findall(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
        for target in (a or b for a, b in links):
            assert "://" in target or (ROOT / target).is_file(), f"{name}: {target}"


def test_pictures_stay_small():
    for path in (ROOT / "docs").rglob("*.png"):
        assert path.stat().st_size < 200_000, path.name


KINDS = ("-T", "-H", "-d", "--data-binary")


def test_the_lines_about_http_work_as_they_are_written(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line.strip() for line in section("HTTP").splitlines() if line.startswith("    ")]
    key_line, *curls = lines
    create = re.fullmatch(r"KEY=\$\(\.venv/bin/auditweb (create_api_key .+)\)", key_line)
    assert create
    assert len(curls) == 5
    with site() as running:
        key = running.manage(*shlex.split(create[1])).strip()

        def run(line: str, id: str = "") -> bytes:
            words = shlex.split(line.replace("$KEY", key).replace("/ID/", f"/{id}/"))
            assert words.pop(0) == "curl"
            options = {words.pop(0): words.pop(0) for _ in range(sum(map(words.count, KINDS)))}
            assert set(options) <= set(KINDS)
            (address,) = words
            address = address.replace("http://127.0.0.1:8000", running.url)
            request = urllib.request.Request(address, headers=dict([options["-H"].split(": ", 1)]))
            if path := options.get("-T"):  # curl completes an address that ends in a slash with the file's name
                request.full_url = address + Path(path).name
                request.method, request.data = "PUT", Path(path).read_bytes()
            elif text := options.get("-d"):
                request.data = text.encode()
            elif path := options.get("--data-binary"):
                request.data = Path(path.removeprefix("@")).read_bytes()
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read()

        assert json.loads(run(curls[0]))["state"] == "queued"
        # Searching, as the second line does, finds the session once it is imported.
        id = until(lambda: (items := json.loads(run(curls[1]))["items"]) and items[0]["id"], "the session")
        until(lambda: running.ready()["last_import_at"], "the end of the import")
        golden = (ROOT / "tests/samples/roomkit_session/support_call_60.summary.txt").read_text()
        assert run(curls[2], id).decode().splitlines()[0] == golden.splitlines()[0]
        assert json.loads(run(curls[3]))["accepted_through"] == 60
        assert json.loads(run(curls[4]))["accepted_through"] == 1


def test_the_back_up_of_the_readme_holds_everything(tmp_path, monkeypatch):
    script = re.search(r"`python3 -c \"(import sqlite3;.+?)\"`", section("Deploying"))
    assert script
    sample = ROOT / "tests/samples/roomkit_session/support_call_60.jsonl"
    no_servers = {"DATABASE_URL": "", "REDIS_URL": ""}
    with site("--no-worker", **no_servers) as running:
        session = running.import_file(sample)["dumps"][0]["sessions"][0]["id"]
        (tmp_path / "data").symlink_to(running.data)
        command = ["python3", "-c", script[1].replace('\\"', '"')]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    with site("--no-worker", **no_servers) as other:
        other.terminate()
        for path in other.data.glob("auditweb.sqlite3*"):
            path.unlink()
        (tmp_path / "backup.sqlite3").rename(other.data / "auditweb.sqlite3")
        other.start()
        assert other.manage("export_session", session, "--as", "original").encode() == sample.read_bytes()


def test_the_containers_set_only_variables_that_exist():
    known = set(read_in_settings())
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("web", "worker"):
        assert set(services[name]["environment"]) <= known
        assert services[name]["command"][0] == "auditweb"
    for found in re.findall(r"\b(AUDITWEB_\w+)=", (ROOT / "Dockerfile").read_text()):
        assert found in known


# Paths and hosts in pieces, so that this file does not find itself.
PLACES = ["/" + "work/", "/" + "root/", "/" + "home/", "/" + "tmp/", "py" + "pi.org", "npm" + "js.org"]
OF_THE_IMAGE = {"Dockerfile": "/" + "home/auditweb"}


def test_no_file_knows_a_machine_or_a_registry():
    found = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if not name.startswith(("tests/samples/", "docs/images/")):
            text = path.read_text(errors="replace").replace(OF_THE_IMAGE.get(name, "\0"), "")
            found += [f"{name}: {place}" for place in PLACES if place in text]
    assert not found


def test_pins_are_names_and_versions_and_nothing_else():
    for line in (ROOT / "requirements/constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.+]*", line), line


def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["postgres"]]
    for group in project["dependency-groups"].values():
        wanted += [name for name in group if isinstance(name, str)]

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", name)[0]).lower()

    pins = (ROOT / "requirements/constraints.txt").read_text().split()
    assert {plain(name) for name in wanted} <= {plain(pin) for pin in pins}
