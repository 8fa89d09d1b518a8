"""How long a turn may take; one timer watches it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from claudeproxy.messages import Failure, Kind


@frozen
class Deadlines:
    """Seconds: until the first event, between two events, for the whole turn."""

    first_token: float = 120.0
    idle: float = 120.0
    turn: float = 1800.0


class Watch:
    """Calls ``expire`` with a :class:`Failure` once a deadline has passed.

    :meth:`touch` only notes the time, and the timer checks that when it fires, so that a delta
    costs no timer. While the turn is paused for its client, only the deadline for the whole turn
    applies.
    """

    def __init__(
        self, reactor: IReactorTime, deadlines: Deadlines, expire: Callable[[Failure], None]
    ) -> None:
        self._reactor = reactor
        self._deadlines = deadlines
        self._expire = expire
        self._began = self._last = reactor.seconds()
        self._touched = False
        self._paused = False
        soonest = min(deadlines.first_token, deadlines.idle, deadlines.turn)
        self._timer = reactor.callLater(soonest, self._look)

    def touch(self) -> None:
        """An event has arrived."""
        self._touched = True
        self._last = self._reactor.seconds()

    def pause(self) -> None:
        """The client does not read: silence is not the model's fault now."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        self._last = self._reactor.seconds()

    def stop(self) -> None:
        """The turn has ended."""
        if self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        now = self._reactor.seconds()
        limits = self._deadlines
        whole = self._began + limits.turn
        silence = self._last + (limits.idle if self._touched else limits.first_token)
        if now >= whole:
            self._expire(_timeout(f"the turn took longer than {limits.turn:g} seconds"))
        elif now >= silence and not self._paused:
            if self._touched:
                self._expire(_timeout(f"the model was silent for {limits.idle:g} seconds"))
            else:
                self._expire(_timeout(f"no answer began within {limits.first_token:g} seconds"))
        else:
            wait = min(whole, now + limits.idle if self._paused else silence) - now
            self._timer = self._reactor.callLater(max(wait, 0.01), self._look)


def _timeout(message: str) -> Failure:
    return Failure(Kind.TIMEOUT, message, 504)
