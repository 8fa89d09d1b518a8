"""The tables in PostgreSQL: made, and brought up to what this version knows."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from .connection import Connection

SCHEMA = "claudemax"
"""The schema that all tables are in: the database may be shared with other programs."""

_LOCK = 0x636C_6175_6465  # any number will do that no other program locks


LONGEST = 60.0
"""Seconds that a statement of a migration may take, its waiting for other nodes included."""


class NewerSchema(Exception):
    """The tables are of a later version of claudemax."""


def scripts() -> Iterator[tuple[int, str]]:
    """The number and the statements of each migration, in order."""
    folder = files(__package__) / "migrations"
    for script in sorted(folder.iterdir(), key=lambda each: each.name):
        if script.name.endswith(".sql"):
            yield int(script.name.partition("_")[0]), script.read_text("utf-8")


def migrate(connection: Connection) -> None:
    """Bring the tables up to date, all of it or nothing; nodes that start together take turns.

    Who has no right to create anything can use tables that are up to date.

    :raises NewerSchema: when a later version has made them.
    :raises psycopg.Error: when the database does not do it.
    """
    known = list(scripts())
    if _missing(connection.cursor(), known):
        connection.patience = LONGEST
        with connection.transaction(), connection.cursor() as cursor:
            # Of the transaction, not of the session: pgbouncer gives that to somebody else.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            for number, statements in _missing(cursor, known):
                if number == 1 and not _there(cursor, "pg_namespace WHERE nspname = %s"):
                    cursor.execute(f"CREATE SCHEMA {SCHEMA}")
                cursor.execute(f"SET LOCAL search_path TO {SCHEMA}")
                cursor.execute(statements.encode())
                cursor.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))
        connection.patience = Connection.patience


def _missing(cursor: Any, known: list[tuple[int, str]]) -> list[tuple[int, str]]:
    done, latest = version(cursor), known[-1][0]
    if done > latest:
        raise NewerSchema(
            f"its tables have version {done}, and this claudemax knows {latest}: update it"
        )
    return [(number, statements) for number, statements in known if number > done]


def version(cursor: Any) -> int:
    """That of the tables that are there; 0 without any."""
    if not _there(cursor, "pg_tables WHERE schemaname = %s AND tablename = 'schema_version'"):
        return 0
    cursor.execute(f"SELECT coalesce(max(version), 0) FROM {SCHEMA}.schema_version")
    found: int = cursor.fetchone()[0]
    return found


def _there(cursor: Any, what: str) -> bool:
    # to_regclass() may not know yet what another session has just created.
    cursor.execute(f"SELECT EXISTS (SELECT 1 FROM pg_catalog.{what})".encode(), (SCHEMA,))
    return bool(cursor.fetchone()[0])
