"""What each key has used, counted in transactions: whoever shares the database counts as one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from claudeproxy.store.database import Cursor, Database, StoreLost
from claudeproxy.store.sqlite import SQLite

from . import shares
from .periods import PERIODS, period
from .record import TurnRecord, counted_tokens
from .shares import Plan, Share

Turns = Callable[[TurnRecord, Plan], object]
"""Called with a turn that is over, and the plan as known then."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS counts (
    key TEXT NOT NULL, period TEXT NOT NULL, begin DOUBLE PRECISION NOT NULL,
    requests BIGINT NOT NULL, tokens BIGINT NOT NULL, PRIMARY KEY (key, period)
);
"""


@frozen
class Count:
    """Of the period that begins at ``begin``, epoch seconds."""

    begin: float
    requests: int = 0
    tokens: int = 0


@frozen
class Used:
    """What one key has used: by period, and of the windows of ``account``."""

    account: str = ""
    counts: Mapping[str, Count] = field(factory=dict)
    shares: Mapping[str, Share] = field(factory=dict)

    def count(self, name: str, now: float) -> Count:
        """Of the period ``name`` that ``now`` is in, epoch seconds."""
        begin, end = period(name, now)
        found = self.counts.get(name)
        # Another machine's clock may be ahead, and its next period have begun.
        return found if found is not None and begin <= found.begin <= end else Count(begin)

    def share(self, account: str, window: str, now: float) -> float:
        """Of ``window`` of ``account``, 0 to 1; 0 once it has reset."""
        found = self.shares.get(window)
        return found.used if found and account == self.account and now < found.resets else 0.0

    def asked(self, by: int, at: Used) -> Used:
        """The same, with ``by`` more requests in those of its periods that ``at`` is of, too."""
        counts = {
            name: evolve(count, requests=count.requests + by)
            if name in at.counts and at.counts[name].begin == count.begin
            else count
            for name, count in self.counts.items()
        }
        return evolve(self, counts=counts)


@frozen
class Taken:
    """What the key has ``used``, and whether the request is ``counted`` in it."""

    used: Used
    counted: bool


class Counts:
    """All methods return a Deferred of what they describe, which fails with
    :class:`~claudeproxy.store.database.StoreLost` while the database does not answer."""

    log = Logger()

    def __init__(self, database: Database, now: Callable[[], float] = time.time) -> None:
        """``now``: epoch seconds."""
        self._database = database
        self._now = now
        self.known: dict[str, Used] = {}
        """What keys have used, as last heard from the database."""

    def take(self, key: str, account: str, has_room: Callable[[Used], bool]) -> Deferred[Taken]:
        """Count a request of ``key``, unless it has no room for it.

        ``has_room``: called in a thread with what the key has used.
        """

        def heard(taken: Taken) -> Taken:
            self.known[key] = taken.used
            return taken

        taking = self._database.run(_take, key, account, self._now(), has_room)
        return taking.addCallback(heard)

    def give_back(self, key: str, taken: Taken) -> Deferred[None]:
        """A request that was counted does not count after all. Never fails: errors are logged, and
        the request counts."""

        def heard(used: Used) -> None:
            self.known[key] = used

        heard(self.known.get(key, taken.used).asked(-1, taken.used))
        done = self._database.run(_give_back, key, taken.used).addCallback(heard)
        return done.addErrback(self._failed, "a refused request counts")

    def _failed(self, why: Failure, what: str) -> None:
        if why.check(StoreLost):  # the log has why
            self.log.warn("{what}: the database does not answer", what=what)
        else:
            self.log.failure("{what}", why, what=what)

    def read(self, account: str) -> Deferred[None]:
        """Hear anew what all keys have used."""

        def heard(found: dict[str, Used]) -> None:
            self.known = found

        return self._database.run(_read, account).addCallback(heard)

    def add(self, record: TurnRecord, plan: Plan) -> Deferred[None]:
        """A turn is over; it is told once. Never fails: errors are logged."""
        done = self._database.run(count_turn, record, plan)
        done.addCallback(self.heard, record)
        return done.addErrback(self._failed, "what a turn has used is not counted")

    def heard(self, used: Used | None, record: TurnRecord) -> None:
        """:func:`count_turn` has returned ``used``."""
        if used is not None and record.key is not None:
            self.known[record.key] = used


def in_memory() -> SQLite:
    """A database for the counts of a daemon that keeps no ledger."""
    return SQLite(None, prepare)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables."""
    connection.executescript(SCHEMA + shares.SCHEMA)


# -- in the thread --

_CURRENT = "counts.begin BETWEEN excluded.begin AND :end"

_ASK = f"""
INSERT INTO counts (key, period, begin, requests, tokens) VALUES (:key, :period, :begin, 1, 0)
ON CONFLICT (key, period) DO UPDATE SET
    begin = CASE WHEN {_CURRENT} THEN counts.begin ELSE excluded.begin END,
    requests = CASE WHEN {_CURRENT} THEN counts.requests + 1 ELSE 1 END,
    tokens = CASE WHEN {_CURRENT} THEN counts.tokens ELSE 0 END
"""

# A turn that is told late counts in no later period than the one after its own.
_TOKENS = """
INSERT INTO counts (key, period, begin, requests, tokens) VALUES (:key, :period, :begin, 0, :tokens)
ON CONFLICT (key, period) DO UPDATE SET
    begin = CASE WHEN counts.begin < excluded.begin THEN excluded.begin ELSE counts.begin END,
    requests = CASE WHEN counts.begin < excluded.begin THEN 0 ELSE counts.requests END,
    tokens = CASE WHEN counts.begin < excluded.begin THEN excluded.tokens
        WHEN counts.begin <= :end THEN counts.tokens + excluded.tokens ELSE counts.tokens END
"""


def _take(
    cursor: Cursor, key: str, account: str, now: float, has_room: Callable[[Used], bool]
) -> Taken:
    # Whoever takes for the same key at the same time waits here, and then sees what is counted.
    about = [(name, *period(name, now)) for name in PERIODS]
    cursor.executemany(
        _ASK,
        [{"key": key, "period": name, "begin": begin, "end": end} for name, begin, end in about],
    )
    after = _used(cursor, key, account)
    before = after.asked(-1, after)
    if has_room(before):
        return Taken(after, True)
    _give_back(cursor, key, after)
    return Taken(before, False)


def _give_back(cursor: Cursor, key: str, used: Used) -> Used:
    cursor.executemany(
        "UPDATE counts SET requests = requests - 1"
        " WHERE key = :key AND period = :period AND begin = :begin AND requests > 0",
        [{"key": key, "period": name, "begin": used.counts[name].begin} for name in PERIODS],
    )
    return _used(cursor, key, used.account)


def count_turn(cursor: Cursor, record: TurnRecord, plan: Plan) -> Used | None:
    """Count a turn that is over: its tokens for its key, and how much each window has grown. What
    its key has used then; ``None`` for a turn that was refused or has no key."""
    if not record.placement:
        return None  # what the windows report is the doing of others
    if record.key is not None:
        spent = counted_tokens(record.usage)
        about = [(name, *period(name, plan.at)) for name in PERIODS]
        cursor.executemany(
            _TOKENS,
            [
                {"key": record.key, "period": name, "begin": begin, "end": end, "tokens": spent}
                for name, begin, end in about
            ],
        )
    shares.grow(cursor, record.key, record.windows_before, record.windows_after, plan)
    return None if record.key is None else _used(cursor, record.key, plan.account)


def _used(cursor: Cursor, key: str, account: str) -> Used:
    return _read(cursor, account, key).get(key, Used(account))


def _read(cursor: Cursor, account: str, key: str | None = None) -> dict[str, Used]:
    cursor.execute(
        "SELECT key, period, begin, requests, tokens FROM counts"
        " WHERE CAST(:key AS TEXT) IS NULL OR key = :key",
        {"key": key},
    )
    counts: dict[str, dict[str, Count]] = {}
    for whose, name, *count in cursor.fetchall():
        counts.setdefault(whose, {})[name] = Count(*count)
    grown = shares.shares(cursor, account, key)
    return {
        whose: Used(account, counts.get(whose, {}), grown.get(whose, {}))
        for whose in counts.keys() | grown.keys()
    }
