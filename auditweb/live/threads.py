"""Threads that keep their connection to the database: opening one costs more than what most calls here do with it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection
from django.db.backends.signals import connection_created
from django.dispatch import receiver

KEEP_SECONDS = 60  # a database file may be replaced by a restored one under our open connection
CACHE_KB = 8000  # of SQLite's pages in each of them; there are a dozen

# Of live producers, over HTTP and sockets. SQLite takes one writer at a time, PostgreSQL has a pool of more.
# Not the hub's: a writer waits for others, and watchers should not wait for writers.
writers = ThreadPoolExecutor(4, thread_name_prefix="streams")

_opened = threading.local()


def with_database(call: Callable, *args: Any) -> Any:
    """Call, and give the connection back: to a pool at once; on SQLite after KEEP_SECONDS."""
    if connection.connection is None:
        _opened.at = time.monotonic()
    keep = False
    try:
        result = call(*args)
        keep = connection.vendor == "sqlite" and time.monotonic() - _opened.at < KEEP_SECONDS
        return result
    finally:
        if not keep:
            connection.close()


@receiver(connection_created)
def _keep_little(connection, **_) -> None:
    if connection.vendor == "sqlite" and hasattr(_opened, "at"):
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA cache_size=-{CACHE_KB}")
