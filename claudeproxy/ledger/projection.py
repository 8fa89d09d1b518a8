"""When a plan window will be full at the present pace, and what that is based on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen

LEAST_SPAN = 600.0
"""Seconds between the first and the last report, below which nothing is projected."""

_LOOK_BACK = {"five_hour": 3600.0}
_LOOK_BACK_OF_DAYS = 24 * 3600.0


def look_back(window: str) -> float:
    """The seconds whose reports make the pace of ``window``: an hour, or a day for one of days."""
    return _LOOK_BACK.get(window, _LOOK_BACK_OF_DAYS)


@frozen
class Projection:
    """``pace``: share per hour (0 to 1); ``full_at``: epoch seconds, ``None`` if the window resets
    before; ``at_reset``: the share used by then, 1 at most. ``reports`` and ``span`` (seconds):
    what it is based on."""

    pace: float
    full_at: float | None
    at_reset: float
    reports: int
    span: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON, shares in percent."""
        return {
            "percent_per_hour": round(self.pace * 100, 2),
            "full_at": None if self.full_at is None else round(self.full_at),
            "percent_at_reset": round(self.at_reset * 100, 2),
            "based_on": {"reports": self.reports, "minutes": round(self.span / 60)},
        }


def project(
    reports: Iterable[tuple[float, float]], used: float, resets: float, now: float, since: float
) -> Projection | None:
    """Extend the line from the first report to now; ``None`` with too little to go by.

    ``reports``: time and used share, the oldest first; ``used``: the share as last known;
    ``since``: reports before it are of the window before, or too old.
    """
    heard = [(when, share) for when, share in reports if since <= when <= now and share <= used]
    if len(heard) < 2 or now - heard[0][0] < LEAST_SPAN or now >= resets:
        return None
    first, share = heard[0]
    pace = (used - share) / (now - first)
    full_at = now + (1 - used) / pace if pace > 0 else None
    if full_at is not None and full_at >= resets:
        full_at = None
    at_reset = min(1.0, used + pace * (resets - now))
    return Projection(pace * 3600, full_at, at_reset, len(heard), now - first)
