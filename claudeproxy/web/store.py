"""Stored responses: what ``store`` and ``previous_response_id`` of the Responses API need.

The one place where prompts and answers are written to disk. One SQLite file, private to the user
(0600 in a directory 0700), bounded in size and age, read and written in one thread of its own, in
the order asked.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred
from twisted.logger import Logger

MAX_AGE = 30 * 24 * 3600.0
"""Seconds a response is kept after it was last gone on from."""

MAX_BYTES = 256 * 1024 * 1024
"""Of JSON in all; the responses longest unused go first."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL, input TEXT NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON responses (used, size);
"""

_TRIM = """
DELETE FROM responses WHERE id IN (
    SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY used DESC, id) AS so_far FROM responses)
    WHERE so_far > ?
)
"""

_CHAIN = """
WITH RECURSIVE chain (id, previous, place) AS (
    SELECT id, previous, 0 FROM responses WHERE id = ?
    UNION ALL
    SELECT r.id, r.previous, place + 1 FROM responses r JOIN chain ON r.id = chain.previous
)
"""


@frozen
class Stored:
    """A response with the input it answered: ``items``, without those of ``previous``."""

    response: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    previous: str | None = None

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.response["id"])

    @property
    def output(self) -> Sequence[Mapping[str, Any]]:
        """The response's items."""
        output: Sequence[Mapping[str, Any]] = self.response["output"]
        return output


class Store:
    """Every method but :meth:`open` and :meth:`close` returns a Deferred of what it is said to
    return. What is put can be had by anything asked after it."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        now: Callable[[], float] = time.time,
        *,
        max_age: float = MAX_AGE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Makes the file; one that SQLite cannot read is moved aside.

        :raises OSError, sqlite3.Error: when it cannot be made.
        """
        self._path = path
        self._now = now
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._pool: ConnectionPool | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        with _alone(path.parent):
            _make(path)
            if _is_broken(path):
                aside = path.with_name(f"{path.name}.broken")
                self.log.warn("{old} is broken: moved to {new}", old=str(path), new=str(aside))
                path.replace(aside)
                _make(path)

    def open(self, reactor: Any) -> None:
        """Ready to be asked."""
        self._pool = ConnectionPool(
            "sqlite3",
            str(self._path),
            check_same_thread=False,  # it is closed from the reactor's thread
            cp_reactor=reactor,
            cp_min=0,
            cp_max=1,  # one thread keeps the order
            cp_openfun=_prepare,
        )

    def close(self) -> None:
        """Wait for what has been asked, and close the file."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def put(self, stored: Stored) -> Deferred[None]:
        """Keep a response, and drop what is too old or too much. Never fails: it is logged."""
        done = self._run(self._put, stored)
        return done.addErrback(lambda why: self.log.failure("a response was not stored", why))

    def get(self, ident: str) -> Deferred[Stored | None]:
        """A response by its id."""
        return self._run(self._get, ident)

    def chain(self, ident: str) -> Deferred[list[Stored] | None]:
        """A response and all before it, the oldest first; none when one of them is gone."""
        return self._run(self._chain, ident)

    def delete(self, ident: str) -> Deferred[bool]:
        """Whether there was such a response; now there is none."""
        return self._run(self._delete, ident)

    def _run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        assert self._pool is not None, "the store is not open"
        return self._pool.runInteraction(work, *args)

    # -- in the thread --

    def _put(self, cursor: Any, stored: Stored) -> None:
        response, items = _json(stored.response), _json(list(stored.items))
        size = len(response) + len(items)
        if size > self._max_bytes:
            return
        now = self._now()
        cursor.execute("DELETE FROM responses WHERE used < ?", (now - self._max_age,))
        cursor.execute(
            "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?)",
            (stored.id, stored.previous, response, items, size, now),
        )
        cursor.execute(_TRIM, (self._max_bytes,))

    def _get(self, cursor: Any, ident: str) -> Stored | None:
        cursor.execute(
            "SELECT response, input, previous FROM responses WHERE id = ? AND used >= ?",
            (ident, self._now() - self._max_age),
        )
        return next(map(_stored, cursor.fetchall()), None)

    def _chain(self, cursor: Any, ident: str) -> list[Stored] | None:
        cursor.execute(
            f"{_CHAIN} SELECT response, input, r.previous FROM responses r"
            " JOIN chain USING (id) ORDER BY place DESC",
            (ident,),
        )
        found = list(map(_stored, cursor.fetchall()))
        if not found or found[0].previous is not None:
            return None
        cursor.execute(
            f"{_CHAIN} UPDATE responses SET used = ? WHERE id IN (SELECT id FROM chain)",
            (ident, self._now()),
        )
        return found

    def _delete(self, cursor: Any, ident: str) -> bool:
        cursor.execute("DELETE FROM responses WHERE id = ?", (ident,))
        return bool(cursor.rowcount)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other daemon that starts at the same time moves what this one has just made."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


def _is_broken(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("PRAGMA quick_check").fetchone() != ("ok",)
        except sqlite3.OperationalError:
            return False  # locked by another daemon, or not ours to judge
        except sqlite3.DatabaseError:
            return True


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks, too
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(_SCHEMA)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _stored(row: tuple[str, str, str | None]) -> Stored:
    response, items, previous = row
    return Stored(json.loads(response), json.loads(items), previous)
