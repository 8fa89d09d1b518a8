"""What only one of several nodes may do at a time: probe a closed window, or find out how a turn is
paid for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

_log = Logger()


class LeasesLost(Exception):
    """Whoever keeps the leases does not answer."""


class Leases(Protocol):
    """By the names of what is guarded. A node that has ended holds none."""

    def take(self, names: Collection[str]) -> Deferred[set[str]]:
        """Those of ``names`` that were not free. If it is empty all have been taken, and else
        none. What those who held them before have learnt is known here by then. Fails if the
        leases cannot be asked."""

    def release(self, names: Collection[str]) -> Deferred[None]:
        """Give back what was taken. It never fails: what cannot be given back now is given back
        once it can."""


def take(leases: Leases, names: Collection[str]) -> Deferred[set[str]]:
    """What :meth:`Leases.take` returns; fails with :class:`LeasesLost` where that fails. What comes
    after the caller has given up is given back."""
    asked: Deferred[set[str]] = Deferred()

    def came(missing: set[str]) -> None:
        if not asked.called:
            asked.callback(missing)
        elif not missing:
            leases.release(names)

    def failed(reason: object) -> None:
        _log.info("leases cannot be taken: {reason}", reason=reason)
        if not asked.called:
            asked.errback(LeasesLost())

    leases.take(names).addCallbacks(came, lambda failure: failed(repr(failure.value)))
    return asked
