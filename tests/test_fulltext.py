"""The full-text index: what it finds is what reading every event would find, after any history of the log."""

import json
import random

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from auditweb.dumps import sinks
from auditweb.log import seq_of
from auditweb.teams.models import AuditRecord
from sessions_app import fulltext, ingest, projection, terms
from sessions_app.models import EVENT_COLUMNS, Event, Session

EMPTY = {name: Event._meta.get_field(name).get_default() for name in EVENT_COLUMNS if name != "dump_id"}
EMPTY |= {
    "ts_text": "",
    "ts_quality": "missing",
    "kind": "speech",
    "lane": "user",
    "sort_us": 0,
    "dump_id": 0,
    "line": 0,
}
EMPTY |= dict.fromkeys(
    ("role", "agent", "tool", "status", "text", "visibility", "extra", "flags", "ref", "severity"), ""
)


def append(session: Session, *events: dict) -> Session:
    """Store *events* (columns that are not empty) the way an import does."""
    rows = [tuple((EMPTY | event)[name] for name in EVENT_COLUMNS) for event in events]
    with transaction.atomic():
        ingest._append(session.pk, rows, _Dump)
    return Session.objects.get(pk=session.pk)


class _Dump:
    pk, stamp, state = 0, "", "done"


def make(team, *texts: str, title="untitled", **columns) -> Session:
    """A session of *team* with one event for each text."""
    session = Session.objects.create(team=team, key=f"k{random.random()}", title=title)
    return append(session, *({"text": text, "line": n, **columns} for n, text in enumerate(texts, 1)))


def found(q: str, team) -> list[str]:
    """The texts of the events of *team* that a search finds, newest first."""
    hits = fulltext.find(terms.parse(q), [team.pk], 1000)
    texts = Event.objects.in_bulk(hits.ids)
    return [texts[pk].text for pk in hits.ids]


def sessions(q: str, team) -> set[str]:
    return set(
        Session.objects.filter(pk__in=fulltext.Sessions(terms.parse(q), [team.pk]).every()).values_list(
            "title", flat=True
        )
    )


ALPHABET = "aAbzé̈ß1_-.,%'\"\\ \n\tжЖ京都東のไทยहिजी회의ﬀİ\x01\ue000Ⅷ"
texts = st.lists(st.text(alphabet=ALPHABET, max_size=12), min_size=1, max_size=6)
queries = st.text(alphabet=ALPHABET + "::-toolagentk", max_size=10)


@pytest.mark.django_db
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=texts, extras=texts, q=queries)
@example(texts=["a" * 70], extras=[""], q="a" * 66)
@example(texts=["C:\\new", "l\nnew"], extras=[""], q="new")
@example(texts=["東京都庁"], extras=[""], q="京都")
@example(texts=["don't"], extras=[""], q="'")
@example(texts=["", "x"], extras=[""], q="-x")
def test_what_is_found_is_what_reading_all_would_find(team, texts, extras, q):
    with transaction.atomic():
        events = [
            {"text": text, "extra": json.dumps({"k": extras[n % len(extras)]}, ensure_ascii=False), "tool": extras[0]}
            for n, text in enumerate(texts)
        ]
        session = append(Session.objects.create(team=team, key="x", title="t"), *events)
        query = terms.parse(q)
        words = terms.Query(query.words)
        expected = [
            e.pk for e in session.events if words.matches(e.text, e.tool, e.extra) and not any(
                (getattr(e, t.field) == t.text) is t.exclude for t in query.fields if t.field != "has")
        ]  # fmt: skip
        assert fulltext.within(session, query) == expected
        assert sorted(fulltext.find(query, [team.pk], 1000).ids) == expected
        for marked in ([e.text, terms.marks(query, e.text)] for e in session.events):
            assert all(0 <= a < b <= len(marked[0]) for a, b in marked[1])
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    "q, text, hit",
    [
        ("thurs", "on Thursday", True), ("hursday", "on Thursday", False), ("thurs on", "on Thursday", False),
        ("on thurs", "on Thursday", True), ("ursus -bear", "Ursus, a bear", False), ("-bear ursus", "Ursus", True),
        ("ETE", "Un été", True), ("été", "un ETE", True), ("ж", "жук", False), ("жук", "ЖУК", True),
        ('"google chrome"', "Google\n  Chrome", True), ('"google chrome"', "chrome google", False),
        ('"google chrome"', "google chromes", False), ("a_b", "xa_b", False), ("a_b", "an A_B", True),
        ("red-s", "red-secret", True), ("c++", "C++ and C", True), ("c++", "C and more", False),
        ("京都", "東京都庁", True), ("都庁", "東京都庁", True), ("京庁", "東京都庁", False), ("東", "東京", True),
        ("회의", "회의를", True), ("ไทย", "ภาษาไทยง่าย", True), ("हिन्दी", "यह हिन्दी है", True),
        ("straße", "STRASSE", True),
        ('"open quote', "an open quote", True), ("NEAR(a b)", "a b", False), ("a OR b", "a", False), ("a*", "a", False),
        ("%", "100%", True), ("%", "100", False), ("'", "it's", True), ("e", "one two", False),
    ],
)  # fmt: skip
@pytest.mark.django_db
def test_a_search_reads_like_people_write(team, q, text, hit):
    make(team, text)
    assert found(q, team) == [text] * hit
    assert terms.parse(q).matches(text) is hit


@pytest.mark.django_db
def test_arguments_are_found_as_words_whatever_json_made_of_them(team):
    make(team, "one", extra=json.dumps({"q": "C:\\new\nliné", "w": 'say "hi"'}, ensure_ascii=False))
    assert found("new", team) == found("line", team) == found('"c: new"', team) == ["one"]
    assert found("nline", team) == found("nnew", team) == []


@pytest.mark.django_db
def test_fields_name_one_exactly_and_combine_with_words(team):
    make(team, "alpha", "beta", kind="speech", agent="Planner A", tool="")
    make(team, "alpha", kind="tool_call", tool="search flights", status="ok", lane="tool")
    assert found('agent:"Planner A" alpha', team) == ["alpha"]
    assert found('agent:"planner a"', team) == found("agent:Planner", team) == []
    assert found('tool:"search flights"', team) == found("kind:tool_call status:ok", team) == ["alpha"]
    assert found("-kind:speech alpha", team) == ["alpha"]
    assert found("kind:tool", team) == []


@pytest.mark.django_db
def test_hits_come_newest_first_and_go_on_where_they_stopped(team):
    for n in range(5):
        make(team, *(f"word {n}-{i}" for i in range(3)))
    query, seen, last = terms.parse("word"), [], (1 << 63) - 1
    while True:
        hits = fulltext.find(query, [team.pk], 4, (0, last))
        seen += hits.ids
        if hits.rest is None:
            break
        last = hits.rest - 1
    assert seen == sorted(Event.objects.values_list("pk", flat=True), reverse=True)


@pytest.mark.django_db
def test_a_search_that_reads_long_pauses_and_says_so(team, monkeypatch):
    monkeypatch.setattr(fulltext, "ROWS", 10)
    make(team, "b a", *["a, b"] * 60)
    hits = fulltext.find(terms.parse('"b a"'), [team.pk], 5, budget=20)
    assert (hits.ids, hits.tried) == ([], True)
    assert hits.rest is not None
    again = fulltext.find(terms.parse('"b a"'), [team.pk], 5, (0, hits.rest - 1), budget=1000)
    assert [seq_of(pk) for pk in again.ids] == [1]
    assert again.rest is None


@pytest.mark.django_db
def test_nobody_finds_what_another_team_has(team, other_team):
    make(team, "secret plans", title="secret")
    make(other_team, "other plans", title="other")
    assert found("plans", team) == ["secret plans"]
    assert found("plans", other_team) == ["other plans"]
    assert found("secret", other_team) == []
    assert sessions("plans", other_team) == sessions("-nothing", other_team) == {"other"}
    assert fulltext.find(terms.parse("plans"), [], 10).ids == []
    assert fulltext.count_facet([other_team.pk], "kind", "speech") == 1


@pytest.mark.django_db
def test_a_session_is_found_by_its_names_and_by_any_of_its_events(team):
    make(team, "hello", "the lift is broken", title="Booking a table", agent="Zoë")
    make(team, "nothing here", title="other")
    for q in ("book", "zoe", "hello", "lift broken", '"is broken"', "table zoe", "broken -nothing"):
        assert sessions(q, team) == {"Booking a table"}, q
    assert sessions("hello broken", team) == set(), "in no one event"


@pytest.mark.django_db
def test_the_names_of_a_session_follow_its_events(team):
    session = make(team, "first words", agent="one", title="t")
    assert sessions("agentb", team) == set()
    session = append(session, {"text": "x", "agent": "agentb", "line": 2})
    assert sessions("agentb", team) == {"t"}
    assert fulltext.with_facet([team.pk], "agent", "agentb") == {session.pk}
    assert fulltext.missing() == 0


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.django_db
def test_common_words_are_asked_session_by_session_and_come_out_the_same(team, monkeypatch, common):
    made = [make(team, "frequent", f"w{n % 3}", title=f"s{n}") for n in range(30)]
    monkeypatch.setattr(fulltext.Sessions, "_is_common", lambda self: common)
    monkeypatch.setattr(fulltext, "PROBES", 12)
    found_there = fulltext.Sessions(terms.parse("w1"), [team.pk])
    assert (found_there.ids is None) is common
    expected = {session.pk for n, session in enumerate(made) if n % 3 == 1}
    keys = [session.pk for session in made]
    assert found_there.keep(keys[:10]) | found_there.keep(keys[10:]) == expected
    assert found_there.every() == expected


@pytest.mark.django_db
def test_long_words_and_long_texts_are_bounded(team):
    long = "x" * 3000
    make(team, f"{long} tail", "é" + "y" * 5000, "word " * 20_000 + "beyond", " ".join(f"é{n}" for n in range(40_000)))
    assert [text[:3] for text in found(long, team)] == ["xxx"]
    assert [text[:3] for text in found("x" * 64, team)] == ["xxx"]
    assert found("x" * 63, team)[0][:3] == "xxx"
    assert found('"' + "x" * 63 + '"', team) == []
    assert found("beyond", team) == [], "after 65,536 characters"
    assert len(found("é11", team)) == 1
    assert fulltext.missing() == 0


def entries():
    """Everything in the index: key → its words as far as a search can tell."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT doc, term FROM sessions_app_vocabulary")
            held: dict[int, set] = {}
            for pk, term in cursor.fetchall():
                held.setdefault(pk, set()).add(term)
            return held
        cursor.execute("SELECT id, tsvector_to_array(words) FROM sessions_app_words")
        return {pk: set(words) for pk, words in cursor.fetchall()}


def facets():
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM sessions_app_facet ORDER BY 1, 2, 3, 4")
        return cursor.fetchall()


def forget(dump):
    for sink in reversed(sinks.all_sinks()):
        sink.forget(dump)


def everything():
    return entries(), facets()


@pytest.mark.django_db
def test_an_index_made_again_is_the_one_that_grew(import_sample, team):
    for name in (
        "roomkit_mixed/session_status_tool.jsonl",
        "roomkit_session/multi_party.jsonl",
        "xerxes/big_5000.jsonl",
    ):
        import_sample(name)
    assert fulltext.missing() == 0
    grown = everything()
    assert len(grown[0]) == Event.objects.count() + Session.objects.count()
    fulltext.rebuild()
    assert everything() == grown
    for session in Session.objects.all():
        projection.rebuild(session)
    assert everything() == grown


@pytest.mark.django_db
def test_what_is_deleted_leaves_nothing_in_the_index(import_sample, team):
    kept = import_sample("roomkit_session/multi_party.jsonl")
    before = everything()
    gone = import_sample("roomkit_mixed/session_status_tool.jsonl")
    assert everything() != before
    with transaction.atomic():
        forget(gone)
    assert everything() == before
    assert fulltext.missing() == 0
    with transaction.atomic():
        forget(kept)
    assert everything() == ({}, [])


@pytest.mark.django_db
def test_of_two_dumps_in_one_session_only_the_deleted_one_goes(import_bytes, team, sample):
    one = import_bytes(sample("roomkit_session/multi_party.jsonl").read_bytes(), "one.jsonl", session_key="both")
    before = everything()
    two = import_bytes(sample("roomkit_mixed/session_status_tool.jsonl").read_bytes(), "two.jsonl", session_key="both")
    assert Session.objects.count() == 1
    with transaction.atomic():
        forget(two)
    left, facets_left = everything()
    assert (left, facets_left) == before
    with transaction.atomic():
        forget(one)
    assert everything() == ({}, [])


@pytest.mark.django_db
def test_a_batch_that_fails_leaves_the_index_as_it_was(team):
    session = make(team, "kept")
    before = everything()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        append(session, {"text": "lost", "agent": "nobody", "line": 2})
        raise ZeroDivisionError
    assert everything() == before
    assert found("lost", team) == []


@pytest.mark.django_db
def test_a_database_from_before_the_index_is_filled_after_its_migration(team):
    make(team, "old words")
    grown = everything()
    fulltext.clear()
    assert found("old", team) == []
    assert fulltext.missing() == 2
    fulltext.after_migrate(sender=None)
    assert everything() == grown


@pytest.mark.django_db(transaction=True)
def test_a_flush_empties_the_index_too(team):
    from django.core.management import call_command

    from auditweb.teams import guard

    make(team, "words")
    guard.remove(connection)
    call_command("flush", interactive=False, verbosity=0)
    assert everything() == ({}, [])


# The search page and its API -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_api_answers_with_snippets_whose_marks_say_where(alice_client, team):
    session = make(team, "x " * 300 + "Le Café est fermé " + "y " * 300, title="Café & Co", kind="speech", agent="a")
    answer = alice_client.get("/api/v1/search/", {"q": "cafe ferme"})
    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    assert item["session"] == {"id": session.public_id, "title": "Café & Co"}
    assert (item["seq"], item["kind"], item["lane"], item["agent"], item["tool"]) == (1, "speech", "user", "a", "")
    assert [item["snippet"][a:b] for a, b in item["marks"]] == ["Café", "fermé"]
    assert len(item["snippet"]) < 300
    assert item["snippet"].startswith("… ") and item["snippet"].endswith(" …")
    assert alice_client.get(item["url"].partition("#")[0]).status_code == 200


@pytest.mark.django_db
def test_the_api_pages_through_all_hits(alice_client, team):
    for n in range(7):
        make(team, *[f"word {n}"] * 5)
    seen, cursor = [], ""
    while True:
        answer = alice_client.get("/api/v1/search/", {"q": "word", "limit": 8, "cursor": cursor}).json()
        seen += [(item["snippet"], item["seq"]) for item in answer["items"]]
        cursor = answer["next"]
        if not cursor:
            break
    assert seen == [(f"word {n}", seq) for n in range(6, -1, -1) for seq in range(5, 0, -1)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query", [{}, {"q": "  "}, {"q": "a\0"}, {"q": "a", "cursor": "x"}, {"q": "a", "limit": "x"}, {"q": "x" * 501}]
)
def test_nonsense_is_refused_with_a_reason(alice_client, query):
    answer = alice_client.get("/api/v1/search/", query)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.django_db
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(q=st.text(max_size=30))
@example(q='"')
@example(q="-")
@example(q="a AND (b OR NOT c)")
@example(q="{x} : ^y*")
@example(q="'; DROP TABLE x --")
@example(q=":* & | ! <-> \\")
def test_any_words_are_answered_everywhere(alice_client, some_session, q):
    for path in ("/api/v1/search/", "/search/", "/", "/api/v1/sessions/", f"/sessions/{some_session}/",
                 f"/api/v1/sessions/{some_session}/timeline", f"/api/v1/sessions/{some_session}/matches"):  # fmt: skip
        assert alice_client.get(path, {"q": q}).status_code in (200, 400), path


@pytest.fixture
def some_session(team):
    return make(team, "a few words", 'and "more" of them').public_id


@pytest.mark.django_db
def test_the_page_marks_what_matched_and_leads_to_it(alice_client, team):
    session = make(team, "<b>bold</b> words & more", title="<i>")
    text = alice_client.get("/search/", {"q": "bold"}).content.decode()
    assert "&lt;b&gt;<mark>bold</mark>&lt;/b&gt; words &amp; more" in text
    assert f'href="/sessions/{session.public_id}/?at=1#e1"' in text
    assert "No event has this" in alice_client.get("/search/", {"q": "nowhere"}).content.decode()
    assert "What was said" in alice_client.get("/search/").content.decode()
    assert 'formaction="/search/"' in alice_client.get("/").content.decode()


@pytest.mark.django_db
def test_a_search_is_recorded_once_without_its_words(alice_client, bob_client, team):
    for n in range(60):
        make(team, f"secretword {n}")
    first = alice_client.get("/api/v1/search/", {"q": "secretword"}).json()
    alice_client.get("/api/v1/search/", {"q": "secretword", "cursor": first["next"]})
    alice_client.get("/search/", {"q": "secretword kind:speech"})
    records = AuditRecord.objects.filter(action="search").order_by("id")
    assert [(r.actor_name, r.team.slug) for r in records] == [("alice", "red")] * 2
    assert "secretword" not in " ".join(r.detail + r.target_name for r in records)
    assert json.loads(records[1].detail) == {"fields": ["kind"], "words": 1}


@pytest.mark.django_db
def test_a_stranger_learns_nothing_from_a_search(bob_client, team, other_team):
    make(team, "secret plans")
    assert bob_client.get("/api/v1/search/", {"q": "secret"}).json() == {"items": [], "next": None, "tried": None}
    assert bob_client.get("/api/v1/search/", {"q": "secret", "team": "red"}).status_code == 404
    assert bob_client.get("/search/", {"q": "secret", "team": "red"}).status_code == 404


@pytest.mark.django_db
def test_matches_are_all_places_in_a_session(alice_client, team):
    session = make(team, *(f"{'odd' if n % 2 else 'even'} number" for n in range(1, 2500)))
    answer = alice_client.get(f"/api/v1/sessions/{session.public_id}/matches", {"q": "odd"}).json()
    seqs = [sum(answer["seqs"][: i + 1]) for i in range(3)]
    assert (answer["total"], answer["last_seq"], seqs) == (1250, 2499, [1, 3, 5])
    assert set(answer["seqs"][1:]) == {2}
    rows = alice_client.get(
        f"/api/v1/sessions/{session.public_id}/timeline", {"q": "even", "before_index": 100, "limit": 3}
    )
    assert [row["seq"] for row in rows.json()["entries"]] == [94, 96, 98]
    assert alice_client.get(f"/api/v1/sessions/{session.public_id}/matches", {"q": "has:error"}).json()["total"] == 0


@given(st.text(max_size=80) | st.text("aZ0é-_ \x01.漢字", max_size=200) | st.just("a" * 100 + " " + "a" * 64))
def test_the_words_of_an_entry_are_the_tokens_of_its_text(text):
    folded = terms.fold(text)
    assert terms.distinct(folded) == set(terms.tokens(folded))
