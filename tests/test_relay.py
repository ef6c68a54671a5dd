"""RoomKit's status bus in Redis, mirrored by relays that are killed, beside a Redis that is killed and emptied."""

import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest
import redis as redis_py
from django.core.management import CommandError, call_command
from django.db import connection, connections

from auditweb.dumps import jobs, store, streams
from auditweb.dumps.models import Dump
from status_app.models import StatusBus
from status_app.relay import HEAD, Relay, name_of, overlaps
from tests.servers import redis_server
from tests.site import ROOT, until

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

PREFIX = "roomkit:status"
RELAY = """
import sys
import django
django.setup()
from django.core.management import call_command
from django.db import connections
for alias in connections:
    connections.settings[alias]["NAME"] = sys.argv[1]
call_command("relay_status", *sys.argv[2:])
"""


@pytest.fixture
def server():
    with redis_server() as running:
        yield running


class Bus:
    """What RoomKit's RedisStatusBackend does, and all that it ever published."""

    def __init__(self, url: str, kept: int = 500):
        self.client, self.kept, self.said = redis_py.Redis.from_url(url), kept, []

    def publish(self, *payloads: bytes) -> None:
        for payload in payloads:
            pipeline = self.client.pipeline(transaction=False)
            pipeline.lpush(f"{PREFIX}:entries", payload)
            pipeline.ltrim(f"{PREFIX}:entries", 0, self.kept - 1)
            pipeline.publish(f"{PREFIX}:events", payload)
            pipeline.execute()
            self.said.append(payload)

    def post(self, count: int = 1) -> None:
        for _ in range(count):
            self.publish(entry(len(self.said)))


def entry(number: int, action: str = "look up") -> bytes:
    at = f"2026-03-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000001Z"
    said = {"ts": at, "agent_id": "scout", "action": action, "status": "ok", "detail": f"n {number}", "metadata": {}}
    return json.dumps(said).encode()


def stored(team) -> list[bytes]:
    dump = Dump.objects.filter(team=team, stream__startswith="relay:").first()
    return b"".join(store.pieces(dump)).split(b"\n")[:-1] if dump else []


def look(relay: Relay) -> int:
    with relay._connected() as (client, _):
        return relay.look(client)


def test_the_most_that_fits_is_what_is_known_already():
    assert overlaps([b"a", b"b", b"c"], [b"b", b"c", b"d"]) == [2]
    assert overlaps([b"a", b"b"], [b"c"]) == overlaps([], [b"c"]) == overlaps([b"a"], []) == []
    assert overlaps([b"x", b"a", b"a"], [b"a", b"a", b"a"]) == [2, 1]


def test_entries_are_mirrored_with_their_bytes_and_as_often_as_they_came(team, server):
    bus = Bus(server.url, kept=120)
    relay = Relay(team, server.url)
    assert look(relay) == 0 and not Dump.objects.exists()
    odd = [entry(1), entry(1), entry(1), b'{"no": "entry",\xff', b"", '{"agent_id": "é"}'.encode()]
    bus.publish(*odd)
    assert (look(relay), look(relay)) == (6, 0)
    assert stored(team) == odd
    dump = Dump.objects.get()
    assert dump.stream == f"relay:{server.url.removeprefix('redis://')}:{PREFIX}"
    assert (dump.state, dump.bad_line_count, dump.blank_lines) == ("live", 1, 1)
    assert StatusBus.objects.get().name == PREFIX
    for number in range(60):
        bus.publish(entry(2), entry(2))  # longer than what is read first
        if number % 7 == 0:
            bus.post()
        look(relay)
    assert stored(team) == bus.said
    bus.publish(b'{"spread":\n "out"}')
    look(relay)
    assert stored(team) == [*bus.said[:-1], b'{"spread":  "out"}']
    assert "gaps" not in Dump.objects.get().checkpoint


def test_what_the_list_still_has_is_found_again_in_any_order_of_relays(team, server):
    chance = random.Random(7)
    bus = Bus(server.url, kept=100)
    relays = [Relay(team, server.url, bus="desk") for _ in range(3)]
    for _ in range(60):
        bus.post(chance.randrange(90))
        which = chance.randrange(3)
        if chance.random() < 0.3:
            relays[which] = Relay(team, server.url, bus="desk")
        look(relays[which])
    assert stored(team) == bus.said
    assert StatusBus.objects.get().entry_count == len(bus.said)
    assert StatusBus.objects.get().name == "desk"


def test_a_relay_that_read_the_list_before_another_stored_it_doubles_nothing(team, server, monkeypatch):
    bus = Bus(server.url)
    slow, fast = Relay(team, server.url), Relay(team, server.url)
    bus.post(3)
    look(slow)
    new = slow._new

    def late(client):
        found = new(client)
        monkeypatch.setattr(slow, "_new", new)
        bus.post(2)
        look(fast)
        return found

    bus.post(2)
    monkeypatch.setattr(slow, "_new", late)
    look(slow)
    look(slow)
    assert stored(team) == bus.said


def test_an_emptied_and_an_overrun_list_leave_a_mark_and_true_lines(team, server, caplog):
    bus = Bus(server.url)
    relay = Relay(team, server.url)
    bus.post(30)
    look(relay)
    bus.client.flushall()
    assert look(relay) == 0
    bus.post(20)
    look(relay)
    assert stored(team) == bus.said
    bus.post(600)
    look(Relay(team, server.url))
    look(relay)
    assert stored(team) == bus.said[:50] + bus.said[150:]
    gaps = Dump.objects.get().checkpoint["gaps"]
    assert [(gap["after"], "emptied" in gap["why"], "more of them" in gap["why"]) for gap in gaps] == [
        (30, True, False),
        (50, False, True),
    ]
    assert "entries are missing" in caplog.text


def test_a_full_dump_goes_on_in_another_and_a_deleted_one_begins_anew(team, server, settings):
    settings.MAX_DUMP_BYTES = 3000
    bus = Bus(server.url)
    relay = Relay(team, server.url)
    for _ in range(30):
        bus.post(2)
        look(relay)
    look(Relay(team, server.url))
    dumps = list(Dump.objects.order_by("pk"))
    assert len(dumps) > 1 and {dump.state for dump in dumps[:-1]} == {"done"}
    assert b"".join(b"".join(store.pieces(dump)) for dump in dumps).split(b"\n")[:-1] == bus.said
    for dump in dumps:
        jobs.delete(dump)
    settings.MAX_DUMP_BYTES = 2**20
    bus.post()
    look(relay)
    assert stored(team) == bus.said


def test_no_password_is_in_the_name_and_wrong_addresses_are_refused(team):
    assert name_of("redis://joe:secret@example.org:6380/4", "a:b") == "relay:example.org:6380/4:a:b"
    assert name_of("redis://localhost", "a") == "relay:localhost:6379/0:a"
    assert name_of("unix:///run/redis.sock?db=2", "a") == "relay:/run/redis.sock/2:a"
    for told in (
        ["--redis", "http://x"],
        ["--redis", "redis://x", "--prefix", ""],
        ["--redis", "redis://x", "--prefix", "#"],
    ):
        with pytest.raises(CommandError):
            call_command("relay_status", "--team", "red", *told)


def test_a_relay_goes_on_when_the_database_and_redis_are_back(team, server, monkeypatch, caplog):
    """Within one process: the loop, its doorbell and its heartbeat."""
    bus, stop = Bus(server.url), threading.Event()
    monkeypatch.setattr("status_app.relay.AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("status_app.relay.HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr("status_app.relay.LOOK_SECONDS", 600)  # only the doorbell tells of new entries
    append, away = streams.append, [jobs.AWAY[0]("locked")]

    def failing(*args):
        if away:
            raise away.pop()
        return append(*args)

    monkeypatch.setattr(streams, "append", failing)

    def run():
        Relay(team, server.url).run(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        bus.post(3)
        until(lambda: stored(team) == bus.said, "entries after the database was away")
        for _ in range(3):
            bus.post()
            until(lambda: stored(team) == bus.said, "an entry")
        monkeypatch.setattr("status_app.relay.LOOK_SECONDS", 0.1)
        bus.post()
        until(lambda: stored(team) == bus.said, "an entry")
        heard = Dump.objects.get().heartbeat_at
        until(lambda: Dump.objects.get().heartbeat_at > heard, "a heartbeat")
        server.process.kill()
        server.process.wait()
        until(lambda: "Redis is away" in caplog.text, "the relay to wait")
        server.start()
        bus.post(5)
        until(lambda: stored(team) == bus.said, "entries after Redis was away")
    finally:
        stop.set()
        thread.join()


def test_two_relays_that_are_killed_beside_a_redis_that_is_killed_lose_and_double_nothing(team, server):
    command = [sys.executable, "-c", RELAY, str(connection.settings_dict["NAME"])]
    command += ["--redis", server.url, "--team", "red", "--bus", "desk"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}

    def start():
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)

    def all_is_there():
        return stored(team) == bus.said

    bus = Bus(server.url)
    bus.post(HEAD + 10)
    relays = [start(), start()]
    try:
        until(all_is_there, "the list as it was", 60)
        bus.post(200)
        relays[0].kill()
        bus.post(200)
        until(all_is_there, "what one relay mirrors alone")
        relays[1].kill()
        bus.post(300)
        relays += [start(), start()]
        until(all_is_there, "what came while no relay was there", 60)
        server.process.kill()
        server.process.wait()
        server.start()
        for number in range(100):
            bus.publish(entry(5), entry(5))
            if number % 10 == 0:
                bus.post()
        until(all_is_there, "what an empty Redis got")
        assert StatusBus.objects.get(name="desk").entry_count == len(bus.said)
        for relay, how in ((relays[2], signal.SIGTERM), (relays[3], signal.SIGINT)):
            relay.send_signal(how)
            _, err = relay.communicate(timeout=30)
            assert relay.returncode == 0 and b"Traceback" not in err, err
        assert Dump.objects.get().state == "live"
    finally:
        for relay in relays:
            relay.kill()
            relay.communicate()
