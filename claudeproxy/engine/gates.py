"""Gates that turns shut behind themselves until it is known how they are paid for."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

FULL = " full"
"""The gate for all turns while a window is nearly full. With its blank, it cannot be the digest of
a set-up."""

LOOK_AGAIN = 1.0
"""Seconds after which a gate that another node has shut is tried again, if that node tells
nothing."""


@define
class _Gate:
    """``holders``: running turns of which it is not yet known how they are paid for; ``waiting``:
    turns that wait to learn that."""

    holders: int = 0
    waiting: list[Deferred[None]] = field(factory=list)


class Gates:
    """Each is open until somebody shuts it."""

    def __init__(self) -> None:
        self._shut: dict[str, _Gate] = {}
        self._elsewhere: dict[str, IDelayedCall] = {}

    def __bool__(self) -> bool:
        """Whether any is shut."""
        return bool(self._shut)

    def __contains__(self, gate: str) -> bool:
        """Whether ``gate`` is shut."""
        return gate in self._shut

    def shut(self, gate: str) -> None:
        """Let no turn through ``gate`` until :meth:`decide` is called as often as this was."""
        self._shut.setdefault(gate, _Gate()).holders += 1

    def wait(self, gate: str) -> Deferred[None]:
        """Fires when ``gate``, which is shut, has been opened."""
        turn: Deferred[None] = Deferred()
        self._shut[gate].waiting.append(turn)
        return turn

    def decide(self, gate: str) -> None:
        """Let the turns go on that wait at ``gate``, if nobody else has shut it."""
        shut = self._shut[gate]
        shut.holders -= 1
        if shut.holders == 0:
            del self._shut[gate]
            for turn in shut.waiting:
                if not turn.called:
                    turn.callback(None)

    def leave(self, gate: str, clock: IReactorTime) -> None:
        """Another node has shut ``gate``, which was shut here to ask for it: it stays so until
        :meth:`decided_elsewhere`, or until it is time to look again."""
        self._elsewhere[gate] = clock.callLater(LOOK_AGAIN, self.decided_elsewhere, gate)

    def decided_elsewhere(self, gate: str) -> None:
        """The other node has opened ``gate``, or may have."""
        look = self._elsewhere.pop(gate, None)
        if look is not None:
            if look.active():
                look.cancel()
            self.decide(gate)
