"""A private SQLite file, used through a thread of its own."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from claudeproxy._reactor import IDaemonReactor

from .database import StoreLost

_UNUSABLE = {
    "attempt to write a readonly database",
    "database is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
}
"""What SQLite says when its file cannot be used at present; Python 3.10 has no codes for it."""


class SQLite:
    """One file, 0600 in a directory 0700, or one's memory, as a :class:`~.database.Database`. What
    is run is run in order: what was put is there for any call after it. Where the file cannot be
    used, each call finds out for itself, and ``lost_since`` stays ``None``."""

    log = Logger()
    lost_since: float | None = None

    def __init__(self, path: Path | None, prepare: Callable[[sqlite3.Connection], object]) -> None:
        """Create the file; one that SQLite cannot read is moved aside. Without a ``path`` it is in
        memory, and lost once it is closed. ``prepare``: called with every connection before its
        first use.

        :raises OSError, sqlite3.Error: when it cannot be created.
        """
        self._path = path
        self._prepare = prepare
        self._pool: ConnectionPool | None = None
        if path is None:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        with alone(path.parent):
            _make(path)
            if _is_broken(path):
                aside = path.with_name(f"{path.name}.broken")
                self.log.warn("{old} is broken: moved to {new}", old=str(path), new=str(aside))
                path.replace(aside)
                for leftover in ("-wal", "-shm"):  # of the old file, and poison for a new one
                    path.with_name(path.name + leftover).unlink(missing_ok=True)
                _make(path)
            # Of two that make a new file WAL at once, one would be told that it is locked. A file
            # that is locked now is in use, and so prepared.
            with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.OperationalError):
                prepare(connection)

    def open(self, reactor: IDaemonReactor) -> None:
        self._pool = ConnectionPool(
            "sqlite3",
            ":memory:" if self._path is None else str(self._path),
            check_same_thread=False,  # it is closed from the reactor's thread
            cp_reactor=reactor,
            cp_min=0,
            cp_max=1,  # one thread keeps the order
            cp_openfun=self._prepare,
        )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        assert self._pool is not None, "the database is not open"
        done: Deferred[Any] = self._pool.runInteraction(work, *args)
        return done.addErrback(self._failed)

    def _failed(self, why: Failure) -> Failure:
        if why.check(sqlite3.OperationalError) and str(why.value) in _UNUSABLE:
            self.log.warn("{file}: {why}", file=str(self._path), why=str(why.value))
            raise StoreLost(str(why.value)) from None
        return why

    def pairs(self, column: str) -> str:
        return f"json_each({column})"


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Whoever else does this with ``directory`` waits: daemons that start at the same time do not
    move what another one has just created."""
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
            return bool(connection.execute("PRAGMA quick_check").fetchone() != ("ok",))
        except sqlite3.OperationalError:
            return False  # locked by another daemon, or not for us to decide
        except sqlite3.DatabaseError:
            return True
