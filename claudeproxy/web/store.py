"""The store: responses here, and besides them conversations and chat completions.

This is the only place where prompts and answers are written to disk: in one SQLite file that is
private to the user (0600 in a directory 0700) and limited in size and age. A thread of its own
reads and writes it, in the order of the calls.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from claudeproxy._database import Database

from .completion_table import SCHEMA as COMPLETIONS
from .completion_table import CompletionTable
from .conversation_table import SCHEMA as CONVERSATIONS
from .conversation_table import ConversationTable
from .tables import HIS, MAX_AGE, MAX_BYTES, Bounds, as_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL, input TEXT NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, key TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON responses (used, size);
CREATE TABLE IF NOT EXISTS events (
    response TEXT PRIMARY KEY REFERENCES responses ON DELETE CASCADE, data BLOB NOT NULL
) WITHOUT ROWID;
"""

_CHAIN = f"""
WITH RECURSIVE chain (id, previous, place) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND {HIS}
    UNION ALL
    SELECT r.id, r.previous, place + 1 FROM responses r JOIN chain ON r.id = chain.previous
)
"""


@frozen
class Stored:
    """A response with its own input: ``items``, without those of ``previous``. ``key``: the name
    of the key it was made with; ``events``: those of its stream, if it ran in the background."""

    response: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    previous: str | None = None
    key: str | None = None
    events: bytes = b""

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.response["id"])

    @property
    def output(self) -> Sequence[Mapping[str, Any]]:
        """The items of the response."""
        output: Sequence[Mapping[str, Any]] = self.response["output"]
        return output


class Store:
    """All methods but :meth:`open` and :meth:`close` return a Deferred of what they describe. What
    was put is there for any call after it. To the holder of a ``key``, the responses of others do
    not exist; without one (``None``), all of them do."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        now: Callable[[], float] = time.time,
        *,
        max_age: float = MAX_AGE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Create the file; one that SQLite cannot read is moved aside.

        :raises OSError, sqlite3.Error: when it cannot be created.
        """
        self._now = now
        self._bounds = Bounds(max_age, max_bytes)
        self._database = Database(path, _prepare)
        self.conversations = ConversationTable(self._database, now, self._bounds)
        self.completions = CompletionTable(self._database, now, self._bounds)

    def open(self, reactor: IReactorFromThreads) -> None:
        """Get ready for calls."""
        self._database.open(reactor)

    def close(self) -> None:
        """Wait for the calls so far, and close the file."""
        self._database.close()

    def put(self, stored: Stored) -> Deferred[bool]:
        """Store a response, and delete what is too old or too much. Whether it is stored. Never
        fails: errors are logged."""

        def failed(why: Failure) -> bool:
            self.log.failure("a response was not stored", why)
            return False

        return self._database.run(self._put, stored).addErrback(failed)

    def get(self, ident: str, key: str | None = None) -> Deferred[Stored | None]:
        """A response by its id."""
        return self._database.run(self._get, ident, key)

    def events(self, ident: str) -> Deferred[bytes]:
        """The events of a response that ran in the background, else nothing."""
        return self._database.run(self._events, ident)

    def chain(self, ident: str, key: str | None = None) -> Deferred[list[Stored] | None]:
        """A response and all before it, the oldest first; ``None`` if one of them is missing."""
        return self._database.run(self._chain, ident, key)

    def delete(self, ident: str, key: str | None = None) -> Deferred[bool]:
        """Delete a response. Whether there was one."""
        return self._database.run(self._delete, ident, key)

    # -- in the thread --

    def _put(self, cursor: Any, stored: Stored) -> bool:
        response, items = as_json(stored.response), as_json(list(stored.items))
        size = len(response) + len(items) + len(stored.events)
        if size > self._bounds.max_bytes:
            return False
        now = self._now()
        cursor.execute(
            "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stored.id, stored.previous, response, items, size, now, stored.key),
        )
        if stored.events:
            cursor.execute("INSERT INTO events VALUES (?, ?)", (stored.id, stored.events))
        self._bounds.tidy(cursor, "responses", now)
        return True

    def _events(self, cursor: Any, ident: str) -> bytes:
        cursor.execute("SELECT data FROM events WHERE response = ?", (ident,))
        return b"".join(data for (data,) in cursor.fetchall())

    def _get(self, cursor: Any, ident: str, key: str | None) -> Stored | None:
        cursor.execute(
            "SELECT response, input, previous, key FROM responses"
            f" WHERE id = :id AND {HIS} AND used >= :since",
            {"id": ident, "key": key, "since": self._now() - self._bounds.max_age},
        )
        return next(map(_stored, cursor.fetchall()), None)

    def _chain(self, cursor: Any, ident: str, key: str | None) -> list[Stored] | None:
        wanted = {"id": ident, "key": key, "now": self._now()}
        cursor.execute(
            f"{_CHAIN} SELECT response, input, r.previous, key FROM responses r"
            " JOIN chain USING (id) ORDER BY place DESC",
            wanted,
        )
        found = list(map(_stored, cursor.fetchall()))
        if not found or found[0].previous is not None:
            return None
        cursor.execute(
            f"{_CHAIN} UPDATE responses SET used = :now WHERE id IN (SELECT id FROM chain)",
            wanted,
        )
        return found

    def _delete(self, cursor: Any, ident: str, key: str | None) -> bool:
        cursor.execute(f"DELETE FROM responses WHERE id = :id AND {HIS}", {"id": ident, "key": key})
        return bool(cursor.rowcount)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks, too
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(_SCHEMA + CONVERSATIONS + COMPLETIONS)
    if not any(row[1] == "key" for row in connection.execute("PRAGMA table_info (responses)")):
        connection.execute("ALTER TABLE responses ADD COLUMN key TEXT")  # made without it


def _stored(row: tuple[str, str, str | None, str | None]) -> Stored:
    response, items, previous, key = row
    return Stored(json.loads(response), json.loads(items), previous, key)
