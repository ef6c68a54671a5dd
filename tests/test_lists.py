"""The list of sessions: whichever way a filter is answered, it shows what reading every session would show."""

import random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from sessions_app import fulltext, lists, terms
from sessions_app.lists import SORTS, Listing
from sessions_app.models import Session
from tests.test_fulltext import make

HOUR_US = 3_600_000_000
WORDS = ("alpha", "beta", "gamma", "delta")


@pytest.fixture
def many(team, other_team):
    """120 sessions of red that differ in all that lists sort and filter by; and one of blue that has it all."""
    chance = random.Random(5)
    for n in range(120):
        session = make(
            team,
            " ".join(chance.sample(WORDS, 2)),
            title=f"s{n:03d}",
            agent=chance.choice("ab"),
            kind=chance.choice("xy"),
        )
        before = fulltext.face(session)
        session.first_us = None if n % 7 == 0 else chance.randrange(48) * HOUR_US
        session.last_us = session.first_us and session.first_us + chance.randrange(5)
        for name in (
            "turn_count",
            "tool_calls",
            "tool_failures",
            "interruptions",
            "vision_count",
            "errors",
            "status_count",
        ):
            setattr(session, name, chance.choice((0, 0, 1, 2)))
        session.live = n % 11 == 0
        session.save()
        fulltext.refresh(session, before)
    make(other_team, " ".join(WORDS), title="foreign", agent="a", kind="x")
    return list(Session.objects.filter(team=team))


FILTERS = [
    {}, {"q": "alpha"}, {"q": "alpha beta"}, {"q": "-alpha"}, {"q": "s01"}, {"q": "agent:a"}, {"q": "-agent:a kind:x"},
    {"q": "agent:a alpha -beta"}, {"q": "has:error"}, {"q": "has:nothing"}, {"q": '"alpha beta"'}, {"q": "alph"},
    {"live": True}, {"live": False}, {"live": False, "q": "gamma"}, {"since": 20 * HOUR_US}, {"until": 4 * HOUR_US},
    {"since": 2 * HOUR_US, "until": 40 * HOUR_US, "q": "has:tool beta"},
    {"facets": [("agent", "b"), ("has", "vision")]},
    {"facets": [("agent", "b")], "q": "-has:error", "live": False}, {"since": 1, "q": "-delta"}, {"q": "-has:error"},
]  # fmt: skip


def passes(session: Session, *, q="", facets=(), live=None, since=None, until=None) -> bool:
    """What a listing means, said the slow way."""
    query, face = terms.parse(q), fulltext.face(session)
    texts = [face.text, *(event.text for event in session.events)]

    def has(words):
        return any(terms.Query(tuple(words)).matches(text) for text in texts)

    return (
        has([t for t in query.words if not t.exclude])
        and not any(has([t.wanted]) for t in query.words if t.exclude)
        and all(((t.field, t.text) in face.facets) is not t.exclude for t in query.fields)
        and all(facet in face.facets for facet in facets)
        and (live is None or session.live is live)
        and (since is None or (session.first_us is not None and session.first_us >= since))
        and (until is None or (session.first_us is not None and session.first_us < until))
    )


def listing(team, q="", **filters) -> Listing:
    return Listing([team.pk], terms.parse(q), **filters)


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["sets", "walks", "probes"])
def test_every_filter_shows_what_reading_all_would_show_in_every_order(team, many, monkeypatch, way):
    if way != "sets":
        monkeypatch.setattr(lists, "SMALL", 3)
        monkeypatch.setattr(lists, "LARGE", 3)
    if way == "probes":
        monkeypatch.setattr(fulltext.Sessions, "_is_common", lambda self: True)
        monkeypatch.setattr(fulltext, "PROBES", 90)
    names = list(SORTS)
    for n, filters in enumerate(FILTERS):
        expected = {session.pk for session in many if passes(session, **filters)}
        assert listing(team, **filters).total() == len(expected), filters
        quick = listing(team, **filters).total(most=False)
        assert quick is None or quick == len(expected), filters
        for sort in (names[n % len(names)], "-" + names[(n + 5) % len(names)]):
            pks, cursor, backwards = [], "", []
            while True:
                page = listing(team, **filters).page(sort, cursor, 50)
                pks += [session.pk for session in page.items]
                if not page.next:
                    break
                cursor = page.next
            assert len(pks) == len(set(pks)), (filters, sort)
            assert set(pks) == expected, (filters, sort)
            while page.prev:
                page = listing(team, **filters).page(sort, page.prev, 50)
                backwards = [session.pk for session in page.items] + backwards
            assert backwards == pks[: len(backwards)], (filters, sort)


@pytest.mark.django_db
def test_an_order_is_that_of_the_column_with_unknown_values_last(team, many):
    for name, column in SORTS.items():
        for sign in ("", "-"):
            shown = [getattr(s, column) for s in listing(team).page(sign + name, "", 200).items]
            known = [value for value in shown if value is not None]
            assert known == sorted(known, reverse=sign == "-"), (name, sign)
            assert shown[len(known) :] == [None] * (len(shown) - len(known))


@pytest.mark.django_db
def test_every_order_is_read_from_an_index(team, many):
    for name in SORTS:
        with CaptureQueriesContext(connection) as asked:
            listing(team).page(f"-{name}", "", 50)
        for query in asked.captured_queries:
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    # So few rows it would rather sort; what it must not do it does only where it can do nothing else.
                    cursor.execute("SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off")
                    cursor.execute("EXPLAIN " + query["sql"])
                else:
                    cursor.execute("EXPLAIN QUERY PLAN " + query["sql"])
                plan = " ".join(str(row[-1]) for row in cursor.fetchall())
            assert "TEMP B-TREE" not in plan and "Sort" not in plan, (name, plan)


@pytest.mark.django_db
def test_the_duration_is_kept_by_the_database(team):
    session = make(team, "x")
    Session.objects.filter(pk=session.pk).update(first_us=5, last_us=12)
    assert Session.objects.get(pk=session.pk).duration_us == 7
    Session.objects.filter(pk=session.pk).update(first_us=None)
    assert Session.objects.get(pk=session.pk).duration_us is None


@pytest.mark.django_db
def test_the_page_counts_what_it_can_and_says_many_where_it_would_take_long(alice_client, many, monkeypatch):
    assert "1–50 of 120" in alice_client.get("/").content.decode()
    monkeypatch.setattr(fulltext.Sessions, "_is_common", lambda self: True)
    monkeypatch.setattr(lists, "SMALL", 3)
    text = alice_client.get("/", {"q": "alpha"}).content.decode()
    assert "–" in text and "of many" in text
    counted = alice_client.get("/api/v1/sessions/", {"q": "alpha", "count": 1}).json()
    assert counted["total"] == sum(passes(session, q="alpha") for session in many)


@pytest.mark.django_db
def test_a_quotation_of_common_words_is_looked_for_in_the_newest_and_says_so(alice_client, team, monkeypatch):
    monkeypatch.setattr(fulltext, "ROWS", 5)
    monkeypatch.setattr(fulltext, "TRIED", 5)
    make(team, "alpha beta", title="old")
    for n in range(12):
        make(team, "beta, alpha", title=f"new{n}")
    assert "tried" in alice_client.get("/api/v1/sessions/", {"q": '"alpha beta"'}).json()
    assert "were read; older sessions may match too" in alice_client.get("/", {"q": '"alpha beta"'}).content.decode()
    monkeypatch.setattr(fulltext, "TRIED", 500)
    answer = alice_client.get("/api/v1/sessions/", {"q": '"alpha beta"'}).json()
    assert [item["title"] for item in answer["items"]] == ["old"]
    assert "tried" not in answer
