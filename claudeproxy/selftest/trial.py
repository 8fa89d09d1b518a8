"""The self-test of a CLI that was updated while the daemon runs."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred
from twisted.logger import Logger

from claudeproxy._reactor import IDaemonReactor
from claudeproxy.cli.installation import Installation

from .run import Report, run


class Trial:
    """Tries the CLI when it is asked to, and remembers what was lost."""

    log = Logger()

    def __init__(self, reactor: IDaemonReactor, cli: Installation) -> None:
        self._reactor = reactor
        self._cli = cli
        self._running: Deferred[Report] | None = None
        self.lost: tuple[str, ...] = ()
        """The names of the facts to which the CLI did not hold when it was last tried."""

    async def run(self) -> None:
        """Try it; what is lost is logged by name."""
        if not self._cli.usable:
            return
        self._running = ensureDeferred(run(self._reactor, self._cli.executable))
        try:
            report = await self._running
        except CancelledError:
            return
        finally:
            self._running = None
        self.lost = tuple(one.fact.name for one in report.lost)
        for one in report.lost:
            self.log.warn(
                "claude {version} does not hold to {fact} ({meaning}): {seen}",
                version=self._cli.version,
                fact=one.fact.name,
                meaning=one.fact.meaning,
                seen=one.lost,
            )

    async def stop(self) -> None:
        """End the one that runs, and its processes."""
        if self._running is not None:
            self._running.cancel()
            await DeferredList([self._running])
