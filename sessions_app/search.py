"""Search in all events of some teams, newest session first, with snippets: what the search page and its API show.

Never ranked: a common word stands in most events, and reading them all to find the best would take seconds.
"""

from collections.abc import Sequence
from typing import Any

from django.core import signing
from django.urls import reverse

from auditweb.log import SEQ_BITS, seq_of
from auditweb.pages import BadQuery, iso
from sessions_app import fulltext, terms
from sessions_app.models import Event, Session

LIMIT, MAX_LIMIT = 50, 200
_signer = signing.Signer(salt="auditweb.search")


def events(teams: Sequence[int], text: str, cursor: str = "", limit: int = LIMIT) -> dict[str, Any]:
    """``{items, next, tried}``: the events of *teams* that *text* (see ``terms.parse``) finds.

    Items: ``{session: {id, title}, seq, at, kind, lane, tool, agent, snippet, marks: [[start, end], …], url}``; marks
    count characters of the snippet. ``next`` is the cursor of the next page, None at the end. ``tried``: the search
    paused because it had read so many events without a match; the next page goes on there. Raises BadQuery.
    """
    query = terms.parse(text)
    last = _read(cursor)
    hits = fulltext.find(query, teams, limit, (1, last), passing=_of_sessions(query, teams))
    rows = Event.objects.in_bulk(hits.ids)
    sessions = Session.objects.filter(team__in=teams).in_bulk({pk >> SEQ_BITS for pk in hits.ids})
    items = [
        _item(query, sessions[pk >> SEQ_BITS], rows[pk]) for pk in hits.ids if pk in rows and pk >> SEQ_BITS in sessions
    ]
    return {
        "items": items,
        "next": None if hits.rest is None else _signer.sign_object(hits.rest),
        "tried": fulltext.TRIED if hits.tried else None,
    }


def _item(query: terms.Query, session: Session, event: Event) -> dict[str, Any]:
    snippet, marks = terms.snippet(query, event.text, event.tool, event.extra)
    return {
        "session": {"id": session.public_id, "title": session.title},
        "seq": event.seq,
        "at": iso(event.at_us),
        "kind": event.kind,
        "lane": event.lane,
        "tool": event.tool,
        "agent": event.agent,
        "snippet": snippet,
        "marks": [list(mark) for mark in marks],
        "url": f"{reverse('session-detail', args=[session.public_id])}?at={event.seq}#e{event.seq}",
    }


def _read(cursor: str) -> int:
    if not cursor:
        return (1 << 63) - 1
    try:
        at = _signer.unsign_object(cursor)
    except (signing.BadSignature, ValueError) as e:
        raise BadQuery("cursor", "this cursor was not given out by a search") from e
    return at - 1


def _of_sessions(query: terms.Query, teams: Sequence[int]):
    """What ``has:`` asks of the session of an event, as a function for ``fulltext.find``; None when it is not asked."""
    asked = [term for term in query.fields if term.field == "has"]
    if not asked:
        return None

    def passing(keys: list[int]) -> set[int]:
        sessions = {pk >> SEQ_BITS for pk in keys}
        for term in asked:
            having = fulltext.with_facet(teams, "has", term.text, sessions)
            sessions = sessions - having if term.exclude else having
        return {pk for pk in keys if pk >> SEQ_BITS in sessions and seq_of(pk)}

    return passing


def pieces(item: dict[str, Any]) -> list[tuple[str, bool]]:
    """The snippet of *item* as (text, whether marked), for a template."""
    parts, end = [], 0
    for start, stop in item["marks"]:
        parts += [(item["snippet"][end:start], False), (item["snippet"][start:stop], True)]
        end = stop
    parts.append((item["snippet"][end:], False))
    return [part for part in parts if part[0]]
