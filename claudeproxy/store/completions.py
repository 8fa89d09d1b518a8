"""Stored chat completions, in the order in which they were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from .database import Cursor, Database
from .tables import HIS, Bounds, Broom, as_json

SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (
    place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
    metadata TEXT NOT NULL, completion TEXT NOT NULL, messages TEXT NOT NULL,
    size INTEGER NOT NULL, used REAL NOT NULL, key TEXT
);
CREATE INDEX IF NOT EXISTS completions_by_use ON completions (used, size);
"""

_COLUMNS = "completion, metadata, messages"


@frozen
class StoredCompletion:
    """A completion, with the messages that it answers."""

    completion: Mapping[str, Any]
    metadata: Mapping[str, str]
    messages: Sequence[Mapping[str, Any]]

    @property
    def id(self) -> str:
        """The completion's id."""
        return str(self.completion["id"])


@frozen
class Wanted:
    """Which completions a list is to have: at most ``limit``, and those before or after ``after``
    (an id) in the order that ``ascending`` tells."""

    limit: int
    ascending: bool = True
    after: str | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(factory=dict)


class CompletionTable:
    """All methods return a Deferred of what they describe, and treat the completions of another
    ``key`` as if they did not exist."""

    def __init__(self, database: Database, now: Callable[[], float], bounds: Bounds) -> None:
        self._database = database
        self._now = now
        self._bounds = bounds
        self._broom = Broom("completions", bounds)

    def put(self, made: StoredCompletion, key: str | None) -> Deferred[bool]:
        """Store a completion. Whether there is room for it."""
        return self._database.run(self._put, made, key)

    def get(self, ident: str, key: str | None) -> Deferred[StoredCompletion | None]:
        """A completion by its id."""
        return self._database.run(self._get, ident, key)

    def find(self, wanted: Wanted, key: str | None) -> Deferred[list[StoredCompletion] | None]:
        """The completions that are wanted; ``None`` if there is none with the id ``after``."""
        return self._database.run(self._find, wanted, key)

    def update(
        self, ident: str, metadata: Mapping[str, str], key: str | None
    ) -> Deferred[StoredCompletion | None]:
        """The completion with other metadata; ``None`` if there is none."""
        return self._database.run(self._update, ident, metadata, key)

    def delete(self, ident: str, key: str | None) -> Deferred[bool]:
        """Delete a completion. Whether there was one."""
        return self._database.run(self._delete, ident, key)

    # -- in the thread --

    def _put(self, cursor: Cursor, made: StoredCompletion, key: str | None) -> bool:
        texts = [as_json(made.metadata), as_json(made.completion), as_json(list(made.messages))]
        size, now = sum(map(len, texts)), self._now()
        if size > self._bounds.max_bytes:
            return False
        cursor.execute(
            "INSERT INTO completions (id, model, metadata, completion, messages, size, used, key)"
            " VALUES (:id, :model, :metadata, :completion, :messages, :size, :now, :key)",
            {
                "id": made.id,
                "model": made.completion["model"],
                **dict(zip(("metadata", "completion", "messages"), texts, strict=True)),
                "size": size,
                "now": now,
                "key": key,
            },
        )
        self._broom.sweep(cursor, now)
        return True

    def _get(self, cursor: Cursor, ident: str, key: str | None) -> StoredCompletion | None:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM completions WHERE id = :id AND {HIS} AND used >= :since",
            {"id": ident, "key": key, "since": self._since()},
        )
        return next(map(_stored, cursor.fetchall()), None)

    def _find(
        self, cursor: Cursor, wanted: Wanted, key: str | None
    ) -> list[StoredCompletion] | None:
        values: dict[str, Any] = {"key": key, "since": self._since(), "limit": wanted.limit}
        where = [HIS, "used >= :since"]
        if wanted.after is not None:
            if self._get(cursor, wanted.after, key) is None:
                return None
            side = ">" if wanted.ascending else "<"
            where.append(f"place {side} (SELECT place FROM completions WHERE id = :after)")
            values["after"] = wanted.after
        if wanted.model is not None:
            where.append("model = :model")
            values["model"] = wanted.model
        for number, (name, value) in enumerate(wanted.metadata.items()):
            where.append(
                f"EXISTS (SELECT 1 FROM {self._database.pairs('completions.metadata')} AS pair"
                f" WHERE pair.key = :name{number} AND pair.value = :value{number})"
            )
            values |= {f"name{number}": name, f"value{number}": value}
        order = "ASC" if wanted.ascending else "DESC"
        cursor.execute(
            f"SELECT {_COLUMNS} FROM completions WHERE {' AND '.join(where)}"
            f" ORDER BY place {order} LIMIT :limit",
            values,
        )
        return list(map(_stored, cursor.fetchall()))

    def _update(
        self, cursor: Cursor, ident: str, metadata: Mapping[str, str], key: str | None
    ) -> StoredCompletion | None:
        if self._get(cursor, ident, key) is None:
            return None
        text = as_json(metadata)
        cursor.execute(
            "UPDATE completions SET size = size + :size - length(metadata), metadata = :metadata,"
            " used = :now WHERE id = :id",
            {"size": len(text), "metadata": text, "now": self._now(), "id": ident},
        )
        return self._get(cursor, ident, key)

    def _delete(self, cursor: Cursor, ident: str, key: str | None) -> bool:
        cursor.execute(
            f"DELETE FROM completions WHERE id = :id AND {HIS}", {"id": ident, "key": key}
        )
        return bool(cursor.rowcount)

    def _since(self) -> float:
        return self._now() - self._bounds.max_age


def _stored(row: tuple[str, str, str]) -> StoredCompletion:
    return StoredCompletion(*map(json.loads, row))
