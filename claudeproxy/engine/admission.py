"""At most so many turns at once, first come first served, and a bounded queue before them."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred

from claudeproxy.messages import Failure, FailureError, Kind


class Admission:
    """Slots for turns. A waiting turn that is cancelled leaves the queue and is never started."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.running = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._closed: Failure | None = None
        self._recent = 10.0
        self._handing_on = False

    @property
    def waiting(self) -> int:
        """Turns in the queue."""
        return len(self._waiting)

    def check(self, turns: int) -> None:
        """Refuse now what could not even wait.

        :raises FailureError: 429 when ``turns`` more do not fit into slots and queue.
        """
        if self._closed is not None:
            raise FailureError(self._closed)
        if turns > self.concurrency + self.queue:
            most = self.concurrency + self.queue
            raise FailureError.invalid(f"no more than {most} answers at once here", "n")
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

    def enter(self) -> Deferred[None]:
        """Fires when a slot is ours; it has to be given back with :meth:`leave`."""
        slot: Deferred[None] = Deferred(self._waiting.remove)
        if self.running < self.concurrency:
            self.running += 1
            slot.callback(None)
        else:
            self._waiting.append(slot)
        return slot

    def leave(self, seconds: float) -> None:
        """Give a slot back after a turn of ``seconds``; the longest waiting gets it."""
        self._recent += (seconds - self._recent) / 8
        self.running -= 1
        if self._handing_on:
            return  # a turn that failed at once: the loop below goes on
        self._handing_on = True
        while self._waiting and self.running < self.concurrency:
            self.running += 1
            self._waiting.popleft().callback(None)
        self._handing_on = False

    def close(self, failure: Failure) -> None:
        """Take nobody in any more, and send away those who wait."""
        self._closed = failure
        while self._waiting:
            self._waiting.popleft().errback(FailureError(failure))

    def _estimate(self) -> float:
        turns_ahead = 1 + self.waiting / self.concurrency
        return max(1.0, round(self._recent * turns_ahead))
