"""The minutes and days in which is counted what keys use."""

from __future__ import annotations

from datetime import date, datetime, timedelta

MINUTE, DAY = "min", "day"
PERIODS = (MINUTE, DAY)


def period(name: str, now: float) -> tuple[float, float]:
    """Begin and end of the minute or the local day that ``now`` is in, epoch seconds."""
    if name == MINUTE:
        begin = now // 60 * 60
        return begin, begin + 60
    today = datetime.fromtimestamp(now).date()
    return _midnight(today), _midnight(today + timedelta(1))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day).timestamp()
