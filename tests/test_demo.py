"""The demo: invented sessions of every format, loaded once, removed in one act, shown on the first start."""

import json
import re
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from auditweb.dumps import jobs
from auditweb.dumps.models import Dump, State, Upload
from auditweb.formats import FORMATS
from auditweb.teams.models import AuditRecord, Team
from sessions_app import demo, summary
from sessions_app.demo import stories
from sessions_app.models import Event, Session
from status_app.models import StatusBus, StatusEntry
from tests.site import site, until

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 6, 5, 14, 37, 12, tzinfo=UTC)


@pytest.fixture
def load(team):
    """``load()`` → the demo dumps of team red by title, all of them imported or only those named."""

    def run(*titles, now=NOW):
        demo.load(team, now=now)
        dumps = {d.name.removeprefix("Demo · ").removesuffix(".jsonl"): d for d in Dump.objects.filter(team=team)}
        for title in titles or dumps:
            jobs.run(dumps[title].pk)
            dumps[title].refresh_from_db()
        return dumps

    return run


def whole(team):
    return {
        model.__name__: model.objects.count() for model in (Upload, Dump, Session, Event, StatusBus, StatusEntry)
    } | {"sessions": sorted(Session.objects.filter(team=team).values_list("title", flat=True))}


# What is told ----------------------------------------------------------------------------------------------------


def test_the_same_hour_and_seed_tell_the_same_bytes():
    told = list(stories.tell_all(NOW))
    assert told == list(stories.tell_all(NOW + timedelta(minutes=20)))
    later = list(stories.tell_all(NOW + timedelta(hours=1)))
    other = list(stories.tell_all(NOW, seed="another"))
    for first, second, third in zip(told, later, other, strict=True):
        assert first.name == second.name == third.name
        assert len({first.content, second.content, third.content}) == 3, first.name


def test_every_format_is_told_and_only_the_damaged_file_has_lines_that_cannot_be_read(load):
    dumps = load()
    found = {name for dump in dumps.values() for name in dump.records}
    assert found == {name for name, *_ in FORMATS} - {"unknown"}
    assert {dump.state for dump in dumps.values()} == {State.DONE}
    bad = {name: dump.bad_line_count for name, dump in dumps.items() if dump.bad_line_count}
    assert bad == {"Damaged file": 5}
    for name, dump in dumps.items():
        assert dump.lines == sum(dump.records.values()) + dump.bad_line_count + dump.blank_lines, name
    assert set(Event.objects.exclude(flags="").values_list("flags", flat=True)) <= {"no_time"}


def test_every_title_and_every_status_log_says_that_it_is_a_demo(load):
    load()
    titles = [*Session.objects.values_list("title", flat=True), *StatusBus.objects.values_list("title", flat=True)]
    assert len(titles) > 12
    assert all(title.startswith("Demo · ") for title in titles), titles


def test_no_address_and_no_telephone_number_could_be_somebodys():
    for story in stories.tell_all(NOW):
        text = story.content.decode("utf-8", "replace")
        for host in re.findall(r"[\w.-]*\.(?:com|org|net|de|fr|io|example)\b", text):
            assert host.endswith(("example.org", "example.com", "example.net", ".example")), host
        assert all(host.endswith("example.org") for host in re.findall(r"@([\w.-]+)", text))
        for number in re.findall(r"(?:\+1 )?\b555 \d{4}", text):
            assert re.search(r"555 01\d\d$", number), number


MOMENTS = [NOW, datetime(2027, 1, 1, 0, 0, 30, tzinfo=UTC), datetime(2026, 3, 29, 1, 59, tzinfo=UTC)]


@pytest.mark.parametrize("now", MOMENTS)
def test_the_stories_are_a_week_old_at_most_and_none_lies_ahead(now):
    hours = []
    for story in stories.tell_all(now):
        stamps = re.findall(rb'"(?:ts|timestamp|created_at)": ?"([^"]+(?:Z|\+0\d:00))"', story.content)
        times = [datetime.fromisoformat(stamp.decode()) for stamp in stamps]
        assert now - timedelta(days=7) < min(times) <= max(times) < now, story.name
        hours.append((now - max(times)) / timedelta(hours=1))
    assert min(hours) < 2.5, "something is fresh"


# The stories -----------------------------------------------------------------------------------------------------


def test_the_call_about_a_table_has_everything_that_a_voice_call_can_have(load):
    dump = load("Table for six")["Table for six"]
    session = dump.sessions.get()
    counts = summary.counters(session)
    assert (counts["interruptions"], counts["vision"]) == (2, 2)
    assert (session.tool_calls, session.tool_failures) == (7, 2)
    assert set(session.agents) >= {"host", "booking", "eyes"}
    assert dump.status_buses.get().levels.keys() == {"info", "pending", "completed", "failed", "ok"}
    said = list(session.events.filter(kind="speech").values_list("role", "at_us"))
    replies = [
        (then - before) / 1e6
        for (role, before), (answer, then) in pairwise(said)
        if (role, answer) == ("user", "assistant")
    ]
    assert sum(reply > 6 for reply in replies) == 1, "one reply is slow"
    assert sorted(replies)[len(replies) // 2] < 2.5


def test_the_naive_file_shows_its_zone_by_itself(load):
    dump = load("Train ticket")["Train ticket"]
    assert (dump.zone, dump.zone_source) == ("+05:30", "inferred")
    assert dump.naive_lines == 9
    session = dump.sessions.get()
    assert session.duration_s < 180
    ordered = list(session.events.order_by("line").values_list("at_us", flat=True))
    assert ordered == sorted(ordered)


def test_the_status_log_has_a_task_that_still_waits(load):
    dump = load("Office move status")["Office move status"]
    assert not dump.sessions.exists()
    bus = dump.status_buses.get()
    assert bus.levels == {"info": 7, "pending": 7, "completed": 5, "failed": 1, "ok": 1}


def test_the_xerxes_file_is_two_sessions_with_a_denied_and_a_blocked_call_and_a_broken_turn(load):
    sessions = {s.title.rpartition(" ")[2]: s for s in load("Travel desk")["Travel desk"].sessions.all()}
    assert sessions.keys() == {"lisbon-trip", "osaka-trip"}
    lisbon, osaka = sessions["lisbon-trip"], sessions["osaka-trip"]
    assert lisbon.events.filter(kind="tool_call_failure", status="denied").count() == 1
    assert osaka.events.filter(kind="tool_call_failure", status="blocked").count() == 1
    assert osaka.events.filter(kind="error").count() == 1
    assert osaka.events.filter(kind="turn_start").count() == osaka.events.filter(kind="turn_end").count() + 1
    attempts = lisbon.events.filter(kind="tool_call_attempt", tool="search_flights")
    assert attempts.count() == 3 and attempts.values("ref").distinct().count() == 1, "two retries in one turn"


def test_children_come_before_their_parents_in_the_agent_framework_trace(load):
    session = load("Office move")["Office move"].sessions.get()
    runs = list(session.events.filter(kind="agent_run").order_by("line").values_list("ref", "at_us"))
    places = {run: place for place, (run, _) in enumerate(runs)}
    children = [(run, at) for run, at in runs if run.rpartition(".")[0] in places]
    starts = dict(runs)
    assert len(children) >= 5
    for run, at in children:
        parent = run.rpartition(".")[0]
        assert places[run] < places[parent] and at > starts[parent], run
    assert len(runs) > len(places), "one run id comes twice"
    kinds = set(session.events.values_list("kind", flat=True))
    assert {"permission_request", "memory_operation", "callback", "skill", "user_input", "user_output"} <= kinds
    assert set(session.events.filter(kind="permission_request").values_list("status", flat=True)) == {
        "allowed",
        "denied",
    }


def test_the_room_has_words_for_the_staff_only(load):
    session = load("Kyoto room")["Kyoto room"].sessions.get()
    assert set(session.events.exclude(visibility="").values_list("visibility", flat=True)) == {
        "all",
        "internal",
        "staff-desk",
    }
    assert session.events.filter(kind="task").count() == 2
    assert session.events.filter(kind="observation").count() == 1


def test_the_long_session_has_about_5000_events_in_one_piece(load):
    session = load("Operations desk, a long evening")["Operations desk, a long evening"].sessions.get()
    assert 4950 <= session.event_count <= 5050
    assert 2 * 3600 < session.duration_s < 5 * 3600
    # Trouble comes in the middle: there the tools fail, before it they work.
    failed = [e.seq / session.event_count for e in session.events.filter(kind="tool_call").exclude(status="ok")]
    assert sum(0.38 < place < 0.6 for place in failed) > 0.5 * len(failed)


# Once, and gone again --------------------------------------------------------------------------------------------


def test_loading_again_adds_nothing_on_this_day_or_another(load, team):
    load("Table for six")
    before = whole(team)
    assert demo.load(team, now=NOW) == demo.load(team, now=NOW + timedelta(days=3)) == []
    assert whole(team) == before


@pytest.mark.django_db(transaction=True)
def test_two_presses_of_the_button_at_once_load_it_once(team):
    started = threading.Barrier(4)

    def press():
        try:
            started.wait(20)
            return len(demo.load(team, now=NOW))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        presses = [pool.submit(press) for _ in range(4)]
        assert sorted(done.result(60) for done in presses) == [0, 0, 0, len(stories.STORIES)]
    assert Dump.objects.count() == Upload.objects.count() == len(stories.STORIES)


def test_removing_leaves_what_the_team_brought_in(load, team, import_sample):
    own = import_sample("roomkit_mixed/session_status_tool.jsonl")
    before = whole(team)
    load()
    assert demo.remove(team) == len(stories.STORIES)
    assert whole(team) == before
    assert Dump.objects.get() == own
    assert demo.remove(team) == 0


def test_a_file_of_the_demo_that_the_team_uploaded_itself_before_stays(team, import_bytes):
    story = next(s for s in stories.tell_all(NOW) if "Lost parcel" in s.name)
    own = import_bytes(story.content, "mine.jsonl")
    assert len(demo.load(team, now=NOW)) == len(stories.STORIES) - 1
    demo.remove(team)
    assert Dump.objects.get() == own


def test_a_demo_dump_that_somebody_made_longer_stays(load, team):
    dump = load("Lost parcel")["Lost parcel"]
    Dump.objects.filter(pk=dump.pk).update(sha256="0" * 64)  # as when a longer file was received
    demo.remove(team)
    assert Dump.objects.get() == dump


def test_the_demo_can_come_back_after_it_was_removed(load, team):
    load("Table for six")
    demo.remove(team)
    assert len(load("Table for six", now=NOW + timedelta(days=1))) == len(stories.STORIES)


def test_both_acts_are_recorded_once(load, team, alice):
    demo.load(team, alice, NOW)
    demo.load(team, alice, NOW)
    demo.remove(team, alice)
    demo.remove(team, alice)
    acts = AuditRecord.objects.filter(team=team, actor=alice).order_by("pk").values_list("action", "detail")
    count = json.dumps({"dumps": len(stories.STORIES)})
    assert list(acts) == [("load_demo", count), ("remove_demo", count)]
    assert Dump.objects.count() == 0


def test_a_demo_that_does_not_fit_is_refused_whole(team, settings):
    settings.MAX_DUMP_BYTES = 100_000
    with pytest.raises(CommandError, match="The demo cannot be loaded: a dump may have 100,000 bytes"):
        call_command("demo", team="red")
    assert not Upload.objects.exists()
    assert Team.objects.get(pk=team.pk).demo == {}


# Command and pages -----------------------------------------------------------------------------------------------


def test_the_command_loads_says_so_and_removes(team):
    def run(*args):
        out = StringIO()
        call_command("demo", "--team", "red", *args, stdout=out)
        return out.getvalue().splitlines()

    lines = run()
    assert len(lines) == len(stories.STORIES)
    assert "Demo · Damaged file.jsonl: done, 16 lines, 5 not readable" in lines
    assert run() == ["The demo sessions are there already; nothing is new."]
    assert run("--remove") == [f"{len(stories.STORIES)} demo dumps removed."]
    assert run("--remove") == ["There are no demo sessions to remove."]


def test_a_team_that_does_not_exist_is_one_sentence(db):
    with pytest.raises(CommandError, match="There is no team 'nobody'"):
        call_command("demo", team="nobody")


def test_a_member_loads_and_removes_the_demo_by_buttons(alice_client, team):
    empty = alice_client.get("/").content.decode()
    assert "Load the demo sessions" in empty and "Remove the demo sessions" not in empty
    answer = alice_client.post("/demo/load/", {"team": "red"}, follow=True)
    assert answer.redirect_chain == [("/", 302)]
    assert set(Dump.objects.values_list("created_by__username", flat=True)) == {"alice"}
    jobs.run(Dump.objects.get(name="Demo · Table for six.jsonl").pk)
    full = alice_client.get("/").content.decode()
    assert "Remove the demo sessions" in full and "Load the demo sessions" not in full
    assert "Demo · Table for six" in full
    again = alice_client.post("/demo/load/", {"team": "red"}, follow=True).content.decode()
    assert "The demo sessions are there already." in again
    gone = alice_client.post("/demo/remove/", {"team": "red"}, follow=True).content.decode()
    assert "The demo sessions were removed." in gone and "Load the demo sessions" in gone
    assert not Dump.objects.exists()


def test_a_viewer_sees_no_button(victor_client, team):
    assert "demo sessions" not in victor_client.get("/").content.decode()


def test_the_empty_list_stays_the_same_between_two_looks(alice_client):
    first = alice_client.get("/", {"fragment": "rows"})
    second = alice_client.get("/", {"fragment": "rows"}, headers={"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 304


def test_every_page_of_every_demo_session_opens(load, alice_client):
    load()
    for session in Session.objects.all():
        for path in ("", "?tab=summary", "?at=1"):
            assert alice_client.get(f"/sessions/{session.public_id}/{path}").status_code == 200, session.title
        for part in ("timeline", "outline", "turns", "tool-calls", "summary"):
            assert alice_client.get(f"/api/v1/sessions/{session.public_id}/{part}").status_code == 200, session.title
    for bus in StatusBus.objects.all():
        assert alice_client.get(f"/status/{bus.public_id}/").status_code == 200
    for dump in Dump.objects.all():
        assert alice_client.get(f"/dumps/{dump.public_id}/").status_code == 200


# First start -----------------------------------------------------------------------------------------------------


@pytest.fixture
def first_team(db, settings):
    settings.DEMO = settings.SQLITE = True
    return Team.objects.create(slug="default", name="Default")


def test_an_empty_database_is_welcomed_with_the_demo(first_team):
    demo.welcome()
    assert Dump.objects.filter(team=first_team, state=State.QUEUED).count() == len(stories.STORIES)


@pytest.mark.parametrize("name", ["DEMO", "SQLITE"])
def test_no_demo_without_being_asked_for_or_on_a_shared_database(first_team, settings, name):
    setattr(settings, name, False)
    demo.welcome()
    assert not Dump.objects.exists()


def test_no_demo_where_something_was_imported_before(first_team, team, import_sample):
    import_sample("roomkit_session/one_line.jsonl")
    demo.welcome()
    assert Dump.objects.count() == 1


def test_a_demo_that_was_removed_does_not_come_back_with_the_next_start(first_team):
    demo.welcome()
    demo.remove(first_team)
    demo.welcome()
    assert not Dump.objects.exists()


def test_a_demo_that_cannot_be_loaded_keeps_no_server_from_starting(first_team, settings, caplog):
    settings.MAX_DUMP_BYTES = 1000
    demo.welcome()
    assert "the demo sessions could not be loaded" in caplog.text
    assert not Dump.objects.exists()


def test_the_first_start_shows_the_demo_and_one_after_its_removal_does_not():
    """On SQLite, as it starts on a laptop."""
    with site(AUDITWEB_DEMO="1", DATABASE_URL="", REDIS_URL="") as running:
        key = running.manage("create_api_key", "--team", "default", "--scopes", "read").strip()

        def dumps():
            request = urllib.request.Request(f"{running.url}/api/v1/dumps/?limit=50")
            request.add_header("Authorization", f"Bearer {key}")
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)["items"]

        done = until(lambda: (found := dumps()) and {d["state"] for d in found} == {"done"} and found, "the imports")
        assert {d["name"] for d in done} == {s.name for s in stories.tell_all(datetime.now(UTC))}
        running.manage("demo", "--remove")
        running.terminate()
        running.start()
        assert dumps() == []
