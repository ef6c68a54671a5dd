"""Dumps over HTTP: slices, whole files, quarantine, the exact bytes, and who may do what."""

import base64
import hashlib
import json

import pytest

from auditweb.dumps import jobs, store
from auditweb.dumps.api import RAW_BYTES, BadLineBody, DumpBody
from auditweb.dumps.models import Dump, DumpChunk, State
from auditweb.teams.models import AuditRecord

pytestmark = pytest.mark.django_db

API = "/api/v1/dumps/"
LINE = (
    b'{"ts":"2026-01-01T10:00:00+00:00","type":"speech","role":"user","content":"hi","duration_ms":null,'
    b'"metadata":{}}\n'
)


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """Which dumps a worker was asked to import."""
    dumps = []
    monkeypatch.setattr(jobs, "wake", lambda dump: dumps.append(dump.pk))
    return dumps


def begin(client, **told):
    return client.post(API, {"name": "a.jsonl", **told}, content_type="application/json")


def put(client, address, data, **more):
    return client.put(address, data, content_type="application/octet-stream", **more)


def body(response) -> bytes:
    return b"".join(response.streaming_content)


def error(response) -> tuple[int, str, object]:
    said = response.json()["error"]
    assert set(said) == {"code", "message", "detail"}
    return response.status_code, said["code"], said["detail"]


def test_a_file_arrives_in_slices_and_is_imported(alice_client, woken):
    answer = begin(alice_client, size=2 * len(LINE))
    assert answer.status_code == 201
    dump = answer.json()
    assert set(dump) == set(DumpBody().fields)
    assert (dump["state"], dump["received"], dump["size"]) == ("receiving", 0, 2 * len(LINE))
    slices = f"{API}{dump['id']}/bytes"
    assert put(alice_client, f"{slices}?offset=0", LINE).json() == {"received": len(LINE)}
    assert put(alice_client, f"{slices}?offset=0", LINE).json() == {"received": len(LINE)}  # the answer was lost
    assert error(put(alice_client, f"{slices}?offset=7000", LINE)) == (409, "offset", {"expected": len(LINE)})
    assert error(alice_client.post(f"{API}{dump['id']}/finish")) == (409, "offset", {"expected": len(LINE)})
    assert put(alice_client, f"{slices}?offset={len(LINE)}", LINE).status_code == 200
    finished = alice_client.post(f"{API}{dump['id']}/finish")
    assert (finished.status_code, finished.json()["state"]) == (202, "queued")
    assert woken == [Dump.objects.get().pk]
    assert jobs.run(woken[0])
    done = alice_client.get(f"{API}{dump['id']}/").json()
    assert (done["state"], done["lines"], done["events"], done["progress"]) == ("done", 2, 2, 1.0)
    assert done["sha256"] == hashlib.sha256(2 * LINE).hexdigest()
    assert done["created_by"] == "alice"
    assert [session["events"] for session in done["sessions"]] == [2]
    assert error(put(alice_client, f"{slices}?offset={2 * len(LINE)}", LINE))[:2] == (409, "state")


def test_a_whole_file_is_one_request_and_the_same_bytes_again_are_a_duplicate(alice_client, woken):
    first = put(alice_client, f"{API}call%20one.jsonl", LINE)
    assert (first.status_code, first.json()["name"], first.json()["duplicate"]) == (202, "call one.jsonl", False)
    again = put(alice_client, f"{API}other-name.jsonl", LINE)
    assert (again.status_code, again.json()["id"], again.json()["duplicate"]) == (200, first.json()["id"], True)
    assert Dump.objects.count() == 1
    assert len(woken) == 1


def test_finishing_bytes_that_are_here_already_names_the_dump_that_has_them(alice_client):
    first = put(alice_client, f"{API}a.jsonl", LINE).json()
    second = begin(alice_client).json()
    put(alice_client, f"{API}{second['id']}/bytes?offset=0", LINE)
    answer = alice_client.post(f"{API}{second['id']}/finish")
    assert (answer.status_code, answer.json()["id"], answer.json()["duplicate"]) == (200, first["id"], True)


def test_what_a_request_or_a_dump_may_hold_is_bounded_and_says_so(alice_client, settings):
    settings.MAX_SLICE_BYTES, settings.MAX_DUMP_BYTES = 1000, 1500
    dump = begin(alice_client).json()
    slices = f"{API}{dump['id']}/bytes?offset="
    assert error(put(alice_client, f"{slices}0", b"x" * 1001)) == (413, "too_large", {"limit": 1000})
    assert error(put(alice_client, f"{API}a.jsonl", b"x" * 1001)) == (413, "too_large", {"limit": 1000})
    assert put(alice_client, f"{slices}0", b"x" * 1000).status_code == 200
    assert error(put(alice_client, f"{slices}1000", b"x" * 600)) == (413, "too_large", {"limit": 1500})
    assert error(begin(alice_client, size=1501)) == (413, "too_large", {"limit": 1500})
    assert begin(alice_client, size=1500).status_code == 201


@pytest.mark.parametrize(
    "told",
    [{"name": ""}, {"name": None}, {"size": -1}, {"size": "many"}, {"size": 10**30}, {"zone": "Mars/Olympus"},
     {"name": "a\0b"}, {"name": "\ud800"}, {"session": "x" * 201}, {"name": ["a"]}],
)  # fmt: skip
def test_a_dump_that_is_told_nonsense_is_not_begun(alice_client, told):
    assert error(begin(alice_client, **told))[0] == 400
    assert not Dump.objects.exists()


def test_a_slice_without_an_offset_is_refused(alice_client):
    dump = begin(alice_client).json()
    for query in ("", "?offset=", "?offset=x", "?offset=%00"):
        assert error(put(alice_client, f"{API}{dump['id']}/bytes{query}", LINE))[0] == 400


def test_the_original_comes_back_to_the_byte_whole_and_in_ranges(alice_client, import_bytes):
    data = bytes(range(256)) * 3000 + b"\n"
    dump = import_bytes(data)
    address = f"{API}{dump.public_id}/original"
    whole = alice_client.get(address)
    assert body(whole) == data
    assert whole.headers["Content-Length"] == str(len(data))
    assert whole.headers["Content-Type"] == "application/octet-stream"
    assert whole.headers["Content-Disposition"] == 'attachment; filename="dump.jsonl"'
    assert "sandbox" in whole.headers["Content-Security-Policy"]
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert whole.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    for asked, first, last in [
        ("bytes=0-0", 0, 0), ("bytes=5-262145", 5, 262145), ("bytes=700000-", 700_000, len(data) - 1),
        ("bytes=-9", len(data) - 9, len(data) - 1), ("bytes=768000-99999999", 768_000, 768_000),
        ("bytes=-999999999", 0, len(data) - 1),
    ]:  # fmt: skip
        part = alice_client.get(address, headers={"Range": asked})
        assert part.status_code == 206, asked
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
        assert body(part) == data[first : last + 1]
    for asked in ("bytes=5-4", "bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=a-b", "bytes=" + "9" * 400 + "-"):
        assert alice_client.get(address, headers={"Range": asked}).status_code == 200, asked
    for asked in ("bytes=768001-", "bytes=-0", "bytes=9999999999-"):
        assert error(alice_client.get(address, headers={"Range": asked})) == (416, "range", {"size": len(data)})
    stale = alice_client.get(address, headers={"Range": "bytes=0-1", "If-Range": '"another"'})
    assert stale.status_code == 200
    fresh = alice_client.get(address, headers={"Range": "bytes=0-1", "If-Range": whole.headers["ETag"]})
    assert fresh.status_code == 206


def test_a_range_is_never_longer_than_its_limit(alice_client, import_bytes, monkeypatch):
    monkeypatch.setattr("auditweb.dumps.api.RANGE_BYTES", 1000)
    dump = import_bytes(LINE * 100)
    part = alice_client.get(f"{API}{dump.public_id}/original", headers={"Range": "bytes=50-"})
    assert part.headers["Content-Range"] == f"bytes 50-1049/{dump.size}"
    assert len(body(part)) == 1000


def test_a_download_reads_one_chunk_at_a_time(alice_client, import_bytes, monkeypatch):
    dump = import_bytes(LINE * 20_000)
    assert DumpChunk.objects.filter(dump=dump).count() > 5
    taken = []
    pieces = store.pieces

    def counted(*args):
        for piece in pieces(*args):
            taken.append(len(piece))
            yield piece

    monkeypatch.setattr(store, "pieces", counted)
    answer = iter(alice_client.get(f"{API}{dump.public_id}/original").streaming_content)
    assert next(answer)
    assert len(taken) == 1
    assert sum(map(len, answer)) + taken[0] > 1_000_000


def test_bad_lines_show_where_why_and_every_byte(alice_client, import_bytes):
    long = b"\xff" * (RAW_BYTES + 10)
    data = LINE + b"{broken \xff\x00 \x1b[2J\n" + LINE + long + b"\n" + b"[1, 2]\n"
    dump = import_bytes(data)
    address = f"{API}{dump.public_id}/bad-lines"
    page = alice_client.get(f"{address}?limit=2").json()
    assert page["total"] == 3
    one, two = page["items"]
    assert set(one) == set(BadLineBody().fields)
    assert (one["line"], one["offset"], one["size"], one["more"]) == (2, len(LINE), 16, False)
    assert base64.b64decode(one["raw_base64"]) == b"{broken \xff\x00 \x1b[2J"
    assert one["raw"] == "{broken \ufffd\x00 \x1b[2J"
    assert (two["line"], two["size"], two["more"], len(two["raw"])) == (4, len(long) + 1, True, RAW_BYTES)
    rest = alice_client.get(address, {"cursor": page["next"]}).json()
    assert [item["line"] for item in rest["items"]] == [5]
    assert rest["next"] is None
    assert data[two["offset"] :][: two["size"]] == long + b"\n"


def test_the_list_is_newest_first_filtered_and_paged(alice_client):
    names = [f"{i}.jsonl" for i in range(5)]
    for name in names:
        begin(alice_client, name=name)
    Dump.objects.filter(name="2.jsonl").update(state=State.DONE)
    page = alice_client.get(API, {"limit": 3}).json()
    assert [dump["name"] for dump in page["items"]] == names[:1:-1]
    assert [d["name"] for d in alice_client.get(API, {"cursor": page["next"]}).json()["items"]] == names[1::-1]
    assert [d["name"] for d in alice_client.get(API, {"state": "done"}).json()["items"]] == ["2.jsonl"]
    assert [d["name"] for d in alice_client.get(API, {"q": "4.J"}).json()["items"]] == ["4.jsonl"]
    assert error(alice_client.get(API, {"state": "x"}))[0] == 400
    assert error(alice_client.get(API, {"cursor": "x"}))[0] == 400


def test_cancel_retry_zone_and_delete(alice_client, import_bytes, woken):
    dump = begin(alice_client).json()
    assert alice_client.post(f"{API}{dump['id']}/cancel").json()["state"] == "cancelled"
    assert error(alice_client.post(f"{API}{dump['id']}/cancel"))[:2] == (409, "state")
    assert alice_client.post(f"{API}{dump['id']}/retry").json()["state"] == "receiving"
    assert error(alice_client.post(f"{API}{dump['id']}/retry"))[:2] == (409, "state")
    done = import_bytes(LINE.replace(b"+00:00", b""))
    session = done.sessions.get()

    def tell(zone):
        return alice_client.patch(f"{API}{done.public_id}/", {"zone": zone}, content_type="application/json")

    assert tell("Europe/Paris").json()["zone_source"] == "told"
    at = alice_client.get(f"/api/v1/sessions/{session.public_id}/timeline").json()["entries"][0]["at"]
    assert at == "2026-01-01T09:00:00.000000Z"
    assert error(tell("Nowhere"))[0] == 400
    assert alice_client.delete(f"{API}{done.public_id}/").status_code == 204
    assert alice_client.get(f"{API}{done.public_id}/").status_code == 404
    assert alice_client.get(f"/api/v1/sessions/{session.public_id}/").status_code == 404
    acts = set(AuditRecord.objects.filter(actor_name="alice").values_list("action", flat=True))
    assert {"upload", "cancel", "retry", "change", "delete"} <= acts


ROUTES = [
    ("get", "", None), ("get", "/original", None), ("get", "/bad-lines", None), ("put", "/bytes?offset=0", LINE),
    ("post", "/finish", b""), ("post", "/cancel", b""), ("post", "/retry", b""), ("patch", "/", b'{"zone": "UTC"}'),
    ("delete", "/", b""),
]  # fmt: skip


def ask(client, method, address, data):
    more = {} if data is None else {"data": data, "content_type": "application/json" if data[:1] == b"{" else "text/x"}
    return getattr(client, method)(address, **more)


@pytest.mark.parametrize("method, address, data", ROUTES)
def test_a_stranger_cannot_tell_a_foreign_dump_from_a_missing_one(bob_client, import_bytes, method, address, data):
    dump = import_bytes(LINE)
    answers = [
        ask(bob_client, method, f"{API}{public_id}{address}", data)
        for public_id in (dump.public_id, "0" * 22, "x", "%00", "..", "9" * 300, "%F0%9F%92%A9")
    ]
    assert {a.status_code for a in answers} == {404}
    assert len({a.content for a in answers}) == 1
    dump.refresh_from_db()
    assert dump.state == State.DONE


@pytest.mark.parametrize("method, address, data", ROUTES)
def test_nobody_without_signing_in(client, import_bytes, method, address, data):
    answer = ask(client, method, f"{API}{import_bytes(LINE).public_id}{address}", data)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("method, address, data", [r for r in ROUTES if r[0] != "get"])
def test_a_viewer_reads_and_changes_nothing(victor_client, import_bytes, method, address, data):
    dump = import_bytes(LINE)
    assert error(ask(victor_client, method, f"{API}{dump.public_id}{address}", data))[0] == 403
    assert victor_client.get(f"{API}{dump.public_id}").status_code == 200
    assert Dump.objects.filter(pk=dump.pk, state=State.DONE).exists()


def test_a_viewer_and_a_reading_key_upload_nothing(victor_client, key_client, woken):
    for client in (victor_client, key_client("read")):
        assert error(begin(client))[0] == 403
        assert error(put(client, f"{API}a.jsonl", LINE))[0] == 403
    assert not Dump.objects.exists()


def test_a_key_that_may_send_follows_its_dump_and_reads_nothing_else(key_client):
    client = key_client("ingest")
    dump = put(client, f"{API}a.jsonl", LINE).json()
    assert dump["created_by"] == "key test"
    assert client.get(f"{API}{dump['id']}").json()["state"] == "queued"
    jobs.run(Dump.objects.get().pk)
    (session,) = client.get(f"{API}{dump['id']}").json()["sessions"]
    for address in (
        API, f"{API}{dump['id']}/original", f"{API}{dump['id']}/bad-lines", "/api/v1/sessions/",
        f"/api/v1/sessions/{session['id']}/", f"/api/v1/sessions/{session['id']}/timeline", "/api/v1/status/",
    ):  # fmt: skip
        assert error(client.get(address))[0] == 403, address


def test_a_cookie_needs_a_csrf_token_and_a_key_does_not(signed_in, alice, team, key_client):
    client = signed_in(alice, enforce_csrf_checks=True)
    assert error(begin(client))[0] == 403
    assert error(put(client, f"{API}a.jsonl", LINE))[0] == 403
    assert begin(key_client("ingest")).status_code == 201


def test_a_caller_in_two_teams_says_which(alice_client, alice, other_team):
    from auditweb.teams.models import Membership, Role

    assert error(alice_client.get(f"{API}?team=blue"))[0] == 404
    Membership.objects.create(team=other_team, user=alice, role=Role.REVIEWER)
    assert error(begin(alice_client))[0] == 400
    assert begin(alice_client, team="blue").status_code == 201
    assert put(alice_client, f"{API}a.jsonl?team=red", LINE).status_code == 202
    assert [d["name"] for d in alice_client.get(f"{API}?team=red").json()["items"]] == ["a.jsonl"]
    assert sorted(Dump.objects.values_list("team__slug", flat=True)) == ["blue", "red"]


def test_fields_that_are_not_the_callers_to_set_are_ignored(alice_client, other_team):
    told = {"state": "done", "sha256": "0" * 64, "created_by": 1, "team_id": other_team.pk, "public_id": "x" * 22}
    dump = Dump.objects.get(public_id=begin(alice_client, **told).json()["id"])
    assert (dump.state, dump.sha256, dump.team.slug) == ("receiving", "", "red")


def test_requests_of_any_accept_header_and_unlisted_methods(alice_client):
    assert alice_client.get(API, headers={"Accept": "text/plain"}).status_code == 200
    assert error(alice_client.delete(API))[0] == 405
    assert error(alice_client.post(API, "{", content_type="application/json"))[0] == 400
    assert error(alice_client.post(API, "a=1", content_type="application/x-www-form-urlencoded"))[0] == 415
    assert json.loads(alice_client.get(API).content) == {"items": [], "next": None, "prev": None}
