"""What a reply promises to be stored is stored before the reply ends: the next request may be for
it, at another daemon. But nobody waits long for a store that does not answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from claudeproxy.messages import Failure, Kind

PATIENCE = 3.0
"""Seconds for which the end of a reply waits for the store."""

LOST = Failure(
    Kind.UNAVAILABLE,
    "the store does not answer at present: requests that need nothing of it are answered",
    503,
    retry_after=5.0,
    code="store_lost",
)
"""Why there is no answer to a request for what is stored."""

_log = Logger()


def shielded(waiting: Deferred[Any]) -> Deferred[Any]:
    """Fires as ``waiting`` does, which goes on when nobody waits for it any more."""
    told: Deferred[Any] = Deferred()
    waiting.addBoth(told.callback)
    return told


def in_time(
    reactor: IReactorTime,
    putting: Deferred[Any],
    what: str,
    full: str = "there is no room for it",
) -> Deferred[bool]:
    """Whether ``what`` is stored, or not within :data:`PATIENCE`; if not, the log says why. Never
    fails, and ``putting`` goes on when nobody waits for it any more. ``full``: what it means when
    that comes to nothing true."""
    told: Deferred[bool] = Deferred()

    def not_stored(why: str) -> bool:
        # Once, and without a word of what was said: whatever is quoted follows the first line.
        if not told.called:
            _log.error("{what} is not stored: {why}", what=what, why=why)
        return False

    def failed(reason: Reason) -> bool:
        error = reason.value
        return not_stored(f"{type(error).__name__}: {error}".split("\n")[0])

    def late(_: Any, seconds: float) -> bool:
        _log.error(
            "{what} is not stored: it takes longer than {seconds} s", what=what, seconds=seconds
        )
        return False

    putting.addCallbacks(lambda there: bool(there) or not_stored(full), failed)
    putting.addCallback(told.callback)
    return told.addTimeout(PATIENCE, reactor, late)
