"""Keeps processes from turn to turn, and gives each request the one that costs least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.states import AT_REST, GIVES_UP, RETURNING, State
from claudeproxy.messages import Failure, FailureError, Message

from . import memory
from .digest import extended
from .placing import Kept, Placement, Wanted, cheapest, least, worth_less
from .reports import ProcessReport, report, report_kept
from .starts import HOPELESS, Starts

REFILL = 0.5
"""Seconds for which a new turn has the CPU before the next process start competes for it."""

MAX_TURNS = 1000
"""Turns after which a process is replaced: it has grown by 100 MB by then."""

MAX_AGE = 6 * 3600.0
"""Seconds after which a process is replaced by a fresh one."""

MAX_RSS = 600 * 2**20
"""Bytes of memory above which a process is replaced: three times what it starts with."""


class Keeper:
    """At most ``budget`` processes, started as they are needed; one that fits any request is kept
    at hand where the budget allows."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        spawn: Callable[[], CLIProcess],
        *,
        budget: int,
        starts: int,
        idle: float,
        park: float,
    ) -> None:
        """``starts``: how many may start up at once; ``idle``: seconds after which a process that
        nobody uses is ended; ``park``: seconds that a parked call may wait for its result."""
        self._reactor = reactor
        self.budget = budget
        """How many processes there may be."""
        self.idle = idle
        """Seconds after which a process that nobody uses is ended."""
        self._park = park
        self._starts = Starts(reactor, spawn, starts, self._hopeless, self.fill)
        self._kept: dict[CLIProcess, Kept] = {}
        self._retiring: set[CLIProcess] = set()  # they end after their turns
        self._ending: set[CLIProcess] = set()
        self._claims: dict[Deferred[Placement], Wanted] = {}
        self._scarce = False  # memory
        self._filling: IDelayedCall | None = None
        self._closed = False
        self._told = False  # that the CLI cannot rewind

    # -- what can be asked of it --

    @property
    def starting(self) -> int:
        """How many processes are starting up."""
        return len(self._starts)

    @property
    def unused(self) -> int:
        """How many processes fit any request."""
        return sum(kept.unused and kept.free for kept in self._kept.values())

    @property
    def holding(self) -> int:
        """How many processes at rest hold a conversation, or a set-up."""
        return sum(not kept.unused and kept.free for kept in self._kept.values())

    @property
    def failures(self) -> int:
        """How many starts in a row have failed."""
        return self._starts.failures

    @property
    def hopeless(self) -> bool:
        """Whether so many have failed that turns are refused."""
        return self._starts.failures >= HOPELESS

    def reports(self) -> list[ProcessReport]:
        """What each process is at and holds."""
        now = self._reactor.seconds()
        others = {
            **dict.fromkeys(self._starts.processes, "starting"),
            **dict.fromkeys(self._retiring, "retiring"),
            **dict.fromkeys(self._ending, "ending"),
        }
        return [report_kept(kept, now) for kept in self._kept.values()] + [
            report(process, state, now) for process, state in others.items()
        ]

    # -- turns --

    def claim(self, wanted: Wanted) -> Deferred[Placement]:
        """A process for ``wanted``; it is the caller's until :meth:`give_back`.

        If it was the last unused one, another starts in a moment.

        :raises FailureError: 503 (in the Deferred) if no process can be started.
        """
        claim: Deferred[Placement] = Deferred(self._withdraw)
        self._claims[claim] = wanted
        self._serve()
        if not claim.called:
            self.fill()
        return claim

    def _withdraw(self, claim: Deferred[Placement]) -> None:
        del self._claims[claim]

    def _serve(self) -> None:
        """Give those who wait what has come free: first come, first served, where it fits."""
        promised: set[Kept] = set()
        for claim, wanted in list(self._claims.items()):
            # Serving a claim begins its turn, which may change anything.
            placement = self._place(wanted, promised) if claim in self._claims else None
            if placement is not None:
                del self._claims[claim]
                claim.callback(placement)

    def _place(self, wanted: Wanted, promised: set[Kept]) -> Placement | None:
        """``promised``: those that others wait for, who came first."""
        now = self._reactor.seconds()
        others = (kept for kept in self._kept.values() if kept not in promised)
        placement = cheapest(others, wanted, now, self._park)
        if placement is None:
            return None
        kept = placement.kept
        if not placement.ready:
            promised.add(kept)
            return None
        if kept.unused:
            self._starts.of_use()
            self.fill_later()
        kept.busy = True
        kept.prefixes, kept.fixed = wanted.prefixes, wanted.fixed
        kept.model = wanted.model
        return placement

    def give_back(self, placement: Placement, answer: Message | None) -> None:
        """The turn is over. ``answer``: what the process now holds in addition; ``None`` if it
        and the client do not hold the same, or the turn was given up."""
        kept, process = placement.kept, placement.kept.process
        kept.busy, kept.used = False, self._reactor.seconds()
        if answer is not None:
            kept.prefixes = extended(kept.prefixes, answer)
        elif process.state is State.QUEUED:
            kept.prefixes = placement.before  # nothing of the turn has reached it
        decided = not process.outliving and not process.awaits_billing
        if decided and process.can_rewind and process.state in GIVES_UP - AT_REST:
            process.give_up()
        self._left(process)
        self._serve()

    def rested(self, process: CLIProcess) -> None:
        """``process`` is at rest after its turn was given up, or has reported its billing."""
        self._left(process)
        self._serve()
        if self._claims:
            self.fill()

    def _left(self, process: CLIProcess) -> None:
        """No turn runs on ``process`` any more: end it if it is of no further use."""
        kept = self._kept.get(process)
        if process.outliving or (kept is not None and kept.busy):
            return
        if kept is None:
            if process in self._retiring:
                self._retiring.discard(process)
                self._ending.add(process)
            process.stop()  # it has an old login, or the daemon is stopping
        elif self._worn(kept) or not (process.can_rewind or (kept.free and kept.known)):
            self._end(kept)

    def _worn(self, kept: Kept) -> bool:
        process = kept.process
        old = self._reactor.seconds() - process.born > MAX_AGE
        return old or process.turns >= MAX_TURNS

    # -- processes --

    def fill(self) -> None:
        """Start what is missing, as far as that is allowed now: a process for each waiting turn,
        making room for it if need be, and one to have at hand."""
        if self._closed:
            return
        waiting = self._waiting()
        while waiting + len(self._kept) + len(self._retiring) > self.budget and not self.failures:
            if not self._make_room():
                break
        missing = waiting + (0 if self.unused or self._scarce else 1)
        alive = len(self._kept) + len(self._retiring) + len(self._ending)
        self._starts.start(min(missing, self.budget - alive))
        if missing and not waiting and not self.starting and not self._ending and not self.failures:
            self._make_way()

    def fill_later(self) -> None:
        """The same, once the turn now beginning has had the CPU."""
        if not self._closed and (self._filling is None or not self._filling.active()):
            self._filling = self._reactor.callLater(REFILL, self.fill)

    def _waiting(self) -> int:
        """How many wait for a process to start, and not for one that will soon be at rest."""
        waiting = Counter(wanted.setup.lasting for wanted in self._claims.values())
        for process in self._kept:
            returning = process.state in RETURNING or process.awaits_billing
            if returning and process.can_rewind and process.setup is not None:
                waiting -= Counter([process.setup.lasting])
        return waiting.total()

    def _make_room(self) -> bool:
        kept = least(self._kept.values(), self._reactor.seconds())
        if kept is not None:
            self._end(kept)
        return kept is not None

    def _make_way(self) -> None:
        """End a process worth less than an unused one, which then starts in its place."""
        kept = worth_less(self._kept.values(), self._reactor.seconds())
        if kept is not None and len(self._kept) > 1:
            self._end(kept)

    def ready(self, process: CLIProcess) -> None:
        """``process`` has started up."""
        if not self._starts.ready(process):
            return
        if not process.can_rewind and not self._told:
            self._told = True
            self.log.warn(
                "this Claude CLI cannot rewind: every new conversation takes a new process"
            )
        self._kept[process] = Kept(process, self._reactor.seconds())
        self._serve()
        if self._claims:
            self.fill()

    def process_ended(self, process: CLIProcess) -> None:
        """``process`` has ended."""
        self._ending.discard(process)
        self._retiring.discard(process)
        kept = self._kept.pop(process, None)
        if kept is None:
            self._starts.ended(process)
        elif kept.unused and not self._closed:
            self._starts.ended_unused()
        self._serve()  # somebody may have waited for just this one
        self.fill()

    def tend(self) -> None:
        """End what is old or has grown large, and what has long been idle except the last one."""
        now = self._reactor.seconds()
        for kept in [kept for kept in self._kept.values() if kept.free]:
            process, rest = kept.process, now - kept.used
            parked = process.state is State.PARKED
            idle = rest > (max(self.idle, self._park) if parked else self.idle)
            shrinks = idle and not kept.unused and len(self._kept) > 1
            if shrinks or self._worn(kept) or memory.used(process.pid) > MAX_RSS:
                self._end(kept)
            elif parked and rest > self._park and process.can_rewind:
                process.give_up()  # nobody will return its calls' results any more
        self._scarce = memory.scarce()
        while self._scarce and len(self._kept) > 1 and self._make_room():
            pass
        self.fill()

    def renew(self) -> None:
        """End every process: at once if no turn runs on it, otherwise after its turn. New ones
        start in their place."""
        self._ending.update(self._starts.stop())
        self._retire()
        self.fill()

    def close(self) -> None:
        """End everything that no turn runs on, and start nothing more."""
        self._closed = True
        if self._filling is not None and self._filling.active():
            self._filling.cancel()
        self._starts.close()
        self._retire()

    def _retire(self) -> None:
        for kept in list(self._kept.values()):
            if kept.busy or kept.process.outliving:
                del self._kept[kept.process]
                self._retiring.add(kept.process)
            else:
                self._end(kept)

    def _end(self, kept: Kept) -> None:
        del self._kept[kept.process]
        self._ending.add(kept.process)
        kept.process.stop()

    def _hopeless(self, failure: Failure) -> None:
        """No process can be started: fail those who wait for one, unless a process we have can
        serve them once it is free."""
        bound = {p.setup.lasting for p in self._kept if p.can_rewind and p.setup is not None}
        for claim, wanted in list(self._claims.items()):
            if wanted.setup.lasting not in bound and claim in self._claims:
                del self._claims[claim]
                claim.errback(FailureError(failure))
