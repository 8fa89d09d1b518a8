"""One turn: from its place in the queue to the last event of its answer."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger

from claudeproxy.messages import (
    Assembly,
    Failure,
    FailureError,
    Finished,
    Kind,
    Request,
    ToolUse,
    Usage,
)

from .attempt import Attempt
from .context import EngineContext, TurnSink
from .flow import Flow
from .permit import Permit
from .quota import Claim
from .structured import OutputMode, repair
from .validation import fault


class Turn:
    """Runs as one coroutine, from :meth:`start` on."""

    log = Logger()

    def __init__(
        self, context: EngineContext, request: Request, claim: Claim, flow: Flow, sink: TurnSink
    ) -> None:
        self._context = context
        self._request = request
        self._claim = claim
        self._model = claim.model
        self._flow = flow
        self._sink = sink
        self._attempts: list[Attempt] = []
        self.permit: Permit | None = None
        """What let it through; ``None`` if nothing has."""
        self._running: Deferred[None] | None = None
        self._failure: Failure | None = None
        self.queued = 0.0
        """Seconds it waited for a slot."""
        self.done: Deferred[None] = Deferred()
        """Fires with ``None`` when it is over, however it ended."""

    @property
    def placement(self) -> str:
        """How it is served, see :class:`.placing.Placement`; empty until that is known."""
        return self._attempts[-1].placement if self._attempts else ""

    @property
    def answers(self) -> list[Usage]:
        """What upstream has counted for each answer that it was asked for."""
        return [attempt.spent for attempt in self._attempts]

    @property
    def sent(self) -> int:
        """Bytes written to processes."""
        return sum(attempt.sent for attempt in self._attempts)

    def start(self) -> None:
        """Join the queue. The sink may get its first events before this returns."""
        self._running = ensureDeferred(self._run())
        self._running.chainDeferred(self.done)

    def cancel(self, failure: Failure | None = None) -> None:
        """End it, wherever it is. Its client gets ``failure``, unless it has left."""
        self._failure = failure
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        clock, admission = self._context.reactor, self._context.admission
        arrived = clock.seconds()
        try:
            while True:
                await admission.enter(self._claim.tier)
                began = clock.seconds()
                self.queued = began - arrived
                try:
                    # Decided only now: much may have changed while it waited for its slot.
                    admitted = await self._admitted()
                    if isinstance(admitted, Permit):
                        self.permit = admitted
                        end = await self._under(admitted)
                        break
                finally:
                    admission.leave(clock.seconds() - began)
                with admission.before():
                    await admitted
            # The end is sent last, once the process is kept and the slot is free: the client's next
            # request may come as soon as it has read the end, and must find both.
            self._sink([*self._attempts[-1].withheld, end])
        except CancelledError:
            if self._failure is not None:
                self._sink([self._failure])
        except FailureError as error:
            self._sink([error.failure])
        except Exception:
            self.log.failure("a turn broke")
            self._sink([Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500)])

    async def _admitted(self) -> Permit | Deferred[None]:
        admitted = self._context.quota.admit(self._claim)
        if isinstance(admitted, Permit):
            return await admitted.lease() or admitted
        return admitted

    async def _under(self, permit: Permit) -> Finished | Failure:
        end: Finished | Failure = Failure(Kind.UPSTREAM, "given up", 499)
        try:
            end = await self._answer(permit)
        except FailureError as error:
            end = error.failure
        finally:
            failure = end if isinstance(end, Failure) else None
            awaits_billing = bool(self._attempts) and self._attempts[-1].awaits_billing
            permit.ended(failure, awaits_billing=awaits_billing)
        return self._context.quota.told(end) if isinstance(end, Failure) else end

    async def _answer(self, permit: Permit) -> Finished | Failure:
        """The end of the answer; its other events are in the sink, or withheld."""
        structured = self._context.structured_output
        request = self._request
        mode = structured.mode(request)
        repaired = False
        while True:
            end, attempt = await self._try(permit, request, mode)
            if attempt.lost:
                continue  # no process holds the conversation any more: it is replayed
            answer = attempt.answer
            if (
                mode is OutputMode.NATIVE
                and isinstance(end, Failure)
                and structured.refused(request, end)
            ):
                mode = OutputMode.TOOL
                continue
            why = self._fault(end, answer)
            if why is not None:
                if not repaired and self._may_repair(permit):
                    repaired = True
                    request = repair(request, answer, why)
                    continue
                cause = "the answer does not satisfy the schema"
                end = Failure(Kind.UPSTREAM, f"{cause}: {why}", 502, cause=cause, spent=True)
            return end

    def _may_repair(self, permit: Permit) -> bool:
        """Whether to ask once more; never if the plan might not pay for it."""
        if not self._context.repair or self._request.stream or permit.undecided:
            return False
        try:
            self._context.quota.check(self._claim)
        except FailureError:
            return False
        return True

    async def _try(
        self, permit: Permit, request: Request, mode: OutputMode
    ) -> tuple[Finished | Failure, Attempt]:
        # An answer that has to satisfy a schema may be replaced by a second one. A client that
        # does not stream must never see the first, so nothing of it is sent yet.
        withhold = mode is not OutputMode.NONE and not request.stream
        sink = None if withhold else self._sink
        attempt = Attempt(self._context, permit, request, self._model, mode, self._flow, sink)
        self._attempts.append(attempt)
        return await attempt.run(), attempt

    def _fault(self, end: Finished | Failure, answer: Assembly) -> str | None:
        """Why a finished answer does not satisfy the schema; ``None`` if it does."""
        schema = self._request.schema
        if schema is None or not isinstance(end, Finished) or end.stop_reason != "end_turn":
            return None
        if any(isinstance(block, ToolUse) for block in answer.blocks()):
            return None
        return fault(schema, answer.text())
