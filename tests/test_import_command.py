"""``manage.py import_dump``: files in, one report out, an exit status that scripts can trust."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, DumpChunk, Upload
from auditweb.teams.models import AuditRecord, Team
from sessions_app.management.commands import import_dump
from sessions_app.models import Session
from tests.site import ROOT
from tests.test_jobs import encode, speech

pytestmark = pytest.mark.django_db(transaction=True)

DUMP = {
    "id": (str, type(None)),
    "name": str,
    "sha256": (str, type(None)),
    "state": str,
    "error": str,
    "duplicate": bool,
    "lines": int,
    "blank_lines": int,
    "events": int,
    "records": dict,
    "bad_lines": list,
    "sessions": list,
    "status_buses": list,
}
RECORDS = ["roomkit_session", "roomkit_tool", "roomkit_status", "xerxes", "af_run", "af_event", "unknown"]
SESSION = {
    "id": str,
    "key": str,
    "events": int,
    "user_turns": int,
    "assistant_turns": int,
    "tool_calls": int,
    "tool_ms": (int, float),
    "tools": dict,
    "vision": int,
    "interruptions": int,
    "duration_s": (int, float, type(None)),
}


def fits(value: dict, schema: dict) -> None:
    assert list(value) == list(schema)
    for key, kind in schema.items():
        assert isinstance(value[key], kind), key


@pytest.fixture
def run(team, capsys):
    """``run(path, …, "--json")`` → (exit status, standard output, standard error)."""

    def call(*args, team="red"):
        capsys.readouterr()
        status = 0
        try:
            call_command("import_dump", *map(str, args), "--team", team)
        except SystemExit as e:
            status = e.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_the_report_has_exactly_the_promised_shape(run, tmp_path, sample):
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(sample("roomkit_mixed/session_status_tool.jsonl").read_bytes() + b"broken\n\n")
    status, out, err = run(path, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert list(report) == ["dumps"]
    (dump,) = report["dumps"]
    fits(dump, DUMP)
    assert list(dump["records"]) == RECORDS
    assert all(isinstance(n, int) for n in dump["records"].values())
    (session,) = dump["sessions"]
    fits(session, SESSION)
    assert session["key"] == dump["id"]
    assert sum(dump["records"].values()) == dump["events"] == session["events"]
    (bus,) = dump["status_buses"]
    fits(bus, {"name": str, "entries": int})
    (bad,) = dump["bad_lines"]
    fits(bad, {"line": int, "reason": str})
    assert dump["lines"] == dump["events"] + dump["blank_lines"] + 1
    assert dump["state"] == "done"


def test_a_missing_file_fails_alone(run, tmp_path):
    good, other = tmp_path / "good.jsonl", tmp_path / "other.jsonl"
    good.write_bytes(speech(1))
    other.write_bytes(speech(2))
    status, out, _ = run(good, tmp_path / "missing.jsonl", tmp_path, other, "--json")
    dumps = json.loads(out)["dumps"]
    for dump in dumps:
        fits(dump, DUMP)
    assert status == 1
    assert [d["state"] for d in dumps] == ["done", "failed", "failed", "done"]
    assert dumps[1]["id"] is None and "No such file" in dumps[1]["error"]
    assert Dump.objects.count() == 2


def test_a_file_that_is_no_dump_is_refused_and_the_status_is_1(run, sample):
    status, out, _ = run(sample("dirty/html_error_page.jsonl"))
    assert status == 1
    assert "failed" in out and "HTML" in out


def test_standard_input_is_read_and_only_the_report_is_written_to_standard_output(run, monkeypatch):
    data = speech(1) + speech(2)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    status, out, _ = run("-", "-", "--json")
    first, second = json.loads(out)["dumps"]
    assert (first["name"], first["events"], first["state"]) == ("stdin.jsonl", 2, "done")
    assert (status, second["state"], second["lines"]) == (1, "failed", 0)  # it was read to its end before


def test_progress_goes_to_standard_error(run, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(speech(n) for n in range(50)))

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        _, out, _ = run(path)
    assert out.splitlines() == [
        "a.jsonl: done, 50 lines, 50 events, 0 not readable",
        f"  session {Session.objects.get().public_id}: 50 events",
    ]
    assert "50 lines" in screen.getvalue()


def test_the_same_bytes_again_are_a_duplicate_and_no_failure(run, tmp_path):
    path, copy = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_bytes(speech(1))
    copy.write_bytes(speech(1))
    status, out, _ = run(path, copy, "--json")
    first, second = json.loads(out)["dumps"]
    assert (status, first["id"], first["duplicate"], second["duplicate"]) == (0, second["id"], False, True)
    assert "imported before" in run(path)[1]
    assert (Dump.objects.count(), Upload.objects.count(), DumpChunk.objects.count()) == (1, 1, 1)


def test_a_duplicate_of_what_waits_for_its_import_is_imported_here(run, tmp_path, team):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    dump = store.begin(team, "a.jsonl")
    store.append_bytes(dump, 0, speech(1))
    store.finish(dump)
    status, out, _ = run(path, "--json")
    (found,) = json.loads(out)["dumps"]
    assert (status, found["state"], found["events"], found["duplicate"]) == (0, "done", 1, True)


def test_an_import_that_another_worker_has_is_waited_for(run, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    original, calls = jobs.run, []

    def slower(pk, *args):
        calls.append(pk)
        if len(calls) == 1:  # somebody else claimed it just before us, and dies
            assert jobs.claim(pk)
            return False
        Dump.objects.filter(pk=pk).update(lease_until=0)
        return original(pk, *args)

    monkeypatch.setattr(jobs, "run", slower)
    monkeypatch.setattr(import_dump, "WAIT_SECONDS", 0.01)
    status, out, _ = run(path, "--json")
    assert (status, json.loads(out)["dumps"][0]["state"], len(calls)) == (0, "done", 2)


def test_a_dump_that_is_deleted_while_it_is_imported_is_reported_as_failed(run, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    monkeypatch.setattr(jobs, "run", lambda pk, *args: jobs.delete(Dump.objects.get(pk=pk)))
    status, out, _ = run(path, "--json")
    (found,) = json.loads(out)["dumps"]
    assert (status, found["state"], found["error"]) == (1, "failed", "this dump is gone")


def test_what_was_told_goes_to_every_file(run, tmp_path):
    naive = "2026-01-01T10:00:00"
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    post = {"agent_id": "a", "action": "go", "status": "ok", "detail": "", "metadata": {}}
    first.write_bytes(encode(ts=naive, type="speech", role="user", content="one") + encode(ts=naive, **post))
    second.write_bytes(encode(ts=naive, type="speech", role="user", content="two") + encode(ts=naive, **post))
    status, out, _ = run(first, second, "--session", "call 7", "--zone", "Asia/Tokyo", "--bus", "desk", "--json")
    assert status == 0
    one, two = json.loads(out)["dumps"]
    assert one["sessions"][0]["id"] == two["sessions"][0]["id"]
    assert (two["sessions"][0]["key"], two["sessions"][0]["events"]) == ("call 7", 4)
    assert two["status_buses"] == [{"name": "desk", "entries": 2}]
    assert {e.at_us for e in Session.objects.get().events} == {1767229200_000_000}  # 01:00 UTC


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--zone", "Mars/Olympus"], "no time zone"),
        (["--session", "k" * 201], "--session takes up to 200"),
        (["--bus", "a\udcffb"], "--bus takes up to 200"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_read(options, says, run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    with pytest.raises(CommandError, match=says):
        run(path, *options)
    assert not Dump.objects.exists()


def test_an_unknown_team_is_named_and_the_default_one_is_made(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    with pytest.raises(CommandError, match="no team 'nobodys'"):
        run(path, team="nobodys")
    assert run(path, team="default")[0] == 0
    assert Team.objects.get(slug="default").dumps.count() == 1


def test_a_file_that_grows_while_it_is_read_is_imported_as_far_as_it_was_read(run, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    original = store.append_bytes

    def grow(dump, offset, data):
        if offset == 0:
            with open(path, "ab") as file:
                file.write(speech(2))
        return original(dump, offset, data)

    monkeypatch.setattr(store, "append_bytes", grow)
    status, out, _ = run(path, "--json")
    assert (status, json.loads(out)["dumps"][0]["events"]) == (0, 2)


def test_nothing_is_left_of_a_file_that_could_not_be_received(run, tmp_path, settings):
    settings.MAX_DUMP_BYTES = 100
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1) * 5)
    status, out, _ = run(path, "--json")
    (found,) = json.loads(out)["dumps"]
    assert (status, found["state"]) == (1, "failed")
    assert "more bytes" in found["error"]
    assert (Dump.objects.count(), Upload.objects.count(), DumpChunk.objects.count()) == (0, 0, 0)


def test_every_upload_is_in_the_audit_log_once(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(speech(1))
    run(path)
    records = AuditRecord.objects.filter(action="upload")
    assert [(r.actor_name, r.target_id, r.team.slug) for r in records] == [
        ("command line", Dump.objects.get().public_id, "red")
    ]


def test_rebuild_goes_on_when_a_session_is_deleted_meanwhile(run, tmp_path, capsys, monkeypatch):
    from sessions_app import summary

    for n in (1, 2):
        path = tmp_path / f"{n}.jsonl"
        path.write_bytes(speech(n))
        run(path)
    made = []

    def make(session):
        made.append(session.pk)
        for dump in Dump.objects.exclude(sessions=session):
            jobs.delete(dump)

    monkeypatch.setattr(summary, "make", make)
    call_command("rebuild")
    assert made == [Session.objects.get().pk]


def test_the_first_command_in_an_empty_data_directory_makes_the_database(tmp_path, sample):
    env = {k: v for k, v in os.environ.items() if k not in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "REDIS_URL")}
    env["AUDITWEB_DATA"] = str(tmp_path / "data")
    path = sample("roomkit_session/tiny_doc_example.jsonl")

    def manage(*args):
        command = [sys.executable, str(ROOT / "manage.py"), *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    found = manage("import_dump", str(path), "--json")
    assert found.returncode == 0, found.stderr
    (dump,) = json.loads(found.stdout)["dumps"]
    text = manage("export_session", dump["sessions"][0]["id"], "--as", "summary")
    assert text.stdout.encode() == path.with_name("tiny_doc_example.summary.txt").read_bytes()

    (tmp_path / "data" / "auditweb.sqlite3").write_bytes(b"no database, but long enough to be read as one" * 3)
    broken = manage("create_team", "blue")
    assert broken.returncode == 1
    assert "cannot use the database" in broken.stderr
    assert "Traceback" not in broken.stderr
