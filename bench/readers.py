"""Many readers of logs in one lean process: one epoll, frames cut by hand, each different message decoded once.

``python bench/readers.py`` takes JSON lines on standard input and answers each with one. The first is the plan:
``{"host", "port", "headers": {...}, "readers": [[path, how many, manner], ...]}``, answered by ``{"joined": n}`` when
every reader has had its first message. Each further one is a measurement, ``{"expect": deliveries, "seconds": s}``,
answered by ``{"listening": true}`` at once and by what was heard when so much was, or the seconds are over.

Manners: ``usual`` reads at once and acknowledges as our page does, when 64 entries or 256 KiB are unacknowledged, or
two seconds after the first; ``slow`` takes a sip now and then, ``mute`` never reads once it is in, ``silent`` never
acknowledges; none of these three is counted. A ``wall`` takes cards, each with the last words of its session.

An entry's text begins with the monotonic time in ns before its commit; all processes of a machine share that clock.
"""

import collections
import json
import os
import re
import select
import socket
import sys
import time
from array import array

import msgspec

ACK_ENTRIES, ACK_BYTES, ACK_NS = 64, 256 * 1024, 2_000_000_000
JOINING = 20  # handshakes under way at once
SIP_BYTES, SIP_NS = 4096, 250_000_000
BUFFER = memoryview(bytearray(256 * 1024))
SMALL_BUFFER = 16 * 1024  # the kernel's, of readers that do not read: what waits must wait in the server
FRAMES_KNOWN = 4096
WORDS_OF_CARD = re.compile(rb'"last_text": ?"(\d{6,}) ')


class Row(msgspec.Struct):
    seq: int = 0
    text: str = ""


class Message(msgspec.Struct):
    type: str = ""
    entries: list[Row] = []
    from_: int = msgspec.field(name="from", default=0)
    to: int = 0


decode = msgspec.json.Decoder(Message).decode


class Frame:
    """What one message says, decoded once for all readers that get the same bytes."""

    __slots__ = ("count", "first", "last", "missing", "stamps")

    def __init__(self, payload: bytes):
        said = decode(payload)
        rows = said.entries if said.type == "entries" else []  # a wall's posts are of many logs
        seqs = [row.seq for row in rows]
        self.stamps = [int(stamp) for row in rows if (stamp := row.text.partition(" ")[0]).isdigit()]
        self.count, self.missing = len(seqs), 0
        self.first, self.last = (seqs[0], seqs[-1]) if seqs else (0, 0)
        if not seqs:
            self.stamps = [int(stamp) for stamp in WORDS_OF_CARD.findall(payload)]
        assert seqs == list(range(self.first, self.last + 1)) or not seqs, f"rows out of order: {seqs}"
        if said.type in ("gap", "skipped"):
            self.first, self.last, self.missing = said.from_, said.to, said.to - said.from_ + 1


def control(opcode: int, payload: bytes) -> bytes:
    """A frame from a client: masked, as it must be, with zeros, as it may be."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


class Reader:
    __slots__ = (
        "crowd", "joined", "last", "manner", "open", "path", "rest", "since", "socket", "told", "unacked", "weight",
    )  # fmt: skip

    def __init__(self, crowd: "Crowd", path: str, manner: str):
        self.crowd, self.path, self.manner = crowd, path, manner
        self.rest, self.last, self.unacked, self.weight, self.since = b"", 0, 0, 0, 0
        self.told: set[int] = set()  # stamps of words that a wall has shown
        self.open = self.joined = False
        self.socket = socket.socket()
        if manner in ("slow", "mute"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(crowd.address)
        self.socket.sendall(crowd.handshake.format(path=path).encode())
        self.socket.setblocking(False)

    def take(self, size: int, now: int) -> bool:
        """Read once; False when the connection is over."""
        try:
            count = self.socket.recv_into(BUFFER, size)  # recv would make room for all of it, each time
        except BlockingIOError:
            return True
        except OSError:
            count = 0
        if not count:
            self.crowd.closed["dropped"] += 1
            return False
        data = self.rest + BUFFER[:count] if self.rest else bytes(BUFFER[:count])
        at = 0
        if not self.open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = data
                return True
            if not data.startswith(b"HTTP/1.1 101"):
                self.crowd.closed[data[9:12].decode()] += 1
                return False
            self.open = True
        size = len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                start += wide
                if start > size:
                    break
                length = int.from_bytes(data[start - wide : start], "big")
            end = start + length
            if end > size:
                break
            kind = data[at]
            if kind == 0x81:
                self.heard(data[start:end], now)
            elif kind == 0x89:
                self.say(control(10, data[start:end]))
            elif kind == 0x88:
                self.crowd.closed[str(int.from_bytes(data[start : start + 2], "big"))] += 1
                return False
            else:
                raise AssertionError(f"a frame that begins with {kind:#x}")
            at = end
        self.rest = data[at:]
        return True

    def heard(self, payload: bytes, now: int) -> None:
        crowd = self.crowd
        if not self.joined:
            self.joined = True
            crowd.joined += 1
        frame = crowd.frames.get(payload) or crowd.frame(payload)
        crowd.messages += 1
        if self.manner == "wall":
            fresh = [stamp for stamp in frame.stamps if stamp not in self.told]
            self.told.update(fresh)
            crowd.shown.update((now - stamp) // 100_000 for stamp in fresh)
            return
        if not frame.count and not frame.missing:
            return
        if self.manner == "usual":
            if self.last and frame.first != self.last + 1:
                crowd.disordered += 1
            crowd.missing += frame.missing
            crowd.heard += frame.count
            if frame.stamps:
                crowd.times.append(now)
                crowd.which.append(frame)
        self.last = frame.last
        if self.manner == "silent":
            return
        if not self.unacked:
            self.since = now
            crowd.unacked.append((now, self))
        self.unacked += frame.count or ACK_ENTRIES
        self.weight += len(payload)
        if self.unacked >= ACK_ENTRIES or self.weight >= ACK_BYTES:
            self.acknowledge()

    def acknowledge(self) -> None:
        self.unacked = self.weight = self.since = 0
        self.crowd.acks += 1
        self.say(control(1, b'{"ack": %d}' % self.last))

    def say(self, frame: bytes) -> None:
        try:
            self.socket.send(frame)
        except OSError:  # it is full, or it closes, which is heard next
            pass


class Crowd:
    def __init__(self, plan: dict):
        self.address = (plan["host"], plan["port"])
        head = {"Host": f"{plan['host']}:{plan['port']}", "Upgrade": "websocket", "Connection": "Upgrade"}
        head |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13", **plan["headers"]}
        self.handshake = "GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in head.items()) + "\r\n"
        self.poll = select.epoll()
        self.readers: dict[int, Reader] = {}
        self.sippers: list[Reader] = []
        self.frames: dict[bytes, Frame] = {}
        self.unacked: collections.deque[tuple[int, Reader]] = collections.deque()
        self.closed: collections.Counter[str] = collections.Counter()
        self.joined = self.next_sip = 0
        self.begin()

    def begin(self) -> None:
        """Count from zero."""
        self.heard = self.missing = self.disordered = self.messages = self.acks = 0
        self.times, self.which = array("q"), []
        self.shown: collections.Counter[int] = collections.Counter()  # on walls, as ``quantiles`` takes them
        self.cpu = time.process_time()

    def frame(self, payload: bytes) -> Frame:
        if len(self.frames) >= FRAMES_KNOWN:
            self.frames.clear()
        frame = self.frames[payload] = Frame(payload)
        return frame

    def join(self, readers: list[list]) -> None:
        waiting = [(path, manner) for path, count, manner in readers for _ in range(count)]
        total, started = len(waiting), 0
        while (settled := self.joined + self.closed.total()) < total:
            while started < total and started - settled < JOINING:
                reader = Reader(self, *waiting[started])
                self.readers[reader.socket.fileno()] = reader
                self.poll.register(reader.socket, select.EPOLLIN)
                started += 1
            self.turn()
        for fileno, reader in list(self.readers.items()):
            if reader.manner in ("slow", "mute"):
                self.poll.unregister(fileno)
                if reader.manner == "slow":
                    self.sippers.append(reader)

    def turn(self) -> bool:
        """One round; whether a line waits on standard input."""
        commanded = False
        for fileno, _ in self.poll.poll(0.02):
            reader = self.readers.get(fileno)
            if reader is None:
                commanded = True
            elif not reader.take(len(BUFFER), time.monotonic_ns()):
                self.drop(reader)
        now = time.monotonic_ns()
        while self.unacked and now - self.unacked[0][0] >= ACK_NS:
            since, reader = self.unacked.popleft()
            if reader.since == since:
                reader.acknowledge()
        if self.sippers and now >= self.next_sip:
            self.next_sip = now + SIP_NS
            for reader in list(self.sippers):
                if not reader.take(SIP_BYTES, now):
                    self.sippers.remove(reader)
                    self.drop(reader)
        return commanded

    def drop(self, reader: Reader) -> None:
        reader.since = 0
        self.readers.pop(reader.socket.fileno())
        reader.socket.close()

    def measure(self, expect: int, seconds: float) -> dict:
        self.begin()
        answer({"listening": True})
        until = time.monotonic() + seconds
        while self.heard + self.missing < expect and time.monotonic() < until:
            self.turn()
        cpu = time.process_time() - self.cpu
        delays = self.delays()
        return {
            "heard": self.heard,
            "share": self.heard / expect if expect else None,
            "missing": self.missing,
            "disordered": self.disordered,
            "messages": self.messages,
            "acks": self.acks,
            "reader_cpu": cpu,
            "closed": dict(self.closed),  # since the start, by close code
            **delays,
            "walls": {"shown": self.shown.total(), **quantiles(self.shown)},
        }

    def delays(self) -> dict[str, float]:
        """Milliseconds from before a commit to a reader, by tenths: millions of them need no list."""
        tenths: collections.Counter[int] = collections.Counter()
        for now, frame in zip(self.times, self.which, strict=True):
            for stamp in frame.stamps:
                tenths[(now - stamp) // 100_000] += 1
        return quantiles(tenths)


def quantiles(tenths: collections.Counter[int]) -> dict[str, float]:
    """p50, p99 and the longest, in ms, of counted tenths of a millisecond."""
    ordered, total, found = sorted(tenths), tenths.total(), {}
    for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0)):
        passed = 0
        for value in ordered:
            passed += tenths[value]
            if passed >= total * share:
                found[name] = value / 10
                break
    return found


def answer(said: dict) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    crowd = Crowd(plan)
    crowd.join(plan["readers"])
    answer({"joined": crowd.joined, "closed": dict(crowd.closed)})
    crowd.poll.register(0, select.EPOLLIN)
    while True:
        if crowd.turn():
            line = os.read(0, 65536)  # one command at a time: whoever asks waits for the answer
            if not line:
                return
            command = json.loads(line)
            answer(crowd.measure(command["expect"], command["seconds"]))


if __name__ == "__main__":
    main()
