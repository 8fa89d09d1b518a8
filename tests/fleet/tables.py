"""What PostgreSQL holds, asked past the nodes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from attrs import frozen
from postgres import Postgres


@frozen
class Tables:
    """The tables of the database at ``url``."""

    server: Postgres
    url: str

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT."""
        told = self.server.execute(
            f"SET search_path TO claudemax; SELECT coalesce(json_agg(r), '[]') FROM ({sql}) r",
            self.url.rpartition("/")[2],
        )
        return list(json.loads(told))

    def turns(self) -> Counter[str]:
        """How often each request is in the ledger."""
        return Counter(row["request_id"] for row in self.rows("SELECT request_id FROM turns"))
