"""A row for each turn, and a row of sums for each hour.

The hours outlive their turns, which are bounded in number: what was spent last year is still known.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, fields, fields_dict, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from claudeproxy.messages import Usage
from claudeproxy.store.database import Cursor, Database
from claudeproxy.store.sqlite import SQLite

from . import counts
from .counts import Counts, Used
from .periods import DAY, period
from .record import COUNTED, PAID, PLAN, TurnRecord
from .shares import WINDOW_SECONDS, Plan, grow, window_seconds

MAX_TURNS = 200_000
"""Turns that are kept, about 60 MB; the oldest are deleted first."""

MAX_AGE = 400 * 24 * 3600.0
"""Seconds for which hours and turns are kept."""

MAX_NAMES = 100
"""Models and clients of one key that an hour tells apart: clients name themselves."""

OTHERS = "others"
"""The model and the client of all further ones."""

HOUR = 3600

_USAGE = [each.name for each in fields(Usage)]
_JSON = ("windows_before", "windows_after")
_PLAIN = [each.name for each in fields(TurnRecord) if each.name != "usage"]
_COLUMNS = [*_PLAIN, *_USAGE]

_ONLY = {
    "failed": "outcome <> 'ok' AND outcome <> 'client left'",
    "paid": f"paid_by = '{PAID}'",
}
"""Which turns :meth:`Ledger.latest` may be asked for, each with an index of its own."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, {", ".join(_COLUMNS)});
CREATE INDEX IF NOT EXISTS turns_by_time ON turns (time);
CREATE INDEX IF NOT EXISTS failed_turns ON turns (time) WHERE {_ONLY["failed"]};
CREATE INDEX IF NOT EXISTS paid_turns ON turns (time) WHERE {_ONLY["paid"]};
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER, key TEXT, model TEXT, client TEXT,
    turns INTEGER, failed INTEGER, paid INTEGER, unpriced INTEGER, list_price REAL,
    saved REAL,
    {", ".join(f"{name} INTEGER" for name in _USAGE)},
    PRIMARY KEY (hour, key, model, client)
) WITHOUT ROWID;
"""


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


_BY_REQUEST = "CREATE UNIQUE INDEX IF NOT EXISTS turns_of_requests ON turns (request_id)"


@frozen
class Report:
    """What a turn of ``key`` that arrived at ``time`` (epoch seconds) had to say of the plan: the
    used share of each window as known before it and after it."""

    time: float
    key: str | None
    before: Mapping[str, float]
    after: Mapping[str, float]


_APART = ["hour", "key", "model", "client"]
_DOLLARS = ("list_price", "saved")
_SUMS = [name for name in fields_dict(Hour) if name not in (*_APART, "usage")] + _USAGE


class Ledger:
    """All methods return a Deferred of what they describe. What was added is there for any call
    after it."""

    log = Logger()

    def __init__(
        self,
        database: Database,
        now: Callable[[], float] = time.time,
        *,
        max_turns: int = MAX_TURNS,
        max_age: float = MAX_AGE,
    ) -> None:
        """``now``: epoch seconds."""
        self._database = database
        self._now = now
        self._max_turns = max_turns
        self._max_age = max_age
        self.counts = Counts(database, now)
        """What keys have used, turns that are added included."""

    def add(self, record: TurnRecord, plan: Plan | None = None) -> Deferred[None]:
        """Add a turn, as :meth:`put` does. Never fails: errors are logged."""
        done = self.put(record, plan)
        return done.addErrback(lambda why: self.log.failure("a turn is not in the ledger", why))

    def put(self, record: TurnRecord, plan: Plan | None = None) -> Deferred[None]:
        """Add a turn, unless one of the same request is there. ``plan``: as known when it was over;
        without it, nothing was."""
        return self.put_all([(record, plan or Plan(self._now()))])

    def put_all(self, turns: Sequence[tuple[TurnRecord, Plan]]) -> Deferred[None]:
        """Add all ``turns``, each as :meth:`put` does, or none."""

        def heard(used: list[Used | None]) -> None:
            for (record, _), each in zip(turns, used, strict=True):
                self.counts.heard(each, record)

        def add(cursor: Cursor) -> list[Used | None]:
            return [self._add(cursor, record, plan) for record, plan in turns]

        return self._database.run(add).addCallback(heard)

    def restore(self, plan: Plan) -> Deferred[None]:
        """Where nothing was ever counted, because turns were added before there were counts: count
        today's, and those of the running windows."""
        return self._database.run(_restore, plan)

    def turn(self, request_id: str) -> Deferred[TurnRecord | None]:
        """A turn by the ``x-request-id`` of its reply."""
        return self._database.run(_turn, request_id)

    def latest(
        self, limit: int, before: float | None = None, only: str | None = None
    ) -> Deferred[list[TurnRecord]]:
        """The ``limit`` latest turns, the newest first; ``before``: those that arrived earlier,
        epoch seconds; ``only``: those that ``failed``, or were ``paid``."""
        return self._database.run(_latest, limit, before, only)

    def hours(self, since: float, *by: str) -> Deferred[list[Hour]]:
        """The sums of all hours from ``since`` (epoch seconds) on, the oldest first.

        ``by``: what they are told apart by, of ``hour``, ``key``, ``model`` and ``client``; the
        others are 0 or empty. Without any it is all of them. Without ``hour``, those with the most
        turns come first.
        """
        return self._database.run(_hours, since, by or _APART)

    def shares(self, since: float) -> Deferred[list[Report]]:
        """The used shares of the plan's windows before and after each turn that arrived since
        ``since`` and got a process, in the order in which they were over."""
        return self._database.run(_shares, since)

    # -- in the thread --

    def _add(self, cursor: Cursor, record: TurnRecord, plan: Plan) -> Used | None:
        row = asdict(record, filter=lambda attribute, _: attribute.name != "usage")
        usage, price = asdict(record.usage), record.list_price
        row.update({name: json.dumps(row[name]) for name in _JSON}, **usage)
        _insert(cursor, "turns", row, "ON CONFLICT (request_id) DO NOTHING")
        if not cursor.rowcount:
            return None  # it was told before
        hour = {
            "hour": _hour_of(record.time),
            "key": record.key or "",
            "model": record.answered_by or record.model,
            "client": record.client,
            "turns": 1,
            "failed": int(record.outcome != "ok"),
            "paid": int(record.paid_by == PAID),
            "unpriced": int(price is None),
            "list_price": price or 0.0,
            "saved": (price or 0.0) if record.paid_by == PLAN else 0.0,
            **usage,
        }
        if _has_many(cursor, hour):
            hour["model"] = hour["client"] = OTHERS
        sums = ", ".join(f"{name} = hours.{name} + excluded.{name}" for name in _SUMS)
        _insert(cursor, "hours", hour, f"ON CONFLICT ({', '.join(_APART)}) DO UPDATE SET {sums}")
        cursor.execute(
            "DELETE FROM turns WHERE id <= (SELECT max(id) FROM turns) - :most",
            {"most": self._max_turns},
        )
        old = {"old": self._now() - self._max_age}
        cursor.execute("DELETE FROM turns WHERE time < :old", old)
        cursor.execute("DELETE FROM hours WHERE hour < :old", old)
        return counts.count_turn(cursor, record, plan)


def _hour_of(when: float) -> int:
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


def _insert(cursor: Cursor, table: str, row: Mapping[str, Any], more: str = "") -> None:
    values = ", ".join(f":{name}" for name in row)
    cursor.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values}) {more}", row)


def _turn(cursor: Cursor, request_id: str) -> TurnRecord | None:
    cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM turns WHERE request_id = :id", {"id": request_id}
    )
    return next(map(_record, cursor.fetchall()), None)


def _latest(cursor: Cursor, limit: int, before: float | None, only: str | None) -> list[TurnRecord]:
    wanted = ["1 = 1"] if only is None else [_ONLY[only]]
    if before is not None:
        wanted.append("time < :before")
    cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM turns WHERE {' AND '.join(wanted)}"
        " ORDER BY time DESC, id DESC LIMIT :limit",
        {"before": before, "limit": limit},
    )
    return list(map(_record, cursor.fetchall()))


def _hours(cursor: Cursor, since: float, by: Sequence[str]) -> list[Hour]:
    apart = [name if name in by else "0" if name == "hour" else "''" for name in _APART]
    # PostgreSQL's sum of integers is no integer.
    sums = [f"sum({n})" if n in _DOLLARS else f"CAST(sum({n}) AS BIGINT)" for n in _SUMS]
    cursor.execute(
        f"SELECT {', '.join([*apart, *sums])} FROM hours WHERE hour > :since"
        f" GROUP BY {', '.join(by)} ORDER BY {'hour' if 'hour' in by else 'sum(turns) DESC'}",
        {"since": since - HOUR},
    )
    names = [*_APART, *_SUMS]
    at = len(names) - len(_USAGE)
    return [
        Hour(**dict(zip(names[:at], row[:at], strict=True)), usage=Usage(*row[at:]))
        for row in cursor.fetchall()
    ]


_TAKEN = "placement <> ''"


def _shares(cursor: Cursor, since: float) -> list[Report]:
    cursor.execute(
        "SELECT time, key, windows_before, windows_after FROM turns"
        f" WHERE time >= :since AND {_TAKEN} AND windows_after <> '{{}}' ORDER BY +id",
        {"since": since},
    )
    return [
        Report(when, key, json.loads(before), json.loads(after))
        for when, key, before, after in cursor.fetchall()
    ]


def _restore(cursor: Cursor, plan: Plan) -> None:
    # Written first: another daemon that does the same waits for it.
    cursor.execute("DELETE FROM counts WHERE period = :none", {"none": ""})
    cursor.execute("SELECT 1 FROM counts UNION ALL SELECT 1 FROM window_seen LIMIT 1")
    if cursor.fetchone() is not None:
        return
    begin, _ = period(DAY, plan.at)
    cursor.execute(
        "INSERT INTO counts (key, period, begin, requests, tokens)"
        f" SELECT key, :day, :begin, count(*), CAST(sum({' + '.join(COUNTED)}) AS BIGINT)"
        f" FROM turns WHERE time >= :begin AND {_TAKEN} AND key IS NOT NULL GROUP BY key",
        {"day": DAY, "begin": begin},
    )
    begins = {
        name: end - seconds
        for name, end in plan.resets.items()
        if (seconds := window_seconds(name))
    }
    for report in _shares(cursor, plan.at - max(WINDOW_SECONDS.values())):
        ends = {
            name: plan.resets[name] if report.time >= start else start
            for name, start in begins.items()
        }
        # They come in the order in which they were over, at times that are not known.
        at = Plan(0.0, plan.account, ends)
        grow(cursor, report.key, report.before, report.after, at)


def sqlite_ledger(path: Path) -> SQLite:
    """The file of a ledger; one that SQLite cannot read is moved aside.

    :raises OSError, sqlite3.Error: when it cannot be created.
    """
    return SQLite(path, _prepare)


def _prepare(connection: sqlite3.Connection) -> None:
    # Rows survive a crash of the daemon, and are written without waiting for the disk; a crash of
    # the machine loses the last of them and breaks nothing.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(_SCHEMA)
    counts.prepare(connection)
    # A file of an older version lacks what has been added to the record since.
    known = {row[1] for row in connection.execute("PRAGMA table_info(turns)")}
    for name in _COLUMNS:
        if name not in known:
            connection.execute(f"ALTER TABLE turns ADD COLUMN {name}")
    try:
        connection.execute(_BY_REQUEST)
    except sqlite3.IntegrityError:  # nothing had kept a turn from being there twice
        connection.execute(
            "DELETE FROM turns WHERE id NOT IN (SELECT min(id) FROM turns GROUP BY request_id)"
        )
        connection.execute(_BY_REQUEST)
        connection.commit()
    connection.execute("DROP INDEX IF EXISTS turns_by_request")


def _record(row: tuple[Any, ...]) -> TurnRecord:
    told = dict(zip(_COLUMNS, row, strict=True))
    usage = Usage(*(told.pop(name) for name in _USAGE))
    told.update({name: json.loads(told[name]) for name in _JSON})
    return TurnRecord(**told, usage=usage)
