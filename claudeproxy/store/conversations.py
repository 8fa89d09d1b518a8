"""Stored conversations: their metadata, and their items in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from .database import Cursor, Database
from .tables import HIS, Bounds, Broom, as_json

SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (
    id TEXT PRIMARY KEY, created INTEGER NOT NULL, metadata TEXT NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, key TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS conversations_by_use ON conversations (used, size);
CREATE TABLE IF NOT EXISTS items (
    conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
    place INTEGER NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL,
    PRIMARY KEY (conversation, place), UNIQUE (conversation, id)
) WITHOUT ROWID;
"""

Item = Mapping[str, Any]


@frozen
class Conversation:
    """``created``: epoch seconds."""

    id: str
    created: int
    metadata: Mapping[str, str]


class ConversationTable:
    """All methods return a Deferred of what they describe, and treat the conversations of another
    ``key`` as if they did not exist."""

    def __init__(self, database: Database, now: Callable[[], float], bounds: Bounds) -> None:
        self._database = database
        self._now = now
        self._bounds = bounds
        self._broom = Broom("conversations", bounds)

    def create(self, made: Conversation, items: Sequence[Item], key: str | None) -> Deferred[bool]:
        """Begin a conversation with ``items``, each with an ``id``. Whether there is room for
        them."""
        return self._database.run(self._create, made, items, key)

    def get(self, ident: str, key: str | None) -> Deferred[Conversation | None]:
        """A conversation by its id."""
        return self._database.run(self._get, ident, key)

    def update(
        self, ident: str, metadata: Mapping[str, str], key: str | None
    ) -> Deferred[Conversation | None]:
        """The conversation with other metadata; ``None`` if there is none."""
        return self._database.run(self._update, ident, metadata, key)

    def delete(self, ident: str, key: str | None) -> Deferred[bool]:
        """Delete a conversation and its items. Whether there was one."""
        return self._database.run(self._delete, ident, key)

    def items(self, ident: str, key: str | None) -> Deferred[list[Item] | None]:
        """All its items, the oldest first; ``None`` if there is no such conversation."""
        return self._database.run(self._items, ident, key)

    def add(self, ident: str, items: Sequence[Item], key: str | None) -> Deferred[bool | None]:
        """Add ``items`` at the end. Whether there is room for them; ``None`` if there is no such
        conversation."""
        return self._database.run(self._add, ident, items, key)

    def remove(self, ident: str, item: str, key: str | None) -> Deferred[bool]:
        """Delete an item. Whether there was one."""
        return self._database.run(self._remove, ident, item, key)

    # -- in the thread --

    def _create(
        self, cursor: Cursor, made: Conversation, items: Sequence[Item], key: str | None
    ) -> bool:
        metadata = as_json(made.metadata)
        now = self._now()
        cursor.execute(
            "INSERT INTO conversations (id, created, metadata, size, used, key)"
            " VALUES (:id, :created, :metadata, :size, :now, :key)",
            {
                "id": made.id,
                "created": made.created,
                "metadata": metadata,
                "size": len(metadata),
                "now": now,
                "key": key,
            },
        )
        if self._append(cursor, made.id, items, now):
            return True
        cursor.execute("DELETE FROM conversations WHERE id = :id", {"id": made.id})
        return False

    def _get(self, cursor: Cursor, ident: str, key: str | None) -> Conversation | None:
        cursor.execute(
            f"SELECT id, created, metadata FROM conversations WHERE id = :id AND {HIS}"
            " AND used >= :since",
            {"id": ident, "key": key, "since": self._now() - self._bounds.max_age},
        )
        for found, created, metadata in cursor.fetchall():
            return Conversation(found, created, json.loads(metadata))
        return None

    def _update(
        self, cursor: Cursor, ident: str, metadata: Mapping[str, str], key: str | None
    ) -> Conversation | None:
        found = self._get(cursor, ident, key)
        if found is None:
            return None
        text = as_json(metadata)
        cursor.execute(
            "UPDATE conversations SET size = size + :size - length(metadata), metadata = :metadata,"
            " used = :now WHERE id = :id",
            {"size": len(text), "metadata": text, "now": self._now(), "id": ident},
        )
        return Conversation(found.id, found.created, metadata) if cursor.rowcount else None

    def _delete(self, cursor: Cursor, ident: str, key: str | None) -> bool:
        if self._get(cursor, ident, key) is None:
            return False
        cursor.execute("DELETE FROM conversations WHERE id = :id", {"id": ident})
        return True

    def _items(self, cursor: Cursor, ident: str, key: str | None) -> list[Item] | None:
        if self._get(cursor, ident, key) is None:
            return None
        self._use(cursor, ident, self._now())
        cursor.execute(
            "SELECT item FROM items WHERE conversation = :id ORDER BY place", {"id": ident}
        )
        return [json.loads(item) for (item,) in cursor.fetchall()]

    def _add(
        self, cursor: Cursor, ident: str, items: Sequence[Item], key: str | None
    ) -> bool | None:
        if self._get(cursor, ident, key) is None:
            return None
        return self._append(cursor, ident, items, self._now())

    def _append(self, cursor: Cursor, ident: str, items: Sequence[Item], now: float) -> bool | None:
        texts = [as_json(item) for item in items]
        more = sum(map(len, texts))
        self._use(cursor, ident, now)  # first: it keeps others from adding in between
        if not cursor.rowcount:
            return None  # it was deleted meanwhile
        cursor.execute("SELECT size FROM conversations WHERE id = :id", {"id": ident})
        if cursor.fetchone()[0] + more > self._bounds.max_bytes:
            return False
        cursor.execute("SELECT max(place) FROM items WHERE conversation = :id", {"id": ident})
        last = cursor.fetchone()[0]
        first = 0 if last is None else last + 1
        cursor.executemany(
            "INSERT INTO items (conversation, place, id, item)"
            " VALUES (:conversation, :place, :id, :item)",
            [
                {"conversation": ident, "place": place, "id": item["id"], "item": text}
                for place, (item, text) in enumerate(zip(items, texts, strict=True), first)
            ],
        )
        cursor.execute(
            "UPDATE conversations SET size = size + :more WHERE id = :id",
            {"more": more, "id": ident},
        )
        self._broom.sweep(cursor, now)
        return True

    def _use(self, cursor: Cursor, ident: str, now: float) -> None:
        cursor.execute(
            "UPDATE conversations SET used = :now WHERE id = :id", {"now": now, "id": ident}
        )

    def _remove(self, cursor: Cursor, ident: str, item: str, key: str | None) -> bool:
        if self._get(cursor, ident, key) is None:
            return False
        wanted = {"conversation": ident, "item": item}
        where = "FROM items WHERE conversation = :conversation AND id = :item"
        cursor.execute(f"SELECT length(item) {where}", wanted)
        found = cursor.fetchone()
        if found is None:
            return False
        cursor.execute(f"DELETE {where}", wanted)
        if not cursor.rowcount:
            return False  # it was deleted meanwhile
        cursor.execute(
            "UPDATE conversations SET size = size - :less WHERE id = :conversation",
            {"less": found[0], "conversation": ident},
        )
        return True
