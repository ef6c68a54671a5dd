"""/metrics: what one process counted, for whoever asks it directly."""

import asyncio
import json
import re
import time
import urllib.request

from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from auditweb import metrics
from auditweb.dumps import store
from tests.site import site, until

LINE = b'{"ts":"2026-03-01T10:00:00+00:00","type":"speech","role":"user","content":"sesame","duration_ms":null}\n'


def read(text: str) -> dict:
    """``{("auditweb_lines_total", "http"): 3.0, …}``; the values of all labels but one are left out."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_server_counts_what_comes_in_and_what_goes_out_and_names_nobody(tmp_path):
    from websockets.sync.client import connect

    with site("--no-worker") as server:
        key = server.manage("create_api_key", "--team", "default", "--scopes", "ingest,read", "--name", "desk").strip()
        bearer = {"Authorization": f"Bearer {key}"}

        def send(first):
            url = f"{server.url}/api/v1/streams/secret-stream/lines?first={first}&session=secret-session"
            with urllib.request.urlopen(urllib.request.Request(url, LINE * 2, bearer), timeout=30) as answer:
                return json.load(answer)["sessions"][0]["id"]

        def scrape():
            with urllib.request.urlopen(server.url + "/metrics", timeout=30) as answer:
                return answer.read().decode()

        session, _ = send(1), send(2)  # line 2 comes twice
        url = f"{server.url.replace('http', 'ws')}/ws/sessions/{session}/"
        with connect(url, additional_headers=bearer) as reader:
            while "entries" not in json.loads(reader.recv(30)):
                pass
            found = read(text := scrape())
        assert (found["auditweb_lines_total", "http"], found["auditweb_lines_repeated_total", "http"]) == (3, 1)
        assert found["auditweb_acknowledge_seconds_count", "http"] == 2
        assert found["auditweb_live_readers", "session"] == 1
        assert found["auditweb_frames_sent_total",] >= 1
        assert found["auditweb_entries_sent_total",] == 3
        assert found["auditweb_doorbell_silent",] == 0
        assert found["auditweb_dumps", "live"] == 1
        assert found["auditweb_dumps", "queued"] == found["auditweb_queue_oldest_seconds",] == 0
        assert found["auditweb_loop_late_seconds_count",] > 0
        assert found["auditweb_loop_stall_seconds",] >= 0
        assert found["process_resident_memory_bytes",] > 10e6
        assert not re.search("secret|sesame|desk|default|awk_", text)
        assert server.ready()["loop_stall_ms"] >= 0
        until(lambda: read(scrape())["auditweb_live_readers", "session"] == 0, "the reader to be gone")


def test_through_the_proxy_there_is_no_such_page(client, db, settings):
    assert client.get("/metrics").status_code == 200
    settings.PUBLIC_URL, settings.ALLOWED_HOSTS = "https://audit.example.org", ["audit.example.org"]
    assert client.get("/metrics", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "Host": "audit.example.org"}
    through = Client(headers=forwarded)
    assert through.get("/metrics").status_code == 404
    assert through.get("/accounts/login/").status_code == 200
    assert client.get("/accounts/login/", headers={"Host": "10.0.0.7:8000"}).status_code == 400


def test_the_queue_says_how_long_the_oldest_waits(client, team):
    for n in range(2):
        dump = store.begin(team, f"{n}.jsonl")
        store.append_bytes(dump, 0, LINE + b"%d\n" % n)
        store.finish(dump)
    began = time.time()
    found = read(client.get("/metrics").content.decode())
    assert found["auditweb_dumps", "queued"] == 2
    assert 0 <= found["auditweb_queue_oldest_seconds",] <= 60 + time.time() - began


async def test_a_loop_that_stands_still_is_noticed(monkeypatch):
    stall = metrics.Stall()
    monkeypatch.setattr(metrics, "stall", stall)
    watching = asyncio.create_task(metrics.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.4)
    await asyncio.sleep(0.2)
    watching.cancel()
    assert stall.worst >= 0.25


def test_a_stall_is_forgotten_after_a_minute(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    stall = metrics.Stall()
    assert stall.worst is None
    stall.saw(2.0)
    now[0] += 31
    stall.saw(0.1)
    assert stall.worst == 2.0
    now[0] += 31
    stall.saw(0.2)
    assert stall.worst == 0.2
    now[0] += 3600
    assert stall.worst is None


def test_a_database_that_fails_leaves_the_rest_of_the_page(db, client):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dumps_dump RENAME TO elsewhere")
    found = read(client.get("/metrics").content.decode())
    assert ("auditweb_dumps", "queued") not in found
    assert ("auditweb_doorbell_silent",) in found
