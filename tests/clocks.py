"""A clock for what is told the time by a function."""

from __future__ import annotations

from attrs import define


@define
class SetClock:
    """Says what it is set to: ``now``, epoch seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now
