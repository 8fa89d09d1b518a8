"""A row of sums for each hour, which outlives the turns in it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, fields, fields_dict, frozen

from claudeproxy.messages import Usage
from claudeproxy.store.database import Cursor

from .record import PAID, PLAN, TurnRecord

HOUR = 3600
"""Seconds."""

MAX_NAMES = 100
"""Models and clients of one key that an hour tells apart: clients name themselves."""

OTHERS = "others"
"""The model and the client of all further ones."""

_USAGE = [each.name for each in fields(Usage)]

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER, key TEXT, model TEXT, client TEXT,
    turns INTEGER, failed INTEGER, paid INTEGER, unpriced INTEGER, list_price REAL,
    saved REAL,
    {", ".join(f"{name} INTEGER" for name in _USAGE)},
    PRIMARY KEY (hour, key, model, client)
) WITHOUT ROWID;
"""
"""For SQLite, as it is in ``migrations`` for PostgreSQL."""


@frozen(kw_only=True)
class Hour:
    """The sums of an hour for one key, model and client. ``hour``: epoch seconds of its start;
    ``key``: empty for requests without one; ``unpriced``: turns of a model without a list
    price; ``saved``: the part of ``list_price`` that the plan has paid for."""

    hour: int
    key: str
    model: str
    client: str
    turns: int
    failed: int
    paid: int
    unpriced: int
    list_price: float
    saved: float
    usage: Usage


APART = ["hour", "key", "model", "client"]
"""What hours are told apart by."""

SUMS = [name for name in fields_dict(Hour) if name not in (*APART, "usage")] + _USAGE
_DOLLARS = ("list_price", "saved")


def add(cursor: Cursor, record: TurnRecord) -> None:
    """Add a turn to the sums of its hour."""
    price = record.list_price
    hour = {
        "hour": hour_of(record.time),
        "key": record.key or "",
        "model": record.answered_by or record.model,
        "client": record.client,
        "turns": 1,
        "failed": int(record.outcome != "ok"),
        "paid": int(record.paid_by == PAID),
        "unpriced": int(price is None),
        "list_price": price or 0.0,
        "saved": (price or 0.0) if record.paid_by == PLAN else 0.0,
        **asdict(record.usage),
    }
    if _has_many(cursor, hour):
        hour["model"] = hour["client"] = OTHERS
    values = ", ".join(f":{name}" for name in hour)
    sums = ", ".join(f"{name} = hours.{name} + excluded.{name}" for name in SUMS)
    cursor.execute(
        f"INSERT INTO hours ({', '.join(hour)}) VALUES ({values})"
        f" ON CONFLICT ({', '.join(APART)}) DO UPDATE SET {sums}",
        hour,
    )


def forget(cursor: Cursor, before: float) -> None:
    """Keep the hours from ``before`` (epoch seconds) on."""
    cursor.execute("DELETE FROM hours WHERE hour < :before", {"before": before})


def hours(cursor: Cursor, since: float, by: Sequence[str]) -> list[Hour]:
    """See :meth:`Ledger.hours`."""
    by = by or APART
    apart = [name if name in by else "0" if name == "hour" else "''" for name in APART]
    # PostgreSQL's sum of integers is no integer.
    sums = [f"sum({n})" if n in _DOLLARS else f"CAST(sum({n}) AS BIGINT)" for n in SUMS]
    cursor.execute(
        f"SELECT {', '.join([*apart, *sums])} FROM hours WHERE hour > :since"
        f" GROUP BY {', '.join(by)} ORDER BY {'hour' if 'hour' in by else 'sum(turns) DESC'}",
        {"since": since - HOUR},
    )
    names = [*APART, *SUMS]
    at = len(names) - len(_USAGE)
    return [
        Hour(**dict(zip(names[:at], row[:at], strict=True)), usage=Usage(*row[at:]))
        for row in cursor.fetchall()
    ]


def hour_of(when: float) -> int:
    """When the local hour began: in India, at half past."""
    east = time.localtime(when).tm_gmtoff
    return (int(when) + east) // HOUR * HOUR - east


def _has_many(cursor: Cursor, hour: Mapping[str, Any]) -> bool:
    """Whether the key of this row has more than enough other rows in its hour."""
    cursor.execute(
        "SELECT count(*) FROM hours WHERE hour = :hour AND key = :key HAVING count(*) >= :most"
        " AND sum(CASE WHEN model = :model AND client = :client THEN 1 ELSE 0 END) = 0",
        {**hour, "most": MAX_NAMES},
    )
    return cursor.fetchone() is not None
