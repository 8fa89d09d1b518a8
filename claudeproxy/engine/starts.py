"""Starts processes: only so many at once, and again after a failure, but not for ever."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from claudeproxy.cli.launch import CLIError
from claudeproxy.cli.process import CLIProcess
from claudeproxy.messages import Failure, Kind

START_TIMEOUT = 60.0
"""Seconds a process may take to start up, on a busy machine."""

HOPELESS = 3
"""How many starts in a row have to fail before those who wait are told."""

MAX_BACKOFF = 30.0


class Starts:
    """The processes starting up, at most ``at_once``: a start takes a second of CPU, and more
    starts than cores only delay each other."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        spawn: Callable[[], CLIProcess],
        at_once: int,
        hopeless: Callable[[Failure], None],
        again: Callable[[], None],
    ) -> None:
        """``spawn`` starts a process; it may raise :class:`CLIError` or :class:`OSError`.
        ``hopeless`` is called if none can be started; ``again`` once the next may be tried."""
        self._reactor = reactor
        self._spawn = spawn
        self._at_once = at_once
        self._hopeless = hopeless
        self._again = again
        self._starting: dict[CLIProcess, IDelayedCall] = {}
        self._retry: IDelayedCall | None = None
        self._relapse = 0  # failures before the last good start; they count again if that one dies
        self.failures = 0
        """How many starts in a row failed, or led to a process that died before it was used."""

    def __len__(self) -> int:
        return len(self._starting)

    @property
    def processes(self) -> tuple[CLIProcess, ...]:
        """Those that are starting up."""
        return tuple(self._starting)

    def start(self, wanted: int) -> None:
        """Start processes until ``wanted`` are starting up, as far as that is allowed now."""
        while self._retry is None and len(self._starting) < min(wanted, self._at_once):
            try:
                process = self._spawn()
            except (CLIError, OSError) as error:
                self.failed(str(error))
                return
            self._starting[process] = self._reactor.callLater(START_TIMEOUT, process.stop)

    def ready(self, process: CLIProcess) -> bool:
        """Whether ``process`` has started up in time; if not, it is being ended."""
        timer = self._starting.get(process)
        if timer is None or not timer.active():
            return False
        del self._starting[process]
        timer.cancel()
        self._relapse, self.failures = max(self._relapse, self.failures), 0
        return True

    def of_use(self) -> None:
        """A process that has started up was given a turn."""
        self._relapse = 0

    def ended(self, process: CLIProcess) -> bool:
        """Whether ``process``, which has ended, was starting up."""
        timer = self._starting.pop(process, None)
        if timer is None:
            return False
        if timer.active():
            timer.cancel()
        self.failed("it ended while starting up")
        return True

    def ended_unused(self) -> None:
        """A process ended while waiting for its first turn. It is replaced, but after ever longer
        delays: they may all die like that."""
        self.failures = max(self.failures, self._relapse)
        self.failed("it ended while it waited")

    def failed(self, why: str) -> None:
        """A start has failed."""
        self.failures += 1
        self.log.warn("a Claude CLI was lost: {why}", why=why)
        if self._retry is None:
            delay = min(MAX_BACKOFF, 0.25 * 2**self.failures)
            self._retry = self._reactor.callLater(delay, self._retried)
        if self.failures >= HOPELESS:
            # Last: whoever is told frees its slot, and the next turn there wants a process, too.
            self._hopeless(Failure(Kind.UNAVAILABLE, f"the Claude CLI does not start: {why}", 503))

    def _retried(self) -> None:
        self._retry = None
        self._again()

    def stop(self) -> tuple[CLIProcess, ...]:
        """End what is starting up. Returns those processes; nothing more will come of them."""
        ending, self._starting = self._starting, {}
        for process, timer in ending.items():
            if timer.active():
                timer.cancel()
            process.stop()
        return tuple(ending)

    def close(self) -> None:
        """End what is starting up, and start nothing more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._at_once = 0
        self.stop()
