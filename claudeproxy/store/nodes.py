"""Which nodes are alive: each says so every few seconds, by the clock of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .database import Cursor, StoreLost
from .postgres import PostgreSQL

BEAT = 5.0
"""Seconds from one heartbeat to the next."""

DEAD = 15
"""Seconds after its last heartbeat when a node is dead."""

FORGOTTEN = 24 * 3600
"""Seconds after which it is forgotten."""


def alive(seconds: int = DEAD) -> str:
    """A condition in SQL: whether a row of ``nodes`` has been seen within ``seconds``."""
    return f"nodes.seen > clock_timestamp() - INTERVAL '{seconds} seconds'"


class Nodes:
    """This node among the others."""

    log = Logger()

    def __init__(self, clock: IReactorTime, database: PostgreSQL, node: str) -> None:
        """``node``: the id of this one, different for each run of it."""
        self.node = node
        self.alive: Sequence[str] = ()
        """The ids of those that were alive at the last heartbeat, in order."""
        self.on_beat: list[Callable[[], object]] = []
        """Called after each heartbeat that the database has confirmed."""
        self.on_dead: list[Callable[[], object]] = []
        """Called when the others may think this node dead, and have what it had."""
        self._clock = clock
        self._database = database
        self._beating = LoopingCall(self.beat)
        self._beating.clock = clock
        self._expiry: Any = None
        self._stopped = False

    def seconds(self) -> float:
        """By the clock of this node."""
        return self._clock.seconds()

    def start(self) -> None:
        """Begin with the heartbeats."""
        self._database.on_back.append(self.beat)
        self._beating.start(BEAT)

    async def stop(self) -> None:
        """Leave: what the node has is free at once."""
        self._beating.stop()
        self._database.on_back.remove(self.beat)
        self._stopped = True
        self._expire_in(None)
        with suppress(StoreLost):  # it is dead in a moment, then
            await self._database.run(_leave, self.node)

    def is_alive(self, node: str) -> Deferred[bool]:
        """Whether ``node`` is, by now."""
        return self._database.run(_is_alive, node)

    def beat(self) -> Deferred[None]:
        """Say that this node is alive. Never fails: it is said again."""
        began = self._clock.seconds()

        def beaten(told: tuple[bool, list[str]]) -> None:
            was_alive, self.alive = told
            self.confirmed(was_alive, began)
            for observer in list(self.on_beat):
                observer()

        def failed(why: Failure) -> None:
            if not why.check(StoreLost):
                self.log.failure("a heartbeat", why)

        return self._database.run(_beat, self.node).addCallback(beaten).addErrback(failed)

    def confirmed(self, was_alive: bool, began: float) -> None:
        """A transaction that began with :func:`seen` is committed; ``was_alive``: what that said;
        ``began``: when it was asked for, by the clock."""
        if not was_alive:
            self._died()
        if not self._stopped:
            self._expire_in(began + DEAD - self._clock.seconds())

    def _expire_in(self, seconds: float | None) -> None:
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        if seconds is not None:
            self._expiry = self._clock.callLater(max(0.0, seconds), self._died)

    def _died(self) -> None:
        for observer in list(self.on_dead):
            observer()


def seen(cursor: Cursor, node: str) -> bool:
    """Note that ``node`` is alive. Whether it was; if not, it has nothing any more."""
    # Its row is locked first: two that find it dead at once would each throw away what the other
    # has taken since.
    cursor.execute(
        "INSERT INTO nodes (id, seen) VALUES (:node, to_timestamp(0))"
        " ON CONFLICT (id) DO UPDATE SET id = excluded.id",
        {"node": node},
    )
    cursor.execute(
        f"UPDATE nodes SET seen = clock_timestamp() WHERE id = :node AND {alive()}", {"node": node}
    )
    if cursor.rowcount:
        return True
    cursor.execute("DELETE FROM leases WHERE node = :node", {"node": node})
    cursor.execute("UPDATE nodes SET seen = clock_timestamp() WHERE id = :node", {"node": node})
    return False


def _beat(cursor: Cursor, node: str) -> tuple[bool, list[str]]:
    was_alive = seen(cursor, node)
    cursor.execute(f"DELETE FROM nodes WHERE NOT {alive(FORGOTTEN)}")
    cursor.execute(f"SELECT id FROM nodes WHERE {alive()} ORDER BY id")
    return was_alive, [ident for (ident,) in cursor.fetchall()]


def _is_alive(cursor: Cursor, node: str) -> bool:
    cursor.execute(f"SELECT 1 FROM nodes WHERE id = :node AND {alive()}", {"node": node})
    return cursor.fetchone() is not None


def _leave(cursor: Cursor, node: str) -> None:
    cursor.execute("DELETE FROM nodes WHERE id = :node", {"node": node})
