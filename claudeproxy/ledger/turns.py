"""A row for each turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import asdict, fields, frozen

from claudeproxy.messages import Usage
from claudeproxy.store.database import Cursor

from .record import PAID, TurnRecord

_USAGE = [each.name for each in fields(Usage)]
_JSON = ("windows_before", "windows_after")
COLUMNS = [*(each.name for each in fields(TurnRecord) if each.name != "usage"), *_USAGE]

ONLY = {
    "failed": "outcome <> 'ok' AND outcome <> 'client left'",
    "paid": f"paid_by = '{PAID}'",
}
"""Which turns :func:`latest` may be asked for, each with an index of its own."""

TAKEN = "placement <> ''"
"""Which turns got a process."""

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, {", ".join(COLUMNS)});
CREATE INDEX IF NOT EXISTS turns_by_time ON turns (time);
CREATE INDEX IF NOT EXISTS failed_turns ON turns (time) WHERE {ONLY["failed"]};
CREATE INDEX IF NOT EXISTS paid_turns ON turns (time) WHERE {ONLY["paid"]};
"""
"""For SQLite, as it is in ``migrations`` for PostgreSQL."""


@frozen
class Report:
    """What a turn of ``key`` that arrived at ``time`` (epoch seconds) had to say of the plan: the
    used share of each window as known before it and after it."""

    time: float
    key: str | None
    before: Mapping[str, float]
    after: Mapping[str, float]


def add(cursor: Cursor, record: TurnRecord) -> bool:
    """Whether the turn is new: one of the same request stays as it is."""
    row = asdict(record, filter=lambda attribute, _: attribute.name != "usage")
    row.update({name: json.dumps(row[name]) for name in _JSON}, **asdict(record.usage))
    values = ", ".join(f":{name}" for name in row)
    cursor.execute(
        f"INSERT INTO turns ({', '.join(row)}) VALUES ({values})"
        " ON CONFLICT (request_id) DO NOTHING",
        row,
    )
    return bool(cursor.rowcount)


def forget(cursor: Cursor, most: int, before: float) -> None:
    """Keep the ``most`` latest turns, and of them those from ``before`` (epoch seconds) on."""
    cursor.execute(
        "DELETE FROM turns WHERE id <= (SELECT max(id) FROM turns) - :most", {"most": most}
    )
    cursor.execute("DELETE FROM turns WHERE time < :before", {"before": before})


def turn(cursor: Cursor, request_id: str) -> TurnRecord | None:
    """That of a request."""
    cursor.execute(
        f"SELECT {', '.join(COLUMNS)} FROM turns WHERE request_id = :id", {"id": request_id}
    )
    return next(map(_record, cursor.fetchall()), None)


def latest(
    cursor: Cursor, limit: int, before: float | None = None, only: str | None = None
) -> list[TurnRecord]:
    """See :meth:`Ledger.latest`."""
    wanted = ["1 = 1"] if only is None else [ONLY[only]]
    if before is not None:
        wanted.append("time < :before")
    cursor.execute(
        f"SELECT {', '.join(COLUMNS)} FROM turns WHERE {' AND '.join(wanted)}"
        " ORDER BY time DESC, id DESC LIMIT :limit",
        {"before": before, "limit": limit},
    )
    return list(map(_record, cursor.fetchall()))


def shares(cursor: Cursor, since: float) -> list[Report]:
    """See :meth:`Ledger.shares`."""
    cursor.execute(
        "SELECT time, key, windows_before, windows_after FROM turns"
        f" WHERE time >= :since AND {TAKEN} AND windows_after <> '{{}}' ORDER BY +id",
        {"since": since},
    )
    return [
        Report(when, key, json.loads(before), json.loads(after))
        for when, key, before, after in cursor.fetchall()
    ]


def _record(row: tuple[Any, ...]) -> TurnRecord:
    told = dict(zip(COLUMNS, row, strict=True))
    usage = Usage(*(told.pop(name) for name in _USAGE))
    told.update({name: json.loads(told[name]) for name in _JSON})
    return TurnRecord(**told, usage=usage)
