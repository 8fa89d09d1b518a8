"""What nodes tell each other at once, by NOTIFY: nothing is kept of it.

Who was away has missed it, and reads the tables again once :attr:`News.on_back` is called. Needs a
session of its own: behind a pgbouncer that gives out transactions, nothing is heard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from claudeproxy._reactor import IReadingReactor

from .connection import Connection
from .database import Cursor, StoreLost
from .postgres import RETRY, PostgreSQL

CHANNEL = "claudemax"

LONGEST = 7900
"""Bytes of a message in JSON; PostgreSQL takes 7,999."""


@implementer(IReadDescriptor)
class News:
    """What this node tells the others, and hears from them. The order in which things are told is
    not kept."""

    log = Logger()

    def __init__(self, reactor: IReadingReactor, database: PostgreSQL, node: str) -> None:
        """``node``: the id of this one."""
        self.heard: list[Callable[[str, dict[str, Any]], object]] = []
        """Called with the kind and the content of what another node tells."""
        self.on_lost: list[Callable[[], object]] = []
        """Called when nothing is heard any more."""
        self.on_back: list[Callable[[], object]] = []
        """Called when everything is heard from now on; for the first time after the start."""
        self._reactor = reactor
        self._database = database
        self._node = node
        self._connection: Connection | None = None
        self._trying = self._stopped = False
        self._again: IDelayedCall | None = None

    def start(self) -> None:
        """Listen, as soon as the database answers."""
        self._database.on_lost.append(self._drop)
        self._database.on_back.append(self._listen)
        self._listen()

    def stop(self) -> None:
        """Hear nothing any more."""
        self._stopped = True
        self._database.on_lost.remove(self._drop)
        self._database.on_back.remove(self._listen)
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._close()

    def tell(self, kind: str, what: Mapping[str, Any]) -> None:
        """Tell all other nodes, now or not at all.

        :raises ValueError: when it is too long.
        """
        told = json.dumps([self._node, kind, what], separators=(",", ":"))
        if len(told) > LONGEST:
            raise ValueError(f"news of {len(told)} bytes ({kind}): at most {LONGEST}")
        self._database.run(_notify, told).addErrback(self._not_told, kind)

    def _not_told(self, why: Failure, kind: str) -> None:
        if not why.check(StoreLost):
            self.log.failure("telling the other nodes ({kind})", why, kind=kind)

    # -- the connection --

    def _listen(self) -> None:
        if self._stopped or self._trying or self._connection or self._database.lost_since:
            return  # on_back of the database calls again
        self._trying = True
        self._database.listen(CHANNEL).addCallbacks(self._listening, self._not_listening)

    def _listening(self, connection: Connection) -> None:
        self._trying = False
        if self._stopped or self._database.lost_since:
            connection.close()
            return
        self._connection = connection
        # libpq closes its own when the server is gone, and the reactor would not let go of it.
        self._number = os.dup(connection.fileno())
        self._reactor.addReader(self)
        for observer in list(self.on_back):
            observer()

    def _not_listening(self, why: Failure) -> None:
        self._trying = False
        if not why.check(StoreLost):
            self.log.failure("listening to the other nodes", why)
        if not self._stopped:
            self._again = self._reactor.callLater(RETRY, self._listen)

    def _drop(self) -> None:
        if self._close():
            for observer in list(self.on_lost):
                observer()

    def _close(self) -> bool:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._reactor.removeReader(self)
            os.close(self._number)
            connection.close()
        return connection is not None

    # -- of the reactor --

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "news"

    def connectionLost(self, reason: Failure) -> None:
        self._close()  # the reactor stops

    def doRead(self) -> None:
        assert self._connection is not None
        told: list[bytes] = []
        try:
            self._connection.pgconn.consume_input()
            while message := self._connection.pgconn.notifies():
                told.append(message.extra)
        except psycopg.OperationalError:
            self._drop()
            self._listen()
        for each in told:
            try:
                self._tell_observers(each)
            except Exception:  # the reactor would not let it hear anything any more
                self.log.failure("news that are not understood")

    def _tell_observers(self, told: bytes) -> None:
        node, kind, what = json.loads(told)
        if node != self._node:
            for observer in list(self.heard):
                observer(kind, what)


def _notify(cursor: Cursor, told: str) -> None:
    cursor.execute("SELECT pg_notify(:channel, :told)", {"channel": CHANNEL, "told": told})
