"""Which sessions a list shows: a search and its filters, answered without reading the sessions.

Keeps for itself the order in which conditions are asked: what is known as a set of keys first, common words last and
only of the sessions that a page comes to. 100,000 sessions in any order with any filter: below 50 ms.
"""

from collections.abc import Collection, Sequence

from django.db.models import QuerySet

from auditweb import pages
from sessions_app import fulltext
from sessions_app.models import Session
from sessions_app.terms import Query

SORTS = {
    "updated": "updated_at",
    "started": "first_us",
    "title": "title",
    "duration": "duration_us",
    "events": "event_count",
    "turns": "turn_count",
    "tools": "tool_calls",
    "failures": "tool_failures",
    "interruptions": "interruptions",
    "vision": "vision_count",
    "errors": "errors",
    "status": "status_count",
}
SMALL = 10_000  # sessions that the database sorts at once; of more it walks along the index of the order
LARGE = 20_000  # sessions with a facet; when more have it they are asked as the page comes to them


class _Common:
    """The sessions of *teams* that have a facet which most have; asked like ``fulltext.Sessions``."""

    def __init__(self, teams: Sequence[int], what: str, word: str):
        self._facet = (teams, what, word)

    def keep(self, sessions: Sequence[int]) -> set[int]:
        return fulltext.with_facet(*self._facet, within=sessions)

    def every(self) -> set[int]:
        return fulltext.with_facet(*self._facet)

    def count(self) -> int:
        return fulltext.count_facet(*self._facet)


class Listing:
    """The sessions of *teams* (ids) that pass: ``page``, ``total``.

    *query*: see ``terms.parse``; its words stand in one event, or in title, first words and agents. *facets*: (what,
    word) pairs, see ``fulltext.Facet``. *since* and *until*: UTC microseconds that the start is compared with. *dump*:
    public id of one that it came from. ``tried`` tells that a quotation was looked for in the newest events only.
    """

    def __init__(
        self,
        teams: Sequence[int],
        query: Query,
        facets: Sequence[tuple[str, str]] = (),
        live: bool | None = None,
        since: int | None = None,
        until: int | None = None,
        dump: str = "",
    ):
        self.teams = list(teams)
        self._known: set[int] | None = None  # all that pass the conditions so far; None: no condition yet
        self._without: set[int] = set()
        self._common: list[tuple[fulltext.Sessions | _Common, bool]] = []  # (asked one by one, whether excluded)
        self.tried = False
        self._started: dict[str, int] = {}  # what the start is compared with, when too many pass to hold their keys
        self._narrow([(what, word, False) for what, word in facets])
        self._narrow([(term.field, term.text, term.exclude) for term in query.fields])
        if live is not None:
            running = set(self._sessions().filter(live=True).values_list("pk", flat=True))
            self._take(running, exclude=not live)
        asked = {"first_us__gte": since, "first_us__lt": until}
        self._started = {name: at for name, at in asked.items() if at is not None}
        if self._started:
            began = set(self._sessions().values_list("pk", flat=True)[: SMALL + 1])
            if len(began) <= SMALL:
                self._take(began)
                self._started = {}
        if dump:
            self._take(set(self._sessions().filter(dumps__public_id=dump).values_list("pk", flat=True)))
        self._words(query)

    def page(self, sort: str, cursor: str, limit: int) -> pages.Page:
        """One page of them in the order *sort*, one of SORTS. Raises BadQuery."""
        sessions = self._sessions()
        if self._known is not None and len(self._known) <= SMALL:
            keys = ", ".join(map(str, self._known)) or "NULL"  # whole numbers; more than SQLite takes as parameters
            sessions = sessions.extra(where=[f"{Session._meta.db_table}.id IN ({keys})"])  # noqa: S610
            # Keys first, rows after: whole rows of thousands would be carried through the sort.
            return pages.keyset(sessions, sort, cursor, limit, SORTS, keep=self._keep)
        narrowed = self._known is not None or self._without or self._common
        return pages.keyset(sessions, sort, cursor, limit, SORTS, keep=self._keep if narrowed else None)

    def total(self, most: bool = True) -> int | None:
        """How many; None instead of counting the sessions of a common word when *most* is false."""
        if self._common:
            [(found, exclude), *others] = self._common
            if isinstance(found, _Common) and not (others or self._known is not None or self._without or self._started):
                return self._sessions().count() - found.count() if exclude else found.count()
            if not most and any(isinstance(found, fulltext.Sessions) for found, _ in self._common):
                return None
            for found, exclude in self._common:
                self._take(found.every(), exclude)
            self._common = []
        if self._started and (self._known is not None or self._without):
            self._take(set(self._sessions().values_list("pk", flat=True)))
            self._started = {}
        if self._known is not None:
            return len(self._known)
        return self._sessions().count() - len(self._without)

    def _sessions(self) -> QuerySet[Session]:
        # By team alone: behind a subquery or a join no database keeps to the order of an index (1 → 110 ms).
        if len(self.teams) == 1:
            return Session.objects.filter(team=self.teams[0], **self._started)
        return Session.objects.filter(team__in=self.teams, **self._started)

    def _narrow(self, facets: list[tuple[str, str, bool]]) -> None:
        for what, word, exclude in facets:
            within = self._known if self._known is not None and len(self._known) <= SMALL else None
            having = fulltext.with_facet(self.teams, what, word, within, LARGE + 1)
            if len(having) <= LARGE:
                self._take(having, exclude)
            else:
                self._common.append((_Common(self.teams, what, word), exclude))

    def _take(self, sessions: set[int], exclude: bool = False) -> None:
        if not exclude:
            self._known = (sessions if self._known is None else self._known & sessions) - self._without
        elif self._known is None:
            self._without |= sessions
        else:
            self._known = self._known - sessions

    def _words(self, query: Query) -> None:
        wanted = [term for term in query.words if not term.exclude]
        asked = [(query.only(*wanted), False)] if wanted else []
        asked += [(query.only(term.wanted), True) for term in query.words if term.exclude]
        for words, exclude in asked:
            if self._known is not None and not self._known:
                return
            found = fulltext.Sessions(words, self.teams)
            self.tried = self.tried or found.tried
            if found.ids is not None:
                self._take(found.ids, exclude)
            elif self._known is not None and len(self._known) <= fulltext.PROBES:
                self._take(found.keep(list(self._known)), exclude)
            else:
                self._common.append((found, exclude))

    def _keep(self, keys: list[int]) -> Collection[int]:
        kept = set(keys) - self._without
        if self._known is not None:
            kept &= self._known
        for found, exclude in self._common:
            there = found.keep(list(kept)) if kept else set()
            kept = kept - there if exclude else there
        return kept
