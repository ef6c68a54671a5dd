"""The texts made of an imported dump equal those that RoomKit itself printed, byte for byte."""

import json
import zlib
from pathlib import Path

import pytest
from django.core.management import call_command

from sessions_app import summary
from sessions_app.models import Summary
from status_app import summary as status_summary
from status_app.models import StatusSummary

SAMPLES = Path(__file__).parent / "samples"
FILES = json.loads((SAMPLES / "manifest.json").read_text())["files"]
GOLDEN = [(f, text) for f in FILES if f["path"].startswith("roomkit_") for text in f.get("golden_text", [])]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("file", "text"), GOLDEN, ids=[text for _, text in GOLDEN])
def test_a_text_of_an_imported_dump_is_what_the_library_printed(file, text, team, import_sample):
    expected = (SAMPLES / file["path"]).with_name(text).read_bytes()
    dump = import_sample(file["path"], team=team)
    sort = text.removeprefix(Path(file["path"]).stem + ".").removesuffix(".txt")
    zone = file["tz"]
    if sort == "recent_text":
        found = status_summary.recent_text(dump.status_buses.get())
    elif sort == "status_summary" or (sort == "summary" and not dump.sessions.exists()):
        found = status_summary.text(dump.status_buses.get())
        session = dump.sessions.first()
        if session:
            assert b"".join(summary.text(session, of="status")) == expected
    elif sort == "tool_summary" or file["path"].startswith("roomkit_tool"):
        found = summary.text(dump.sessions.get(), of="tool", zone=zone)
    else:
        run = 2 if sort.startswith("run2") else 1
        found = summary.text(dump.sessions.order_by("pk")[run - 1], zone=zone)
    assert b"".join(found) == expected


def test_a_finished_import_has_its_texts_stored(team, import_sample):
    dump = import_sample("roomkit_mixed/session_status_tool.jsonl", team=team)
    session = dump.sessions.get()
    summary.make(session)
    status_summary.make(dump.status_buses.get())
    assert summary.available(session) == ["session", "tool", "status"]
    stored = Summary.objects.get(session=session, of="session")
    golden = (SAMPLES / "roomkit_mixed/session_status_tool.summary.txt").read_bytes()
    assert zlib.decompress(stored.text) == golden
    assert zlib.decompress(StatusSummary.objects.get().text).startswith(b"\nStatus Log")


def test_a_stored_text_of_an_older_state_is_not_shown(team, import_sample):
    session = import_sample("roomkit_session/tiny_doc_example.jsonl", team=team).sessions.get()
    summary.make(session)
    Summary.objects.filter(session=session).update(text=zlib.compress(b"old"))
    assert b"".join(summary.text(session)) == b"old"
    session.last_seq += 1
    assert b"Session Audit" in b"".join(summary.text(session))


def test_our_own_text_knows_the_duration_that_the_library_cannot_subtract(team, import_sample):
    session = import_sample("roomkit_session/v058_tool_last_paris.jsonl", team=team).sessions.get()
    assert b"Duration: ?" in b"".join(summary.text(session))
    assert b"Duration 104.3 s" in b"".join(summary.text(session, style="auditweb"))


@pytest.mark.parametrize("told", [{"of": "weather"}, {"style": "loud"}, {"zone": "Mars"}, {"clock": "sun"}])
def test_a_word_that_means_nothing_is_refused(told, team, import_sample):
    session = import_sample("roomkit_session/one_line.jsonl", team=team).sessions.get()
    with pytest.raises(ValueError, match=r"\w"):
        summary.text(session, **told)


def test_the_command_prints_the_text_and_the_original(team, import_sample, capfdbinary):
    dump = import_sample("roomkit_session/tiny_doc_example_toronto.jsonl", team=team)
    session = dump.sessions.get()
    call_command("export_session", session.public_id, "--as", "summary", "--zone", "America/Toronto")
    golden = (SAMPLES / "roomkit_session/tiny_doc_example_toronto.summary.txt").read_bytes()
    assert capfdbinary.readouterr().out == golden
    call_command("export_session", session.public_id, "--as", "original")
    assert capfdbinary.readouterr().out == (SAMPLES / "roomkit_session/tiny_doc_example.jsonl").read_bytes()
