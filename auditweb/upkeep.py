"""The database before anybody uses it: reachable, of this version, its tables up to date.

Keeps for itself that several starts at once, on this machine and on others, take turns.
"""

import contextlib
import fcntl

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

MIGRATE_LOCK = 0x61756469  # any number, the same in every process


def prepare() -> None:
    """Reach the database and bring it up to date. Raises CommandError with one sentence when that cannot be."""
    try:
        _reach()
        _migrate()
    except DatabaseError as e:
        raise CommandError(f"cannot use the {_database()}: {_first_line(e)}.") from e


def _reach() -> None:
    """Connect once, without the pool, which would wait ten seconds and keep the reason to itself."""
    if connection.vendor != "postgresql":
        return
    import psycopg

    try:
        psycopg.connect(**{k: v for k, v in connection.get_connection_params().items() if k != "pool"}).close()
    except psycopg.Error as e:
        raise DatabaseError(str(e)) from e


def _migrate() -> None:
    """Bring the database up to date; of several starts at once one works and the others wait for it.

    Raises CommandError when a newer version of auditweb has been here: what it stored is not ours to guess at.
    """
    with open(settings.DATA_DIR / "migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _one_machine_at_a_time():
            executor = MigrationExecutor(connection)
            if unknown := _of_another_version(executor.loader):
                raise CommandError(
                    f"the {_database()} was made by another version of auditweb (it has {unknown[0]}). "
                    "Install that version again, or take another data directory."
                )
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                call_command("migrate", interactive=False, verbosity=0)


@contextlib.contextmanager
def _one_machine_at_a_time():
    """On PostgreSQL starts on other machines wait too; the lock file is only seen on this one."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATE_LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])


def _of_another_version(loader) -> list[str]:
    """Migrations that the database had and this version does not know, as ``app.name``."""
    known = set(loader.disk_migrations)
    for migration in loader.disk_migrations.values():
        known.update(migration.replaces)
    unknown = set(loader.applied_migrations) - known
    return sorted(f"{app}.{name}" for app, name in unknown if app in loader.migrated_apps)


def _database() -> str:
    return f"database {settings.DATABASES['default']['NAME']}" if settings.SQLITE else "database of DATABASE_URL"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
