"""What was used: of the plan's windows, and by turns, summed up and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Any

from attrs import asdict

from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.hours import HOUR, Hour
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.prices import AS_OF
from claudeproxy.ledger.projection import Projection, look_back, project
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.ledger.shares import window_seconds
from claudeproxy.ledger.totals import SESSION, Totals, by, by_session, day

DAYS, MAX_DAYS = 30, 400
"""Days that are summed up by default, and the most that can be asked for."""

WEEK = 7
"""Days."""

TURNS, MAX_TURNS = 50, 1000
"""Turns that are listed by default, and the most that can be asked for."""


async def usage(
    engine: Engine, ledger: Ledger | None, keys: Sequence[dict[str, Any]], days: int = DAYS
) -> dict[str, Any]:
    """The plan's windows, as last reported by the upstream, what this server makes of them, the
    ``keys`` and their quotas, and what the turns of the last ``days`` days came to (``null``
    without a ledger).

    ``used``: percent; times are epoch seconds; days are the server's own.
    """
    now = engine.now()
    if ledger is None:
        return {**plan(engine, {}), "keys": keys, "ledger": None}
    since = _midnight(now, days - 1)
    hours = await ledger.hours(min(since, _midnight(now, WEEK - 1)), "hour")
    asked = await ledger.hours(since, "key", "model", "client")
    return {
        **plan(engine, await _projections(engine, ledger)),
        "keys": keys,
        "ledger": {**_spent(hours, since, now, days), **_by_who(asked)},
    }


async def turns(ledger: Ledger, limit: int, before: float | None) -> dict[str, Any]:
    """A page of turns, the newest first."""
    found = await ledger.latest(limit, before)
    return {"object": "list", "data": [receipt(record) for record in found]}


def receipt(record: TurnRecord) -> dict[str, Any]:
    """One turn, as JSON."""
    told = asdict(record)
    spent = Totals(usage=record.usage).as_dict()
    for name in ("turns", "failed", "paid_turns", "unpriced_turns", "list_price_usd", "saved_usd"):
        del spent[name]
    price = told.pop("list_price")
    return {
        "object": "turn",
        **told,
        "usage": spent,
        "list_price_usd": None if price is None else round(price, 6),
    }


async def _projections(engine: Engine, ledger: Ledger) -> dict[str, Projection | None]:
    now = engine.now()
    running = {n: w for n, w in engine.quota.windows.known.items() if now < w.resets}
    if not running:
        return {}
    reports = await ledger.shares(now - max(map(look_back, running)))
    found = {}
    for name, window in running.items():
        since = max(now - look_back(name), window.resets - window_seconds(name))
        heard = [(one.time, one.after[name]) for one in reports if name in one.after]
        found[name] = project(heard, window.used, window.resets, now, since)
    return found


def _spent(hours: Sequence[Hour], since: float, now: float, days: int) -> dict[str, Any]:
    """``hours``: those of the last ``days`` days, which begin at ``since``, and of a week at
    least."""
    today = day_of(now)
    week = {(today - timedelta(back)).isoformat() for back in range(WEEK)}
    last_day = [row for row in hours if row.hour > now - 24 * HOUR]
    asked = [row for row in hours if row.hour >= since]
    return {
        "list_prices_of": AS_OF,
        "days": days,
        "today": Totals.of(r for r in hours if day(r) == today.isoformat()).as_dict(),
        "last_7_days": Totals.of(r for r in hours if day(r) in week).as_dict(),
        "total": Totals.of(asked).as_dict(),
        "by_day": _named("day", by(asked, day)),
        "by_hour": _named("hour", by(last_day, lambda row: row.hour)),
        "sessions": [
            {"start": start, "end": start + SESSION, **totals.as_dict()}
            for start, totals in by_session(asked).items()
        ],
    }


def _by_who(rows: Sequence[Hour]) -> dict[str, Any]:
    """Those with the most turns come first."""
    found = {}
    for name in ("model", "key", "client"):
        groups = by(rows, attrgetter(name))
        most_first = sorted(groups.items(), key=lambda group: -group[1].turns)
        found[f"by_{name}"] = _named(name, dict(most_first))
    return found


def _named(name: str, groups: Mapping[Any, Totals]) -> list[dict[str, Any]]:
    return [{name: group, **totals.as_dict()} for group, totals in groups.items()]


def day_of(now: float) -> date:
    """The local day at ``now``, epoch seconds."""
    return datetime.fromtimestamp(now).date()


def _midnight(now: float, back: int) -> float:
    """When the local day ``back`` days ago began."""
    first = day_of(now) - timedelta(back)
    return datetime(first.year, first.month, first.day).timestamp()


def plan(engine: Engine, projections: Mapping[str, Projection | None]) -> dict[str, Any]:
    """The plan's windows, and what is known of extra usage."""
    quota, now = engine.quota, engine.now()
    windows, closed = quota.windows, quota.closed()
    told = {
        name: {
            "used": None if window is None else round(window.used * 100, 2),
            "resets_at": round(closed[name] if window is None else window.resets),
            "status": None if window is None else window.status,
            "closed": name in closed,
            "reserve": round(quota.policy.reserve.get(name, 0.0) * 100, 2),
            "projection": _as_dict(projections.get(name)),
        }
        for name, window in {
            **dict.fromkeys(closed),
            **{name: window for name, window in windows.known.items() if now < window.resets},
        }.items()
    }
    return {
        "object": "usage",
        "plan": quota.applies,
        "logged_in": quota.login.works,
        "windows": told,
        "extra_usage": {
            "enabled": windows.extra_usage,
            "disabled_reason": windows.why_off,
            "in_use": windows.in_use,
            "allowed_here": quota.policy.extra_usage,
            "paid_turns": quota.charges.paid + quota.charges.paid_elsewhere,
            "refused_setups": quota.charges.charged,
            "undecided": quota.undecided,
        },
    }


def _as_dict(projection: Projection | None) -> dict[str, Any] | None:
    return None if projection is None else projection.as_dict()
