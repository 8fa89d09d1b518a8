"""Tokens and cache over time: the periods that the charts and their tables show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from attrs import frozen

from claudeproxy.ledger.hours import HOUR, hour_of

HOURS, DAYS = 24, 30


@frozen
class Period:
    """An hour or a day: tokens by how they were counted, and the share of the input that came from
    the cache (0 to 1, ``None`` without input)."""

    label: str
    fresh: int = 0
    written: int = 0
    cached: int = 0
    output: int = 0
    turns: int = 0
    cache_share: float | None = None

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.fresh + self.written + self.cached + self.output


def hours(ledger: Mapping[str, Any], now: float) -> list[Period]:
    """The last day's hours, the oldest first. ``ledger``: what ``/v1/usage`` tells of it."""
    told = {row["hour"]: row for row in ledger["by_hour"]}
    starts = [hour_of(now - HOUR * back) for back in reversed(range(HOURS))]
    return [_period(f"{datetime.fromtimestamp(at):%H}", told.get(at)) for at in starts]


def days(ledger: Mapping[str, Any], now: float) -> list[Period]:
    """The last days, the oldest first."""
    told = {row["day"]: row for row in ledger["by_day"]}
    today = datetime.fromtimestamp(now).date()
    dates = [today - timedelta(back) for back in reversed(range(DAYS))]
    return [_period(f"{day:%b} {day.day}", told.get(day.isoformat())) for day in dates]


def _period(label: str, row: Mapping[str, Any] | None) -> Period:
    if row is None:
        return Period(label)
    return Period(
        label,
        row["input_tokens"],
        row["cache_write_5m_tokens"] + row["cache_write_1h_tokens"],
        row["cache_read_tokens"],
        row["output_tokens"],
        row["turns"],
        row["cache_share"],
    )


def most(periods: Sequence[Period]) -> Period:
    """The one with the most tokens."""
    return max(periods, key=lambda period: period.tokens)


def total(periods: Iterable[Period]) -> int:
    """Their tokens."""
    return sum(period.tokens for period in periods)
