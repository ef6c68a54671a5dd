"""The yardstick of live ingest: a bare ASGI view on stock daphne that commits what our stream would, and nothing else.

``python bench/bare_ingest.py SCHEMA [lean]``: SCHEMA is what ``task.py schema`` prints, ``lean`` leaves out the full
text. ``POST /<number>`` with lines of ``bench/dump.py`` decodes them and stores, in one transaction a request, a row
for each, their full text, their bytes as one compressed chunk, and the rows that ours has beside them: turns, calls,
the session with its counters, the dump with its checkpoint, a ring; on SQLite with ``synchronous=FULL``. Answers when
that is committed. Prints its port. ``lean``: neither full text nor those rows, but the counter of session <number>.

What it stores in them is made up: nothing is derived or counted. No sign-in, no throttle, no check of line numbers.
"""

import asyncio
import json
import sqlite3
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import raw  # noqa: E402, I001
from daphne.server import Server  # noqa: E402
from tests.servers import free_port  # noqa: E402

ZLIB_LEVEL = 3
TABLES = (
    "CREATE TABLE {}bare_session (id bigint PRIMARY KEY, last_seq bigint NOT NULL)",
    "CREATE TABLE {}bare_chunk (session bigint, first bigint, data {}, PRIMARY KEY (session, first))",
)
TURN = ("id", "role", "ref", "first_seq", "last_seq", "started_us", "ended_us", "failed", "sort_us", "dump", "line")
CALL = (
    "id", "number", "turn", "last_seq", "tool", "agent", "status", "failed", "started_us", "ended_us", "duration_ms",
    "stamp", "inferred",
)  # fmt: skip
NUMBERS, TEXTS = 30, 8  # columns of a session or a dump that every batch writes: whole numbers, and JSON
HEAD = [*(f"n{i}" for i in range(NUMBERS)), *(f"t{i}" for i in range(TEXTS))]
WORDS = json.dumps({f"word-{n}": n for n in range(12)})
MORE_TABLES = (
    f"CREATE TABLE {{}}bare_turn ({', '.join(TURN)})",
    f"CREATE TABLE {{}}bare_call ({', '.join(CALL)})",
    f"CREATE TABLE {{}}bare_head ({', '.join(['id', *HEAD])})",
    "CREATE TABLE {}bare_ring (key text PRIMARY KEY, number bigint)",
)
LANE, ROLE, AGENT, STATUS, AT = (raw.COLUMNS.index(name) for name in ("lane", "role", "agent", "status", "at_us"))


def typed(statement: str) -> str:
    """*statement* with a type for every column, which PostgreSQL wants to know and SQLite takes as well."""
    texts = {"role", "ref", "tool", "agent", "status", "stamp", *HEAD[NUMBERS:]}
    begin, _, columns = statement.rstrip(")").partition("(")
    kinds = [f"{c} {'text' if c in texts else 'bigint'}" for c in columns.split(", ")]
    return f"{begin}({', '.join(kinds)}, PRIMARY KEY (id))"


def beside(batch: list[tuple]) -> tuple[list[tuple], list[tuple]]:
    """Turns for the rows of *batch* that are speech, calls for those of tools."""
    turns = [(r[0], r[ROLE], "", 1, 1, r[AT], None, 0, r[AT], 1, 1) for r in batch if r[LANE] in ("user", "assistant")]
    calls = [
        (r[0], 1, 1, 1, r[raw.TOOL], r[AGENT], r[STATUS], 0, r[AT], r[AT], 5, "end", 0)
        for r in batch
        if r[LANE] == "tool"
    ]
    return turns, calls


def head_of(last: int) -> list:
    return [*range(last, last + NUMBERS), *[WORDS] * TEXTS]


COUNT = (
    "INSERT INTO {}bare_session (id, last_seq) VALUES ({m}, {m}) "
    "ON CONFLICT (id) DO UPDATE SET last_seq = bare_session.last_seq + excluded.last_seq RETURNING last_seq"
)
Commit = Callable[[int, list[bytes], bytes], int]


def sqlite_commit(schema: dict, lean: bool) -> Commit:
    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(schema["url"], isolation_level=None, check_same_thread=False, timeout=20)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-32000"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    connection, one_at_a_time = opened(), threading.Lock()
    more = [typed(statement.format("")) for statement in MORE_TABLES[:3]] + [MORE_TABLES[3].format("")]
    for statement in [*schema["create"], TABLES[0].format(""), TABLES[1].format("", "blob"), *more]:
        connection.execute(statement)
    turn = f"INSERT INTO bare_turn VALUES ({', '.join('?' * len(TURN))})"
    call = f"INSERT INTO bare_call VALUES ({', '.join('?' * len(CALL))})"
    head = f"INSERT OR REPLACE INTO bare_head VALUES ({', '.join('?' * (1 + len(HEAD)))})"
    count = COUNT.format("", m="?")
    insert = f"INSERT INTO {schema['events']} ({', '.join(raw.COLUMNS)}) VALUES ({', '.join('?' * len(raw.COLUMNS))})"
    fill = f"INSERT INTO {schema['words']} (rowid, doc) VALUES (?, ?)"

    def commit(session: int, lines: list[bytes], data: bytes) -> int:
        packed = zlib.compress(data, ZLIB_LEVEL)
        with one_at_a_time:
            connection.execute("BEGIN IMMEDIATE")
            ((last,),) = connection.execute(count, (session, len(lines))).fetchall()
            first = last - len(lines) + 1
            batch = list(raw.rows_of(lines, (session << raw.SESSION_BITS) + first - 1, first))
            connection.executemany(insert, batch)
            if not lean:
                connection.executemany(fill, ((r[0], f"{r[raw.TEXT]} {r[raw.TOOL]} {r[raw.EXTRA]}") for r in batch))
                turns, calls = beside(batch)
                connection.executemany(turn, turns)
                connection.executemany(call, calls)
                connection.execute(head, [2 * session, *head_of(last)])
                connection.execute(head, [2 * session + 1, *head_of(last)])
                connection.execute("INSERT OR REPLACE INTO bare_ring VALUES (?, ?)", (f"session:{session}", last))
            connection.execute("INSERT INTO bare_chunk VALUES (?, ?, ?)", (session, first, packed))
            connection.execute("COMMIT")
        return last

    return commit


def postgresql_commit(schema: dict, lean: bool) -> Commit:
    import psycopg

    events, words = schema["events"], schema["words"]
    place = events.partition(".")[0] + "."
    with psycopg.connect(schema["url"], autocommit=True) as connection:
        more = [typed(statement.format(place)) for statement in MORE_TABLES[:3]]
        for statement in [*schema["create"], TABLES[0].format(place), TABLES[1].format(place, "bytea"), *more]:
            connection.execute(statement)
    of_thread = threading.local()
    count = COUNT.format(place, m="%s")
    head = (
        f"INSERT INTO {place}bare_head VALUES ({', '.join(['%s'] * (1 + len(HEAD)))}) ON CONFLICT (id) DO UPDATE SET "
        + ", ".join(f"{column} = excluded.{column}" for column in HEAD)
    )

    def commit(session: int, lines: list[bytes], data: bytes) -> int:
        packed = zlib.compress(data, ZLIB_LEVEL)
        if not hasattr(of_thread, "connection"):
            of_thread.connection = psycopg.connect(schema["url"], autocommit=True)
        with of_thread.connection.transaction(), of_thread.connection.cursor() as cursor:
            last = cursor.execute(count, (session, len(lines))).fetchone()[0]
            first, before = last - len(lines) + 1, session << raw.SESSION_BITS
            batch = list(raw.rows_of(lines, before + first - 1, first))
            with cursor.copy(f"COPY {events} ({', '.join(raw.COLUMNS)}) FROM STDIN") as copy:
                for row in batch:
                    copy.write_row(row)
            if not lean:
                cursor.execute(
                    f"INSERT INTO {words} SELECT id, to_tsvector('simple', text || ' ' || tool || ' ' || extra) "
                    f"FROM {events} WHERE id BETWEEN %s AND %s",
                    (before + first, before + last),
                )
                for table, columns, found in zip(("turn", "call"), (TURN, CALL), beside(batch), strict=True):
                    with cursor.copy(f"COPY {place}bare_{table} ({', '.join(columns)}) FROM STDIN") as copy:
                        for row in found:
                            copy.write_row(row)
                for number in (2 * session, 2 * session + 1):
                    cursor.execute(head, [number, *head_of(last)])
            cursor.execute(f"INSERT INTO {place}bare_chunk VALUES (%s, %s, %s)", (session, first, packed))
        return last

    return commit


def view(commit: Commit):
    threads = ThreadPoolExecutor(4)

    async def app(scope, receive, send):
        data = b""
        while True:
            message = await receive()
            data += message["body"]
            if not message["more_body"]:
                break
        session, lines = int(scope["path"].strip("/")), data.removesuffix(b"\n").split(b"\n")
        last = await asyncio.get_running_loop().run_in_executor(threads, commit, session, lines, data)
        headers = [(b"content-type", b"application/json")]
        answer = b'{"accepted_through":%d}' % last
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    schema, lean = json.loads(Path(sys.argv[1]).read_text()), "lean" in sys.argv[2:]
    commit = {"sqlite": sqlite_commit, "postgresql": postgresql_commit}[schema["vendor"]](schema, lean)
    port = free_port()
    Server(
        view(commit),
        endpoints=[f"tcp:{port}:interface=127.0.0.1"],
        ready_callable=lambda: print(port, flush=True),
    ).run()


if __name__ == "__main__":
    main()
