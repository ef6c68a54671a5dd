"""RoomKit's ``get_timeline`` over HTTP, case by case; its index counts from 0 and is our seq, which counts from 1.

The cases are those that RoomKit's own stores promise (src/roomkit/core/framework.py, src/roomkit/store/base.py).
"""

import json

import pytest

from sessions_app.models import Event, Session
from sessions_app.timeline import MAX_LIMIT

pytestmark = pytest.mark.django_db

API = "/api/v1/sessions/"
HALF = 60  # rows of each visibility


@pytest.fixture
def room(import_bytes):
    """A session of 120 rows; those with an even seq are internal."""
    entries = (
        {"ts": f"2026-01-01T10:{n // 60:02}:{n % 60:02}+00:00", "type": "speech", "role": "user", "content": f"say {n}",
         "duration_ms": None, "metadata": {}}
        for n in range(1, 2 * HALF + 1)
    )  # fmt: skip
    session = import_bytes(b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)).sessions.get()
    first = session.pk << 32
    internal = [first + seq for seq in range(2, 2 * HALF + 1, 2)]
    Event.objects.filter(pk__in=internal).update(visibility="internal")
    Event.objects.filter(pk__range=(first, first + 2**32 - 1)).exclude(pk__in=internal).update(visibility="all")
    return session


@pytest.fixture
def timeline(alice_client, room):
    """``timeline(limit=3)`` → the page of the room."""

    def ask(status=200, **query):
        answer = alice_client.get(f"{API}{room.public_id}/timeline", query)
        assert answer.status_code == status, answer.content
        return answer.json()

    return ask


def seqs(page) -> list[int]:
    return [row["seq"] for row in page["entries"]]


@pytest.mark.parametrize(
    "query, expected",
    [
        # by offset
        ({}, range(1, 51)),
        ({"limit": 3}, range(1, 4)),
        ({"offset": 2, "limit": 3}, range(3, 6)),
        ({"offset": 100}, range(101, 121)),
        ({"offset": 120}, []),
        ({"offset": 10**12}, []),
        # after a cursor: the first ones behind it
        ({"after_index": 0, "limit": 2}, [1, 2]),
        ({"after_index": -1, "limit": 2}, [1, 2]),  # where RoomKit begins
        ({"after_index": 2, "limit": 3}, range(3, 6)),
        ({"after_index": 118}, [119, 120]),
        ({"after_index": 120}, []),
        ({"after_index": 10**12}, []),
        # before a cursor: the last ones ahead of it, in order
        ({"before_index": 8, "limit": 3}, [5, 6, 7]),
        ({"before_index": 4}, [1, 2, 3]),
        ({"before_index": 1}, []),
        ({"before_index": 0}, []),
        ({"before_index": 121, "limit": 2}, [119, 120]),
        ({"before_index": 10**12, "limit": 2}, [119, 120]),
        # a cursor wins over an offset
        ({"offset": 100, "after_index": 1, "limit": 3}, [2, 3, 4]),
        ({"offset": 100, "before_index": 10, "limit": 3}, [7, 8, 9]),
        # the newest ones, in order; an offset counts from the end
        ({"newest_first": "true", "limit": 3}, [118, 119, 120]),
        ({"newest_first": "true", "limit": 3, "offset": 3}, [115, 116, 117]),
        ({"newest_first": "true", "limit": 200}, range(1, 121)),
        ({"newest_first": "true", "limit": 9, "offset": 118}, [1, 2]),
        ({"newest_first": "true", "offset": 120}, []),
        ({"newest_first": "false", "limit": 3}, [1, 2, 3]),
        # a cursor wins over that, too
        ({"newest_first": "true", "after_index": 2, "limit": 3}, [3, 4, 5]),
        ({"newest_first": "true", "before_index": 8, "limit": 3}, [5, 6, 7]),
        # visibility: exactly this word
        ({"visibility_filter": "all"}, range(1, 100, 2)),
        ({"visibility_filter": "internal", "limit": 100}, range(2, 121, 2)),
        ({"visibility_filter": "intern"}, []),
        ({"visibility_filter": "Internal"}, []),
        ({"visibility_filter": "none"}, []),
        ({"visibility_filter": "", "limit": 3}, [1, 2, 3]),  # as not given
        # and with each way of paging it is the filtered rows that are counted
        ({"visibility_filter": "all", "offset": 2, "limit": 3}, [5, 7, 9]),
        ({"visibility_filter": "all", "after_index": 1, "limit": 2}, [3, 5]),
        ({"visibility_filter": "all", "before_index": 8, "limit": 2}, [5, 7]),
        ({"visibility_filter": "internal", "newest_first": "true", "limit": 2}, [118, 120]),
        ({"visibility_filter": "internal", "newest_first": "true", "limit": 2, "offset": 1}, [116, 118]),
        # limits are moved to where they make sense
        ({"limit": 0}, [1]),
        ({"limit": -5}, [1]),
        ({"limit": 10**9}, range(1, 121)),
    ],
)
def test_a_page_is_what_roomkit_would_give(timeline, query, expected):
    assert seqs(timeline(**query)) == list(expected)


def test_both_cursors_are_refused_whatever_they_hold(timeline):
    for after, before in ((0, 5), (9, 3), (0, 0)):
        error = timeline(400, after_index=after, before_index=before)["error"]
        assert "exclude each other" in error["message"]


@pytest.mark.parametrize(
    "query", [{"after_index": "x"}, {"before_index": "1.5"}, {"offset": "many"}, {"limit": "all"}, {"newest_first": 2}]
)
def test_what_is_no_number_is_refused_by_name(timeline, query):
    (name,) = query
    assert name in timeline(400, **query)["error"]["message"]


def test_a_page_says_whether_there_is_more_in_its_direction(timeline):
    for query, more in (
        ({}, True), ({"limit": 120}, False), ({"after_index": 119}, False), ({"after_index": 60}, True),
        ({"before_index": 50}, False), ({"before_index": 60}, True), ({"newest_first": 1}, True),
        ({"newest_first": 1, "limit": 120}, False), ({"newest_first": 1, "offset": 119}, False),
    ):  # fmt: skip
        assert timeline(**query)["more"] is more, query


def test_no_page_is_longer_than_the_longest(alice_client, import_bytes):
    entry = b'{"ts":"2026-01-01T10:00:00Z","type":"speech","role":"user","content":"x","duration_ms":1,"metadata":{}}\n'
    long = import_bytes(entry * (MAX_LIMIT + 5)).sessions.get()
    page = alice_client.get(f"{API}{long.public_id}/timeline", {"limit": 10**9}).json()
    assert len(page["entries"]) == MAX_LIMIT
    assert page["more"] is True
    assert page["total"] == MAX_LIMIT + 5


def test_the_newest_by_time_are_the_last_ones_of_the_display_order(timeline):
    everything = seqs(timeline(order="time", limit=200))
    assert seqs(timeline(order="time", newest_first=1, limit=7)) == everything[-7:]
    assert seqs(timeline(order="time", newest_first=1, limit=7, offset=7)) == everything[-14:-7]


def test_where_events_are_gone_an_index_is_not_given_again_and_an_offset_counts_what_is_left(timeline, room):
    Event.objects.filter(pk__in=[(room.pk << 32) + seq for seq in (2, 119)]).delete()
    Session.objects.filter(pk=room.pk).update(event_count=118)
    assert seqs(timeline(limit=3)) == [1, 3, 4]
    assert seqs(timeline(offset=1, limit=2)) == [3, 4]
    assert seqs(timeline(after_index=1, limit=2)) == [3, 4]
    assert seqs(timeline(before_index=4, limit=2)) == [1, 3]
    assert seqs(timeline(newest_first=1, limit=2)) == [118, 120]
    assert seqs(timeline(newest_first=1, limit=2, offset=1)) == [117, 118]
    assert timeline()["last_seq"] == 120


def test_walking_by_either_cursor_meets_every_row_once(timeline):
    there, after = [], 0
    while page := seqs(timeline(after_index=after, limit=37)):
        there += page
        after = page[-1]
    back, before = [], 2**31
    while page := seqs(timeline(before_index=before, limit=37)):
        back = page + back
        before = page[0]
    assert there == back == list(range(1, 121))


@pytest.mark.parametrize("public_id", ["z" * 22, "nothing", "%00", "0"])
def test_an_unknown_room_is_a_404_with_roomkits_word(alice_client, room, public_id):
    for part in ("", "timeline", "outline", "turns", "tool-calls", "events/1", "summary", "summary.txt", "export"):
        answer = alice_client.get(f"{API}{public_id}/{part}")
        assert answer.status_code == 404
        assert answer.json() == {
            "error": {"code": "room_not_found", "message": "There is no such session.", "detail": None}
        }


def test_a_foreign_room_is_told_in_the_very_same_words(bob_client, room):
    answers = [bob_client.get(f"{API}{public_id}/timeline") for public_id in (room.public_id, "z" * 22)]
    assert answers[0].status_code == 404
    assert answers[0].content == answers[1].content


def test_only_a_room_that_is_missing_is_called_so(alice_client, room):
    for path in (f"{API}{room.public_id}/events/999", f"/api/v1/dumps/{'z' * 22}", "/api/v1/status/nothing/"):
        assert alice_client.get(path).json()["error"]["code"] == "not_found"
