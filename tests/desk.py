"""A small server that takes streams as the real one does, and that misbehaves when told to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Desk:
    """``streams`` (name → lines), ``asked`` ([(what, name, query)]), ``said`` (utterances) and ``ended`` (names).

    *misbehave*: a function of the number of the request that returns None, a status with headers and object, "cut"
    (before anything is done) or "mute" (everything is done, the answer is lost).
    """

    def __init__(self, port=0):
        self.streams, self.options = {}, {}
        self.asked, self.said, self.ended = [], [], []
        self.misbehave = lambda number: None
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"desk": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def lines(self, begins=""):
        """The lines of all streams whose names begin so, decoded, in the order of the names' first appearance."""
        with self.lock:
            return [json.loads(line) for name in self.streams if name.startswith(begins) for line in self.streams[name]]

    def answer(self, what, name, query, body):
        """(status, object) as auditweb/dumps/stream_api.py has it."""
        self.asked.append((what, name, query))
        if what == "lines":
            lines, first = body.removesuffix(b"\n").split(b"\n"), int(query["first"])
            if len(lines) > 1000 or len(body) > 2**20:
                return 413, {"error": {"code": "too_large", "message": "Too large.", "detail": {}}}
            known = self.streams.setdefault(name, [])
            self.options.setdefault(name, query)
            if first > len(known) + 1:
                return refused("gap", expected=len(known) + 1)
            for number, (line, stored) in enumerate(zip(lines, known[first - 1 :], strict=False), first):
                if line != stored:
                    return refused("differs", line=number)
            known += lines[len(known) + 1 - first :]
            return 200, {"accepted_through": len(known), "sessions": [{"id": f"of {name}", "url": "/sessions/x/"}]}
        if name not in self.streams:
            return 404, {"error": {"code": "room_not_found", "message": "No such stream.", "detail": {}}}
        if what == "end":
            self.ended.append(name)
        elif what == "provisional":
            said = json.loads(body)
            self.said.append((said["role"], said["text"], len(self.streams[name])))
        return 200, {"accepted_through": len(self.streams[name])}


def refused(code, **detail):
    return 409, {"error": {"code": code, "message": f"{code}.", "detail": detail}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    desk: Desk

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self):
        self.do_POST()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        name, _, what = parts.path.removeprefix("/api/v1/streams/").partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self.desk.lock:
            fault = self.desk.misbehave(len(self.desk.asked))
            if fault == "cut":
                self.desk.asked.append(("cut", unquote(name), query))
                self.close_connection = True
                return
            headers = {}
            if isinstance(fault, tuple):
                self.desk.asked.append((fault[0], unquote(name), query))
                status, headers, told = fault
            else:
                status, told = self.desk.answer(what, unquote(name), query, body)
            if fault == "mute":
                self.close_connection = True
                return
        data = json.dumps(told).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass
