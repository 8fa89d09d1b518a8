"""The engine: takes requests, gives events, owns the processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.task import LoopingCall

from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.settings import turn_settings
from claudeproxy.cli.tools import RESERVED
from claudeproxy.messages import Event, Failure, FailureError, Kind, Request

from . import memory
from .admission import Admission
from .attempt import Means
from .catalogue import Catalogue
from .conversations import Conversations
from .deadlines import Deadlines
from .pool import Pool
from .standing import Standing
from .structured import Structure, check_schema
from .turn import Turn

TEND = 30.0
"""Seconds between two looks at age and memory."""

MAX_AGE = 6 * 3600.0
"""Seconds after which a waiting process is replaced by a fresh one."""

Sink = Callable[[int, list[Event]], None]
"""Gets a burst of events of the answer with that index."""


@frozen
class Limits:
    """How much at once, how many kept, how long (seconds)."""

    warm: int = 2
    starts: int = 2
    concurrency: int = 8
    queue: int = 64
    keep: int = 4
    keep_seconds: float = 600.0
    park: float = 900.0
    deadlines: Deadlines = field(factory=Deadlines)


class Answers:
    """All answers to what was asked at once: so many turns, handled as one."""

    def __init__(self, turns: list[Turn], ignored: tuple[str, ...]) -> None:
        self.turns = turns
        self.ignored = ignored
        """Fields of the request that this model cannot honour."""
        self.done: Deferred[Any] = DeferredList([turn.done for turn in turns])
        """Fires when every turn is over."""

    @property
    def queued(self) -> float:
        """Seconds the request waited for a slot."""
        return max(turn.queued for turn in self.turns)

    @property
    def way(self) -> str:
        """How it was served: ``warm``, ``kept`` or ``parked``."""
        return self.turns[0].way

    def cancel(self) -> None:
        """Nobody wants them any more."""
        for turn in self.turns:
            turn.cancel()

    def pause(self) -> None:
        """The client does not read."""
        for turn in self.turns:
            turn.pause()

    def resume(self) -> None:
        """The client reads again."""
        for turn in self.turns:
            turn.resume()


class Engine:
    """Owns pool, conversations and admission; the :class:`Owner` of every process."""

    def __init__(
        self,
        reactor: Any,
        spawn: Callable[[Engine], CLIProcess],
        catalogue: Catalogue,
        limits: Limits,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``spawn`` starts a process that belongs to the engine it is given; ``now``: epoch
        seconds."""
        self.catalogue = catalogue
        self.standing = Standing(now)
        self.admission = Admission(limits.concurrency, limits.queue)
        self.pool = Pool(
            reactor, lambda: self._spawned(spawn), warm=limits.warm, starts=limits.starts
        )
        self.conversations = Conversations(
            reactor, keep=limits.keep, keep_seconds=limits.keep_seconds, park=limits.park
        )
        self._means = Means(
            reactor,
            self.admission,
            self.pool,
            self.conversations,
            Structure(),
            self.standing,
            limits.deadlines,
        )
        self._tending = LoopingCall(self._tend)
        self._tending.clock = reactor
        self.processes: set[CLIProcess] = set()
        """Every process that has not ended."""
        self._turns: set[Answers] = set()

    def start(self) -> None:
        """Start the warm processes."""
        self.pool.fill()
        self._tending.start(TEND, now=False)

    def renew(self) -> None:
        """Let every process go that no turn runs on: the CLI or its login has changed."""
        self.conversations.close()
        self.pool.renew()

    def _tend(self) -> None:
        self.pool.recycle(MAX_AGE)
        while memory.scarce() and self.conversations.shed():
            pass

    def ask(self, request: Request, sink: Sink) -> Answers:
        """Answer ``request``; its events go to ``sink``.

        :raises FailureError: for what can be refused before any process is touched. Its ``param``
            is a field of :class:`Request`.
        """
        return self.ask_all((request,), sink)

    def ask_all(self, requests: Sequence[Request], sink: Sink) -> Answers:
        """Answer several requests as one; the indices of their answers go through all of them.

        :raises FailureError: as :meth:`ask` does.
        """
        models = [self._check(request) for request in requests]
        self.admission.check(sum(request.n for request in requests))
        ignored = turn_settings(requests[0], models[0]).ignored
        turns: list[Turn] = []
        for request, model in zip(requests, models, strict=True):
            for _ in range(request.n):
                turns.append(Turn(self._means, request, model, _to(sink, len(turns))))
        answers = Answers(turns, ignored)
        self._turns.add(answers)
        answers.done.addBoth(lambda _: self._turns.discard(answers))
        return answers

    def _check(self, request: Request) -> ModelInfo:
        for tool in request.tools:
            if tool.name in RESERVED:
                raise FailureError.invalid(
                    f"the Claude CLI keeps the tool name {tool.name!r} for itself",
                    "tools",
                )
        if request.schema:
            check_schema(request.schema, "schema")
        return self.catalogue.resolve(request.model)

    def stop(self, drain: float) -> Deferred[None]:
        """Take nobody in, let running turns end within ``drain`` seconds, end all processes."""
        return ensureDeferred(self._stop(drain))

    async def _stop(self, drain: float) -> None:
        stopping = Failure(Kind.UNAVAILABLE, "the daemon is stopping", 503, retry_after=1.0)
        self.admission.close(stopping)
        if self._tending.running:
            self._tending.stop()
        if self._turns:
            over = DeferredList([answers.done for answers in self._turns])
            late = self._means.reactor.callLater(drain, self._send_away, stopping)
            await over
            if late.active():
                late.cancel()
        self.pool.close()
        self.conversations.close()
        for process in list(self.processes):
            process.stop()
        await DeferredList([process.ended for process in self.processes])

    def _send_away(self, failure: Failure) -> None:
        for answers in list(self._turns):
            for turn in answers.turns:
                turn.fail(failure)

    def _spawned(self, spawn: Callable[[Engine], CLIProcess]) -> CLIProcess:
        process = spawn(self)
        self.processes.add(process)
        return process

    # -- Owner --

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        """A process has started up."""
        self.catalogue.learn(models)
        self.pool.ready(process)

    def window(self, info: Mapping[str, Any]) -> None:
        """A plan window told its state."""
        self.standing.window(info)

    def gone(self, process: CLIProcess) -> None:
        """A process has ended."""
        self.processes.discard(process)
        self.conversations.gone(process)
        self.pool.gone(process)


def _to(sink: Sink, index: int) -> Callable[[list[Event]], None]:
    return lambda events: sink(index, events)
