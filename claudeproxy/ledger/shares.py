"""Which part of the plan's windows went to whom."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

WINDOW_SECONDS = {"five_hour": 5 * 3600.0, "seven_day": 7 * 24 * 3600.0}
"""How long a window lasts; those of other names last as long as the one their name begins with."""

SAME_WINDOW = 120.0
"""Seconds that a window's reset may move without its being another window."""


def window_seconds(name: str) -> float:
    """How long the window ``name`` lasts; 0 if that is not known."""
    return next((s for start, s in WINDOW_SECONDS.items() if name.startswith(start)), 0.0)


@define
class _Seen:
    used: float
    resets: float
    by_key: dict[str, float] = field(factory=dict)


class Shares:
    """The growth of each window, added to the key whose turn reported it. What other sessions of
    the account have used since the report before is in it: nobody tells them apart."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def heard(
        self,
        key: str | None,
        before: Mapping[str, float],
        after: Mapping[str, float],
        resets: Mapping[str, float],
    ) -> None:
        """A turn is over. ``before``, ``after``: the used share (0 to 1) of each window;
        ``resets``: when each resets, epoch seconds."""
        for window, used in after.items():
            seen = self._seen.get(window)
            ends = resets.get(window, 0.0)
            if seen is None:
                seen = self._seen[window] = _Seen(before.get(window, used), ends)
            elif abs(ends - seen.resets) > SAME_WINDOW:
                seen = self._seen[window] = _Seen(0.0, ends)
            if key is not None and used > seen.used:
                seen.by_key[key] = seen.by_key.get(key, 0.0) + used - seen.used
            seen.used = used

    def of(self, key: str, window: str, now: float) -> float:
        """The share of ``window`` that went to ``key``; 0 once it has reset."""
        seen = self._seen.get(window)
        return 0.0 if seen is None or now >= seen.resets else seen.by_key.get(key, 0.0)
