"""A large request must not keep others waiting."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

LONG = 0.05
"""Seconds of work after which others get a chance."""

BREAK = 0.01
"""Seconds in which others are served. Not 0: that would be over before anything is read."""


class TimeSlice:
    """``await time_slice.give_way()`` between two pieces of work lets others be served."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._since = reactor.seconds()

    async def give_way(self) -> None:
        """Let others be served if they have waited for long."""
        if self._reactor.seconds() - self._since > LONG:
            await deferLater(self._reactor, BREAK, lambda: None)
            self._since = self._reactor.seconds()


@contextmanager
def no_collector() -> Iterator[None]:
    """No garbage collection while values are made and none is dropped: the collector would look at
    all of them again and again, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
