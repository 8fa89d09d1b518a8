"""What only one node may do at a time: it has a lease for it, which ends with the node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.logger import Logger

from .database import Cursor, StoreLost
from .nodes import Nodes, alive, seen
from .postgres import PostgreSQL


class Leases:
    """The leases of one node. They count while it is alive: those of a node that is killed are free
    once it is dead to the others."""

    log = Logger()

    def __init__(self, nodes: Nodes, database: PostgreSQL) -> None:
        self.held: set[str] = set()
        """The names of those that this node has. It gives up believing so when others may have
        them."""
        self._nodes = nodes
        self._database = database
        # Rows that are not held are deleted: none must appear meanwhile.
        self._lock = DeferredLock()
        self._left_over = False
        nodes.on_dead.append(self.held.clear)
        nodes.on_beat.append(self._tidy)

    def take(self, names: Sequence[str]) -> Deferred[set[str]]:
        """Those of ``names`` that another node has: without any, all of them are this node's now,
        with some, none is that was not before.

        :raises StoreLost: (in the Deferred) when it is not known.
        """
        return self._lock.run(lambda: ensureDeferred(self._take(sorted(set(names)))))

    async def _take(self, names: list[str]) -> set[str]:
        began = self._nodes.seconds()
        try:
            was_alive = await self._database.run(_take, self._nodes.node, names)
        except _Taken as taken:
            return taken.names
        except StoreLost:
            self._left_over = True  # it may have been done
            raise
        self._nodes.confirmed(was_alive, began)
        self.held.update(names)
        return set()

    def release(self, names: Sequence[str]) -> Deferred[None]:
        """Let others have them. Never fails: what cannot be told now is told when it can."""
        self.held.difference_update(names)
        self._left_over = True
        return self._lock.run(lambda: ensureDeferred(self._delete_left_over()))

    def _tidy(self) -> None:
        if self._left_over:
            self._lock.run(lambda: ensureDeferred(self._delete_left_over()))

    async def _delete_left_over(self) -> None:
        self._left_over = False
        try:
            await self._database.run(_keep, self._nodes.node, list(self.held))
        except StoreLost:
            self._left_over = True
        except Exception:
            self.log.failure("leases that are not needed any more")


class _Taken(Exception):
    """Undoes the transaction."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(names)
        self.names = names


def _take(cursor: Cursor, node: str, names: list[str]) -> bool:
    was_alive = seen(cursor, node)
    # One at a time: a statement that had to wait for another's row would not see its node.
    cursor.execute("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE")
    taken = set()
    for name in names:
        cursor.execute(
            "INSERT INTO leases (name, node) VALUES (:name, :node)"
            " ON CONFLICT (name) DO UPDATE SET node = excluded.node"
            " WHERE leases.node = excluded.node OR NOT EXISTS"
            f" (SELECT 1 FROM nodes WHERE nodes.id = leases.node AND {alive()})",
            {"name": name, "node": node},
        )
        if not cursor.rowcount:
            taken.add(name)
    if taken:
        raise _Taken(taken)
    return was_alive


def _keep(cursor: Any, node: str, names: list[str]) -> None:
    cursor.execute(
        "DELETE FROM leases WHERE node = :node AND name <> ALL(CAST(:names AS TEXT[]))",
        {"node": node, "names": names},
    )
