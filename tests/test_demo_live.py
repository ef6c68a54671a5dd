"""The call that ``demo --live`` plays: what is told, and that it comes whole into a site that is killed meanwhile."""

import json
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command

from auditweb.dumps import streams
from sessions_app import demo, summary
from sessions_app.demo import call
from sessions_app.demo.stories import tell_all
from sessions_app.demo.writers import RESULT
from tests.servers import free_port
from tests.site import ROOT, site, until

NOW = datetime(2026, 6, 5, 14, 37, 12, tzinfo=UTC)


def lines_of(moments) -> list[dict]:
    return [json.loads(moment.raw) for moment in moments if isinstance(moment, call.Line)]


def length(moments) -> float:
    return (moments[-1].at - moments[0].at).total_seconds()


# What is told ----------------------------------------------------------------------------------------------------


def test_one_seed_tells_one_call_and_its_moments_are_in_order():
    moments = call.tell(NOW, "one")
    assert moments == call.tell(NOW, "one") != call.tell(NOW, "another")
    assert moments[0].at == NOW
    assert [m.at for m in moments] == sorted(m.at for m in moments)
    assert [datetime.fromisoformat(line["ts"]) for line in lines_of(moments)] == [
        m.at for m in moments if isinstance(m, call.Line)
    ]


def test_the_call_lasts_two_minutes_or_as_long_as_wanted_at_any_speed():
    assert 100 < length(call.tell(NOW, "one")) < 130
    assert 9.8 * 60 < length(call.tell(NOW, "one", minutes=10)) < 11 * 60
    assert 9.8 * 6 < length(call.tell(NOW, "one", speed=10, minutes=10)) < 11 * 6


@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_what_is_heard_is_the_beginning_of_the_line_that_follows(seed):
    moments = call.tell(NOW, seed, minutes=4)
    heard = 0
    for number, moment in enumerate(moments):
        if isinstance(moment, call.Words):
            then = json.loads(next(m for m in moments[number:] if isinstance(m, call.Line)).raw)
            assert (then["type"], then["role"]) == ("speech", moment.role)
            assert then["content"].startswith(moment.text + " ")
            heard += 1
    assert heard > 100


@pytest.mark.django_db
def test_the_call_has_everything_that_a_voice_call_can_have(team):
    dump = streams.open(team, f"{demo.PLAYED}x", title=call.TITLE)
    streams.append(dump, 1, [m.raw for m in call.tell(NOW, "one") if isinstance(m, call.Line)])
    streams.end(dump)
    session, bus = dump.sessions.get(), dump.status_buses.get()
    assert session.title == bus.title == call.TITLE
    assert call.TITLE not in [story.name.removesuffix(".jsonl") for story in tell_all(NOW)]
    counts = summary.counters(session)
    assert (counts["interruptions"], counts["vision"], counts["tool_failures"]) == (2, 2, 1)
    assert set(session.agents) == {"helpline", "workshop"}
    assert len(counts["tools"]) == 6
    assert bus.levels.keys() == {"info", "pending", "completed", "failed"}
    assert max(session.events.filter(kind="tool_call").values_list("duration_ms", flat=True)) > 8000
    assert session.events.filter(kind="speech").count() > 20
    assert all(len(text) < RESULT for text in session.events.values_list("text", flat=True))


# Into a site -----------------------------------------------------------------------------------------------------


def test_it_says_what_to_do_when_no_site_answers(db):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError, match=f"No site answers at {url}. Start one with `make run`"):
        call_command("demo", live=True, url=url)
    with pytest.raises(CommandError, match="is not this machine: give a key with --key"):
        call_command("demo", live=True, url="https://audit.example.org")


class Play:
    """``demo --live`` as a process of its own, told by its output where the site is."""

    def __init__(self, server, *args):
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--live", *args],
            cwd=ROOT,
            env=server.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.said: list[str] = []

    def until_said(self, words: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"never said {words!r}:\n{''.join(self.said)}")

    def rest(self) -> int:
        """The exit status; what was left to say is in ``said``."""
        self.said += self.process.communicate(timeout=90)[0].splitlines(keepends=True)
        return self.process.returncode


def test_a_call_comes_whole_into_a_site_that_is_killed_and_one_that_is_ended_or_removed_ends():
    with site() as server:
        key = server.manage("create_api_key", "--team", "default", "--scopes", "read").strip()

        def get(path):
            request = urllib.request.Request(f"{server.url}/api/v1/{path}")
            request.add_header("Authorization", f"Bearer {key}")
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        def dumps():
            return json.loads(get("dumps/?limit=50"))["items"]

        whole = Play(server, "--speed", "12")
        address = whole.until_said("open ").split()[1]
        assert whole.said[0].startswith(f"open {server.url}/sessions/")
        whole.until_said("leak")
        server.kill()
        whole.until_said("They wait here.")
        server.start(urlsplit(server.url).port)
        assert whole.rest() == 0, whole.said
        assert any("takes lines again" in line for line in whole.said)
        (dump,) = dumps()
        assert (dump["name"], dump["state"]) == (call.TITLE, "done")
        assert address.endswith(dump["sessions"][0]["url"])
        sent = [json.loads(line) for line in get(f"dumps/{dump['id']}/original").splitlines()]
        told = lines_of(call.tell(datetime.fromisoformat(sent[0]["ts"]), "call 0", 12, 2))
        assert sent == told
        assert f"The call is over: {len(told)} lines, all of them acknowledged." in whole.said[-1]

        ended = Play(server, "--speed", "4")
        ended.until_said("find_customer")
        ended.process.send_signal(signal.SIGINT)
        assert (ended.rest(), ended.said[-1]) == (0, "The call was ended.\n")
        assert {dump["state"] for dump in dumps()} == {"done"}

        removed = Play(server, "--speed", "4")
        removed.until_said("find_customer")
        assert server.manage("demo", "--remove") == "3 demo dumps removed.\n"
        assert removed.rest() == 1
        assert "The stream was removed from the site meanwhile." in removed.said[-1]
        assert json.loads(get("sessions/"))["items"] == []
        assert not any(dump["lines"] for dump in dumps())
        left = "from auditweb.teams.models import ApiKey; print(*ApiKey.objects.values_list('name', flat=True))"
        assert server.manage("shell", "--verbosity", "0", "-c", left) == "command line\n"

        assert (server.data / "address").read_text() == server.url + "\n"
        server.terminate()
        until(lambda: not (server.data / "address").exists(), "the address is forgotten")
