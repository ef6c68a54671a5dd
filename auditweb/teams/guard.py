"""Triggers that keep audit records as they were written, whoever talks to the database.

An update may only empty the references to a deleted team or person. ``install`` may run at any time; it runs after
every migrate, because SQLite drops the triggers of a table whenever a migration rebuilds that table.
"""

TABLE = "teams_auditrecord"
EMPTIED = ("team_id", "actor_id")
KEPT = (
    "id", "actor_name", "action", "target_kind", "target_id", "target_name", "result", "detail", "address",
    "created_at",
)  # fmt: skip
REFUSAL = "audit records are never changed or deleted"


def install(connection) -> None:
    """Put the triggers of *connection*'s database in place; nothing when they are, or when there is no table yet."""
    with connection.cursor() as cursor:
        if TABLE not in connection.introspection.table_names(cursor):
            return
    remove(connection)
    _run(connection, _POSTGRESQL if connection.vendor == "postgresql" else _SQLITE)


def remove(connection) -> None:
    """Take the triggers away."""
    on = f" ON {TABLE}" if connection.vendor == "postgresql" else ""
    _run(connection, [f"DROP TRIGGER IF EXISTS {name}{on}" for name in _NAMES])


def after_migrate(sender, using, **kwargs) -> None:
    from django.db import connections

    install(connections[using])


def _run(connection, statements) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _same(distinct: str) -> str:
    """SQL: some kept column changes, or a reference changes to anything but null."""
    kept = [f"NEW.{column} {distinct} OLD.{column}" for column in KEPT]
    emptied = [f"(NEW.{column} IS NOT NULL AND NEW.{column} {distinct} OLD.{column})" for column in EMPTIED]
    return " OR ".join(kept + emptied)


_NAMES = ("audit_no_delete", "audit_no_update", "audit_no_truncate")
_SQLITE = [
    f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON {TABLE} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON {TABLE} WHEN {_same('IS NOT')} "
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
]
_POSTGRESQL = [
    f"CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$",
    f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON {TABLE} FOR EACH ROW "
    f"WHEN ({_same('IS DISTINCT FROM')}) EXECUTE FUNCTION audit_refuse()",
    f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {TABLE} FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
]
