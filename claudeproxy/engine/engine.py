"""The engine takes requests, gives events, and owns the processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.settings import turn_settings
from claudeproxy.cli.tools import RESERVED
from claudeproxy.messages import Failure, FailureError, Kind, Request, Usage

from .admission import Admission
from .catalogue import Catalogue
from .charges import setup_key
from .context import EngineContext, RequestSink, TurnSink
from .deadlines import Deadlines
from .flow import Flow
from .keeper import Keeper
from .quota import Claim, Policy, Quota
from .structured import StructuredOutput
from .turn import Turn
from .validation import check_schema

TEND = 30.0
"""Seconds between two checks of age and memory."""

MAX_TOOLS = 5_000
"""Tools of one request. More would keep others waiting, and no model copes with so many."""

MAX_STOPS = 1_000
"""Stop sequences of one request: every delta is searched for each of them."""

STOPPING = Failure(Kind.UNAVAILABLE, "the daemon is stopping", 503, retry_after=1.0)
"""Of turns that come too late."""


@frozen
class Limits:
    """How many processes and turns, and for how long (in seconds); see
    :class:`~claudeproxy.options.Settings`."""

    processes: int = 8
    starts: int = 2
    concurrency: int = 8
    queue: int = 64
    idle: float = 600.0
    park: float = 900.0
    deadlines: Deadlines = field(factory=Deadlines)
    policy: Policy = field(factory=Policy)
    plain_names: bool = False
    repair: bool = True


class TurnGroup:
    """The turns of one request (several for ``n``, or for several prompts), handled as one."""

    def __init__(self, turns: list[Turn], flow: Flow, ignored: tuple[str, ...]) -> None:
        self._turns = turns
        self._flow = flow
        self.ignored = ignored
        """Fields of the request that its model cannot honour."""
        self.done: Deferred[Any] = DeferredList([turn.done for turn in turns])
        """Fires when every turn is over."""

    @property
    def queued(self) -> float:
        """Seconds the request waited for a slot."""
        return max(turn.queued for turn in self._turns)

    @property
    def placement(self) -> str:
        """How the first turn was placed, see :class:`.placing.Placement`; empty until it is."""
        return self._turns[0].placement

    @property
    def answers(self) -> list[Usage]:
        """What upstream has counted for each answer that it was asked for, repeated ones
        included."""
        return [spent for turn in self._turns for spent in turn.answers]

    @property
    def spent(self) -> Usage:
        """All of it together."""
        return sum(self.answers, Usage())

    @property
    def sent(self) -> int:
        """Bytes written to processes."""
        return sum(turn.sent for turn in self._turns)

    async def paid(self) -> bool | None:
        """Whether any of it was paid as extra usage: waits until all turns are over and have been
        told. ``None`` if none ever is."""
        await self.done
        permits = [turn.permit for turn in self._turns if turn.permit is not None]
        told = [await permit.settled for permit in permits]
        known = [paid for paid in told if paid is not None]
        return any(known) if known else None

    def start(self) -> None:
        """Start them all."""
        for turn in self._turns:
            turn.start()

    def cancel(self, failure: Failure | None = None) -> None:
        """End them all, wherever they are. The client is told ``failure``, unless it has left."""
        for turn in self._turns:
            turn.cancel(failure)

    def pause(self) -> None:
        """The client does not read."""
        self._flow.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._flow.resume()


class Engine:
    """Owns keeper and admission; the :class:`Owner` of every process."""

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        spawn: Callable[[Engine], CLIProcess],
        catalogue: Catalogue,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``spawn``: starts a process owned by the engine it is given; ``now``: epoch seconds."""
        self.catalogue = catalogue
        self.now = now
        self.quota = Quota(now, limits.policy)
        self.admission = Admission(min(limits.concurrency, limits.processes), limits.queue)
        self.keeper = Keeper(
            reactor,
            lambda: self._spawned(spawn),
            budget=limits.processes,
            starts=limits.starts,
            idle=limits.idle,
            park=limits.park,
        )
        self._context = EngineContext(
            reactor,
            self.admission,
            self.keeper,
            StructuredOutput(),
            self.quota,
            limits.deadlines,
            limits.plain_names,
            limits.repair,
        )
        self._tending = LoopingCall(self.keeper.tend)
        self._tending.clock = reactor
        self.processes: set[CLIProcess] = set()
        """Every process that has not ended."""
        self._of_others: set[CLIProcess] = set()  # they use the login of an account before
        self.started = 0
        """How many processes were started."""
        self._rewound = 0  # by processes that have ended
        self._groups: set[TurnGroup] = set()
        self._late: IDelayedCall | None = None

    @property
    def rewinds(self) -> int:
        """How often processes were rewound."""
        return self._rewound + sum(process.rewinds for process in self.processes)

    def start(self) -> None:
        """Start the first process."""
        self.keeper.fill()
        self._tending.start(TEND, now=False)

    def renew(self) -> None:
        """Let every process go that no turn runs on: the CLI or its login has changed."""
        self.keeper.renew()

    def ask(
        self, request: Request, sink: RequestSink, reserve: Mapping[str, float] | None = None
    ) -> TurnGroup:
        """Answer ``request``, passing the events to ``sink``.

        ``reserve``: the share of each plan window that the request must leave, in place of the
        policy's for that window.

        :raises FailureError: for what can be refused before a process is claimed. Its ``param`` is
            a field of :class:`Request`.
        """
        return self.ask_all((request,), sink, reserve)

    def ask_all(
        self,
        requests: Sequence[Request],
        sink: RequestSink,
        reserve: Mapping[str, float] | None = None,
    ) -> TurnGroup:
        """Answer several requests as one; their answers are numbered through all of them.

        :raises FailureError: as :meth:`ask` does.
        """
        models = [self._check(request) for request in requests]
        self.admission.check(sum(request.n for request in requests))
        ignored = turn_settings(requests[0], models[0]).ignored
        kept_back = {**self.quota.policy.reserve, **(reserve or {})}
        flow = Flow()
        turns: list[Turn] = []
        for request, model in zip(requests, models, strict=True):
            claim = Claim(model, setup_key(request), kept_back, request.tier)
            for _ in range(request.n):
                turns.append(Turn(self._context, request, claim, flow, _to(sink, len(turns))))
        group = TurnGroup(turns, flow, ignored)
        self._groups.add(group)
        group.done.addBoth(lambda _: self._groups.discard(group))
        group.start()
        return group

    def _check(self, request: Request) -> ModelInfo:
        if len(request.tools) > MAX_TOOLS:
            raise FailureError.invalid(
                f"more than {MAX_TOOLS:,} tools are not possible here", "tools"
            )
        if len(request.stop) > MAX_STOPS:
            raise FailureError.invalid(
                f"more than {MAX_STOPS:,} stop sequences are not possible here", "stop"
            )
        for tool in request.tools:
            if self._context.plain_names and tool.name == RESERVED:
                raise FailureError.invalid(
                    f"the Claude CLI reserves the tool name {tool.name!r}",
                    "tools",
                )
        if request.schema:
            check_schema(request.schema, "schema")
        return self.catalogue.resolve(request.model)

    def close(self) -> None:
        """Admit no more turns; those that run go on."""
        self.admission.close(STOPPING)

    def stop(self, drain: float) -> Deferred[None]:
        """Admit no more turns, let those that run end within ``drain`` seconds, end all
        processes."""
        return ensureDeferred(self._stop(drain))

    def hurry(self) -> None:
        """End the turns that :meth:`stop` waits for."""
        if self._late is not None and self._late.active():
            self._late.reset(0)

    async def _stop(self, drain: float) -> None:
        self.close()
        if self._tending.running:
            self._tending.stop()
        if self._groups:
            over = DeferredList([group.done for group in self._groups])
            late = self._late = self._context.reactor.callLater(drain, self._cancel_all, STOPPING)
            await over
            if late.active():
                late.cancel()
        self.keeper.close()
        for process in list(self.processes):
            process.stop()
        await DeferredList([process.ended for process in self.processes])

    def _cancel_all(self, failure: Failure) -> None:
        for group in list(self._groups):
            group.cancel(failure)

    def _spawned(self, spawn: Callable[[Engine], CLIProcess]) -> CLIProcess:
        process = spawn(self)
        self.started += 1
        self.processes.add(process)
        return process

    # -- Owner --

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        """A process has started up."""
        if self.catalogue.learn(models):
            for alias in self.catalogue.dangling():
                self.log.warn("there is no model for --model-alias {alias}", alias=alias)
        self.keeper.ready(process)

    def rested(self, process: CLIProcess) -> None:
        """A process is at rest again."""
        self.keeper.rested(process)

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        """A process reported whose login it uses."""
        if status is not None:
            self.login_is(status)

    def login_is(self, status: LoginStatus, *, stored: bool = False) -> None:
        """The CLI reported whose login it finds; ``stored``: one was put on disk since the last
        report. Processes that use an old login are replaced before the next turn."""
        if not self.quota.applies:
            return
        before = self.quota.login.account
        if self.quota.login_is(status, stored=stored):
            if before not in (None, self.quota.login.account):
                self._of_others |= self.processes
            self.log.info("somebody has logged in: new processes take the place of the old")
            self.renew()

    @property
    def login_works(self) -> bool | None:
        """Whether the login works, as last known; ``None`` while nobody has looked."""
        return self.quota.login.works

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        """A process reported the state of its plan's windows."""
        if process not in self._of_others:
            self.quota.hear(info)

    def sizes(self, tokens: Mapping[str, int]) -> None:
        """A process reported how many tokens models read."""
        self.catalogue.context_sizes.update(tokens)

    def process_ended(self, process: CLIProcess) -> None:
        """A process has ended."""
        self.processes.discard(process)
        self._of_others.discard(process)
        self._rewound += process.rewinds
        self.keeper.process_ended(process)


def _to(sink: RequestSink, index: int) -> TurnSink:
    return lambda events: sink(index, events)
