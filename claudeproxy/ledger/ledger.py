"""What every turn used: a row for each turn, and a row of sums for each hour.

The hours outlive their turns, which are bounded in number: what was spent last year is still known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from claudeproxy.store.database import Cursor, Database, StoreLost

from . import counts, hours, turns
from .counts import Counts, Used
from .hours import Hour
from .record import TurnRecord
from .restoring import restore
from .shares import Plan
from .turns import Report

MAX_TURNS = 200_000
"""Turns that are kept, about 60 MB; the oldest are deleted first."""

MAX_AGE = 400 * 24 * 3600.0
"""Seconds for which hours and turns are kept."""


class Ledger:
    """All methods return a Deferred of what they describe. What was added is seen by every later
    call."""

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
        """What keys have used; turns that are added are counted."""

    def add(self, record: TurnRecord, plan: Plan | None = None) -> Deferred[None]:
        """Add a turn, as :meth:`put` does. Never fails: errors are logged."""
        return self.put(record, plan).addErrback(self._not_added)

    def _not_added(self, why: Failure) -> None:
        if why.check(StoreLost):
            self.log.error("a turn is not in the ledger: {why}", why=str(why.value))
        else:
            self.log.failure("a turn is not in the ledger", why)

    def put(self, record: TurnRecord, plan: Plan | None = None) -> Deferred[None]:
        """Add a turn, unless one of the same request is there. ``plan``: what was known of it when
        the turn was over; by default, nothing."""
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
        """Count the turns of today and of the running windows, if nothing was ever counted: a
        version that did not count yet has added them."""
        return self._database.run(restore, plan)

    def turn(self, request_id: str) -> Deferred[TurnRecord | None]:
        """A turn by the ``x-request-id`` of its reply."""
        return self._database.run(turns.turn, request_id)

    def latest(
        self, limit: int, before: float | None = None, only: str | None = None
    ) -> Deferred[list[TurnRecord]]:
        """The ``limit`` latest turns, the newest first; ``before``: those that arrived earlier,
        epoch seconds; ``only``: those that ``failed``, or were ``paid``."""
        return self._database.run(turns.latest, limit, before, only)

    def hours(self, since: float, *by: str) -> Deferred[list[Hour]]:
        """The sums of all hours from ``since`` (epoch seconds) on, the oldest first.

        ``by``: which of ``hour``, ``key``, ``model`` and ``client`` to group by, by default all;
        the others are 0 or empty. Without ``hour``, those with the most turns come first.
        """
        return self._database.run(hours.hours, since, by)

    def shares(self, since: float) -> Deferred[list[Report]]:
        """The used shares of the plan's windows before and after each turn that arrived since
        ``since`` and got a process, in the order in which they were over."""
        return self._database.run(turns.shares, since)

    def _add(self, cursor: Cursor, record: TurnRecord, plan: Plan) -> Used | None:
        if not turns.add(cursor, record):
            return None  # it was added before
        hours.add(cursor, record)
        old = self._now() - self._max_age
        turns.forget(cursor, self._max_turns, old)
        hours.forget(cursor, old)
        return counts.count_turn(cursor, record, plan)
