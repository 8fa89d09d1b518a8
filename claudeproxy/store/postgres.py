"""PostgreSQL, which several nodes share, as a :class:`~.database.Database`.

Works through pgbouncer, whatever its mode: nothing is set for a session, nothing is prepared.
(:mod:`.news` does not: what listens needs a session of its own.)
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from claudeproxy._reactor import IDaemonReactor

from .connection import (
    SILENCE,
    STATEMENT,
    Connection,
    PortableCursor,
    Silent,
    connect,
    parameters,
    reason,
)
from .database import StoreLost
from .migrations import SCHEMA, NewerSchema, migrate

CONNECTIONS = 4
"""How many there are at most, each with a thread."""

TRIES = 5
"""How often a transaction is begun that others keep from being committed."""

RETRY = 1.0
"""Seconds after an attempt to come back until the next one."""

# One round trip. What is set is set for the transaction: behind pgbouncer, the session is not ours.
_BEGIN = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path TO {SCHEMA};"
    f" SET LOCAL statement_timeout TO {STATEMENT * 1000:.0f};"
    # A node that is gone in the middle of a transaction does not keep its locks from the others.
    f" SET LOCAL idle_in_transaction_session_timeout TO {SILENCE * 1000:.0f}"
)


class PostgreSQL:
    """The database at a URL. While it does not answer, calls fail at once, and it is asked once a
    second whether it is back. A call that it did not confirm fails, though it may have been done:
    callers are to be such that they can call again.

    Calls run at once, in any order; each sees what those have committed that ended before it
    began.
    """

    log = Logger()

    def __init__(self, url: str, name: str = "claudemax") -> None:
        """Bring the tables up to date, which may take seconds. A database that cannot be used now
        is lost until it can: nodes are started together with it, and passwords are mended.

        ``name``: what the server calls this client.

        :raises psycopg.ProgrammingError: when ``url`` is none; its text may quote a password.
        :raises NewerSchema: when a later version has made the tables.
        """
        self._parameters = parameters(url, name)
        self.lost_since: float | None = None
        """Since when it does not answer, epoch seconds; ``None`` while it does."""
        self.why_lost = ""
        """Why, in words that have no password in them."""
        self.on_lost: list[Callable[[], object]] = []
        """Called in the reactor's thread once it is lost."""
        self.on_back: list[Callable[[], object]] = []
        """Called in the reactor's thread once it is back."""
        # Not psycopg_pool: that waits where we are to fail at once, comes back when it likes, and
        # has threads of its own. A connection for each thread is all that is needed.
        self._idle: deque[Connection] = deque()
        self._reactor: Any = None
        self._threads: ThreadPool | None = None
        self._attempt: Any = None
        self._at_exit: Any = None
        try:
            self._connect().close()  # whoever opens it may be another process
        except psycopg.Error as error:
            self._note_lost(reason(error))

    def open(self, reactor: IDaemonReactor) -> None:
        self._reactor = reactor
        self._threads = ThreadPool(0, CONNECTIONS, "store")
        self._threads.start()
        # Threads that are left over keep the process from ending.
        self._at_exit = reactor.addSystemEventTrigger("during", "shutdown", self._end)
        if self.lost_since is not None:
            self._attempt = reactor.callLater(RETRY, self._try_again)

    def close(self) -> None:
        if self._threads is not None:
            self._reactor.removeSystemEventTrigger(self._at_exit)
            self._end()

    def _end(self) -> None:
        threads, self._threads = self._threads, None
        assert threads is not None
        if self._attempt is not None and self._attempt.active():
            self._attempt.cancel()
        threads.stop()
        self._let_go()

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        assert self._threads is not None, "the database is not open"
        if self.lost_since is not None:
            return fail(StoreLost(self.why_lost))
        done = deferToThreadPool(self._reactor, self._threads, self._call, work, args)
        return done.addErrback(self._failed)

    def listen(self, channel: str) -> Deferred[Connection]:
        """A connection of the caller's own that is told what is notified on ``channel``.

        :raises StoreLost: when there is none to be had.
        """
        assert self._threads is not None, "the database is not open"
        made = deferToThreadPool(self._reactor, self._threads, self._listen, channel)
        return made.addErrback(self._failed)

    def pairs(self, column: str) -> str:
        # JSON may have a NUL in a string, jsonb may not.
        return rf"jsonb_each_text(replace({column}, '\u0000', '\ufffd')::jsonb)"

    # -- lost and back --

    def _failed(self, why: Failure) -> Failure:
        if why.check(_Gone) and self._threads is not None and self.lost_since is None:
            self._note_lost(reason(why))
            self._try_again()
            for observer in list(self.on_lost):
                observer()
        return why

    def _note_lost(self, why: str) -> None:
        if self.lost_since is None:
            self.lost_since = time.time()
        if why != self.why_lost:
            self.why_lost = why
            self.log.warn("the store is lost (--store): {why}", why=self.why_lost)

    def _try_again(self) -> None:
        assert self._threads is not None
        attempt = deferToThreadPool(self._reactor, self._threads, self._reach)
        attempt.addCallbacks(lambda _: self._is_back(), self._not_back)

    def _reach(self) -> None:
        self._let_go()  # those of before are dead, or will be
        self._idle.append(self._connect())

    def _is_back(self) -> None:
        if self._threads is None or self.lost_since is None:
            return
        seconds = time.time() - self.lost_since
        self.lost_since, self.why_lost = None, ""
        self.log.info("the store is back, after {seconds:.0f} s", seconds=seconds)
        for observer in list(self.on_back):
            observer()

    def _not_back(self, why: Failure) -> None:
        if self._threads is None:
            return
        if not why.check(psycopg.Error, NewerSchema):
            self.log.failure("an attempt to reach the store", why)
        self._note_lost(reason(why))
        self._attempt = self._reactor.callLater(RETRY, self._try_again)

    # -- in a thread --

    def _connect(self) -> Connection:
        connection = connect(self._parameters)
        try:
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _listen(self, channel: str) -> Connection:
        try:
            connection = connect(self._parameters)
            connection.execute(f"LISTEN {channel}".encode())
        except psycopg.Error as error:
            raise _Gone(reason(error)) from error
        return connection

    def _let_go(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _call(self, work: Callable[..., Any], args: Sequence[Any]) -> Any:
        for _ in range(TRIES):
            connection = self._begun()
            try:
                result = work(PortableCursor(connection.cursor()), *args)
                connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back(connection, error)
                if isinstance(error, (SerializationFailure, DeadlockDetected)):
                    time.sleep(random.uniform(0, 0.05))
                    continue
                if connection.closed:
                    raise _Gone(reason(error)) from error
                if isinstance(error, psycopg.OperationalError):
                    raise StoreLost(reason(error)) from error
                raise
            self._idle.append(connection)
            return result
        raise StoreLost(f"others were in the way {TRIES} times")

    def _begun(self) -> Connection:
        """A connection in a transaction."""
        while self.lost_since is None:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            try:
                connection.execute(_BEGIN)
            except psycopg.OperationalError as error:
                connection.close()
                if isinstance(error, Silent):
                    raise _Gone(reason(error)) from error
                continue  # it had ended while it was at rest, and nothing is lost yet
            return connection
        if self.lost_since is not None:
            raise StoreLost(self.why_lost)
        try:
            connection = connect(self._parameters)
            connection.execute(_BEGIN)
        except psycopg.OperationalError as error:
            raise _Gone(reason(error)) from error
        return connection

    def _roll_back(self, connection: Connection, error: BaseException) -> None:
        """Leave ``connection`` ready for others, or closed."""
        try:
            if isinstance(error, ReadOnlySqlTransaction):
                connection.close()  # it has become a standby, and another server is the primary
            else:
                connection.execute("ROLLBACK")
                self._idle.append(connection)
        except psycopg.Error:
            connection.close()


class _Gone(StoreLost):
    """The database has gone while the call was under way."""
