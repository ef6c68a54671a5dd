"""The yardstick of an import: no Django, no checks, no projections; decoded lines as tuples into a schema like ours.

``python bench/raw.py DUMP SCHEMA``: DUMP is a file of ``bench/dump.py``; SCHEMA a JSON file that says where and what:
``{"vendor", "url", "batch", "create": [statements], "events": table, "words": table}``, the second being the full text:
on SQLite a table of FTS5 with a column ``doc``, filled by executemany; on PostgreSQL one of ``id`` and a tsvector,
filled from each batch by ``to_tsvector``. Prints ``{"seconds", "cpu"}``. With ``"plain": true`` SQLite gets the full
text that FTS5 makes by default instead of ours, three columns with positions, filled by one statement for each batch.

It knows the lines of that dump only. It reads a plain file, keeps no raw bytes, has no sessions, buses, counters,
turns, calls and no checkpoint, and makes batches of the same size.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import msgspec

COLUMNS = (
    "id", "ts_text", "at_us", "sort_us", "ts_quality", "kind", "lane", "role", "agent", "tool", "status",
    "duration_ms", "text", "visibility", "ref", "severity", "extra", "cut", "flags", "dump_id", "line",
)  # fmt: skip
SESSION_BITS = 32
LANES = {"tool_call": "tool", "session": "lifecycle"}


def rows(path: str) -> Iterator[tuple]:
    with open(path, "rb") as file:
        yield from rows_of(file, 1 << SESSION_BITS, 1)


def rows_of(lines: Iterable[bytes], pk: int, first: int) -> Iterator[tuple]:
    """A row for each of *lines*, with the keys behind *pk*; *first* is the number of the first line."""
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    read_time = datetime.fromisoformat
    for number, raw in enumerate(lines, first):
        obj = decode(raw)
        ts = obj["ts"]
        us = round(read_time(ts).timestamp() * 1e6)
        meta = obj["metadata"]
        pk += 1
        kind = obj.get("type")
        if kind is None:
            yield (
                pk, ts, us, us, "aware", "status", "status", "", obj["agent_id"], "", obj["status"], None,
                f"{obj['action']}: {obj['detail']}", "", "", "", encode(meta).decode() if meta else "", None, "",
                1, number,
            )  # fmt: skip
            continue
        role = obj["role"] or ""
        tool, status, agent = meta.pop("tool_name", ""), meta.pop("status", ""), meta.pop("agent_id", "")
        yield (
            pk, ts, us, us, "aware", kind, LANES.get(kind, role), role, agent, tool, status, obj["duration_ms"],
            obj["content"], "", "", "", encode(meta).decode() if meta else "", None, "", 1, number,
        )  # fmt: skip


TEXT, TOOL, EXTRA = (COLUMNS.index(name) for name in ("text", "tool", "extra"))


def into_sqlite(path: str, schema: dict) -> float:
    connection = sqlite3.connect(schema["url"], isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-32000")
    for statement in schema["create"]:
        connection.execute(statement)
    names, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
    events, words = schema["events"], schema["words"]
    if schema.get("plain"):
        connection.execute(
            f"CREATE VIRTUAL TABLE plain USING fts5(text, tool, extra, content='{events}', content_rowid='id')"
        )
    source = rows(path)
    start = time.perf_counter()
    while batch := list(islice(source, schema["batch"])):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(f"INSERT INTO {events} ({names}) VALUES ({marks})", batch)
        if schema.get("plain"):
            fill = f"INSERT INTO plain (rowid, text, tool, extra) SELECT id, text, tool, extra FROM {events}"
            connection.execute(f"{fill} WHERE id BETWEEN ? AND ?", (batch[0][0], batch[-1][0]))
        else:
            docs = ((row[0], f"{row[TEXT]} {row[TOOL]} {row[EXTRA]}") for row in batch)
            connection.executemany(f"INSERT INTO {words} (rowid, doc) VALUES (?, ?)", docs)
        connection.execute("COMMIT")
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def into_postgresql(path: str, schema: dict) -> float:
    import psycopg

    events, words = schema["events"], schema["words"]
    with psycopg.connect(schema["url"], autocommit=True) as connection:
        for statement in schema["create"]:
            connection.execute(statement)
        source = rows(path)
        start = time.perf_counter()
        while batch := list(islice(source, schema["batch"])):
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy(f"COPY {events} ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                    for row in batch:
                        copy.write_row(row)
                cursor.execute(
                    f"INSERT INTO {words} SELECT id, to_tsvector('simple', text || ' ' || tool || ' ' || extra) "
                    f"FROM {events} WHERE id BETWEEN %s AND %s",
                    (batch[0][0], batch[-1][0]),
                )
        return time.perf_counter() - start


def main() -> None:
    path, schema = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    start = time.process_time()
    seconds = (into_sqlite if schema["vendor"] == "sqlite" else into_postgresql)(path, schema)
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - start}))


if __name__ == "__main__":
    main()
