"""The Live wall: what runs is seen at once by its team and nobody else, in its present state, whatever came before."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from auditweb.dumps import streams
from auditweb.live.hub import hub
from sessions_app import summary, wall_hub
from sessions_app.models import Session
from sessions_app.wall import EVENTS, Wall
from status_app.latest import POSTS, Latest
from tests.test_sockets import SECONDS, aside, watch  # noqa: F401 - a fixture


def speech(text, role="user", at=None):
    at = at or datetime.now(UTC)
    entry = {"ts": at.isoformat(), "type": "speech", "role": role, "content": text, "duration_ms": None, "metadata": {}}
    return json.dumps(entry).encode()


def xerxes(kind, at, **fields):
    envelope = {
        "event_type": kind,
        "timestamp": at.isoformat(),
        "agent_id": "scout",
        "turn_id": "t1",
        "severity": "info",
    }
    return json.dumps({**envelope, "session_id": None, "metadata": {}, **fields}).encode()


def post(action, at, status="ok"):
    entry = {"ts": at.isoformat(), "agent_id": "exec", "action": action, "status": status, "detail": "", "metadata": {}}
    return json.dumps(entry).encode()


@pytest.fixture
def run(team):
    """``run("call", *lines, team=…)`` → the session of the stream "call" of team red after these lines."""

    def append(name, *lines, team=team):
        dump = streams.open(team, name, title=name)
        streams.append(dump, None, lines)
        return dump.sessions.first()

    return append


def fields(wall, team):
    return [card.fields for card in wall.of([team.pk])]


def busy(count, start):
    """*count* lines of a session in 20 seconds: speech, calls of two lines some of which fail or never end."""
    lines, calls = [], 0
    for n in range(count):
        at = start + timedelta(seconds=20 * n / count)
        kind = n % 5
        if kind == 0:
            lines.append(speech(f"words {n}", "assistant" if n % 2 else "user", at))
        elif kind in (1, 2):
            calls += 1
            lines.append(xerxes("tool_call_attempt", at, tool_name=f"tool{calls}", arguments_preview="{}"))
        elif n % 3:
            lines.append(xerxes("tool_call_complete", at, tool_name=f"tool{calls}", status="ok", duration_ms=40.0))
        else:
            lines.append(xerxes("tool_call_failure", at, tool_name=f"tool{calls - 1}", error_message="no"))
    return lines


@pytest.mark.django_db
def test_a_card_that_grew_with_its_session_is_the_card_of_a_reload(run, team):
    chance = random.Random(7)
    lines = busy(3 * EVENTS, datetime.now(UTC) - timedelta(seconds=20))
    grown, session = Wall(), None
    while lines:
        size = chance.choice([1, 1, 2, 5, 40, 130])
        session = run("call", *lines[:size])
        lines = lines[size:]
        grown.look([team.pk], [session.pk])
    fresh = Wall()
    fresh.look([team.pk])
    assert fields(grown, team) == fields(fresh, team)
    [card] = fields(fresh, team)
    counted = summary.counters(session)
    assert {name: counted[name] for name in card["counters"] if name in counted}.items() <= card["counters"].items()
    assert card["counters"]["event_count"] == counted["events"] == 3 * EVENTS
    last = session.events.filter(lane__in=("user", "assistant")).last()
    assert (card["last_role"], card["last_text"]) == (last.role, last.text)
    assert len(card["recent"]["columns"]["at_ms"]) == EVENTS
    assert card["failing"] and card["live"] and not card["quiet"]


@pytest.mark.django_db
def test_a_card_knows_the_last_words_however_long_ago_and_forgets_failures(run, team):
    early = datetime.now(UTC) - timedelta(minutes=2)
    run("call", xerxes("error", early - timedelta(seconds=1), error_message="no"), speech("long ago", at=early))
    later = datetime.now(UTC) - timedelta(seconds=20)
    run("call", *(xerxes("agent_switch", later, reason=str(n)) for n in range(2 * EVENTS)))
    wall = Wall()
    wall.look([team.pk])
    [card] = fields(wall, team)
    assert (card["last_text"], card["failing"]) == ("long ago", False)


@pytest.mark.django_db
def test_a_producer_whose_clock_is_wrong_is_drawn_as_of_now(run, team):
    wrong = datetime.now(UTC) - timedelta(hours=3)
    run("call", speech("hello", at=wrong), xerxes("error", wrong, error_message="no"))
    wall = Wall()
    wall.look([team.pk])
    [card] = fields(wall, team)
    assert timedelta(milliseconds=card["clock_ms"]) == pytest.approx(timedelta(hours=3), abs=timedelta(minutes=1))
    assert card["failing"]
    assert len(card["recent"]["columns"]["at_ms"]) == 2


@pytest.mark.django_db
def test_sessions_end_fall_silent_and_are_deleted(run, team, other_team):
    call, gone = run("call", speech("one")).pk, run("gone", speech("one")).pk
    theirs = run("theirs", speech("secret"), team=other_team).pk
    wall = Wall()
    assert set(wall.look([team.pk])) == {call, gone}
    assert wall.look([team.pk]) == {}, "nothing happened"
    Session.objects.get(pk=gone).delete()
    line = timezone.now() - timedelta(seconds=20)
    Session.objects.filter(pk=call).update(updated_at=line, heard_at=timezone.now())
    changed = wall.look([team.pk])
    assert set(changed) == {call, gone} and gone not in wall.cards
    assert changed[call].fields["quiet"] and not changed[call].fields["stale"]
    line -= timedelta(seconds=20)
    Session.objects.filter(pk=call).update(updated_at=line, heard_at=line)
    assert wall.look([team.pk])[call].fields["stale"]
    streams.end(streams.find(team, "call"))
    ended = wall.look([team.pk], [call])[call]
    assert not ended.live and ended.fields["ended_at"] and not wall.of([team.pk]) and call in wall.cards
    run("call", speech("it goes on"))
    assert wall.look([team.pk])[call].fields["last_text"] == "it goes on"
    assert set(wall.look([other_team.pk])) == {call, theirs}, "the team left the wall"
    assert set(wall.cards) == {theirs}


@pytest.mark.django_db
def test_a_look_asks_as_often_for_many_sessions_as_for_one(run, team, django_assert_max_num_queries):
    keys = [run(f"call {n}", speech("one")).pk for n in range(12)]
    wall = Wall()
    wall.look([team.pk])
    for n in range(12):
        run(f"call {n}", speech("two"))
    with django_assert_max_num_queries(2):
        assert set(wall.look([team.pk], keys)) == set(keys)


@pytest.mark.django_db
def test_of_too_many_sessions_the_newest_are_shown_and_all_are_counted(run, team, monkeypatch):
    monkeypatch.setattr("sessions_app.wall.CARDS", 2)
    wall = Wall()
    keys = [run("call 0", speech("one")).pk]
    wall.look([team.pk])
    keys += [run(f"call {n}", speech("one")).pk for n in (1, 2)]
    assert set(wall.look([team.pk])) == set(keys)
    assert set(wall.cards) == set(keys[1:])
    assert wall.count([team.pk]) == 3


@pytest.mark.django_db
def test_the_latest_posts_of_all_status_logs_of_a_team(run, team, other_team):
    at = datetime.now(UTC) - timedelta(minutes=1)
    run("a", *(post(f"a{n}", at + timedelta(seconds=2 * n)) for n in range(POSTS)))
    latest = Latest()
    assert latest.look({team.pk}) == {team.pk}
    run("b", *(post(f"b{n}", at + timedelta(seconds=2 * n + 1)) for n in range(POSTS)))
    run("c", post("theirs", at, "failed"), team=other_team)
    bus = streams.find(team, "b").status_buses.get()
    assert latest.look({team.pk}, {bus.pk}) == {team.pk}
    assert latest.look({team.pk}) == set()
    expected = [f"{name}{n}" for n in range(POSTS - 1, 0, -1) for name in "ba"][:POSTS]
    assert [row["action"] for row in latest.of({team.pk})] == expected
    bus.delete()
    assert latest.look({team.pk}) == {team.pk}
    assert {row["action"][0] for row in latest.of({team.pk})} == {"a"}


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_is_whole_without_scripts(run, team, other_team, alice_client, bob_client):
    run("call", speech("Close the\x07 door"), post("look", datetime.now(UTC), "failed"))
    run("theirs", speech("secret"), team=other_team)
    page = alice_client.get("/live/").content.decode()
    for words in ("call", "Close the\u2407 door", "failing", "1 user 0 assistant", "look", "1 session runs"):
        assert words in page
    assert "secret" not in page and "Nothing runs now" in page
    assert "Close the" not in bob_client.get("/live/").content.decode()
    number = ">1<span"
    assert number in alice_client.get("/").content.decode()
    assert number in alice_client.get("/live/?fragment=count&team=red").content.decode()
    streams.end(streams.find(team, "call"))
    assert number not in alice_client.get("/live/?fragment=count").content.decode()


# --- the socket --------------------------------------------------------------------------------------------------

with_sockets = pytest.mark.django_db(transaction=True)  # other threads read


class Shown:
    """A wall as a browser has it after what a Watcher heard."""

    def __init__(self, watcher):
        self.watcher = watcher

    @property
    def cards(self):
        cards = {}
        for message in self.watcher.said:
            if "ids" in message:
                cards = {title: card for title, card in cards.items() if card["id"] in message["ids"]}
            for card in message.get("sessions", []) + ([message] if message["type"] in ("session", "ended") else []):
                cards[card["title"]] = {"type": message["type"], **card}
            if message["type"] == "gone":
                cards = {title: card for title, card in cards.items() if card["id"] != message["id"]}
        return cards

    async def until(self, done, what):
        await self.watcher.hear(lambda: done(self.cards), what)


@with_sockets
async def test_a_wall_shows_what_runs_as_it_begins_grows_and_ends(run, team, other_team, alice, bob, watch):  # noqa: F811
    call = await aside(run, "dinner", speech("one"))
    watcher, stranger = await watch("/ws/live/", alice), await watch("/ws/live/", bob)
    mine, theirs = Shown(watcher), Shown(stranger)
    await mine.until(lambda cards: "dinner" in cards, "what runs already")
    assert watcher.said[0]["type"] == "sessions" and watcher.said[0]["ids"] == [call.public_id]
    await aside(run, "dinner", speech("two", "assistant"), post("look", datetime.now(UTC)))
    await mine.until(lambda cards: cards["dinner"]["last_text"] == "two", "the next line")
    await watcher.hear(lambda: any(m["entries"] for m in watcher.of("status")), "the post")
    await aside(run, "next", speech("I am new"))
    await mine.until(lambda cards: "next" in cards, "a new session")
    await aside(lambda: streams.end(streams.find(team, "dinner")))
    await mine.until(lambda cards: cards["dinner"]["type"] == "ended", "the end")
    assert mine.cards["dinner"]["ended_at"] and not mine.cards["dinner"]["live"]
    await aside(lambda: Session.objects.get(title="next").delete())
    await mine.until(lambda cards: "next" not in cards, "the deletion")
    await aside(run, "secret", speech("theirs"), team=other_team)
    await theirs.until(lambda cards: set(cards) == {"secret"}, "their own")
    assert "dinner" not in json.dumps(stranger.said) and "secret" not in json.dumps(watcher.said)


@with_sockets
async def test_who_may_not_look_gets_no_wall(team, alice, bob, other_team, watch):  # noqa: F811
    from auditweb.teams import keys

    ingest, read = [(await aside(keys.create, team, "k", [scope]))[1] for scope in ("ingest", "read")]
    assert await (await watch("/ws/live/", key="nonsense")).close_code() == 4401
    assert await (await watch("/ws/live/", key=ingest)).close_code() == 4403
    assert await (await watch("/ws/live/?team=red", bob)).close_code() == 4404
    assert await (await watch("/ws/live/?team=nobody", bob)).close_code() == 4404
    watcher = await watch("/ws/live/?team=red", key=read)
    await watcher.hear(lambda: watcher.of("sessions"), "it may look")


@with_sockets
async def test_a_team_that_is_left_leaves_the_wall(run, team, other_team, alice, watch, monkeypatch):  # noqa: F811
    from auditweb.teams.models import Membership

    monkeypatch.setattr(wall_hub, "PING_SECONDS", 0.2)
    await aside(Membership.objects.create, team=other_team, user=alice, role="viewer")
    await aside(run, "red", speech("one"))
    await aside(run, "blue", speech("one"), team=other_team)
    watcher, narrow = await watch("/ws/live/", alice), await watch("/ws/live/?team=blue", alice)
    shown = Shown(watcher)
    await shown.until(lambda cards: set(cards) == {"red", "blue"}, "both teams")
    await narrow.hear(lambda: narrow.of("sessions"), "it may look")
    await aside(Membership.objects.filter(user=alice, team=other_team).delete)
    assert await narrow.close_code() == 4403
    await watcher.hear(lambda: sum("ids" in message for message in watcher.said) == 2, "one team")
    heard = len(watcher.said)
    await aside(run, "blue", speech("two"), team=other_team)
    await aside(run, "red", speech("two"))
    await shown.until(lambda cards: cards["red"]["last_text"] == "two", "what is left")
    assert "blue" not in json.dumps(watcher.said[heard:])
    await aside(Membership.objects.filter(user=alice).delete)
    assert await watcher.close_code() == 4403


@with_sockets
async def test_a_wall_that_takes_nothing_costs_nothing_and_then_gets_the_present_state(run, team):
    names = ["a", "b", "c"]
    for name in names:
        await aside(run, name, speech("0"))
    said, open_again = [], asyncio.Event()

    async def send(text):
        said.append(json.loads(text))
        await open_again.wait()

    slow = wall_hub.WallReader([team.pk], lambda: [team.pk], send, None)
    quick = wall_hub.WallReader([team.pk], lambda: [team.pk], None, lambda frame: heard.append(frame) or True)
    heard: list[bytes] = []
    running = [asyncio.create_task(reader.run()) for reader in (slow, quick)]
    try:
        async with asyncio.timeout(SECONDS):
            while not said or not heard:
                await asyncio.sleep(0.01)
            for n in range(1, 31):
                await aside(run, random.Random(n).choice(names), speech(str(n)))
            for name in names:
                await aside(run, name, speech("last"))
            while b"".join(heard).count(b'"last_text":"last"') < 3:
                await asyncio.sleep(0.01)
            assert len(said) == 1 and len(slow._cards) == 3
            open_again.set()
            while len(said) < 2 or said[-1]["type"] != "sessions":
                await asyncio.sleep(0.01)
        assert {card["title"]: card["last_text"] for card in said[-1]["sessions"]} == dict.fromkeys(names, "last")
        assert [m["type"] for m in said].count("sessions") == 2, "all that happened meanwhile is one message"
    finally:
        for reader, task in zip((slow, quick), running, strict=True):
            task.cancel()
            reader.leave()
        await asyncio.gather(*running, return_exceptions=True)
        assert hub()._tasks == [], "nobody watches any more"
