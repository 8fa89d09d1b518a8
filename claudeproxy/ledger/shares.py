"""Which part of the plan's windows went to whom: tables in the ledger's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from claudeproxy.store.database import Cursor

WINDOW_SECONDS = {"five_hour": 5 * 3600.0, "seven_day": 7 * 24 * 3600.0}
"""How long a window lasts; those of other names last as long as the one their name begins with."""

SAME_WINDOW = 120.0
"""Seconds that a window's reset may move without its being another window."""

# These and those of the counts are the same in SQLite and PostgreSQL.
SCHEMA = """
CREATE TABLE IF NOT EXISTS window_seen (
    account TEXT NOT NULL, name TEXT NOT NULL, used DOUBLE PRECISION NOT NULL,
    resets DOUBLE PRECISION NOT NULL, seen DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (account, name)
);
CREATE TABLE IF NOT EXISTS key_shares (
    account TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, used DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (account, name, key)
);
"""

_THIS = "account = :account AND name = :name"


def window_seconds(name: str) -> float:
    """How long the window ``name`` lasts; 0 if that is not known."""
    return next((s for start, s in WINDOW_SECONDS.items() if name.startswith(start)), 0.0)


@frozen
class Plan:
    """What was known of the plan at a time (``at``, epoch seconds): ``account``, a digest of whose
    it is, empty if that is not known; ``resets``: when each window resets, epoch seconds."""

    at: float
    account: str = ""
    resets: Mapping[str, float] = field(factory=dict)


@frozen
class Share:
    """``used``: the share (0 to 1) of a window that went to a key; ``resets``: epoch seconds."""

    used: float
    resets: float


def grow(
    cursor: Cursor,
    key: str | None,
    before: Mapping[str, float],
    after: Mapping[str, float],
    plan: Plan,
) -> None:
    """A turn of ``key`` is over: the growth of each window goes to it. What other sessions of the
    account have used since the report before is in it: nobody tells them apart.

    ``before``, ``after``: the used share (0 to 1) of each window.
    """
    told: list[dict[str, Any]] = [
        {
            "account": plan.account, "name": name, "used": before.get(name, after[name]),
            "resets": plan.resets[name], "seen": plan.at,
        }
        for name in sorted(plan.resets.keys() & after.keys())  # who waits, waits in one order
    ]  # fmt: skip
    if not told:
        return
    cursor.executemany(
        "INSERT INTO window_seen (account, name, used, resets, seen)"
        " VALUES (:account, :name, :used, :resets, :seen)"
        " ON CONFLICT (account, name) DO UPDATE SET used = window_seen.used",
        told,
    )
    cursor.execute(
        "SELECT name, used, resets, seen FROM window_seen WHERE account = :account",
        {"account": plan.account},
    )
    known = {name: row for name, *row in cursor.fetchall()}
    for one in told:
        name, used = one["name"], after[one["name"]]
        last, ends, seen = known[name]
        if plan.at < seen:
            continue  # it is told late, and its growth has gone to the report that came first
        if abs(one["resets"] - ends) > SAME_WINDOW:
            last, ends = 0.0, one["resets"]
            cursor.execute(f"DELETE FROM key_shares WHERE {_THIS}", one)
        elif used == last:
            continue
        if key is not None and used > last:
            cursor.execute(
                "INSERT INTO key_shares (account, name, key, used)"
                " VALUES (:account, :name, :key, :used) ON CONFLICT (account, name, key)"
                " DO UPDATE SET used = key_shares.used + excluded.used",
                {**one, "key": key, "used": used - last},
            )
        cursor.execute(
            f"UPDATE window_seen SET used = :used, resets = :resets, seen = :seen WHERE {_THIS}",
            {**one, "used": used, "resets": ends},
        )


def shares(cursor: Cursor, account: str, key: str | None = None) -> dict[str, dict[str, Share]]:
    """What went to each key, or to ``key`` alone: for each, by window."""
    cursor.execute(
        "SELECT s.key, s.name, s.used, w.resets FROM key_shares s JOIN window_seen w"
        " ON w.account = s.account AND w.name = s.name WHERE s.account = :account"
        " AND (CAST(:key AS TEXT) IS NULL OR s.key = :key)",
        {"account": account, "key": key},
    )
    found: dict[str, dict[str, Share]] = {}
    for whose, name, used, resets in cursor.fetchall():
        found.setdefault(whose, {})[name] = Share(used, resets)
    return found
