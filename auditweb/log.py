"""A log counts its entries: ``append`` is the only place that numbers, stores and announces.

Knows neither sessions nor statuses. An entry's primary key is ``log.pk * 2**32 + seq``: the entries of a log lie
together, a range of keys is a range of the log, and the key is the cursor.
"""

import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from django.db import connection, models, transaction
from django.utils import timezone

from auditweb import live

SEQ_BITS = 32


class EntryKey(models.BigIntegerField):
    """The key of an entry of a log, or of what is derived from one: ``log.pk * 2**32 + number``.

    On SQLite it is the row id itself, which only a column of the type "integer" can be: rows then lie in the order of
    their keys, without an index beside them.
    """

    def db_type(self, connection):
        return "integer" if connection.vendor == "sqlite" else super().db_type(connection)


class Log(models.Model):
    """Something with entries numbered 1, 2, 3 … in order of commit."""

    last_seq = models.BigIntegerField(default=0)
    # Raised whenever entries that were already shown look different (times read in another zone, rebuilt).
    revision = models.IntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True

    @property
    def live_key(self) -> str:
        """The name under which the live side knows this log: ``session:12``."""
        return live.key_of(str(self._meta.model_name), self.pk)


LogT = TypeVar("LogT", bound=Log)


def entry_id(log_id: int, seq: int) -> int:
    return (log_id << SEQ_BITS) | seq


def seq_of(entry_id: int) -> int:
    return entry_id & ((1 << SEQ_BITS) - 1)


def id_range(log_id: int, after: int = 0, upto: int | None = None) -> tuple[int, int]:
    """First and last primary key of the entries with *after* < seq ≤ *upto* (the whole log by default)."""
    last = (1 << SEQ_BITS) - 1 if upto is None else upto
    return (log_id << SEQ_BITS) + after + 1, (log_id << SEQ_BITS) + last


def open(model: type[LogT], defaults: dict, **identity) -> LogT:
    """The log with *identity*, made from *defaults* if there is none, and locked until the transaction ends."""
    while True:
        found, _ = model._default_manager.get_or_create(**identity, defaults=defaults)
        # Between these two it may have been deleted, with the last of its entries.
        locked = model._default_manager.select_for_update(no_key=True).filter(pk=found.pk).first()
        if locked is not None:
            return locked


RowT = TypeVar("RowT", bound=models.Model)


def locked(model: type[RowT], **where) -> RowT | None:
    """The row with these columns, locked until the transaction ends; None when there is none.

    Past the query builder, which takes longer than the query: of every batch of live lines it would be a tenth.
    """
    names, columns, converters = _shape(model)
    lock = " FOR NO KEY UPDATE" if connection.vendor == "postgresql" else ""
    quote = connection.ops.quote_name
    sought = " AND ".join(f"{quote(column)} = %s" for column in where)
    statement = f"SELECT {columns} FROM {quote(model._meta.db_table)} WHERE {sought}{lock}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(statement, list(where.values()))
        found = cursor.fetchone()
    if found is None:
        return None
    values = list(found)
    for place, column, converter in converters:
        values[place] = converter(values[place], column, connection)
    return model.from_db("default", names, values)


@functools.cache
def _shape(model: type[models.Model]) -> tuple[list[str], str, list[tuple]]:
    """(names of the fields, their columns as SQL, what makes a value of a column one of a field) of *model*."""
    fields: list[Any] = [field for field in model._meta.concrete_fields if not field.generated]
    columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    converters = [
        (place, field.cached_col, converter)
        for place, field in enumerate(fields)
        for converter in (
            *connection.ops.get_db_converters(field.cached_col),
            *field.cached_col.get_db_converters(connection),
        )
    ]
    return [field.attname for field in fields], columns, converters


def save(row: models.Model, fields: Sequence[str]) -> None:
    """Write *fields* of a row that is there, past the query builder."""
    statement, prepare = _update(type(row), tuple(fields))
    values = [
        getattr(row, name) if field is None else field.get_db_prep_save(getattr(row, name), connection)
        for name, field in prepare
    ]
    with connection.cursor() as cursor:
        cursor.execute(statement, [*values, row.pk])


_AS_THEY_ARE = (models.IntegerField, models.FloatField, models.CharField, models.TextField, models.BooleanField)


@functools.cache
def _update(model: type[models.Model], fields: tuple[str, ...]) -> tuple[str, list[tuple[str, Any]]]:
    """(the statement, [(attribute, its field if that has to make a value for the database of it)]) for ``save``."""
    named: list[Any] = [model._meta.get_field(name) for name in fields]
    quote = connection.ops.quote_name
    sets = ", ".join(f"{quote(field.column)} = %s" for field in named)
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets} WHERE id = %s"  # noqa: S608
    return statement, [(field.attname, None if isinstance(field, _AS_THEY_ARE) else field) for field in named]


_lane = threading.Lock()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """A transaction that writes. On SQLite those of this process take turns before they ask for its one lock.

    SQLite makes who waits for its lock sleep for longer and longer, up to 0.1 s, and whoever looks at the right moment
    has it: of four producers the unluckiest waited 0.9 s for a lock that was free half of the time.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic():
            yield
        return
    with _lane, transaction.atomic():
        yield


def append(log: Log, model: type[models.Model], columns: Sequence[str], rows: Sequence[tuple]) -> list[tuple]:
    """Number *rows* (tuples of *columns* without the id), store them and ring the doorbell on commit.

    Returns them as stored, the id in front.

    Must run in a transaction: the number is given out under a lock on the log's row that is held until commit, so
    whoever has seen entry n has seen 1 … n.
    """
    count = len(rows)
    table = connection.ops.quote_name(log._meta.db_table)
    # S608 here and below: the names are those of our own models and columns.
    statement = f"UPDATE {table} SET last_seq = last_seq + %s, updated_at = %s WHERE id = %s RETURNING last_seq"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            statement,
            [count, connection.ops.adapt_datetimefield_value(timezone.now()), log.pk],
        )
        (last,) = cursor.fetchone()
    first = entry_id(log.pk, last - count + 1)
    stored = [(pk, *row) for pk, row in enumerate(rows, first)]
    insert(model, ["id", *columns], stored)
    log.last_seq = last
    announce(log)
    return stored


@contextlib.contextmanager
def bulk() -> Iterator[None]:
    """For the length of a block commits of this connection need not survive a power cut by themselves.

    Only where all that is committed can be made again: an import goes on from its last checkpoint that survived. The
    first commit after the block makes all of them safe. SQLite then waits for the disk once for many commits; and its
    journal is copied back once for 16 MB, not for 4, because pages that every batch changes are copied each time.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block:  # it cannot be changed within a transaction
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        (synchronous,) = cursor.fetchone()
        cursor.execute("PRAGMA wal_autocheckpoint")
        (pages,) = cursor.fetchone()
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA synchronous={synchronous}")
            cursor.execute(f"PRAGMA wal_autocheckpoint={pages}")


def analyze() -> None:
    """Let the database look at what it holds now, so that it plans queries for that and not for what was there before
    a bulk of new rows. Samples: milliseconds on SQLite, up to some seconds on PostgreSQL."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA analysis_limit=1000")
        cursor.execute("ANALYZE")


def announce(log: Log) -> None:
    """Ring the doorbell of *log* once the transaction has committed."""
    live.announce(log.live_key)


def insert(model: type[models.Model], columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Store rows of values past the ORM: executemany on SQLite, COPY on PostgreSQL (5–6 × the speed of bulk_create)."""
    rows = list(rows)
    if not rows:
        return
    quote = connection.ops.quote_name
    table, names = quote(model._meta.db_table), ", ".join(quote(c) for c in columns)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608


def update_many(model: type[models.Model], columns: Sequence[str], rows: Iterable[tuple]) -> None:
    """Set *columns* of existing rows past the ORM; each row ends with its primary key.

    *rows* may come from a query on the same connection: they are taken in parts, never while a statement runs.
    """
    quote = connection.ops.quote_name
    sets = ", ".join(f"{quote(c)} = %s" for c in columns)
    statement = f"UPDATE {quote(model._meta.db_table)} SET {sets} WHERE id = %s"  # noqa: S608
    rest = iter(rows)
    while part := list(islice(rest, 2000)):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":  # one statement for all: 5 x the speed of one for each row
                cursor.execute(
                    _update_from_arrays(model, columns), [list(values) for values in zip(*part, strict=True)]
                )
            else:
                cursor.executemany(statement, part)


def _update_from_arrays(model: type[models.Model], columns: Sequence[str]) -> str:
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    arrays = ", ".join(f"%s::{model._meta.get_field(c).db_type(connection)}[]" for c in (*columns, "id"))
    names = ", ".join(quote(c) for c in (*columns, "id"))
    sets = ", ".join(f"{quote(c)} = new.{quote(c)}" for c in columns)
    return f"UPDATE {table} SET {sets} FROM unnest({arrays}) AS new({names}) WHERE {table}.id = new.id"  # noqa: S608


MAX_WORDS = 500  # different words in one count; a dump that names each of its million tools anew must cost no more
OTHER_WORDS = "…"


def tally(counts: dict[str, int], word: str, number: int = 1) -> None:
    """Count *word*; once there are MAX_WORDS different ones, new ones count together as OTHER_WORDS."""
    if word not in counts and len(counts) >= MAX_WORDS:
        word = OTHER_WORDS
    counts[word] = counts.get(word, 0) + number
