"""The guards of the web server, tried from raw sockets."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import websockets

from tests.echo_server import content
from tests.site import ROOT, site, until

MIB = 2**20


@contextlib.contextmanager
def echo_server(**env):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.echo_server"],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        process.port = int(process.stdout.readline())
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def echo():
    with echo_server() as process:
        yield process


def connect(server, window=None):
    """A connection to *server*; *window* bytes is what our kernel takes before we read."""
    with contextlib.ExitStack() as undo:
        sock = undo.enter_context(socket.socket())
        sock.settimeout(20)
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.connect(("127.0.0.1", server.port))
        undo.pop_all()
        return sock


def head(method, path, *headers):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def answer(sock):
    """(status, headers, body) of the next answer on *sock*; AssertionError when it is cut short."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(sock)
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":  # our bodies are JSON on one line
        while not body.endswith(b"0\r\n\r\n"):
            body += some(sock)
        body = b"".join(body.split(b"\r\n")[1::2])
    else:
        while len(body) < int(headers["content-length"]):
            body += some(sock)
    return int(status.split()[1]), headers, body


def some(sock):
    data = sock.recv(65536)
    assert data, "closed before the answer was complete"
    return data


def ask(server, *request):
    with connect(server) as sock:
        sock.sendall(b"".join(request))
        return answer(sock)


def resident_mib(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


def test_300_declared_megabytes_are_refused_before_they_are_sent(echo):
    before = resident_mib(echo.pid)
    started = time.monotonic()
    with connect(echo) as sock:
        sock.sendall(head("POST", "/api/v1/dumps/x.jsonl", f"Content-Length: {300 * MIB}"))
        status, headers, body = answer(sock)
        assert time.monotonic() - started < 2
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"]["detail"] == {"max_bytes": 8 * MIB + 64 * 1024}
        assert sock.recv(10) == b""
    assert resident_mib(echo.pid) - before < 16


def test_an_oversized_body_that_keeps_coming_is_thrown_away_and_cut(echo):
    before = resident_mib(echo.pid)
    with connect(echo) as sock:
        sock.sendall(head("POST", "/accounts/login/", f"Content-Length: {300 * MIB}"))
        with pytest.raises(OSError, match=r"reset|pipe"):
            for _ in range(300):
                sock.sendall(b"x" * MIB)
        assert answer(sock)[0] == 413
    assert resident_mib(echo.pid) - before < 16


def test_a_client_that_waits_for_100_continue_sends_nothing_in_vain(echo):
    status, headers, _ = ask(
        echo, head("PUT", "/api/v1/dumps/x", f"Content-Length: {20 * MIB}", "Expect: 100-continue")
    )
    assert status == 413
    assert "expect" not in headers


def test_a_chunked_body_is_counted_and_cut_at_the_limit(echo):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with connect(echo) as sock:
        sock.sendall(head("POST", "/accounts/login/", "Transfer-Encoding: chunked"))
        for _ in range(20):
            sock.sendall(chunk)
        assert answer(sock)[0] == 413
        assert sock.recv(10) == b""


def test_a_chunked_body_below_the_limit_arrives_whole(echo):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    request = [head("POST", "/", "Transfer-Encoding: chunked"), chunk * 10, b"0\r\n\r\n"]
    status, _, body = ask(echo, *request)
    assert (status, json.loads(body)["size"]) == (200, 655360)


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/api/v1/dumps/x.jsonl", 8 * MIB, 200),
        ("/api/v1/dumps/x.jsonl", 8 * MIB + 65536, 200),
        ("/api/v1/dumps/x.jsonl", 8 * MIB + 65537, 413),
        ("/api/v1/dumpster", 8 * MIB, 413),
        ("/api/v1/streams/a/lines?x=/api/v1/dumps/", MIB, 200),
        ("/api/v1/streams/a/lines", MIB + 65536, 200),
        ("/api/v1/streams/a/lines", MIB + 65537, 413),
        ("/api/v1/status/a/", MIB + 1, 413),
    ],
)
def test_each_address_has_its_limit(echo, path, size, status):
    request = [head("PUT", path, f"Content-Length: {size}"), b"x" * size if status == 200 else b""]
    found, _, body = ask(echo, *request)
    assert found == status
    if status == 200:
        assert json.loads(body)["size"] == size


def test_forms_reach_the_application_unparsed(echo):
    # Twisted would answer this broken multipart body with 400 by itself.
    body = b"no boundary anywhere"
    kind = "Content-Type: multipart/form-data"
    status, _, said = ask(echo, head("POST", "/accounts/login/", kind, f"Content-Length: {len(body)}"), body)
    assert status == 200
    assert json.loads(said)["start"] == body.decode()


def test_a_connection_serves_many_requests(echo):
    with connect(echo) as sock:
        for size in (5, 0, 70000):
            sock.sendall(head("POST", "/", f"Content-Length: {size}") + b"x" * size)
            status, _, body = answer(sock)
            assert (status, json.loads(body)["size"]) == (200, size)


FORWARDED = ["X-Forwarded-For: 6.6.6.6, 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example"]


def test_without_a_public_url_nobody_is_believed_to_be_a_proxy(echo):
    request = head("GET", "/", "Connection: close", "Daphne-Root-Path: /evil", *FORWARDED)
    said = json.loads(ask(echo, request)[2])
    assert (said["client"], said["scheme"], said["root_path"]) == ("127.0.0.1", "http", "")
    assert not [name for name in said["headers"] if name.startswith("x-forwarded")]


def test_behind_a_proxy_the_address_it_appended_is_believed_and_not_the_ones_before():
    with echo_server(ECHO_PUBLIC_URL="https://audit.example.org") as server:
        said = json.loads(ask(server, head("GET", "/", "Connection: close", *FORWARDED))[2])
        assert (said["client"], said["scheme"]) == ("203.0.113.9", "https")
        nonsense = head("GET", "/", "Connection: close", "X-Forwarded-For: <script>")
        assert json.loads(ask(server, nonsense)[2])["client"] == "127.0.0.1"


def test_more_requests_than_can_run_are_told_to_come_back():
    with echo_server(ECHO_MAX_REQUESTS="2") as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(3)]
        for sock in socks:
            sock.sendall(head("GET", "/slow", "Connection: close"))
        found = sorted((answer(sock) for sock in socks), key=lambda a: a[0])
        assert [status for status, _, _ in found] == [200, 200, 503]
        assert found[2][1]["retry-after"] == "1"
        assert json.loads(found[2][2])["error"]["code"] == "busy"
        assert ask(server, head("GET", "/", "Connection: close"))[0] == 200


# --- readers ------------------------------------------------------------------------------------------------------


def streams(server):
    return json.loads(ask(server, head("GET", "/streams", "Connection: close"))[2])["streams"]


def read_exactly(sock, size, pause=0.0):
    """Read an answer with *size* bytes of content and compare them; *pause* seconds between reads."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(sock)
    top, _, data = data.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % size in top
    offset = 0
    while True:
        assert data == content(offset, len(data)), f"wrong bytes behind {offset}"
        offset += len(data)
        if offset >= size:
            break
        time.sleep(pause)
        data = some(sock)
    assert offset == size


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_300_megabytes_for_a_mute_reader_are_not_held(echo, connection):
    before = resident_mib(echo.pid)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(echo)) for _ in range(3)]
        for sock in socks:
            sock.sendall(head("GET", f"/stream?{300 * MIB}", f"Connection: {connection}"))
        until(lambda: streams(echo) == 3, "all three are being answered")
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            began = time.monotonic()
            assert ask(echo, head("GET", "/", "Connection: close"))[0] == 200
            assert time.monotonic() - began < 1
            assert resident_mib(echo.pid) - before < 64
    until(lambda: streams(echo) == 0, "the streams end when their readers leave")


def test_a_slow_reader_gets_every_byte_and_the_connection_serves_on(echo):
    before = resident_mib(echo.pid)
    size = 20 * MIB + 1
    with connect(echo, window=65536) as sock:
        sock.sendall(head("GET", f"/stream?{size}"))
        read_exactly(sock, size, pause=0.002)
        assert resident_mib(echo.pid) - before < 64
        sock.sendall(head("GET", "/whole?3000000"))
        read_exactly(sock, 3000000, pause=0.01)
        sock.sendall(head("GET", "/"))
        assert answer(sock)[0] == 200


def test_requests_sent_at_once_are_answered_in_order(echo):
    with connect(echo) as sock:
        sock.sendall(head("GET", f"/stream?{3 * MIB}") * 3 + head("GET", "/", "Connection: close"))
        data = b""
        while piece := sock.recv(65536):
            data += piece
    first, second, third, last = data.split(b"HTTP/1.1 200 OK\r\n")[1:]
    for part in (first, second, third):
        assert part.partition(b"\r\n\r\n")[2] == content(0, 3 * MIB)
    assert last.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", ["/stream", "/whole"])
def test_a_reader_that_stands_still_is_cut_off_and_a_slow_one_is_not(path):
    with echo_server(ECHO_STALLED_SECONDS="3") as server, contextlib.ExitStack() as stack:
        mute, slow, closing = (stack.enter_context(connect(server, window=4096)) for _ in range(3))
        mute.sendall(head("GET", f"{path}?{20 * MIB}"))
        closing.sendall(head("GET", f"{path}?{20 * MIB}", "Connection: close"))
        slow.sendall(head("GET", f"{path}?{20 * MIB}"))
        for _ in range(40):  # 8 s with pauses shorter than 3 s: some bytes in each
            slow.recv(16384)
            time.sleep(0.2)
        for sock in (mute, closing):
            with pytest.raises(OSError, match="reset"):
                while sock.recv(65536):
                    pass
        assert slow.recv(16384)
        slow.close()
        until(lambda: streams(server) == 0, "no stream goes on")


def test_mute_readers_give_way_when_others_wait_for_their_place():
    with echo_server(ECHO_MAX_REQUESTS="3", ECHO_PUSHED_OUT_SECONDS="2") as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server, window=4096)) for _ in range(3)]
        for sock in socks:
            sock.sendall(head("GET", f"/stream?{20 * MIB}"))

        def served():
            return ask(server, head("GET", "/", "Connection: close"))[0] == 200

        until(lambda: not served(), "all places are taken")
        until(served, "one is free again")


def test_an_answer_that_fails_in_the_middle_is_seen_to_be_cut(echo):
    for _ in range(2):  # the second shows that the server still looks after its applications
        with connect(echo) as sock:
            sock.sendall(head("GET", "/breaks"))
            with pytest.raises(OSError, match="reset"):
                while sock.recv(65536):
                    pass


def test_a_socket_that_acknowledges_without_reading_is_not_sent_more(echo):
    before = resident_mib(echo.pid)
    with connect(echo, window=4096) as sock:
        upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        sock.sendall(head("GET", "/ws", *upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
        assert b" 101 " in some(sock)
        said = b"flood %d" % (100 * MIB)
        sock.sendall(bytes([0x81, 0x80 | len(said), 0, 0, 0, 0]) + said)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert ask(echo, head("GET", "/", "Connection: close"))[0] == 200
            assert resident_mib(echo.pid) - before < 16


async def test_a_flood_arrives_whole_at_a_slow_reader(echo):
    async with websockets.connect(f"ws://127.0.0.1:{echo.port}/ws") as sock:
        await sock.send(f"flood {5_000_000}")
        for number in range(5000):
            assert len(await sock.recv()) == 1000
            if number % 100 == 0:
                await asyncio.sleep(0.01)
        await sock.send("x" * 7)
        assert await sock.recv() == "7"


def test_mute_readers_of_a_large_original_cost_others_nothing(tmp_path):
    dump = tmp_path / "large.jsonl"
    with open(dump, "w") as f:
        for n in range(13):
            text = os.urandom(3 * MIB).hex()
            entry = {"type": "speech", "role": "user", "content": text, "duration_ms": None, "metadata": {}}
            f.write(json.dumps({"ts": f"2026-03-01T10:00:{n:02}+00:00", **entry}) + "\n")
    with site("--no-worker", AUDITWEB_DB_POOL="3") as server, contextlib.ExitStack() as stack:
        words = ["--team", "default", "--scopes", "read", "--name", "reader", "--json"]
        key = json.loads(server.manage("create_api_key", *words))["key"]
        found = server.import_file(dump)["dumps"][0]
        path = f"/api/v1/dumps/{found['id']}/original"
        bearer = f"Authorization: Bearer {key}"
        server.port = int(server.url.rpartition(":")[2])

        def page():
            began = time.monotonic()
            status, _, body = ask(server, head("GET", "/api/v1/sessions/?limit=1", bearer, "Connection: close"))
            assert status == 200
            assert len(json.loads(body)["items"]) == 1
            return time.monotonic() - began

        page()
        before = resident_mib(server.process.pid)
        mute = [stack.enter_context(connect(server, window=65536)) for _ in range(6)]
        for sock in mute:
            sock.sendall(head("GET", path, bearer))
            assert sock.recv(12) == b"HTTP/1.1 200"
        request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=60) as download:
            digest = hashlib.file_digest(download, "sha256").hexdigest()
        assert digest == found["sha256"] == hashlib.sha256(dump.read_bytes()).hexdigest()
        for _ in range(10):
            assert page() < 5  # the pool of 3 connections gives up after 10 s
        assert resident_mib(server.process.pid) - before < 64


async def test_what_we_say_on_a_socket_may_be_larger_than_what_we_take(echo):
    async with websockets.connect(f"ws://127.0.0.1:{echo.port}/ws") as sock:
        for size in (16385, 600_000):
            await sock.send(f"say {size}")
            assert len(await sock.recv()) == size


async def test_socket_messages_are_small(echo):
    async with websockets.connect(f"ws://127.0.0.1:{echo.port}/ws") as sock:
        await sock.send("x" * 16384)
        assert await sock.recv() == "16384"
        await sock.send("x" * 16385)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await sock.recv()
        assert closed.value.rcvd.code == 1009


def test_sigterm_lets_requests_finish_and_tells_sockets_to_come_back():
    async def run(server):
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as sock:
            slow = asyncio.create_task(asyncio.to_thread(ask, server, head("GET", "/slow", "Connection: close")))
            idle = connect(server)  # a kept-open connection must not hold the server up
            await asyncio.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await sock.recv()
            assert closed.value.rcvd.code == 1012
            status, _, body = await slow
            assert (status, json.loads(body)["size"]) == (200, 0)
            idle.close()

    with echo_server() as server:
        asyncio.run(run(server))
        until(lambda: server.poll() is not None, "the server to end", 10)
        assert server.returncode == 0
