"""Pages of a list by (column, id), query parameters checked before they reach a database, times on the wire.

Keeps for itself what a cursor holds and how NULLs are ordered (last, in both directions, on every database).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from django.core import signing
from django.core.exceptions import BadRequest
from django.db.models import QuerySet
from django.http import QueryDict

LIMIT = 50
MAX_LIMIT = 200
LONGEST = 500  # characters of a text parameter
LONGEST_CURSOR = 4000  # a cursor holds the value of its column, a title for example
MAX_INT = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_signer = signing.Signer(salt="auditweb.pages")


class BadQuery(BadRequest):
    """A query parameter that cannot be used; ``name`` says which, the message says why."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


Keep = Callable[[list[int]], Collection[int]]


class Page(NamedTuple):
    """Rows of one page, and the cursors of its neighbours (None where there is none)."""

    items: list
    next: str | None
    prev: str | None


def keyset(
    queryset: QuerySet,
    sort: str = "",
    cursor: str | None = None,
    limit: int = LIMIT,
    fields: Mapping[str, str] | Sequence[str] = (),
    keep: Keep | None = None,
) -> Page:
    """The page of *queryset* that *cursor* names, the first one without a cursor.

    *fields*: the names that may be sorted by, or a mapping of such names to columns or annotations; the first is the
    default. *sort*: one of them, ``-`` in front for descending. Rows with equal values go by ``id`` in the same
    direction, rows without a value come last. A page costs the same however deep it lies: where an index
    ``(…, column, id)`` exists every query is a range of it. *keep*: a filter that no index knows; it gives those of
    some keys that belong to the list and is asked about as many as the page takes. Raises BadQuery for an unknown sort
    or a cursor that this list did not give out.
    """
    columns = dict(fields) if isinstance(fields, Mapping) else {name: name for name in fields or ("id",)}
    sort = sort or next(iter(columns))
    column = columns.get(sort.removeprefix("-"))
    if column is None:
        raise BadQuery("sort", f"sort by one of {', '.join(columns)}, with - in front for descending")
    back, at = _read_cursor(cursor, sort)
    down = sort.startswith("-") != back
    rows = _rows(queryset.order_by(), column, down, nulls_first=back, at=at, count=limit + 1, keep=keep)
    more = len(rows) > limit
    rows = rows[:limit]
    if back:
        rows.reverse()
    if not rows:
        return Page([], None, None)
    ahead = more if not back else True
    behind = more if back else at is not None
    return Page(
        rows,
        _cursor(sort, False, column, rows[-1]) if ahead else None,
        _cursor(sort, True, column, rows[0]) if behind else None,
    )


def _rows(queryset, column, down, nulls_first, at, count, keep) -> list:
    """Up to *count* rows beyond *at* = (value, id).

    One query per stretch (equal value, further values, no value) instead of one with OR: each is a plain range of an
    index, and none depends on where a database puts its NULLs.
    """
    beyond, sign = ("lt", "-") if down else ("gt", "")
    by_id = queryset.order_by(f"{sign}id")
    if column in ("id", "pk"):
        return _first(by_id.filter(**{f"id__{beyond}": at[1]}) if at else by_id, count, keep)
    by_value = queryset.filter(**{f"{column}__isnull": False}).order_by(f"{sign}{column}", f"{sign}id")
    nulls = by_id.filter(**{f"{column}__isnull": True}) if _nullable(queryset, column) else queryset.none()
    if at is None:
        stretches = [by_value, nulls]
    elif at[0] is None:
        stretches = [nulls.filter(**{f"id__{beyond}": at[1]})]
        if nulls_first:
            stretches.append(by_value)
    else:
        stretches = [
            by_id.filter(**{column: at[0], f"id__{beyond}": at[1]}),
            by_value.filter(**{f"{column}__{beyond}": at[0]}),
        ]
        if not nulls_first:
            stretches.append(nulls)
    rows: list = []
    for stretch in stretches:
        if len(rows) < count:
            rows += _first(stretch, count - len(rows), keep)
    return rows


def _first(rows: QuerySet, count: int, keep: Keep | None) -> list:
    """The first *count* of *rows* that *keep* keeps. Until then only keys are read: an index has them."""
    if keep is None:
        return list(rows[:count])
    found: list[int] = []
    start, size = 0, max(count, 50)
    while len(found) < count:
        keys = list(rows.values_list("pk", flat=True)[start : start + size])
        kept = keep(keys)
        found += [pk for pk in keys if pk in kept]
        if len(keys) < size:
            break
        start += size
        size = min(2 * size, 20_000)
    found = found[:count]
    by_pk = rows.model._default_manager.in_bulk(found)
    return [by_pk[pk] for pk in found if pk in by_pk]


def _nullable(queryset, column: str) -> bool:
    if column in queryset.query.annotations:
        return True
    field = queryset.model._meta.get_field(column)
    return getattr(field, "output_field", field).null  # a generated column says of its result whether it may be NULL


def _cursor(sort: str, back: bool, column: str, row: Any) -> str:
    value = getattr(row, column)
    kind = ""
    if isinstance(value, datetime):
        kind, value = "t", value.isoformat()
    return _signer.sign_object([sort, back, kind, value, row.pk], compress=True)


def _read_cursor(cursor: str | None, sort: str) -> tuple[bool, tuple[Any, int] | None]:
    if not cursor:
        return False, None
    try:
        made_for, back, kind, value, pk = _signer.unsign_object(cursor)
    except (signing.BadSignature, ValueError, TypeError) as e:
        raise BadQuery("cursor", "this cursor was not given out by this list") from e
    if made_for != sort:
        raise BadQuery("cursor", "this cursor belongs to another sort order")
    return back, (datetime.fromisoformat(value) if kind == "t" else value, pk)


def iso(us: int | None) -> str | None:
    """UTC microseconds as ``2026-03-20T11:56:02.118204Z``: always this long, so that times sort as text."""
    if us is None:
        return None
    minute, rest = divmod(us, 60_000_000)
    return f"{_minute(minute)}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}Z"


@lru_cache(maxsize=4096)  # events lie close together: of 200 rows of a call a dozen are not found
def _minute(minute: int) -> str:
    return (_EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M")


class Params:
    """Query parameters, checked: no NUL or lone surrogate, whole numbers clamped, words from a list.

    Every method raises BadQuery; an absent or empty parameter gives the default.
    """

    def __init__(self, query: QueryDict):
        self._query = query
        for name, values in query.lists():
            for value in (name, *values):
                if "\0" in value or _SURROGATE.search(value):
                    raise BadQuery(name if value != name else "", "a character that no text has (NUL or a surrogate)")

    def __contains__(self, name: str) -> bool:
        return bool(self._query.get(name))

    def text(self, name: str, longest: int | None = None) -> str:
        """The text, without blanks around it; up to 500 characters by default."""
        value = self._query.get(name, "").strip()
        longest = longest or (LONGEST_CURSOR if name == "cursor" else LONGEST)
        if len(value) > longest:
            raise BadQuery(name, f"{name} may have {longest} characters")
        return value

    def integer(self, name: str, default: int | None = None, least: int = 0, most: int = MAX_INT) -> int | None:
        """A whole number, moved into *least* … *most*."""
        value = self.text(name)
        if not value:
            return default
        if not _INTEGER.fullmatch(value):
            raise BadQuery(name, f"{name} must be a whole number")
        return max(least, min(most, int(value)))

    def limit(self, default: int = LIMIT, most: int = MAX_LIMIT) -> int:
        """``limit``: how many rows, 1 … *most*."""
        return self.integer("limit", default, 1, most) or default

    def word(self, name: str, words: Sequence[str], default: str = "") -> str:
        """One of *words*."""
        value = self.text(name)
        if value and value not in words:
            raise BadQuery(name, f"{name} must be one of {', '.join(words)}")
        return value or default

    def flag(self, name: str) -> bool | None:
        """True for 1, true, yes; False for 0, false, no; None when absent."""
        value = self.text(name).lower()
        if not value:
            return None
        if value not in _YES + _NO:
            raise BadQuery(name, f"{name} must be 1 or 0")
        return value in _YES

    def moment(self, name: str, end: bool = False) -> int | None:
        """An ISO time (read as UTC without an offset) or a date as UTC microseconds.

        A date means its first microsecond, with *end* the first one after it.
        """
        value = self.text(name)
        if not value:
            return None
        try:
            at = datetime.fromisoformat(value.replace(" ", "+") if re.search(r" \d\d:?\d\d$", value[16:]) else value)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            microseconds = (at - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError) as e:
            raise BadQuery(name, f"{name} must be an ISO 8601 time or date") from e
        return microseconds + 86_400_000_000 if end and len(value) == 10 else microseconds

    def numbers(self, name: str, most: int = 1000) -> list[int] | None:
        """A set of numbers written as ``1,2,5-9``: sorted, at most *most* of them."""
        value = self.text(name, longest=20 * most)
        if not value:
            return None
        found: set[int] = set()
        for part in value.split(","):
            ends = _RANGE.fullmatch(part.strip())
            if not ends:
                raise BadQuery(name, f"{name} is a list such as 1,2,5-9")
            first, last = int(ends[1]), int(ends[2] or ends[1])
            if last - first >= most or len(found) + last - first + 1 > 2 * most:
                raise BadQuery(name, f"{name} may name {most} rows")
            found.update(range(first, last + 1))
        if len(found) > most:
            raise BadQuery(name, f"{name} may name {most} rows")
        return sorted(found)


_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")


def every(entries: QuerySet, *columns: str, size: int = 5000) -> Iterator[tuple]:
    """*columns* of all *entries* of a log in order of arrival, *size* rows a query.

    By key range, not by a cursor: an answer whose reader went away leaves nothing open in the database.
    """
    after = 0
    while rows := list(entries.filter(id__gt=after).order_by("id").values_list("id", *columns)[:size]):
        for row in rows:
            yield row[1:]
        after = rows[-1][0]
