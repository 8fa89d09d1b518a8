"""What the tables of the store share: whose a row is, how old it gets, how much there may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .database import Cursor, Database

MAX_AGE = 30 * 24 * 3600.0
"""Seconds for which a row is kept after it was last used."""

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of JSON in one table; the least recently used rows are deleted first."""

TIDY = 60.0
"""Seconds between two times that a table is tidied: it takes a look at every row."""

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

    log = Logger()

    def __init__(
        self, database: Database, table: str, now: Callable[[], float], bounds: Bounds
    ) -> None:
        self._database = database
        self._table = table
        self._now = now
        self._bounds = bounds
        self._last = 0.0

    def after(self, putting: Deferred[Any]) -> Deferred[Any]:
        """``putting``, which adds to the table. Once it has, the table is tidied if that is due:
        in a transaction of its own, for which nobody waits."""
        return putting.addCallback(self._put)

    def _put(self, result: Any) -> Any:
        now = self._now()
        if now - self._last >= self._bounds.tidy:
            self._last = now
            self._database.run(self._tidy, now - self._bounds.max_age).addErrback(self._failed)
        return result

    def _failed(self, why: Failure) -> None:
        kind = type(why.value).__name__
        self.log.warn("{table} are not tidied: {kind}", table=self._table, kind=kind)

    def _tidy(self, cursor: Cursor, old: float) -> None:
        table = self._table
        cursor.execute(f"DELETE FROM {table} WHERE used < :old", {"old": old})
        cursor.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, sum(size) OVER"
            f" (ORDER BY used DESC, id) AS so_far FROM {table}) AS sized WHERE so_far > :most)",
            {"most": self._bounds.max_bytes},
        )


def as_json(value: Any) -> str:
    """``value``, as it is kept."""
    return json.dumps(value, separators=(",", ":"))
