"""daphne with guards: what a stranger sends is neither parsed nor kept whole before its size is known to be fair.

Stock daphne lets Twisted parse forms inside the event loop (one 300 MB POST stops every other request for 13 s) and
queues any body whole. Here bodies stay raw, are capped while they arrive, and only so many requests run at once.
Towards clients it keeps whatever the application says until they read it (190 to 400 MB for a mute reader of a 200 MB
download). Here the application waits for its reader, and a reader that stands still is cut off.
"""

import asyncio
import contextlib
import fcntl
import gc
import io
import ipaddress
import json
import logging
import signal
import socket
import struct
import termios
import time
from typing import Any, NamedTuple

import daphne.server
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketProtocol
from django.conf import settings
from twisted.internet import defer, tcp
from twisted.internet import reactor as twisted_reactor
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from auditweb import metrics

reactor: Any = twisted_reactor  # a module that is an object; its stubs describe neither
logger = logging.getLogger(__name__)

SLICE_PATHS = b"/api/v1/dumps/"  # the only addresses that take a slice of a dump as body
LINES_PATHS = b"/api/v1/streams/"  # take up to 1 MiB of lines; a little more, so that the view can say what is too much
SLICE_MARGIN = 64 * 1024  # bytes above MAX_SLICE_BYTES, so that the view can answer an oversized slice in its own words
BODY_BYTES = 2**20  # any other body: forms and JSON
BODIES_BYTES = 96 * 2**20  # bodies of all running requests; they lie in memory until the view has read them
MESSAGE_BYTES = 16 * 1024  # a WebSocket message from a client: an acknowledgement has 40 bytes
PRODUCERS_PATH = "/ws/streams/"
LINES_BYTES = 2 * 2**20  # a message from a producer: 1 MiB of lines, with what JSON escapes
LINGER_SECONDS = 2  # how long a refused sender may go on sending, so that it reads the answer instead of a reset
LINGER_BYTES = 64 * 2**20
LOOK_SECONDS = 1  # between two looks at what readers have taken
STALLED_SECONDS = 60  # a reader that takes not one byte for so long is cut off
PUSHED_OUT_SECONDS = 5  # the same when others wait for its place
STOP_SECONDS = 6  # running requests finish within this time after SIGTERM
CLOSE_RESTART = 1012  # WebSocket close code: the server restarts, come back after a random pause
FORWARDED = (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Port", b"X-Forwarded-Host")


def body_limit(path: bytes) -> int:
    """The largest body, in bytes, that the address *path* (raw, with query) may receive."""
    if path.startswith(SLICE_PATHS):
        return settings.MAX_SLICE_BYTES + SLICE_MARGIN
    return BODY_BYTES + SLICE_MARGIN if path.startswith(LINES_PATHS) else BODY_BYTES


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises OSError when the port is taken or the host unknown."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(256)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


@implementer(IPushProducer)
class Valve:
    """Closed while more than Twisted's 64 KiB wait for the client to read; open when it has read all, or has left."""

    def __init__(self):
        self._open = asyncio.Event()
        self._open.set()
        self.wait, self.is_open = self._open.wait, self._open.is_set

    def pauseProducing(self):
        self._open.clear()

    def resumeProducing(self):
        self._open.set()

    stopProducing = resumeProducing


class GuardedRequest(WebRequest):
    """A request whose body is counted on arrival and never parsed here, and whose answer waits for its reader."""

    refused = False
    received = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "parsePOSTFormSubmission": False})
        self.valve = Valve()

    def gotLength(self, length):
        self.limit = body_limit(self.channel._path)
        if length is not None and length > self.limit:
            self.content = io.BytesIO()
            self.refuse()
        else:
            super().gotLength(length)

    def handleContentChunk(self, data):
        self.received += len(data)
        if self.refused:
            if self.received > LINGER_BYTES:
                self.channel.transport.abortConnection()
            return
        if self.received > self.limit:  # chunked: nobody declared a length
            self.refuse()
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command, path, version):
        if self.refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def process(self):
        headers = self.requestHeaders
        headers.removeHeader(b"Daphne-Root-Path")  # daphne believes it from anybody
        if settings.PUBLIC_URL:
            self._believe_the_proxy()
        else:
            for name in FORWARDED:
                headers.removeHeader(name)
        if headers.hasHeader(b"Upgrade"):
            return super().process()
        if not self.server.admit(self, self.received):
            return self._answer_busy()
        return super().process()

    def handle_reply(self, message):
        if self.producer is None and not self.finished and self.channel is not None:
            self.registerProducer(self.valve, True)
        super().handle_reply(message)

    def handle_exception(self, exception):
        # daphne would begin a second answer, which raises and ends its cleaning up after applications for good; and a
        # reader must see that what it got is not all.
        if not self._response_started:
            super().handle_exception(exception)
        elif self.channel is not None:
            self.channel.transport.abortConnection()

    def finish(self):
        self._let_go()
        super().finish()

    def connectionLost(self, reason):
        self.valve.stopProducing()
        super().connectionLost(reason)

    def _let_go(self):
        if self.producer is not None:
            self.unregisterProducer()
        self.valve.stopProducing()

    def _believe_the_proxy(self):
        """Only the last address was written by our proxy; the ones before it are whatever the client claimed."""
        values = self.requestHeaders.getRawHeaders(b"X-Forwarded-For") or []
        address = b",".join(values).rpartition(b",")[2].strip().decode("ascii", "replace")
        try:
            ipaddress.ip_address(address)
        except ValueError:
            self.requestHeaders.removeHeader(b"X-Forwarded-For")
        else:
            self.requestHeaders.setRawHeaders(b"X-Forwarded-For", [address.encode()])

    def _answer_busy(self):
        body = _error("busy", "The server is busy. Try again in a moment.", {})
        headers = [(b"Content-Type", b"application/json"), (b"Retry-After", b"1")]
        self.handle_reply({"type": "http.response.start", "status": 503, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": body})

    def refuse(self):
        """413 at once; what still arrives is thrown away for a moment, then the connection is cut."""
        self.refused = True
        self.requestHeaders.removeHeader(b"Expect")  # or Twisted would still invite the body
        body = _error(
            "too_large",
            f"The body is larger than {self.limit} bytes. Send a dump in slices.",
            {"max_bytes": self.limit},
        )
        self.content.seek(0)
        self.content.truncate()
        transport = self.channel.transport
        transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        transport.loseWriteConnection()
        reactor.callLater(LINGER_SECONDS, transport.abortConnection)


def _error(code: str, message: str, detail: dict) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "detail": detail}}).encode()


class Socket(WebSocketProtocol):
    """A WebSocket whose limits are for clients only.

    autobahn lets a server's application close with 1000 and 3000-4999 only, and ends the connection (1011) when we
    send a message larger than those that we take.
    """

    maxMessagePayloadSize: int
    maxFramePayloadSize: int

    def onConnect(self, request):
        if request.path.startswith(PRODUCERS_PATH):
            self.maxMessagePayloadSize = self.maxFramePayloadSize = LINES_BYTES
        self.valve = Valve()
        self.transport.unregisterProducer()  # the HTTP channel that this connection was
        self.transport.registerProducer(self.valve, True)
        return super().onConnect(request)

    def _closeConnection(self, abort=False):
        self.transport.unregisterProducer()  # a transport with a paused producer sends all and then stays open
        super()._closeConnection(abort)

    def write_frame(self, frame: bytes) -> bool:
        """Send a ready frame at once; False, and nothing sent, when the client has not taken what was sent before.

        Past the coroutines and buffers that a message from an application goes through, because the same bytes go to
        thousands of readers: mostly this is one system call.
        """
        transport = self.transport
        if self.state != self.STATE_OPEN or self.send_queue or transport.dataBuffer or transport._tempDataBuffer:
            return False
        if transport.disconnecting or transport.disconnected or not self.valve.is_open():
            return False
        sent = transport.writeSomeData(frame)
        if not isinstance(sent, int) or sent < 0:
            return False  # the connection is lost; Twisted finds out by itself
        if sent < len(frame):
            transport.write(frame[sent:])
        return True

    def sendMessage(self, *args, **kwargs):
        taken, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*args, **kwargs)
        finally:
            self.maxMessagePayloadSize = taken

    def serverClose(self, code=None):
        self.sendCloseFrame(code=1000 if code is None else code)


class Standstill(NamedTuple):
    """What a connection had to send when it was seen first, and when (monotonic seconds) that was."""

    unsent: tuple[int, int]
    since: float


def _unsent(transport) -> tuple[int, int]:
    """Bytes that wait in this process and in the kernel. Any byte that the client takes changes one of them.

    The kernel's number matters: it holds up to 4 MiB, and asks for more only when a third of that is free.
    """
    kernel = 0
    with contextlib.suppress(OSError):
        (kernel,) = struct.unpack("i", fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, bytes(4)))
    return len(transport.dataBuffer) - transport.offset, kernel


class GuardedFactory(HTTPFactory):
    """Builds connections whose requests are guarded."""

    def buildProtocol(self, addr):
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = GuardedRequest
        return protocol


class Server(daphne.server.Server):
    """Serves *application* on the listening socket *sock* until SIGINT or SIGTERM; requests under way are finished."""

    def __init__(self, application, sock: socket.socket):
        proxied = bool(settings.PUBLIC_URL)
        super().__init__(
            application,
            endpoints=["adopted"],  # the socket is bound by the caller; daphne only insists on having an endpoint
            ping_interval=10,
            ping_timeout=15,
            websocket_handshake_timeout=5,
            websocket_connect_timeout=10,
            websocket_max_message_size=MESSAGE_BYTES,
            websocket_max_frame_size=MESSAGE_BYTES,
            request_buffer_size=64 * 1024,
            proxy_forwarded_address_header="X-Forwarded-For" if proxied else None,
            proxy_forwarded_proto_header="X-Forwarded-Proto" if proxied else None,
            server_name="auditweb",
        )
        self.endpoints: list[str] = []
        self.sock = sock
        self.port: Any = None
        self.stopping = False
        self.running: dict[GuardedRequest, int] = {}  # request → bytes of its body
        self.unread: dict[Any, Standstill] = {}  # of connections whose reader is slow

    def run(self):
        daphne.server.HTTPFactory = GuardedFactory  # its run() takes the factory from its own module
        reactor.callWhenRunning(self._adopt)
        # Until the reactor has handlers of its own, an exception from one of ours could be swallowed by what it starts,
        # or by a finalizer that the collection below calls.
        asked: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: asked.append(number))
        reactor.callWhenRunning(lambda: reactor.callLater(0, lambda: asked and reactor.stop()))
        # What is loaded by now stays: looking through it again and again for cycles stopped all sockets for 0.4 s, some
        # times a minute, with a thousand of them for a whole second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(5000, 20, 100)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the only one that Twisted puts its own in place of
        super().run()

    def _adopt(self):
        self.ws_factory.protocol = Socket
        self.ws_factory.setProtocolOptions(failByDrop=False)  # say 1009 to a message too big, then close
        self.port = reactor.adoptStreamPort(self.sock.fileno(), self.sock.family, self.http_factory)
        self.sock.close()  # Twisted holds a duplicate
        self._look_at_readers()
        self._watching = asyncio.ensure_future(metrics.watch_loop())

    def create_application(self, protocol, scope):
        if isinstance(protocol, Socket):
            scope["extensions"] = {"auditweb.write": protocol.write_frame}
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol, message):
        """Hand *message* on; of content, return when the client has read most of it or has left."""
        kind = message.get("type")
        if kind == "http.response.body" and not message.get("more_body", False):
            # An answer is not over before it is read: until then it has its place, and no idle timeout cuts it.
            await self.handle_reply(protocol, {**message, "more_body": True})
            message = {"type": kind}
        await super().handle_reply(protocol, message)
        if kind in ("http.response.body", "websocket.send"):
            await protocol.valve.wait()
            if self.connections.get(protocol, {}).get("disconnected"):
                await asyncio.sleep(0)  # an application that goes on all the same must let others run

    def _look_at_readers(self):
        now = time.monotonic()
        seen = {}
        for transport in reactor.getWriters():  # connections with something left to send
            if not isinstance(transport, tcp.Server):
                continue
            unsent, before = _unsent(transport), self.unread.get(transport)
            seen[transport] = before if before and before.unsent == unsent else Standstill(unsent, now)
            if now - seen[transport].since >= STALLED_SECONDS:
                transport.abortConnection()
        self.unread = seen
        reactor.callLater(LOOK_SECONDS, self._look_at_readers)

    def admit(self, request: GuardedRequest, size: int) -> bool:
        """True when *request* with a body of *size* bytes may run now; the place is free again when it ends."""
        if len(self.running) >= settings.MAX_REQUESTS and not self._push_out():
            return False
        if sum(self.running.values()) + size > BODIES_BYTES:
            return False
        self.running[request] = size
        request.notifyFinish().addBoth(lambda _: self.running.pop(request, None))
        return True

    def _push_out(self) -> bool:
        """Cut off the answer whose reader has stood still longest, or mute readers could hold every place."""
        since = {r: self.unread[r.transport].since for r in self.running if r.transport in self.unread}
        longest = min(since, key=lambda r: since[r], default=None)
        if longest is None or time.monotonic() - since[longest] < PUSHED_OUT_SECONDS:
            return False
        self.running.pop(longest)
        longest.transport.abortConnection()
        return True

    def kill_all_applications(self):
        """Runs before the reactor stops: no new connections, sockets are told to come back, requests may finish."""
        self.stopping = True
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._finish()))

    async def _finish(self):
        if self.port is not None:
            await defer.maybeDeferred(self.port.stopListening).asFuture(asyncio.get_running_loop())
        for protocol in list(self.connections):
            if isinstance(protocol, WebSocketProtocol) and protocol.state == protocol.STATE_OPEN:
                protocol.sendCloseFrame(code=CLOSE_RESTART, reasonUtf8=b"restart")
        deadline = time.monotonic() + STOP_SECONDS
        while self._applications() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        left = self._applications()
        for application in left:
            application.cancel()
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0.05)), *left], timeout=1)  # answers leave the buffers

    def _applications(self):
        found = (details.get("application_instance") for details in self.connections.values())
        return [application for application in found if application is not None and not application.done()]
