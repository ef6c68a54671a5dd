"""Bad input, input by input: what can be read is imported, the rest is quarantined or refused with a sentence that says
what to do. Nothing is dropped, every byte comes back, and every page still opens.
"""

import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass

import pytest
from django.core.management import call_command
from django.db import connection
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, DumpChunk, Layer
from sessions_app.models import Event, Session
from tests.test_containers import zipped
from tests.test_ingest import FILES
from tests.test_jobs import ROOT, speech

pytestmark = pytest.mark.django_db(transaction=True)

BEFORE, AFTER = speech(1, "before"), speech(3, "after")


def said(content="hello", **changes) -> bytes:
    """A line of a RoomKit session; *content* and other fields as given."""
    entry = {"ts": "2026-01-01T00:00:02+00:00", "type": "speech", "role": "user", "content": content,
             "duration_ms": None, "metadata": {}}  # fmt: skip
    return json.dumps({**entry, **changes}).encode()


def written(field: str, raw: str) -> bytes:
    """The same with the value of *field* written as *raw*, whatever JSON it is."""
    return said(**{field: "PUT IT HERE"}).replace(b'"PUT IT HERE"', raw.encode("utf-8", "surrogatepass"))


def tool(**changes) -> bytes:
    entry = {"ts": "2026-01-01T00:00:02+00:00", "tool_name": "search", "agent_id": "a", "arguments": {}, "result": "r",
             "duration_ms": 1.5, "status": "ok", "metadata": {}}  # fmt: skip
    return json.dumps({**entry, **changes}).encode()


XSS = [
    "<script>window.__xss=1</script>", "<img src=x onerror=window.__xss=1>", "<svg/onload=window.__xss=1>",
    "\"><script>window.__xss=1</script>", "'-window.__xss=1-'", "javascript:window.__xss=1",
    "</textarea><script>window.__xss=1</script>", "<iframe srcdoc='<script>window.__xss=1</script>'>",
    "</script><script>window.__xss=1</script>", "<math><mtext><script>window.__xss=1</script>",
    "<a href='javascript:window.__xss=1'>x</a>", "<!--><script>window.__xss=1</script>",
    "${window.__xss=1}", "<style>@import 'javascript:window.__xss=1'</style>",
]  # fmt: skip
STAMPS = {
    "year 1": "0001-01-01T00:00:00+14:00", "year 9999": "9999-12-31T23:59:59-12:00",
    "year 10000": "10000-01-01T00:00:00Z",
    "leap second": "2016-12-31T23:59:60Z", "24:00": "2026-01-01T24:00:00Z", "week date": "2024-W01-1",
    "ordinal date": "2026-001", "date alone": "2026-01-01", "epoch s": 1767225600, "epoch ms": 1767225600000,
    "epoch float": 1767225600.25, "negative": -1, "empty": "", "null": None, "list": [2026, 1, 1], "object": {"at": 1},
    "words": "yesterday", "nanoseconds": "2026-01-01T00:00:00.123456789Z", "bool": True,
    "month 13": "2026-13-01T00:00:00Z",
    "BC": "-0044-03-15T00:00:00Z", "blanks": " 2026-01-01T00:00:02Z ",
}  # fmt: skip


@dataclass
class Odd:
    """A line between two good ones: imported with *flag* on its event (kept), or quarantined (bad), or blank."""

    line: bytes
    outcome: str = "kept"  # kept, bad, blank, kept or bad
    flag: str = ""
    text: str | None = None  # of the event


ODD: dict[str, Odd] = {
    # blanks and line ends
    "empty line": Odd(b"", "blank"),
    "spaces": Odd(b" \t ", "blank"),
    "carriage return alone": Odd(b"\r", "blank"),
    "NUL bytes": Odd(b"\0" * 300, "blank"),
    "CRLF": Odd(said() + b"\r", text="hello"),
    **{
        f"U+{ord(c):04X} in a text": Odd(written("content", f'"a{c}b"'), text=f"a{c}b")
        for c in "\u2028\u2029\x85"
    },
    **{f"escaped U+{ord(c):04X}": Odd(said(f"a{c}b"), text=f"a{c}b") for c in "\x0b\x0c\x1c\x1d\x1e\x85\u2028"},
    # no JSON, or more than one
    "Latin-1": Odd(said("caf\xe9").replace(rb"\u00e9", b"\xe9"), "bad"),
    "overlong UTF-8": Odd(said("X").replace(b'"X"', b'"\xc0\xaf"'), "bad"),
    "encoded surrogate": Odd(said("X").replace(b'"X"', b'"\xed\xa0\x80"'), "bad"),
    "raw NUL": Odd(said("X").replace(b'"X"', b'"a\0b"'), "bad"),
    "raw ESC": Odd(said("X").replace(b'"X"', b'"a\x1b[1mb"'), "bad"),
    "two objects": Odd(said("one") + said("two"), "bad"),
    "torn": Odd(said()[:50], "bad"),
    "torn, then a whole one": Odd(said()[:40] + said(), "bad"),
    "trailing comma": Odd(said()[:-1] + b",}", "bad"),
    "Python repr": Odd(b"{'ts': '2026-01-01T00:00:02', 'type': 'speech', 'content': None}", "bad"),
    "comment": Odd(b"# a comment", "bad"),
    "log prefix": Odd(b"2026-01-01 INFO " + said(), "bad"),
    "number": Odd(b"12", "bad"),
    "null": Odd(b"null", "bad"),
    "array": Odd(b"[1, 2]", "bad"),
    "text": Odd(b'"words"', "bad"),
    "true": Odd(b"true", "bad"),
    "HTML": Odd(b"<html><body>502 Bad Gateway</body></html>", "bad"),
    # characters
    "NUL in the text": Odd(said("a\0b"), flag="nul"),
    "NUL in a key": Odd(said(metadata={"a\0b": 1}), flag="nul"),
    "NUL in a tool's name": Odd(tool(tool_name="a\0b"), flag="nul"),
    "lone surrogate": Odd(said("a\ud800b"), flag="surrogate"),
    "reversed pair": Odd(said("\udc00\ud800"), flag="surrogate"),
    "noncharacters": Odd(said("\uffff\ufdd0"), text="\uffff\ufdd0"),
    "emoji": Odd(said("👩\u200d👩\u200d👧 🇫🇷"), text="👩\u200d👩\u200d👧 🇫🇷"),
    "ANSI": Odd(said("\x1b[31mred\x1b[0m"), text="\x1b[31mred\x1b[0m"),
    "OSC 8": Odd(said("\x1b]8;;http://x\x07link\x1b]8;;\x07")),
    "BEL": Odd(said("\a\a\a")),
    "bidi": Odd(said("abc\u202edef\u2066ghi"), text="abc\u202edef\u2066ghi"),
    "zero width": Odd(said("a\u200bb\u200cc\ufeffd")),
    "tag characters": Odd(said("hidden\U000e0041\U000e0042")),
    "combining marks": Odd(said("e" + "\u0301" * 10_000)),
    # markup and other languages
    **{f"XSS {n}": Odd(said(text), text=text) for n, text in enumerate(XSS)},
    "XSS in every field": Odd(
        tool(tool_name=XSS[0], agent_id=XSS[1], status=XSS[2], result=XSS[3], metadata={XSS[4]: XSS[5]})
    ),
    "XSS as the type": Odd(said(type=XSS[1], role=XSS[0])),
    "__proto__": Odd(said(metadata={"__proto__": {"x": 1}, "constructor": {"prototype": 1}})),
    "template syntax": Odd(said("{{ 7*7 }} {% debug %} ${7*7} #{7*7}"), text="{{ 7*7 }} {% debug %} ${7*7} #{7*7}"),
    "path traversal": Odd(tool(tool_name="../../etc/passwd")),
    **{f"formula {c!r}": Odd(said(f"{c}cmd|' /C calc'!A0")) for c in "=+-@\t\r＝"},
    "a secret": Odd(tool(arguments={"password": "hunter2", "api_key": "sk-123"})),
    # numbers
    **{
        f"number {raw}": Odd(written("metadata", f'{{"n": {raw}}}'))
        for raw in ("9007199254740993", "9223372036854775808", "18446744073709551616", str(2**70), str(-(2**63) - 1),
                    "-0.0", "1.10", "1E2", "1e-400")
    },
    **{
        f"number {raw}": Odd(written("metadata", f'{{"n": {raw}}}'), flag="nonfinite")
        for raw in ("NaN", "Infinity", "-Infinity", "1e400")
    },
    "5000 digits": Odd(written("metadata", '{"n": %s}' % ("9" * 5000)), "kept or bad"),
    # durations
    **{
        f"duration {raw}": Odd(written("duration_ms", raw), flag="bad_duration")
        for raw in ('"12"', "-1", "true", "[1]", "{}", "1e30", "NaN", "1" + "0" * 400)
    },
    "duration 0": Odd(written("duration_ms", "0")),
    # size and structure
    "depth 190": Odd(written("metadata", '{"d": ' + "[" * 188 + "]" * 188 + "}")),
    "depth 300": Odd(written("metadata", '{"d": ' + "[" * 300 + "]" * 300 + "}"), "bad"),
    "depth 1000": Odd(written("metadata", '{"d": ' + '{"a":' * 1000 + "1" + "}" * 1000 + "}"), "bad"),
    "depth 100000": Odd(b"[" * 100_000, "bad"),
    "1 MiB text": Odd(said("x" * 2**20)),
    "1 MiB key": Odd(said(metadata={"k" * 2**20: 1})),
    "100000 keys": Odd(said(metadata={f"k{n}": n for n in range(100_000)})),
    "20000 characters of a name": Odd(tool(tool_name="t" * 20_000, agent_id="a" * 20_000), flag="long_id"),
    "9 MiB line": Odd(said("x" * 9 * 2**20), "bad"),
    "a million empty lists": Odd(b'{"a": [' + b"[]," * 1_000_000 + b"[]]}", "bad"),
    "duplicate keys": Odd(said("one")[:-1] + b', "content": "two"}', flag="duplicate_keys", text="two"),
    "empty object": Odd(b"{}"),
    "no type": Odd(b'{"ts": "2026-01-01T00:00:02Z", "content": "x"}'),
    "unknown type": Odd(said(type="dtmf"), text="hello"),
    "missing time": Odd(json.dumps({"type": "speech", "role": "user", "content": "x", "metadata": {}}).encode()),
    "wrong types": Odd(written("role", '{"a": 1}'), flag="wrong_type"),
    "metadata as a list": Odd(written("metadata", "[1, 2]")),
    **{f"time {name}": Odd(written("ts", json.dumps(value))) for name, value in STAMPS.items()},
    "naive time": Odd(said(ts="2026-01-01T00:00:02")),
    "clock backwards": Odd(said(ts="2025-12-31T23:59:59Z")),
}  # fmt: skip


def check(dump: Dump, data: bytes) -> None:
    """What holds for every dump, whatever came in it."""
    assert dump.state in ("done", "failed")
    assert bool(dump.error) == (dump.state == "failed")
    assert sum(dump.records.values()) + dump.bad_line_count + dump.blank_lines == dump.lines
    assert dump.bad_lines.count() == dump.bad_line_count
    assert b"".join(store.received(dump)) == data
    assert dump.upload.sha256 == hashlib.sha256(data).hexdigest()


def not_json(word: str):
    pytest.fail(f"{word} in an answer: no browser reads that")


def open_pages(client, dump: Dump) -> None:
    """Every page and list that shows something of *dump* opens."""
    pages = [reverse("dump-list"), reverse("session-list"), reverse("status-list"), f"/dumps/{dump.public_id}/"]
    calls = [
        "/api/v1/dumps/",
        "/api/v1/sessions/",
        f"/api/v1/dumps/{dump.public_id}",
        f"/api/v1/dumps/{dump.public_id}/bad-lines",
    ]
    for session in dump.sessions.all():
        pages.append(f"/sessions/{session.public_id}/")
        calls += [f"/api/v1/sessions/{session.public_id}/{what}" for what in (
            "", "timeline?order=time", "outline", "turns", "tool-calls", "summary", "timeline?q=a&limit=5",
            "runs", "tasks", "observations", "matches?q=a",
        )]  # fmt: skip
        pages += [f"/sessions/{session.public_id}/{part}/" for part in ("runs", "tools", "records")]
        pages += [f"/sessions/{session.public_id}/events/{e.seq}/" for e in session.events.filter(line__in=(1, 2, 3))]
        calls += [f"/api/v1/sessions/{session.public_id}/export?as={form}" for form in ("csv", "jsonl", "markdown")]
        calls.append(f"/api/v1/sessions/{session.public_id}/summary.txt")
    for bus in dump.status_buses.all():
        pages.append(f"/status/{bus.public_id}/")
        calls += [
            f"/api/v1/status/{bus.public_id}/{what}" for what in ("entries", "recent", "recent.txt", "summary.txt")
        ]
    for address in pages + calls:
        answer = client.get(address)
        assert answer.status_code == 200, address
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        if "json" in answer["Content-Type"] and not answer.streaming:
            json.loads(content, parse_constant=not_json)
        elif "html" in answer["Content-Type"]:
            assert b"<script>window" not in content and b"<img src=x" not in content, address


@pytest.mark.parametrize("name", ODD)
def test_an_odd_line_is_kept_or_quarantined_and_harms_no_neighbour(name, alice_client, import_bytes):
    odd = ODD[name]
    data = BEFORE + odd.line + b"\n" + AFTER
    dump = import_bytes(data, "odd.jsonl")
    assert (dump.state, dump.lines) == ("done", 3), dump.error
    check(dump, data)
    assert set(Event.objects.exclude(line=2).values_list("text", flat=True)) == {"before 1", "after 3"}
    bad = list(dump.bad_lines.values_list("line", "offset", "size"))
    at_two = Event.objects.filter(line=2)
    if odd.outcome == "kept or bad":
        assert bool(bad) != at_two.exists()
    elif odd.outcome == "bad":
        assert bad == [(2, len(BEFORE), len(odd.line) + 1)] and not at_two.exists()
        assert not dump.bad_lines.get().reason.startswith("auditweb")
    elif odd.outcome == "blank":
        assert dump.blank_lines == 1 and not bad and not at_two.exists()
    else:
        assert not bad, dump.bad_lines.get().reason
        event = at_two.get()
        assert odd.flag in event.flags.split() or not odd.flag, event.flags
        assert odd.text is None or event.text == odd.text
        assert event.at_us is None or 0 <= event.at_us < 7_258_118_400_000_000  # 1970 to 2200
    open_pages(alice_client, dump)


WHOLE: dict[str, tuple[bytes, int, int]] = {  # content, lines that became events, lines of the quarantine
    "BOM": (b"\xef\xbb\xbf" + BEFORE + AFTER, 2, 0),
    "CRLF": ((BEFORE + AFTER).replace(b"\n", b"\r\n"), 2, 0),
    "no final newline": ((BEFORE + AFTER).rstrip(), 2, 0),
    "last line cut off": (BEFORE + AFTER[:60], 1, 1),
    "NUL tail": (BEFORE + AFTER + b"\0" * 4000, 2, 0),
    "NUL after the last line": (BEFORE + AFTER.rstrip() + b"\0" * 50, 2, 0),
    "blank lines": (b"\n\n" + BEFORE + b" \n\r\n" + AFTER + b"\n", 2, 0),
    "CR only": ((BEFORE + AFTER).replace(b"\n", b"\r"), 2, 0),
    "pretty-printed": (b"\n".join(json.dumps(json.loads(line), indent=2).encode() for line in (BEFORE, AFTER)), 2, 0),
    "concatenated": ((BEFORE + AFTER).replace(b"\n", b""), 2, 0),
    "array": (json.dumps([json.loads(BEFORE), json.loads(AFTER)]).encode(), 2, 0),
    "array with a damaged element": (b"[" + BEFORE.rstrip() + b',\n{"ts": nul},\n' + AFTER.rstrip() + b"]", 2, 1),
    "array cut off": (b"[\n" + BEFORE.rstrip() + b",\n" + AFTER[:50], 1, 1),
    "JSON text sequence": (b"\x1e" + BEFORE + b"\x1e" + AFTER, 2, 0),
    "gzip": (gzip.compress(BEFORE + AFTER), 2, 0),
    "two gzip members": (gzip.compress(BEFORE) + gzip.compress(AFTER), 2, 0),
    "gzip and zeros": (gzip.compress(BEFORE + AFTER) + b"\0" * 1000, 2, 0),
    "gzip of an array": (gzip.compress(json.dumps([json.loads(BEFORE), json.loads(AFTER)]).encode()), 2, 0),
    "zip": (zipped({"a.jsonl": BEFORE + AFTER}), 2, 0),
    "zip of pretty-printed": (zipped({"a.json": json.dumps(json.loads(BEFORE), indent=1).encode()}), 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_in_another_shape_imports_whole(name, alice_client, import_bytes):
    data, events, bad = WHOLE[name]
    dump = import_bytes(data, "misnamed.txt")  # its name says nothing
    assert (dump.state, dump.events, dump.bad_line_count) == ("done", events, bad), dump.error
    check(dump, data)
    open_pages(alice_client, dump)
    original = alice_client.get(f"/api/v1/dumps/{dump.public_id}/original")
    assert b"".join(original.streaming_content) == data
    assert f'"{hashlib.sha256(data).hexdigest()}"' == original["ETag"]


REFUSED = {
    "empty": (b"", "no lines"),
    "only blanks": (b"\n \r\n\0\n", "no lines"),
    "UTF-16": ((BEFORE + AFTER).decode().encode("utf-16"), "iconv"),
    "UTF-16 without a mark": ((BEFORE + AFTER).decode().encode("utf-16-be"), "iconv"),
    "UTF-32": ((BEFORE + AFTER).decode().encode("utf-32"), "iconv"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "PNG"),
    "HTML": (b"<!doctype html>\n<html><body>\n502 Bad Gateway\n</body></html>\n", "HTML"),
    "XML": (b"<?xml version='1.0'?><log/>", "XML"),
    "CSV": (b"ts,type,content\n1,speech,hi\n2,speech,ho\n", "CSV"),
    "prose": (b"Dear all,\nplease find attached\n", "no JSON object"),
    "bytes": (bytes(range(1, 256)) * 40, "binary"),
    "empty array": (b"[]", "no lines"),
    "bzip2": (b"BZh91AY&SY" + bytes(range(200)), "bunzip2"),
    "gzip of nothing": (gzip.compress(b""), "no lines"),
    "gzip in gzip": (gzip.compress(gzip.compress(BEFORE)), "gzip"),
    "zip in gzip": (gzip.compress(zipped({"a.jsonl": BEFORE})), "zip"),
    "gzip of a picture": (gzip.compress(b"\x89PNG\r\n\x1a\n" + bytes(99)), "PNG"),
    "gzip cut in its header": (gzip.compress(BEFORE)[:6], "ends in the middle"),
    "no gzip after its magic": (b"\x1f\x8b\x08" + b"nonsense" * 20, "damaged"),
    "zip without dumps": (zipped({"readme.txt": b"hello", "x/": b""}), "no audit dump"),
    "zip in zip": (zipped({"inner.zip": zipped({"a.jsonl": BEFORE})}), "no audit dump"),
    "empty zip": (zipped({}), "empty zip"),
    "zip cut off": (zipped({"a.jsonl": BEFORE * 50})[:-30], "directory"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_dump_is_refused_with_a_sentence(name, alice_client, import_bytes):
    data, says = REFUSED[name]
    dump = import_bytes(data, "refused.jsonl")
    assert dump.state == "failed"
    assert says in dump.error and re.search(r"[.!)]$|iconv|jsonl$|UTF-8$", dump.error), dump.error
    assert (dump.lines, dump.events) == (0, 0)
    check(dump, data)
    assert not Session.objects.exists()
    open_pages(alice_client, dump)
    again = jobs.retry(dump) and jobs.run(dump.pk)
    dump.refresh_from_db()
    assert again and (dump.state, dump.events) == ("failed", 0)


TRUNCATED = {
    "cut": (gzip.compress((BEFORE + AFTER) * 300)[:-60], "ends in the middle"),
    "wrong check sum": (
        gzip.compress(BEFORE + AFTER)[:-8] + b"\1\2\3\4" + gzip.compress(BEFORE + AFTER)[-4:],
        "check sum",
    ),
    "junk": (gzip.compress(BEFORE + AFTER) + b"junk after it", "no gzip follows"),
    "array cut": (gzip.compress(b"[" + b",\n".join([BEFORE.strip()] * 300))[:-40], "ends in the middle"),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_damaged_archive_waits_until_somebody_says_that_its_readable_part_is_wanted(name, alice_client, import_bytes):
    data, says = TRUNCATED[name]
    dump = import_bytes(data, "damaged.gz")
    assert (dump.state, dump.events) == ("failed", 0) and says in dump.error
    check(dump, data)
    told = alice_client.get(f"/api/v1/dumps/{dump.public_id}").json()
    assert told["waits_for_consent"] and told["unpacked_bytes"] > 0
    assert "Import what could be read" in alice_client.get(f"/dumps/{dump.public_id}/").content.decode()
    answer = alice_client.post(f"/api/v1/dumps/{dump.public_id}/import-anyway")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    jobs.run(dump.pk)
    dump.refresh_from_db()
    assert (dump.state, dump.error) == ("done", "") and dump.events >= 2
    check(dump, data)
    assert dump.bad_line_count <= 1  # the line that the cut went through
    assert alice_client.post(f"/api/v1/dumps/{dump.public_id}/import-anyway").status_code == 409
    open_pages(alice_client, dump)


def test_a_member_of_a_zip_that_is_damaged_leaves_the_others_alone(import_bytes, team):
    data = bytearray(zipped({"good.jsonl": BEFORE, "bad.jsonl": AFTER * 40, "last.jsonl": AFTER}, zipfile.ZIP_STORED))
    at = data.find(AFTER * 2) + 500
    data[at] ^= 1
    first = import_bytes(bytes(data), "three.zip")
    for dump in store.members(first):
        jobs.run(dump.pk)
    states = {dump.name: (dump.state, dump.events) for dump in store.members(first)}
    assert states == {"good.jsonl": ("done", 1), "bad.jsonl": ("failed", 0), "last.jsonl": ("done", 1)}
    bad = Dump.objects.get(name="bad.jsonl")
    assert "check sum" in bad.error and bad.waits_for_consent


def test_the_members_of_a_zip_are_dumps_that_share_its_bytes(alice_client, import_sample, sample):
    first = import_sample("dirty/three_files.zip")
    members = store.members(first)
    assert [m.name for m in members] == [
        "support_call_60.jsonl",
        "five_levels.jsonl",
        "multi_session_interleaved.jsonl",
    ]
    assert members[0].pk == first.pk
    for dump in members:
        jobs.run(dump.pk)
    told = alice_client.get(f"/api/v1/dumps/{first.public_id}").json()
    assert [(m["name"], m["state"], m["lines"]) for m in told["members"]] == [
        ("support_call_60.jsonl", "done", 60), ("five_levels.jsonl", "done", 17),
        ("multi_session_interleaved.jsonl", "done", 99),
    ]  # fmt: skip
    whole = sample("dirty/three_files.zip").read_bytes()
    for dump in members:
        original = alice_client.get(f"/api/v1/dumps/{dump.public_id}/original")
        assert b"".join(original.streaming_content) == whole
        open_pages(alice_client, Dump.objects.get(pk=dump.pk))
    jobs.delete(first)  # the bytes of the archive go to another member
    left = Dump.objects.get(pk=members[1].pk)
    assert b"".join(store.received(left)) == whole
    dump, duplicate = store.begin(left.team, "again.zip"), None
    store.append_bytes(dump, 0, whole)
    dump, duplicate = store.finish(dump)
    assert duplicate and dump.pk == left.pk
    for dump in store.members(left):
        jobs.delete(dump)
    assert not DumpChunk.objects.exists()


def test_names_in_a_zip_lead_nowhere_and_what_is_left_out_is_said(alice_client, import_sample):
    first = import_sample("dirty/zip_odd_names.zip")
    for dump in store.members(first):
        jobs.run(dump.pk)
    assert [(d.name, d.state, d.lines) for d in store.members(first)] == [
        ("evil.jsonl", "done", 2), ("evil.jsonl", "done", 2), ("ok.jsonl", "done", 4),
    ]  # fmt: skip
    told = alice_client.get(f"/api/v1/dumps/{first.public_id}").json()
    assert [one["name"] for one in told["skipped"]] == ["__MACOSX/._a.jsonl", "a/readme.txt"]
    page = alice_client.get(f"/dumps/{first.public_id}/").content.decode()
    assert "a/readme.txt" in page and "left out" in page


@pytest.mark.parametrize(
    "given", ["../../x.jsonl", 'a"b\r\nc.jsonl', "\u202egnp.jsonl", "<b>x</b>.jsonl", "x" * 400, ".."]
)
def test_a_hostile_file_name_is_only_shown(given, alice_client, import_bytes):
    dump = import_bytes(BEFORE, given)
    assert "/" not in dump.name and dump.name.isprintable() and 0 < len(dump.name) <= 300
    open_pages(alice_client, dump)
    page = alice_client.get(f"/dumps/{dump.public_id}/").content.decode()
    assert "<b>x</b>" not in page
    header = alice_client.get(f"/api/v1/dumps/{dump.public_id}/original")["Content-Disposition"]
    assert header.startswith("attachment") and "\n" not in header


# The samples

DIRTY = {f["path"]: f for f in FILES if f["path"].startswith("dirty/")}
SAYS = {
    "dirty/binary.jsonl": "PNG", "dirty/empty.jsonl": "no lines", "dirty/only_blank.jsonl": "no lines",
    "dirty/html_error_page.jsonl": "HTML", "dirty/rows.csv.jsonl": "CSV", "dirty/utf16le.jsonl": "UTF-16",
    "dirty/cut.jsonl.gz": "ends in the middle",
}  # fmt: skip
REPORTED_TOO = {"dirty/invalid_utf8_line.jsonl": [8], "dirty/bomb_64mb.jsonl.gz": [3]}  # beyond what must be
MEMBERS = {path: f["reading"]["members"] for path, f in DIRTY.items() if "members" in f.get("reading", {})}


@pytest.mark.parametrize("path", [path for path in DIRTY if path not in MEMBERS])
def test_a_dirty_sample_does_what_it_must(path, alice_client, import_sample, sample):
    file, data = DIRTY[path], sample(path).read_bytes()
    dump = import_sample(path)
    check(dump, data)
    open_pages(alice_client, dump)
    if path in SAYS:
        assert dump.state == "failed" and SAYS[path] in dump.error
        return
    reading = file.get("reading", {})
    bad = [one["line"] for one in reading.get("malformed_lines", [])] + REPORTED_TOO.get(path, [])
    assert dump.state == "done", dump.error
    assert list(dump.bad_lines.order_by("line").values_list("line", flat=True)) == bad
    records = file.get("records", reading.get("records", 0)) - (path == "dirty/invalid_utf8_line.jsonl")
    assert sum(dump.records.values()) == records
    if reading.get("records_by_kind") and path not in REPORTED_TOO:
        assert dump.records == reading["records_by_kind"]
        assert (dump.lines, dump.blank_lines) == (reading["physical_lines"], len(reading["blank_lines"]))
    for event in Event.objects.all():
        assert "\r" not in event.text
        assert event.duration_ms is None or 0 <= event.duration_ms < 1e13
    for session in Session.objects.all():
        assert session.duration_s is None or session.duration_s >= 0
        times = [at for at in session.events.order_by("sort_us", "line").values_list("at_us", flat=True) if at]
        assert times == sorted(times) or path == "dirty/timestamps_zoo.jsonl"


@pytest.mark.parametrize("path", MEMBERS)
def test_the_members_of_a_sample_zip_have_the_numbers_of_the_manifest(path, import_sample):
    first = import_sample(path)
    skipped = {one["name"] for one in Dump.objects.get(pk=first.pk).upload.skipped}
    wanted = {name: reading for name, reading in MEMBERS[path].items() if name not in skipped}
    assert all(reading["records"] == 0 for name, reading in MEMBERS[path].items() if name in skipped)
    for dump, (name, reading) in zip(store.members(first), wanted.items(), strict=True):
        jobs.run(dump.pk)
        dump.refresh_from_db()
        assert name.endswith(dump.name)
        assert (dump.state, dump.lines, dump.records) == ("done", reading["physical_lines"], reading["records_by_kind"])


@pytest.mark.parametrize("path", [f["path"] for f in FILES if f["path"].startswith("other/")])
def test_a_neighbouring_format_is_kept_without_a_loss(path, alice_client, import_sample, sample):
    dump = import_sample(path)
    data = sample(path).read_bytes()
    assert (dump.state, dump.bad_line_count) == ("done", 0), dump.error
    check(dump, data)
    assert sum(dump.records.values()) == dump.lines
    lines = [json.loads(line) for line in b"".join(store.pieces(dump)).splitlines() if line.strip()]
    objects = [json.loads(data)] if path.endswith(".json") else [json.loads(line) for line in data.split(b"\n") if line]
    assert lines == objects
    open_pages(alice_client, dump)


# The other ways in


@pytest.mark.parametrize(
    ("name", "state"),
    [("session.jsonl.gz", "done"), ("array.json", "done"), ("pretty_printed.json", "done"), ("cut.jsonl.gz", "failed"),
     ("three_files.zip", "done"), ("utf16le.jsonl", "failed"), ("nan_infinity.jsonl", "done")],
)  # fmt: skip
def test_one_line_of_curl_and_the_command_line_do_the_same(name, state, alice_client, sample, team, other_team):
    path = sample(f"dirty/{name}")
    answer = alice_client.put(f"/api/v1/dumps/{name}", path.read_bytes(), content_type="application/octet-stream")
    assert answer.status_code == 202
    jobs.run(Dump.objects.get().pk)
    sent = store.members(Dump.objects.get(public_id=answer.json()["id"]))
    for dump in sent:
        jobs.run(dump.pk)
    out = io.StringIO()
    try:
        call_command("import_dump", str(path), "--team", "blue", "--json", stdout=out)
    except SystemExit as stop:
        status = stop.code
    else:
        status = 0
    assert status == (1 if state == "failed" else 0)
    reports = json.loads(out.getvalue())["dumps"]
    assert [(r["state"], r["name"], r["lines"], r["events"], len(r["bad_lines"]), r["error"]) for r in reports] == [
        (d.state, d.name, d.lines, d.events, d.bad_line_count, d.error)
        for d in (Dump.objects.get(pk=d.pk) for d in sent)
    ]
    assert {r["state"] for r in reports} == {state}


def test_the_command_line_imports_what_can_be_read_when_told_to(sample, team):
    out = io.StringIO()
    call_command("import_dump", str(sample("dirty/cut.jsonl.gz")), "--team", "red", "--anyway", "--json", stdout=out)
    (report,) = json.loads(out.getvalue())["dumps"]
    assert report["state"] == "done" and report["events"] >= 40 and len(report["bad_lines"]) == 1


# What it may cost

HEAVY = """
import resource, sys, time
import django
django.setup()
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from auditweb.dumps import jobs
jobs.run(int(sys.argv[2]))
start, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
jobs.run(int(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start, time.process_time() - clock)
"""
BLOCK = b"".join(speech(n) for n in range(8)) * 1000  # about a mebibyte
OPEN = b'{"ts": "'
COSTLY = {  # content in pieces, how it ends, events
    "4 GiB of valid lines in gzip": ([gzip.compress(BLOCK, 9) * 4096], "failed", 0),
    "4 GiB of spaces in gzip": ([gzip.compress(b" " * 2**20, 9) * 4096], "failed", 0),
    "a zip that says 4 GiB": ([], "failed", 0),
    "64 MiB of spaces in gzip": ([gzip.compress(BEFORE + b" " * 2**26 + b"\n" + AFTER)], "done", 2),
    "200 MiB without an end of line": ([BEFORE, OPEN, *[b"x" * 2**20] * 200, b"\n", AFTER], "done", 2),
    "5 000 000 empty lists": ([BEFORE, b'{"a": [', *[b"[]," * 100_000] * 50, b"[]]}\n", AFTER], "done", 2),
    "an array with an object of 16 MiB": ([b"[", BEFORE, b',{"a":[', *[b"[1,2]," * 10**5] * 28, b"0]}]"], "done", 1),
}


def saying_4_gib(data: bytes) -> bytes:
    """A zip archive whose directory says that its one member unpacks to nearly 4 GiB."""
    at = data.rfind(b"PK\x01\x02") + 24
    return data[:at] + b"\xf0\xff\xff\xff" + data[at + 4 :]


@pytest.mark.parametrize("name", COSTLY)
def test_bombs_and_endless_lines_cost_little_memory(name, team):
    """Imported in a process of its own; its memory is what it needs beyond that for a small dump."""
    pieces, state, events = COSTLY[name]
    if "zip that says" in name:
        pieces = [saying_4_gib(zipped({"a.jsonl": BLOCK}))]
    dump, small = store.begin(team, "costly"), store.begin(team, "small.jsonl")
    size = 0
    for piece in pieces:
        for at in range(0, len(piece), 2**20):
            size = store.append_bytes(dump, size, piece[at : at + 2**20])
    store.append_bytes(small, 0, speech(7) * 3000)
    for one in (dump, small):
        store.finish(one)
    command = [sys.executable, "-c", HEAVY, str(connection.settings_dict["NAME"]), str(small.pk), str(dump.pk)]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    kibibytes, seconds = map(float, out.stdout.split())
    dump.refresh_from_db()
    assert (dump.state, dump.events) == (state, events), (dump.error, out.stderr)
    assert kibibytes < 64 * 1024
    assert seconds < (5 if state == "failed" else 30)
    if state == "failed":
        assert not DumpChunk.objects.filter(dump=dump, layer=Layer.LINES).exists()
        assert "unpacks to more than" in dump.error and not dump.waits_for_consent


REAL_LINES = [
    line
    for name in (
        "roomkit_mixed/session_status_tool.jsonl", "xerxes/every_event.jsonl", "xerxes/real_runtime.jsonl",
        "agent_framework/trace-260320_115602.jsonl", "other/roomkit_timeline.jsonl",
        "other/agent_framework_host_log.jsonl",
    )
    for line in (ROOT / "tests" / "samples" / name).read_bytes().splitlines()
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def odd_lines(draw) -> bytes:
    """A real line with values of any type in its fields, with other bytes somewhere, or bytes of no line at all."""
    line = draw(st.sampled_from(REAL_LINES))
    how = draw(st.sampled_from(["values", "bytes", "cut", "anything"]))
    if how == "values":
        obj = json.loads(line)
        for key in draw(st.lists(st.sampled_from(sorted(obj)), min_size=1, max_size=3)):
            obj[key] = draw(VALUES)
        return json.dumps(obj).encode()
    at = draw(st.integers(0, len(line)))
    if how == "bytes":
        return line[:at] + draw(st.binary(max_size=4)) + line[at + draw(st.integers(0, 4)) :]
    return line[:at] if how == "cut" else draw(st.binary(max_size=60))


def test_whatever_the_bytes_are_both_databases_store_what_is_read(alice_client, import_bytes):
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(odd_lines(), min_size=1, max_size=25))
    def run(lines):
        # A good line first, or the whole may be refused for what it looks like.
        data = b"".join(line.replace(b"\n", b" ") + b"\n" for line in [BEFORE.strip(), *lines])
        dump = import_bytes(data)
        check(dump, data)
        open_pages(alice_client, dump)
        jobs.delete(dump)

    run()
