"""The full-text index of events and of the names of sessions, and the facets by which sessions are listed.

Keeps for itself how either database stores them: SQLite an FTS5 table without a copy of the text, PostgreSQL a table of
word lists with a GIN index. Both are filled and emptied with the batches of the log, in their transactions; triggers
would cost three times as much. The tokens come from ``terms``, so both databases find the same.

An entry of the index has the key of its event; the one with ``seq`` 0 holds title, first words and agents of the
session. Beside its words it holds tags, words that no text can hold: the team, so that the size of other teams costs
nothing, and kind, agent, tool and status, so that a rare kind among common words is found at once.

Measured with 1,000,000 events on SQLite: positions of words (detail=full) would make the index 1.5 × larger and slower
to fill, an index of beginnings (prefix=) 1.8 ×; quotations are checked in the text instead.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings
from django.db import connection, transaction

from auditweb.log import SEQ_BITS, entry_id, id_range, seq_of
from sessions_app.models import EVENT_COLUMNS, Event, Session
from sessions_app.terms import LONGEST_WORD, Query, distinct, document, fold, tokens

TABLE, FACETS, VOCABULARY = "sessions_app_words", "sessions_app_facet", "sessions_app_vocabulary"
ROWS = 5000  # events that are read together
NEAR = 20_000  # newest entries that PostgreSQL looks through before it asks the index for all (7 ms)
COMMON = 30_000  # entries; whoever has more is looked for session by session
TRIED = 20_000  # events that are read for one search to check what the index cannot tell
COMPLETIONS = 60  # words that are named instead of their beginning; looking one up takes SQLite 0.05 ms
_ANY_END = "*"
PROBES = 500  # sessions that are asked one by one for a common word before all its sessions are listed

_EVENTS = Event._meta.db_table
_LAST = (1 << SEQ_BITS) - 1
_ALL = (0, (1 << 63) - 1)


class Facet(NamedTuple):
    """A word under which sessions are listed; ``what``: agent, tool, status, kind or has."""

    what: str
    word: str


class Face(NamedTuple):
    """What lists know of a session: the text of its entry ``seq`` 0, and its facets."""

    text: str
    facets: frozenset[Facet]


HAS: dict[str, Callable[[Session], object]] = {
    "error": lambda session: session.errors or session.tool_failures,
    "interruption": lambda session: session.interruptions,
    "status": lambda session: session.status_count,
    "tool": lambda session: session.tool_calls,
    "vision": lambda session: session.vision_count,
}


def face(session: Session) -> Face:
    """What lists know of *session* as it is in memory."""
    text = document(" \x01 ".join([session.title, session.opening, *session.agents]))
    counted = (
        ("agent", session.agents), ("tool", session.tools), ("status", session.tool_statuses), ("kind", session.kinds),
    )  # fmt: skip
    facets = {Facet(what, word) for what, counts in counted for word in counts}
    facets |= {Facet("has", name) for name, test in HAS.items() if test(session)}
    return Face(text, frozenset(facets))


# Filling and emptying ------------------------------------------------------------------------------------------


_FIELDS = ("kind", "agent", "status", "tool", "text", "extra")
_COLUMNS = ("id", *_FIELDS)
_PLACES = tuple(EVENT_COLUMNS.index(name) + 1 for name in _FIELDS)


def add(session: Session, events: Iterable[tuple], before: Face | None) -> None:
    """Index *events*, tuples of (id, \\*EVENT_COLUMNS), and what they changed in the face of *session*.

    *before*: its face before they were counted, None when it had no events. In the transaction that stored them.
    """
    kind, agent, status, tool, text, extra = _PLACES
    team = session.team_id
    _insert((e[0], _entry(team, e[kind], e[agent], e[status], e[tool], e[text], e[extra])) for e in events)
    refresh(session, before)


def refresh(session: Session, before: Face | None) -> None:
    """Bring the face of *session* up to date; *before*: the one that is stored, None for none."""
    now = face(session)
    if before == now:
        return
    if before is None or before.text != now.text:
        pk = entry_id(session.pk, 0)
        if before is not None:
            _delete(pk, pk, [(pk, _head(session.team_id, before.text))])
        _insert([(pk, _head(session.team_id, now.text))])
    old = before.facets if before else frozenset()
    _drop_facets(session, old - now.facets)
    with connection.cursor() as cursor:
        _many(
            cursor,
            f"INSERT INTO {FACETS} (team_id, what, word, session_id) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",  # noqa: S608
            [(session.team_id, *facet, session.pk) for facet in now.facets - old],
        )


def _drop_facets(session: Session, facets: Collection[Facet]) -> None:
    with connection.cursor() as cursor:
        _many(
            cursor,
            f"DELETE FROM {FACETS} WHERE team_id = %s AND what = %s AND word = %s AND session_id = %s",  # noqa: S608
            [(session.team_id, *facet, session.pk) for facet in facets],
        )


def remove(session: Session, events=None) -> None:
    """Take *events* (a queryset of the session's, all by default) out of the index, before they are deleted.

    With all events goes the face.
    """
    chosen = session.events if events is None else events
    for rows in _parts(chosen.filter(id__range=id_range(session.pk))):
        entries = [(row[0], _entry(session.team_id, *row[1:])) for row in rows]
        _delete(rows[0][0], rows[-1][0], entries, whole=events is None)
    if events is None and session.last_seq:
        pk, known = entry_id(session.pk, 0), face(session)
        _delete(pk, pk, [(pk, _head(session.team_id, known.text))])
        _drop_facets(session, known.facets)


def rebuild() -> int:
    """Empty the index and fill it from the events that are stored, all in one transaction; how many entries it has."""
    with transaction.atomic():
        clear()
        # Keys first: SQLite would hold a query open over all that is written meanwhile.
        return sum(fill(Session.objects.get(pk=pk)) for pk in list(_indexed()))


def _indexed():
    return Session.objects.filter(last_seq__gt=0).order_by("pk").values_list("pk", flat=True)


def fill(session: Session) -> int:
    """Index all of *session*, which is not indexed yet; how many entries that makes."""
    done = 1
    for rows in _parts(session.events):
        _insert((row[0], _entry(session.team_id, *row[1:])) for row in rows)
        done += len(rows)
    refresh(session, None)
    return done


def missing() -> int:
    """How many events and sessions are not in the index, or in it without being stored."""
    stored = f"SELECT id FROM {_EVENTS} UNION ALL SELECT id << 32 FROM {Session._meta.db_table} WHERE last_seq > 0"  # noqa: S608
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"SELECT count(*) FROM ({stored}) s FULL JOIN {TABLE} w ON w.id = s.id "  # noqa: S608
                "WHERE w.id IS NULL OR s.id IS NULL"
            )
            return cursor.fetchone()[0]
        cursor.execute(stored)
        expected = {pk for (pk,) in cursor.fetchall()}
    # A table without a copy of the text lists its keys only by a word that all have: the team's.
    teams = list(Session.objects.order_by().values_list("team", flat=True).distinct())
    return len(expected.symmetric_difference(_keys(_expression(Query(), teams), *_ALL, None, False) if teams else ()))


def clear() -> None:
    """Empty the index and the facets."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')")  # noqa: S608
            cursor.execute(f"DELETE FROM {FACETS}")  # noqa: S608
        else:
            cursor.execute(f"TRUNCATE {TABLE}, {FACETS}")


def after_migrate(sender, using="default", **kwargs) -> None:
    """Fill the index of a database whose events were stored before there was one; empty it where ``flush``, which
    knows the tables of models only, has left it full."""
    if using != connection.alias or TABLE not in connection.introspection.table_names():
        return
    if not Session.objects.exists():
        clear()
    elif not _filled() and _indexed().exists():
        rebuild()


def _filled() -> bool:
    with connection.cursor() as cursor:
        # FTS5 keeps two blocks for itself; every other one holds entries.
        source = f"{TABLE}_data WHERE id > 10" if connection.vendor == "sqlite" else TABLE
        cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {source})")  # noqa: S608
        return bool(cursor.fetchone()[0])


def _parts(events) -> Iterator[list[tuple]]:
    after = 0
    columns = ("id", *_FIELDS)
    while rows := list(events.filter(id__gt=after).order_by("id").values_list(*columns)[:ROWS]):
        yield rows
        after = rows[-1][0]


def _many(cursor, statement: str, rows: Sequence[tuple]) -> None:
    if rows:
        cursor.executemany(statement, rows)


def _insert(entries: Iterable[tuple[int, str]]) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.executemany(f"INSERT INTO {TABLE} (rowid, doc) VALUES (%s, %s)", entries)  # type: ignore[arg-type]  # noqa: S608
        else:
            with cursor.copy(f"COPY {TABLE} (id, words) FROM STDIN") as copy:
                for entry in entries:
                    copy.write_row(entry)


def _delete(first: int, last: int, entries: list[tuple[int, str]], whole: bool = False) -> None:
    """Take *entries* out; *whole*: they are all from *first* to *last*."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            _many(cursor, f"INSERT INTO {TABLE} ({TABLE}, rowid, doc) VALUES ('delete', %s, %s)", entries)  # noqa: S608
        elif whole:
            cursor.execute(f"DELETE FROM {TABLE} WHERE id BETWEEN %s AND %s", [first, last])  # noqa: S608
        else:
            cursor.execute(f"DELETE FROM {TABLE} WHERE id = ANY(%s)", [[pk for pk, _ in entries]])  # noqa: S608


# Tags are letters of the private use area, which no token of a text holds.
_TAGS = {"team": "\ue000", "kind": "\ue001", "agent": "\ue002", "status": "\ue003", "tool": "\ue004"}
_GAP = "\ue00f"
_NO_WORD = re.compile(r"[\W_]+")


@lru_cache(maxsize=4096)
def _tag(field: str, name: str) -> str:
    """One word that stands for *name*; names that look much alike share it."""
    return _TAGS[field] + _NO_WORD.sub(_GAP, fold(name[: 4 * LONGEST_WORD]))[:LONGEST_WORD]


def _team_tag(team: int) -> str:
    return f"{_TAGS['team']}{team}"


@lru_cache(maxsize=4096)
def _tags(team: int, kind: str, agent: str, status: str, tool: str) -> str:
    named = (("kind", kind), ("agent", agent), ("status", status), ("tool", tool))
    return " ".join([_team_tag(team), *(_tag(field, name) for field, name in named if name)])


def _entry(team: int, kind: str, agent: str, status: str, tool: str, text: str, extra: str) -> str:
    return f"{_words(document(text, tool, extra))} {_tags(team, kind, agent, status, tool)}"


def _head(team: int, text: str) -> str:
    return f"{_words(text)} {_team_tag(team)}"


def _words(text: str) -> str:
    """The tokens of *text* with blanks between them; what SQLite's tokenizer cuts the same way stays as it is."""
    if settings.SQLITE:  # asking the connection would take as long as all the rest of an entry
        return text if text.isascii() else " ".join(tokens(fold(text)))
    return " ".join(distinct(fold(text)))


# Finding events ------------------------------------------------------------------------------------------------


class Hits(NamedTuple):
    """Keys of events, and where to go on: ``rest`` is the key before (after) which others may lie, None for none.

    ``tried`` says whether the search stopped because it had read TRIED events, not because it had enough.
    """

    ids: list[int]
    rest: int | None
    tried: bool = False


def find(
    query: Query,
    teams: Sequence[int],
    limit: int,
    span: tuple[int, int] = _ALL,
    down: bool = True,
    passing: Callable[[list[int]], Collection[int]] | None = None,
    budget: int = TRIED,
    whose: bool = True,
) -> Hits:
    """Up to *limit* events of *teams* within *span* (keys) that have all of *query*, newest session first and its
    last event first (*down*), or the other way round.

    *passing*: what else an event must be: gives those of some keys that are. *whose* false: all of *span* belongs to
    *teams*. ``has:`` is not looked at.
    """
    expression = _expression(query, teams, whose)
    checks = not query.exact or bool(query.fields) or passing is not None
    found: list[int] = []
    first, last = span
    tried, size = 0, min(limit + 1, ROWS)
    while first <= last:
        some = _keys(expression, first, last, size, down)
        kept: Collection[int] = some
        events = [pk for pk in some if pk & _LAST]
        if checks:
            kept = _checked(query, events)
            if passing is not None and kept:
                kept = passing([pk for pk in events if pk in kept])
            tried += len(events)
        for pk in events:
            if pk in kept if checks else True:
                if len(found) == limit:
                    return Hits(found, found[-1])
                found.append(pk)
        if len(some) < size:
            return Hits(found, None)
        if down:
            last = some[-1] - 1
        else:
            first = some[-1] + 1
        if tried >= budget:
            return Hits(found, some[-1], True)
        size = min(2 * size, ROWS)
    return Hits(found, None)


def in_session(
    session: Session,
    query: Query,
    limit: int,
    span: tuple[int, int],
    down: bool = False,
    passing: Callable[[list[int]], Collection[int]] | None = None,
) -> list[int]:
    """The keys of the first *limit* events of *session* within *span* that have all of *query*, the last ones with
    *down*, in that direction. ``has:`` is about the session: it has it, or nothing is found."""
    if not _possible(session, query):
        return []
    return find(query, [session.team_id], limit, span, down, passing, budget=1 << 62, whose=False).ids


def within(session: Session, query: Query, passing=None) -> list[int]:
    """The keys of all events of *session* that have all of *query*, ascending."""
    span = id_range(session.pk, upto=session.last_seq)
    if query.exact and not any(term.field in _TAGS for term in query.fields) and passing is None:
        expression = _expression(query, [session.team_id], whose=False)
        return _keys(expression, *span, None, False) if _possible(session, query) else []
    return in_session(session, query, session.last_seq + 1, span, passing=passing)


def _possible(session: Session, query: Query) -> bool:
    asked = [term for term in query.fields if term.field == "has"]
    known = face(session).facets if asked else frozenset()
    return all((Facet("has", term.text) in known) is not term.exclude for term in asked)


def _keys(expression: str, first: int, last: int, limit: int | None, down: bool) -> list[int]:
    """Keys of entries that have *expression*, in order."""
    order = "DESC" if down else "ASC"
    most = [] if limit is None else [limit]
    cap = "" if limit is None else "LIMIT %s"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH %s AND rowid BETWEEN %s AND %s "  # noqa: S608
                f"ORDER BY rowid {order} {cap}",
                [expression, first, last, *most],
            )
            return [pk for (pk,) in cursor.fetchall()]
        if limit is not None:
            # A common word is among the newest, and no index is quicker than they are. For a rare one the planner is
            # not asked either: misled by its statistics it would walk through the whole table.
            cursor.execute(
                f"SELECT id FROM (SELECT id, words FROM {TABLE} WHERE id BETWEEN %s AND %s "  # noqa: S608
                f"ORDER BY id {order} LIMIT {NEAR}) near WHERE words @@ %s::tsquery ORDER BY id {order} LIMIT %s",
                [first, last, expression, limit],
            )
            found = [pk for (pk,) in cursor.fetchall()]
            if len(found) == limit:
                return found
        cursor.execute(
            f"WITH hits AS MATERIALIZED (SELECT id FROM {TABLE} WHERE words @@ %s::tsquery AND id BETWEEN %s AND %s) "  # noqa: S608
            f"SELECT id FROM hits ORDER BY id {order} {cap}",
            [expression, first, last, *most],
        )
        return [pk for (pk,) in cursor.fetchall()]


def _expression(query: Query, teams: Sequence[int], whose: bool = True) -> str:
    """What the index is asked: every entry that *query* means has it; when the query is exact, no other.

    *whose* false: only entries of sessions of these teams are asked for; without the tag it is several times quicker.
    """
    wanted, unwanted = [], []
    for term in query.terms:
        if term.field in _TAGS:
            if not term.exclude:
                wanted.append(_token(_tag(term.field, term.text), False))
        elif not term.field and term.tokens:
            if not term.exclude:
                wanted += [_token(*token) for token in term.tokens]
            elif term.exact:
                unwanted.append(_token(*term.tokens[0]))
    either, both, neither = (" OR ", " AND ", " NOT ") if connection.vendor == "sqlite" else (" | ", " & ", " & !")
    mine = [_token(_team_tag(team), False) for team in teams] or [_token(_TAGS["team"], False)]
    if whose or not wanted:
        wanted.insert(0, "(" + either.join(mine) + ")")
    expression = both.join(wanted)
    return f"({expression}){neither}({either.join(unwanted)})" if unwanted else expression


def _token(token: str, prefix: bool) -> str:
    # Tokens hold neither quotes nor backslashes.
    if connection.vendor == "sqlite":
        # FTS5 first merges all entries of all words with a beginning (430 ms for a word in most of 1,000,000 events);
        # of words that are named it reads as many as are wanted (1 ms).
        words = _beginning(token) if prefix else [token]
        return "(" + " OR ".join(f'"{word}"' for word in words) + ")" if words else f'"{token}"{_ANY_END}'
    return f"'{token}':*" if prefix else f"'{token}'"


def _beginning(token: str) -> list[str]:
    """The words of the index that begin with *token*; none when there are none, or more than COMPLETIONS."""
    words: list[str] = []
    at = token
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                f"SELECT term FROM {VOCABULARY} WHERE term >= %s AND term <= %s LIMIT 1",  # noqa: S608
                [at, f"{token}\U0010ffff"],
            )
            found = cursor.fetchone()
            if found is None:
                return words
            if len(words) == COMPLETIONS:
                return []
            words.append(found[0])
            at = f"{found[0]}0"  # no word stands between: 0 is the first letter that a word may have


def _checked(query: Query, keys: list[int]) -> set[int]:
    """Those events among *keys* that have the fields of *query*, and its words as they stand there."""
    fields = [term for term in query.fields if term.field in _TAGS]
    exact = query.exact
    kept = set()
    for pk, kind, agent, status, tool, text, extra in _events(keys, whole=not exact):
        columns = {"kind": kind, "agent": agent, "status": status, "tool": tool}
        if any((columns[term.field] == term.text) is term.exclude for term in fields):
            continue
        if exact or query.matches(text, tool, extra):
            kept.add(pk)
    return kept


def _events(keys: list[int], whole: bool) -> Iterator[tuple]:
    columns = ", ".join(_COLUMNS) if whole else "id, kind, agent, status, tool, '', ''"
    for start in range(0, len(keys), ROWS):
        some = keys[start : start + ROWS]
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {_EVENTS} WHERE id IN {_listed(some)}")  # noqa: S608
            yield from cursor.fetchall()


def _listed(keys: Iterable[int]) -> str:
    """Keys as SQL: whole numbers, so nothing to escape, and no limit of parameters to meet."""
    return f"({', '.join(map(str, map(int, keys)))})"


# Finding sessions ----------------------------------------------------------------------------------------------


class Sessions:
    """The sessions of *teams* with some event that has all words, or with all of them in title, first words or agents.

    Rare words: a set. Of a common word the set is not made: sessions are asked one by one (``keep``).
    """

    def __init__(self, query: Query, teams: Sequence[int]):
        self.teams = teams
        self.query = query
        self.expression = _expression(query, teams)
        self._probing = _expression(query, teams, whose=False)
        self.tried = False  # whether it stopped at TRIED events: older ones may match too
        self._probes = 0
        self._all: set[int] | None = None
        if not query.exact:
            self._all = self._by_reading()
        elif f'"{_ANY_END}' in self.expression or not self._is_common():
            self._all = self._every()

    @property
    def ids(self) -> set[int] | None:
        """All of them; None while they were not listed."""
        return self._all

    def every(self) -> set[int]:
        if self._all is None:
            self._all = self._every()
        return self._all

    def keep(self, sessions: Sequence[int]) -> set[int]:
        """Those of *sessions*, which are the teams' own, that are among them."""
        if self._all is None:
            self._probes += len(sessions)
            if self._probes <= PROBES:
                return self._probe(sessions)
        return self.every().intersection(sessions)

    def _is_common(self) -> bool:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute(
                    f"SELECT 1 FROM {TABLE} WHERE {TABLE} MATCH %s LIMIT 1 OFFSET {COMMON}",  # noqa: S608
                    [self.expression],
                )
                return cursor.fetchone() is not None
            cursor.execute(
                f"SELECT count(*) FROM (SELECT words FROM {TABLE} ORDER BY id DESC LIMIT {NEAR}) near "  # noqa: S608
                "WHERE words @@ %s::tsquery",
                [self.expression],
            )
            return cursor.fetchone()[0] * 100 >= NEAR

    def _every(self) -> set[int]:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                where, value = f"SELECT DISTINCT rowid >> 32 FROM {TABLE} WHERE {TABLE} MATCH %s", self.expression  # noqa: S608
            else:
                where, value = f"SELECT DISTINCT id >> 32 FROM {TABLE} WHERE words @@ %s::tsquery", self.expression  # noqa: S608
            cursor.execute(where, [value])
            return {pk for (pk,) in cursor.fetchall()}

    def _probe(self, sessions: Sequence[int]) -> set[int]:
        if connection.vendor == "sqlite":
            source, key, has = "json_each(%s) AS some", "some.value", f"{TABLE} MATCH %s AND rowid"
            values: list = [str(list(map(int, sessions))), self._probing]
        else:
            source, key, has = "unnest(%s::bigint[]) AS one", "one", "words @@ %s::tsquery AND id"
            values = [list(sessions), self._probing]
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {key} FROM {source} WHERE EXISTS (SELECT 1 FROM {TABLE} "  # noqa: S608
                f"WHERE {has} BETWEEN ({key} << 32) AND ({key} << 32) + {_LAST})",
                values,
            )
            return {pk for (pk,) in cursor.fetchall()}

    def _by_reading(self) -> set[int]:
        found: set[int] = set()
        last, read = _ALL[1], 0
        while True:
            some = _keys(self.expression, 0, last, ROWS, True)
            new = [pk for pk in some if pk >> SEQ_BITS not in found]
            found |= {pk >> SEQ_BITS for pk in _checked(self.query, [pk for pk in new if seq_of(pk)])}
            heads = [pk >> SEQ_BITS for pk in new if not seq_of(pk) and pk >> SEQ_BITS not in found]
            for session in Session.objects.filter(pk__in=heads):
                if self.query.matches(face(session).text):
                    found.add(session.pk)
            read += len(new)
            if len(some) < ROWS:
                return found
            last = some[-1] - 1
            if last >> SEQ_BITS in found:  # all the rest of this session tells nothing new
                last = ((last >> SEQ_BITS) << SEQ_BITS) - 1
            if read >= TRIED:
                self.tried = True
                return found


def with_facet(
    teams: Sequence[int], what: str, word: str, within: Collection[int] | None = None, most: int | None = None
) -> set[int]:
    """The sessions of *teams* that have a facet, up to *most* of them; of those of *within* when it is given."""
    if within is not None and not within:
        return set()
    among = f"AND session_id IN {_listed(within)}" if within is not None else ""
    cap = f"LIMIT {most}" if most else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT session_id FROM {FACETS} WHERE team_id IN {_listed(teams or [0])} "  # noqa: S608
            f"AND what = %s AND word = %s {among} {cap}",
            [what, word],
        )
        return {pk for (pk,) in cursor.fetchall()}


def count_facet(teams: Sequence[int], what: str, word: str) -> int:
    """How many sessions of *teams* have a facet."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {FACETS} WHERE team_id IN {_listed(teams or [0])} AND what = %s AND word = %s",  # noqa: S608
            [what, word],
        )
        return cursor.fetchone()[0]
