"""Bounds how many turns run at once, and how many wait: by tier, and first come, first served
within a tier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred

from claudeproxy.messages import Failure, FailureError, Kind, Tier

_ORDER: dict[Tier, int] = {"priority": 0, "default": 1, "flex": 2}


class Admission:
    """``concurrency`` slots for turns, and a queue of ``queue``. A waiting turn that is cancelled
    leaves the queue and never runs."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.running = 0
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._outside = 0
        self._closed: Failure | None = None
        self._recent = 10.0
        self._handing_on = False

    @property
    def closed(self) -> Failure | None:
        """Why no more turns are admitted; ``None`` if they are."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Turns in the queue, and those that wait for something else before they join it."""
        return len(self._waiting) + self._outside

    @contextmanager
    def before(self) -> Iterator[None]:
        """Count a turn as waiting while it waits for something else, before it joins the queue."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def check(self, turns: int) -> None:
        """Refuse a request at once if its ``turns`` could not even wait.

        :raises FailureError: 400 when they could never fit into slots and queue, 429 when they do
            not fit now, 503 after :meth:`close`.
        """
        if self._closed is not None:
            raise FailureError(self._closed)
        if turns > self.concurrency + self.queue:
            most = self.concurrency + self.queue
            raise FailureError.invalid(f"at most {most} answers at once are possible here", "n")
        free = self.concurrency - self.running + self.queue - self.waiting
        if turns > free:
            raise FailureError(
                Failure(
                    Kind.RATE_LIMIT,
                    f"{self.running} turns are running and {self.waiting} are waiting; "
                    "come back later",
                    429,
                    retry_after=self._estimate(),
                    code="rate_limit_exceeded",
                )
            )

    def enter(self, tier: Tier = "default") -> Deferred[None]:
        """Fires when the turn has a slot, which it must give back with :meth:`leave`.

        ``priority`` goes before all that wait, ``flex`` after them.
        """
        slot: Deferred[None] = Deferred(self._withdraw)
        if self._closed is not None:
            slot.errback(FailureError(self._closed))
        elif self.running < self.concurrency:
            self.running += 1
            slot.callback(None)
        else:
            self._waiting.append((_ORDER[tier], slot))
            self._waiting.sort(key=lambda waiting: waiting[0])  # stable: a bounded queue
        return slot

    def _withdraw(self, slot: Deferred[None]) -> None:
        self._waiting = [waiting for waiting in self._waiting if waiting[1] is not slot]

    def leave(self, seconds: float) -> None:
        """Give back a slot after a turn of ``seconds``; the first in the queue gets it."""
        self._recent += (seconds - self._recent) / 8
        self.running -= 1
        if self._handing_on:
            return  # called from the loop below, by a turn that failed at once
        self._handing_on = True
        while self._waiting and self.running < self.concurrency:
            self.running += 1
            self._waiting.pop(0)[1].callback(None)
        self._handing_on = False

    def close(self, failure: Failure) -> None:
        """Admit no more turns, and fail those that wait."""
        self._closed = failure
        while self._waiting:
            self._waiting.pop(0)[1].errback(FailureError(failure))

    def _estimate(self) -> float:
        turns_ahead = 1 + self.waiting / self.concurrency
        return max(1.0, round(self._recent * turns_ahead))
