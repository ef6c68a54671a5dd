"""The guards of the web server, tried from raw sockets."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import websockets

from tests.site import ROOT, until

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


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


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
        ("/api/v1/streams/a/lines", MIB + 1, 413),
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
