"""What the tables of the store share: whose a row is, how old it gets, how much there may be."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from .database import Cursor

MAX_AGE = 30 * 24 * 3600.0
"""Seconds for which a row is kept after it was last used."""

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of JSON in one table; the least recently used rows are deleted first."""

TIDY = 60.0
"""Seconds between two times that a node tidies a table: it looks at every row."""

HIS = "(CAST(:key AS TEXT) IS NULL OR key = :key)"
"""Of rows that the holder of ``:key`` may see: without a key, that is all of them."""


@frozen
class Bounds:
    """``max_age``: seconds; ``max_bytes``: of one table; ``tidy``: seconds, see :data:`TIDY`."""

    max_age: float = MAX_AGE
    max_bytes: int = MAX_BYTES
    tidy: float = TIDY


class Broom:
    """Deletes from a table (with ``id``, ``size`` and ``used``) what is too old or too much."""

    def __init__(self, table: str, bounds: Bounds) -> None:
        self._table = table
        self._bounds = bounds
        self._last = 0.0

    def sweep(self, cursor: Cursor, now: float) -> None:
        """Do so, if it is due. To be called in a transaction that has added to the table."""
        if now - self._last < self._bounds.tidy:
            return
        self._last, table = now, self._table
        old = {"old": now - self._bounds.max_age}
        cursor.execute(f"DELETE FROM {table} WHERE used < :old", old)
        cursor.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, sum(size) OVER"
            f" (ORDER BY used DESC, id) AS so_far FROM {table}) AS sized WHERE so_far > :most)",
            {"most": self._bounds.max_bytes},
        )


def as_json(value: Any) -> str:
    """``value``, as it is kept."""
    return json.dumps(value, separators=(",", ":"))
