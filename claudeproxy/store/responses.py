"""Stored responses, and what chains them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from .database import Cursor, Database
from .tables import HIS, Bounds, Broom, as_json

SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous TEXT, response TEXT NOT NULL, input TEXT NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, key TEXT, node TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON responses (used, size);
CREATE TABLE IF NOT EXISTS events (
    response TEXT PRIMARY KEY REFERENCES responses ON DELETE CASCADE, data BLOB NOT NULL
) WITHOUT ROWID;
"""

_REPLACED = ", ".join(
    f"{name} = excluded.{name}"
    for name in ("previous", "response", "input", "size", "used", "key", "node")
)

_STORED = "response, input, responses.previous, key, node"

_CHAIN = f"""
WITH RECURSIVE chain (id, previous, place) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND {HIS}
    UNION ALL
    SELECT r.id, r.previous, place + 1 FROM responses r JOIN chain ON r.id = chain.previous
)
"""


RUNNING = ("queued", "in_progress")
"""The statuses of a response that is not over."""


@frozen
class Stored:
    """A response with its own input: ``items``, without those of ``previous``. ``key``: the name
    of the key it was made with; ``events``: those of its stream, if it ran in the background;
    ``node``: the id of the one that runs it, where there are several."""

    response: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    previous: str | None = None
    key: str | None = None
    events: bytes = b""
    node: str | None = None

    @property
    def running(self) -> bool:
        """Whether it is stored as one that is not over."""
        return self.response.get("status") in RUNNING

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.response["id"])

    @property
    def output(self) -> Sequence[Mapping[str, Any]]:
        """The items of the response."""
        output: Sequence[Mapping[str, Any]] = self.response["output"]
        return output


class ResponseTable:
    """All methods return a Deferred of what they describe. To the holder of a ``key``, the
    responses of others do not exist; without one (``None``), all of them do."""

    def __init__(self, database: Database, now: Callable[[], float], bounds: Bounds) -> None:
        self._database = database
        self._now = now
        self._bounds = bounds
        self._broom = Broom("responses", bounds)

    def begin(self, stored: Stored) -> Deferred[bool]:
        """Store a response that has begun, unless it is there. Whether there is room for it."""
        return self._database.run(self._put, stored, "NOTHING")

    def put(self, stored: Stored) -> Deferred[bool]:
        """Store a response, in place of what is there of it. Whether there is room for it."""
        return self._database.run(self._put, stored, f"UPDATE SET {_REPLACED}")

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

    def _put(self, cursor: Cursor, stored: Stored, otherwise: str) -> bool:
        response, items = as_json(stored.response), as_json(list(stored.items))
        size = len(response) + len(items) + len(stored.events)
        if size > self._bounds.max_bytes:
            return False
        now = self._now()
        values = {
            "id": stored.id,
            "previous": stored.previous,
            "response": response,
            "input": items,
            "size": size,
            "used": now,
            "key": stored.key,
            "node": stored.node,
        }
        cursor.execute(
            f"INSERT INTO responses ({', '.join(values)})"
            f" VALUES ({', '.join(f':{name}' for name in values)})"
            f" ON CONFLICT (id) DO {otherwise}",
            values,
        )
        if stored.events:
            cursor.execute(
                "INSERT INTO events (response, data) VALUES (:id, :data)"
                " ON CONFLICT (response) DO UPDATE SET data = excluded.data",
                {"id": stored.id, "data": stored.events},
            )
        self._broom.sweep(cursor, now)
        return True

    def _events(self, cursor: Cursor, ident: str) -> bytes:
        cursor.execute("SELECT data FROM events WHERE response = :id", {"id": ident})
        return b"".join(bytes(data) for (data,) in cursor.fetchall())

    def _get(self, cursor: Cursor, ident: str, key: str | None) -> Stored | None:
        cursor.execute(
            f"SELECT {_STORED} FROM responses WHERE id = :id AND {HIS} AND used >= :since",
            {"id": ident, "key": key, "since": self._now() - self._bounds.max_age},
        )
        return next(map(_stored, cursor.fetchall()), None)

    def _chain(self, cursor: Cursor, ident: str, key: str | None) -> list[Stored] | None:
        wanted = {"id": ident, "key": key, "now": self._now()}
        cursor.execute(
            f"{_CHAIN} SELECT {_STORED} FROM responses JOIN chain USING (id) ORDER BY place DESC",
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

    def _delete(self, cursor: Cursor, ident: str, key: str | None) -> bool:
        cursor.execute(f"DELETE FROM responses WHERE id = :id AND {HIS}", {"id": ident, "key": key})
        return bool(cursor.rowcount)


def _stored(row: tuple[str, str, str | None, str | None, str | None]) -> Stored:
    response, items, previous, key, node = row
    return Stored(json.loads(response), json.loads(items), previous, key, node=node)
