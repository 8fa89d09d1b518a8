"""The ledger's file, where there is no database for several machines."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from claudeproxy.store.sqlite import SQLite

from . import counts, hours, turns

_BY_REQUEST = "CREATE UNIQUE INDEX IF NOT EXISTS turns_of_requests ON turns (request_id)"


def sqlite_ledger(path: Path) -> SQLite:
    """The file of a ledger; one that SQLite cannot read is moved aside.

    :raises OSError, sqlite3.Error: when it cannot be created.
    """
    return SQLite(path, _prepare)


def _prepare(connection: sqlite3.Connection) -> None:
    # Rows survive a crash of the daemon, and are written without waiting for the disk; a crash of
    # the machine loses the last of them and breaks nothing.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(turns.SCHEMA + hours.SCHEMA)
    counts.prepare(connection)
    # A file of an older version lacks what has been added to the record since.
    known = {row[1] for row in connection.execute("PRAGMA table_info(turns)")}
    for name in turns.COLUMNS:
        if name not in known:
            connection.execute(f"ALTER TABLE turns ADD COLUMN {name}")
    try:
        connection.execute(_BY_REQUEST)
    except sqlite3.IntegrityError:  # nothing had kept a turn from being there twice
        connection.execute(
            "DELETE FROM turns WHERE id NOT IN (SELECT min(id) FROM turns GROUP BY request_id)"
        )
        connection.execute(_BY_REQUEST)
        connection.commit()
    connection.execute("DROP INDEX IF EXISTS turns_by_request")
