"""Keyset pages and checked query parameters."""

import pytest
from django.http import QueryDict

from auditweb import pages
from auditweb.pages import BadQuery, Params
from sessions_app.models import Session

pytestmark = pytest.mark.django_db


def walk(queryset, sort, limit, fields=("first_us", "title", "updated_at", "tool_ms")):
    """All pages forwards, then all pages backwards from the last: two lists of primary keys."""
    forwards, backwards, seen = [], [], []
    cursor = None
    while True:
        page = pages.keyset(queryset, sort, cursor, limit, fields)
        assert len(page.items) <= limit
        forwards += [row.pk for row in page.items]
        seen.append(page)
        if page.next is None:
            break
        cursor = page.next
    page = seen[-1]
    while True:
        backwards = [row.pk for row in page.items] + backwards
        if page.prev is None:
            break
        page = pages.keyset(queryset, sort, page.prev, limit, fields)
    return forwards, backwards


@pytest.fixture
def sessions(team):
    """23 sessions; every third has no start, and starts, titles and durations repeat."""
    Session.objects.bulk_create(
        Session(
            team=team, key=str(i), title=f"title {i % 4}", first_us=None if i % 3 == 0 else i % 5, tool_ms=i % 2 / 3
        )
        for i in range(23)
    )
    return Session.objects.filter(team=team)


@pytest.mark.parametrize("limit", [1, 2, 5, 23, 50])
@pytest.mark.parametrize("sort", ["first_us", "-first_us", "title", "-title", "updated_at", "-updated_at", "-tool_ms"])
def test_pages_hold_every_row_once_in_order_with_missing_values_last(sessions, sort, limit):
    column, down = sort.removeprefix("-"), sort.startswith("-")
    rows = sorted(sessions, key=lambda s: s.pk, reverse=down)
    rows = sorted(
        (r for r in rows if getattr(r, column) is not None), key=lambda s: getattr(s, column), reverse=down
    ) + [r for r in rows if getattr(r, column) is None]
    expected = [row.pk for row in rows]
    assert walk(sessions, sort, limit) == (expected, expected)


def test_rows_that_arrive_meanwhile_neither_repeat_nor_push_out_others(sessions, team):
    first = pages.keyset(sessions, "-id", None, 10)
    Session.objects.create(team=team, key="new", title="new")
    second = pages.keyset(sessions, "-id", first.next, 10)
    assert [r.pk for r in first.items + second.items] == sorted((s.pk for s in sessions), reverse=True)[1:21]


def test_a_cursor_works_for_titles_of_any_length_and_script(team):
    Session.objects.bulk_create(Session(team=team, key=str(i), title=chr(0x4E00 + 7 * i) * 300) for i in range(4))
    page = pages.keyset(Session.objects.all(), "title", None, 2, ["title"])
    cursor = Params(_query(cursor=page.next)).text("cursor")
    assert len(pages.keyset(Session.objects.all(), "title", cursor, 5, ["title"]).items) == 2


def test_a_cursor_that_was_changed_or_made_elsewhere_is_refused(sessions):
    cursor = pages.keyset(sessions, "title", None, 5, ["title", "id"]).next
    assert cursor is not None
    for wrong in (cursor[:-1] + ("A" if cursor[-1] != "A" else "B"), "x", "é", cursor + "x", "W10:aaaa"):
        with pytest.raises(BadQuery):
            pages.keyset(sessions, "title", wrong, 5, ["title", "id"])
    with pytest.raises(BadQuery):
        pages.keyset(sessions, "-title", cursor, 5, ["title", "id"])


def test_only_the_named_columns_can_be_sorted_by(sessions):
    for sort in ("key", "team__slug", "--title", "-", "title;"):
        with pytest.raises(BadQuery):
            pages.keyset(sessions, sort, None, 5, ["title"])


@pytest.mark.parametrize(
    "text, value",
    [("7", 7), ("-5", 0), ("1" * 400, pages.MAX_INT), ("+3", 3), ("", 50)],
)
def test_whole_numbers_are_moved_into_their_bounds(text, value):
    assert Params(_query(n=text)).integer("n", 50) == value


def _query(**values):
    query = QueryDict(mutable=True)
    query.update(values)
    return query


@pytest.mark.parametrize("text", ["1.5", "x", "1e3", "0x10", "١٢", "9" * 5000, "--1", "1 2"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(BadQuery):
        Params(_query(n=text)).integer("n")


@pytest.mark.parametrize("text", ["a\0b", "\0", "\ud800", "x\udfff"])
def test_characters_that_no_database_holds_are_refused_in_any_parameter(text):
    with pytest.raises(BadQuery):
        Params(_query(anything=text))


@pytest.mark.parametrize(
    "text, numbers",
    [("1", [1]), ("5-9,1,2", [1, 2, 5, 6, 7, 8, 9]), ("3,3,2-3", [2, 3]), ("1-1000", list(range(1, 1001))), ("", None)],
)
def test_a_set_of_numbers(text, numbers):
    assert Params(_query(seqs=text)).numbers("seqs") == numbers


@pytest.mark.parametrize("text", ["1-1001", "1-", "-1", "a", "1,,2", "1-99999999999", "1-1000,2001-2002", "1;2"])
def test_a_set_of_numbers_has_a_form_and_a_limit(text):
    with pytest.raises(BadQuery):
        Params(_query(seqs=text)).numbers("seqs")


def test_moments_are_read_as_utc_and_a_last_day_counts_whole():
    def moment(text, **kwargs):
        return pages.iso(Params(_query(t=text)).moment("t", **kwargs))

    assert moment("2026-03-20") == "2026-03-20T00:00:00.000000Z"
    assert moment("2026-03-20", end=True) == "2026-03-21T00:00:00.000000Z"
    assert moment("2026-03-20T11:00:00+02:00") == "2026-03-20T09:00:00.000000Z"
    assert moment("2026-03-20T11:00:00 02:00") == "2026-03-20T09:00:00.000000Z"  # a plus that was not escaped
    for wrong in ("yesterday", "2026-13-01", "99999-01-01"):
        with pytest.raises(BadQuery):
            moment(wrong)


def test_times_on_the_wire_have_one_form():
    assert pages.iso(None) is None
    assert pages.iso(0) == "1970-01-01T00:00:00.000000Z"
    assert pages.iso(1_774_007_762_118_204) == "2026-03-20T11:56:02.118204Z"
    assert pages.iso(-1) == "1969-12-31T23:59:59.999999Z"
