"""Warm processes: started up and unclaimed, some of them primed for what is usual."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from claudeproxy.cli.launch import CLIError
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.session import State
from claudeproxy.cli.setup import Setup
from claudeproxy.messages import Failure, FailureError, Kind

START_TIMEOUT = 60.0
"""Seconds a process may take to start up, on a machine that is busy."""

HOPELESS = 3
"""Starts that failed in a row before those who wait are told."""

MAX_BACKOFF = 30.0


class Pool:
    """Keeps ``warm`` processes at hand and hands them out, first come first served.

    At most ``starts`` processes start up at once: a start is a second of CPU, and more of them
    than cores only makes each later. A process that dies unclaimed is replaced.

    Any process fits any request. Once two requests in a row have needed the same set-up, as a
    client's do, half of the waiting processes are primed with it and with the latest settings:
    their first turn is twice as fast, and the other half still fits anything.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, spawn: Callable[[], CLIProcess], *, warm: int, starts: int
    ) -> None:
        """``spawn`` starts a process; it may raise :class:`CLIError` or :class:`OSError`."""
        self._reactor = reactor
        self._spawn = spawn
        self._target = warm
        self._starts = starts
        self._warm: deque[CLIProcess] = deque()
        self._starting: dict[CLIProcess, Any] = {}
        self._claims: deque[Deferred[CLIProcess]] = deque()
        self._recent: Setup | None = None
        self._usual: Setup | None = None
        self._flags: Mapping[str, Any] = {}
        self._retry: Any = None
        self._closed = False
        self._relapse = 0  # failures before the last good start: all count if that one dies too
        self.failures = 0
        """Starts in a row that failed, or whose process died unclaimed."""

    @property
    def warm(self) -> int:
        """Processes that wait."""
        return len(self._warm)

    @property
    def starting(self) -> int:
        """Processes that start up."""
        return len(self._starting)

    def claim(self, setup: Setup, flags: Mapping[str, Any]) -> Deferred[CLIProcess]:
        """A started-up process that fits ``setup``, ours from now on.

        ``flags``: what the turn will apply; remembered for the next that is primed.

        Taking a waiting one does not start its replacement (:meth:`fill` does): that second of
        CPU belongs to the turn that begins.

        :raises FailureError: 503 (in the Deferred) when no process can be started.
        """
        if setup.schema is None:
            self._usual = setup if setup == self._recent else None
            self._recent, self._flags = setup, flags
        claim: Deferred[CLIProcess] = Deferred(self._claims.remove)
        fitting = sorted(
            (p for p in self._warm if p.state is State.WARM and p.setup in (None, setup)),
            key=lambda process: process.setup is None,
        )
        if fitting:
            self._warm.remove(fitting[0])
            self._relapse = 0
            claim.callback(fitting[0])
            return claim
        self._claims.append(claim)
        self.fill()
        return claim

    def fill(self) -> None:
        """Prime what waits, and start what is missing, as far as it may start now."""
        if self._closed:
            return
        self._prime()
        if self._retry is not None:
            return
        while len(self._starting) < self._starts and self._target + len(self._claims) > len(
            self._warm
        ) + len(self._starting):
            try:
                process = self._spawn()
            except (CLIError, OSError) as error:
                self._failed(str(error))
                return
            self._starting[process] = self._reactor.callLater(START_TIMEOUT, process.kill)

    def _prime(self) -> None:
        usual = self._usual
        if usual is None or self._claims:
            return
        for process in [p for p in self._warm if p.setup not in (None, usual)]:
            self._warm.remove(process)  # primed for what is no longer usual
            process.stop()
        primed = sum(process.setup is not None for process in self._warm)
        for process in list(self._warm):
            if process.setup is None and process.state is State.WARM and primed < self._target // 2:
                process.prime(usual, self._flags)
                primed += 1

    def ready(self, process: CLIProcess) -> None:
        """``process`` has started up."""
        timer = self._starting.get(process)
        if timer is None or not timer.active():
            return  # too late, it is killed: gone() will tell
        del self._starting[process]
        timer.cancel()
        self._relapse, self.failures = max(self._relapse, self.failures), 0
        if self._claims:
            self._relapse = 0
            self._claims.popleft().callback(process)
        else:
            self._warm.append(process)
        self.fill()

    def gone(self, process: CLIProcess) -> None:
        """``process`` has ended: replace it if it was ours."""
        if process in self._warm:
            self._warm.remove(process)
            if process.setup is not None:
                self._usual = self._recent = None  # it may be what the CLI died of
            # Replaced, but not at once for ever: it may be that all of them die like that.
            self.failures = max(self.failures, self._relapse)
            self._failed("it ended while it waited")
        elif process in self._starting:
            timer = self._starting.pop(process)
            if timer.active():
                timer.cancel()
            self._failed("it ended while starting up")

    def renew(self) -> None:
        """End everything unclaimed; new processes start in its place."""
        self._end_all()
        self.fill()

    def recycle(self, age: float) -> None:
        """Replace the waiting processes that are older than ``age`` seconds."""
        now = self._reactor.seconds()
        for process in [p for p in self._warm if now - p.born > age]:
            self._warm.remove(process)
            process.stop()
        self.fill()

    def close(self) -> None:
        """End everything unclaimed, and start nothing any more."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._end_all()

    def _end_all(self) -> None:
        ending = [*self._warm, *self._starting]
        for timer in self._starting.values():
            if timer.active():
                timer.cancel()
        self._warm.clear()
        self._starting.clear()
        for process in ending:
            process.stop()

    def _failed(self, why: str) -> None:
        if self._closed:
            return
        self.failures += 1
        self.log.warn("a Claude CLI was lost: {why}", why=why)
        if self.failures >= HOPELESS:
            failure = Failure(Kind.UNAVAILABLE, f"the Claude CLI does not start: {why}", 503)
            while self._claims:
                self._claims.popleft().errback(FailureError(failure))
        if self._retry is None:
            delay = min(MAX_BACKOFF, 0.25 * 2**self.failures)
            self._retry = self._reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self._retry = None
        self.fill()
