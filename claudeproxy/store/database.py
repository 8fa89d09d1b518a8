"""What the tables of the store need of a database: SQLite and PostgreSQL both provide it.

The statements of the tables are what the two have in common, with parameters written ``:name``, and
a ``CAST`` around those whose type nothing else in the statement tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from claudeproxy._reactor import IDaemonReactor

Row = tuple[Any, ...]


class StoreLost(Exception):
    """The database does not answer at present."""


class Cursor(Protocol):
    """The part of a DB-API cursor that work may use."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement has changed."""

    def execute(self, sql: str, values: Mapping[str, Any] = ..., /) -> object:
        """Run one statement."""

    def executemany(self, sql: str, values: Sequence[Mapping[str, Any]], /) -> object:
        """Run one statement for each of ``values``."""

    def fetchone(self) -> Any:
        """The next row; ``None`` if there is none."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Database(Protocol):
    """Runs work in threads, each piece in a transaction of its own."""

    @property
    def lost_since(self) -> float | None:
        """Epoch seconds since when it does not answer; ``None`` while it does."""

    def open(self, reactor: IDaemonReactor) -> None:
        """Get ready for calls."""

    def close(self) -> None:
        """Wait for the calls so far, and let go of everything."""

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of ``work(cursor, *args)``, called in a thread; more than once where others
        keep it from being committed. Fails with :class:`StoreLost` while the database does not
        answer, and when it did not confirm what it may have done."""

    def pairs(self, column: str) -> str:
        """A table expression: the ``key`` and ``value`` of each pair of the JSON object in
        ``column``."""
