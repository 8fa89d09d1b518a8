"""What the nodes know of their plans, a row an account."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from .database import Cursor, Database
from .tables import as_json

State = Mapping[str, Any]


class PlanTable:
    """``merge``: makes one state of two, in whatever order they come."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        merge: Callable[[State, State], State],
    ) -> None:
        self._database = database
        self._now = now
        self._merge = merge

    def load(self, account: str) -> Deferred[dict[str, Any] | None]:
        """The state of ``account``; ``None`` if none is known."""
        return self._database.run(self._load, account)

    def save(self, account: str, state: State) -> Deferred[None]:
        """Merge ``state`` into what is kept of ``account``."""
        return self._database.run(self._save, account, state)

    def _load(self, cursor: Cursor, account: str) -> dict[str, Any] | None:
        cursor.execute("SELECT state FROM plan WHERE account = :account", {"account": account})
        row = cursor.fetchone()
        return None if row is None else json.loads(row[0])

    def _save(self, cursor: Cursor, account: str, state: State) -> None:
        values = {"account": account, "state": as_json(state), "now": self._now()}
        # Also where there is a row: it is locked from here on.
        cursor.execute(
            "INSERT INTO plan (account, state, changed) VALUES (:account, :state, :now)"
            " ON CONFLICT (account) DO UPDATE SET changed = excluded.changed",
            values,
        )
        kept = self._load(cursor, account)
        merged = {**values, "state": as_json(state if kept is None else self._merge(kept, state))}
        cursor.execute(
            "UPDATE plan SET state = :state, changed = :now WHERE account = :account", merged
        )
