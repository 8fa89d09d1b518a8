"""One turn: from its place in the queue to the last event of its answer."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger

from claudeproxy.cli.models import ModelInfo
from claudeproxy.messages import (
    Assembly,
    Failure,
    FailureError,
    Finished,
    Kind,
    Request,
    ToolUse,
)

from .attempt import Attempt, Means, Sink
from .structured import Form, fault, repair


class Turn:
    """Runs as one coroutine; :attr:`done` fires with ``None`` when it is over, however it ended."""

    log = Logger()

    def __init__(self, means: Means, request: Request, model: ModelInfo, sink: Sink) -> None:
        self._means = means
        self._request = request
        self._model = model
        self._sink = sink
        self._attempt: Attempt | None = None  # while it runs: its process is another's afterwards
        self._last: Attempt | None = None
        self._paused = False
        self._failure: Failure | None = None
        self.queued = 0.0
        """Seconds it waited for a slot."""
        self.done: Deferred[None] = ensureDeferred(self._run())

    @property
    def way(self) -> str:
        """How it is served: ``warm``, ``kept`` or ``parked``; empty before that is known."""
        return "" if self._last is None else self._last.way

    def cancel(self) -> None:
        """The client has left: end it, wherever it is."""
        self.done.cancel()

    def fail(self, failure: Failure) -> None:
        """End it with ``failure``, wherever it is."""
        self._failure = failure
        self.done.cancel()

    def pause(self) -> None:
        """The client's socket is full: stop reading the process."""
        self._paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._attempt is not None:
            self._attempt.resume()

    async def _run(self) -> None:
        clock, admission = self._means.reactor, self._means.admission
        asked = clock.seconds()
        try:
            await admission.enter()
            began = clock.seconds()
            self.queued = began - asked
            try:
                await self._serve()
            finally:
                admission.leave(clock.seconds() - began)
        except CancelledError:
            if self._failure is not None:
                self._sink([self._failure])
        except FailureError as error:
            self._sink([error.failure])
        except Exception:
            self.log.failure("a turn broke")
            self._sink([Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500)])

    async def _serve(self) -> None:
        standing = self._means.standing
        standing.check(self._model)
        end: Finished | Failure | None = None
        try:
            end = await self._answer()
        finally:
            given_up = Failure(Kind.UPSTREAM, "given up", 499)
            standing.ended(self._model, None if isinstance(end, Finished) else end or given_up)
        assert self._last is not None
        self._sink([*self._last.held, end])

    async def _answer(self) -> Finished | Failure:
        """The end of the answer, whose events have gone out or are held."""
        structure = self._means.structure
        request = self._request
        form = structure.form(request)
        repaired = False
        while True:
            end, attempt = await self._try(request, form)
            if attempt.lost:
                continue  # nobody holds the conversation now: it is replayed
            answer = attempt.answer
            if form is Form.NATIVE and isinstance(end, Failure) and structure.refused(request, end):
                form = Form.TOOL
                continue
            why = self._fault(end, answer)
            if why is not None:
                if not request.stream and not repaired:
                    repaired = True
                    request = repair(request, answer, why)
                    continue
                end = Failure(Kind.UPSTREAM, f"the answer does not satisfy the schema: {why}", 502)
            return end

    async def _try(self, request: Request, form: Form) -> tuple[Finished | Failure, Attempt]:
        # A whole answer that is bound by a schema may be taken back, so nothing of it leaves yet.
        hold = form is not Form.NONE and not request.stream
        attempt = Attempt(self._means, request, self._model, form, None if hold else self._sink)
        self._attempt = self._last = attempt
        if self._paused:
            attempt.pause()
        try:
            return await attempt.run(), attempt
        finally:
            self._attempt = None

    def _fault(self, end: Finished | Failure, answer: Assembly) -> str | None:
        """Why a finished answer is not the one the schema asks for."""
        schema = self._request.schema
        if schema is None or not isinstance(end, Finished) or end.stop_reason != "end_turn":
            return None
        if any(isinstance(block, ToolUse) for block in answer.blocks()):
            return None
        return fault(schema, answer.text())
