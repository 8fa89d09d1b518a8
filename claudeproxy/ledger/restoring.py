"""Counts for a ledger that is older than they are."""

from __future__ import annotations

from claudeproxy.store.database import Cursor

from . import turns
from .periods import DAY, period
from .record import COUNTED
from .shares import WINDOW_SECONDS, Plan, grow, window_seconds


def restore(cursor: Cursor, plan: Plan) -> None:
    """See :meth:`Ledger.restore`."""
    # Written first: another daemon that does the same waits for it.
    cursor.execute("DELETE FROM counts WHERE period = :none", {"none": ""})
    cursor.execute("SELECT 1 FROM counts UNION ALL SELECT 1 FROM window_seen LIMIT 1")
    if cursor.fetchone() is not None:
        return
    begin, _ = period(DAY, plan.at)
    cursor.execute(
        "INSERT INTO counts (key, period, begin, requests, tokens)"
        f" SELECT key, :day, :begin, count(*), CAST(sum({' + '.join(COUNTED)}) AS BIGINT)"
        f" FROM turns WHERE time >= :begin AND {turns.TAKEN} AND key IS NOT NULL GROUP BY key",
        {"day": DAY, "begin": begin},
    )
    begins = {
        name: end - seconds
        for name, end in plan.resets.items()
        if (seconds := window_seconds(name))
    }
    for report in turns.shares(cursor, plan.at - max(WINDOW_SECONDS.values())):
        ends = {
            name: plan.resets[name] if report.time >= start else start
            for name, start in begins.items()
        }
        # They come in the order in which they were over, at times that are not known.
        at = Plan(0.0, plan.account, ends)
        grow(cursor, report.key, report.before, report.after, at)
