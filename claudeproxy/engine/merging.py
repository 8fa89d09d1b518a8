"""What several nodes know of one plan, made one.

States are those of :meth:`.quota.Quota.kept`. Each part is a maximum in some total order, so that
it does not matter in which order, or how often, they are merged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

SAME_WINDOW = 120.0
"""Seconds into which resets are put together: reports of one window differ by less. A reset on the
minute is in the same span as those up to 30 seconds before and after it."""

REMEMBERED = 1000
"""The most set-ups that are remembered; the latest are."""

Kept = Mapping[str, Any]


def merge(a: Kept, b: Kept) -> dict[str, Any]:
    """The state that knows what both know. Commutative, associative and idempotent.

    :raises ValueError: when they are of different accounts.
    """
    if a["account"] != b["account"]:
        raise ValueError("two accounts have no windows in common")
    return {
        "account": a["account"],
        "windows": merge_windows(a["windows"], b["windows"]),
        "closed": merge_each(a["closed"], b["closed"], closed_order),
        "charged": merge_times(a["charged"], b["charged"]),
        "cleared": merge_times(a["cleared"], b["cleared"]),
    }


def merge_windows(a: Kept, b: Kept) -> dict[str, Any]:
    """Of each window, what was said of the later one, and within that the greater use. All else,
    as it was told last."""
    known = merge_each(a["known"], b["known"], _window_order)
    return {**(a if _told_order(a) > _told_order(b) else b), "known": known}


def merge_each(a: Kept, b: Kept, order: Callable[[Any], Any]) -> dict[str, Any]:
    """The greater of the values of each name."""
    both = {name: max(a[name], b[name], key=order) for name in a.keys() & b.keys()}
    return {**a, **b, **both}


def merge_times(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """The later time of each name, for as many names as are remembered, the latest at the end."""
    times = merge_each(a, b, float)
    latest = sorted(times.items(), key=lambda item: (item[1], item[0]))
    return dict(latest[-REMEMBERED:])


def closed_order(entry: Kept) -> tuple[float, float, bool]:
    """The last word on a window counts, be it closed or opened (``until`` is 0). Of two at the same
    time, it is the one that keeps it closed for longer."""
    return entry["at"], entry["until"], entry["paid"]


def _window_order(window: Kept) -> tuple[int, float, float, str]:
    number = math.floor((window["resets"] + 30) / SAME_WINDOW)
    return number, window["used"], window["resets"], json.dumps(window["status"])


def _told_order(windows: Kept) -> tuple[float, str]:
    rest = {name: value for name, value in windows.items() if name != "known"}
    return rest["told"], json.dumps(rest, sort_keys=True)


def following(now: float, before: float | None) -> float:
    """The time of what happens now, and is to count for more than what happened at ``before``,
    whatever the clock of the node says that told it."""
    return now if before is None or now > before else math.nextafter(before, math.inf)
