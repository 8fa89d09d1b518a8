"""How late the reactor is: what everybody waits for when something keeps it busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

PERIOD = 0.25
"""Seconds between two looks."""

WATCHED = 300.0
"""Seconds after a scrape for which it goes on. Nobody else pays for a timer four times a second."""


class ReactorLag:
    """Calls ``observe`` with the seconds by which each of its timers is late, from the first
    :meth:`wanted` on and as long as another comes in time."""

    def __init__(self, reactor: IReactorTime, observe: Callable[[float], object]) -> None:
        self._reactor = reactor
        self._observe = observe
        self._until = 0.0
        self._timer: Any = None

    def wanted(self) -> None:
        """Somebody reads it."""
        self._until = self._reactor.seconds() + WATCHED
        if self._timer is None:
            self._set()

    def stop(self) -> None:
        """Set no timer any more."""
        self._until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self._timer = self._reactor.callLater(PERIOD, self._look, self._reactor.seconds() + PERIOD)

    def _look(self, due: float) -> None:
        self._timer = None
        now = self._reactor.seconds()
        self._observe(max(0.0, now - due))
        if now < self._until:
            self._set()
