"""One turn: from its place in the queue to the last event of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger

from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.session import State
from claudeproxy.cli.settings import turn_settings
from claudeproxy.cli.setup import Setup
from claudeproxy.messages import (
    Assembly,
    BlockStopped,
    Event,
    Failure,
    FailureError,
    Finished,
    Kind,
    Message,
    Request,
    Started,
    TextDelta,
    ToolUse,
    Usage,
)

from .admission import Admission
from .conversations import Conversations
from .deadlines import Deadlines, Watch
from .pool import Pool
from .standing import Standing
from .stops import StopFilter
from .structured import Form, Structure, ToolAnswer, closed, fault, repair

Sink = Callable[[list[Event]], None]
"""Where a turn's events go, in bursts; the last one is ``Finished`` or a ``Failure``."""


_HOLDING = (State.SETTLING, State.IDLE, State.PARKED)
"""States in which a process holds a conversation that can go on."""


@frozen
class Means:
    """What all turns share."""

    reactor: Any
    admission: Admission
    pool: Pool
    conversations: Conversations
    structure: Structure
    standing: Standing
    deadlines: Deadlines


class Turn:
    """Runs as one coroutine; :attr:`done` fires with ``None`` when it is over, however it ended."""

    log = Logger()

    def __init__(self, means: Means, request: Request, model: ModelInfo, sink: Sink) -> None:
        self._means = means
        self._request = request
        self._model = model
        self._sink = sink
        self._attempt: _Attempt | None = None
        self._last: _Attempt
        self._paused = False
        self._failure: Failure | None = None
        self.queued = 0.0
        """Seconds it waited for a slot."""
        self.way = ""
        """How it was served: ``warm``, ``kept`` or ``parked``."""
        self.done: Deferred[None] = ensureDeferred(self._run())

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
        self._sink([*self._last.held, end])

    async def _answer(self) -> Finished | Failure:
        """The end of the answer, whose events have gone out or are held."""
        structure = self._means.structure
        request = self._request
        form = structure.form(request)
        repaired = False
        while True:
            end = await self._try(request, form)
            answer = self._last.answer
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

    async def _try(self, request: Request, form: Form) -> Finished | Failure:
        # A whole answer that is bound by a schema may be taken back, so nothing of it leaves yet.
        hold = form is not Form.NONE and not request.stream
        attempt = _Attempt(self._means, request, self._model, form, None if hold else self._sink)
        self._attempt = self._last = attempt
        if self._paused:
            attempt.pause()
        try:
            return await attempt.run()
        finally:
            self.way = attempt.way
            self._attempt = None

    def _fault(self, end: Finished | Failure, answer: Assembly) -> str | None:
        """Why a finished answer is not the one the schema asks for."""
        schema = self._request.schema
        if schema is None or not isinstance(end, Finished) or end.stop_reason != "end_turn":
            return None
        if any(isinstance(block, ToolUse) for block in answer.blocks()):
            return None
        return fault(schema, answer.text())


class _Attempt:
    """One question put to one process."""

    def __init__(
        self, means: Means, request: Request, model: ModelInfo, form: Form, sink: Sink | None
    ) -> None:
        self._means = means
        self._request = request
        self._model = model
        self._form = form
        self._sink = sink
        self._process: CLIProcess | None = None
        self._watch: Watch | None = None
        self._stops = StopFilter(request.stop) if request.stop else None
        self._by_tool = ToolAnswer() if form is Form.TOOL else None
        self._usage = Usage()
        self._paused = False
        self._ended: Deferred[Finished | Failure] = Deferred()
        self.answer = Assembly()
        self.held: list[Event] = []
        self.way = ""

    async def run(self) -> Finished | Failure:
        """The end of the answer; everything before it has gone to the sink, or is held.

        :raises FailureError: when there was no process to put it to.
        """
        request = self._request
        schema_by_tool = self._form is Form.TOOL
        bound = request
        if self._form is Form.NATIVE and request.schema is not None:
            bound = evolve(request, schema=closed(request.schema))
        flags = turn_settings(bound, self._model, schema_by_tool=schema_by_tool).flags
        kept = None
        if not schema_by_tool:
            kept = self._means.conversations.resume(request, self._model.name)
        schema = (request.schema or {"type": "object"}) if schema_by_tool else None
        setup = Setup.of(request, schema)
        process = kept.process if kept else await self._means.pool.claim(setup)
        self._process = process
        self._watch = Watch(self._means.reactor, self._means.deadlines, self._expire)
        if self._paused:
            self.pause()
        try:
            if kept is None:
                self.way = "warm"
                process.open(self, request, setup, flags)
            elif kept.results:
                self.way = "parked"
                process.answer(self, kept.results, flags)
            else:
                self.way = "kept"
                process.extend(self, request.messages[-1], flags)
            end = await self._ended
        except BaseException:
            self._release(None)
            raise
        self._release(end)
        return end

    def _release(self, end: Finished | Failure | None) -> None:
        assert self._watch is not None and self._process is not None
        process = self._process
        self._watch.stop()
        process.listener = None
        process.resume()
        if isinstance(end, Finished) and process.state in _HOLDING:
            request = self._request
            messages = (*request.messages, Message("assistant", self.answer.blocks()))
            self._means.conversations.keep(request, self._model.name, messages, process)
        else:
            process.stop()
        self._means.pool.fill()

    def pause(self) -> None:
        """Stop reading the process."""
        self._paused = True
        if self._process is not None:
            self._process.pause()
        if self._watch is not None:
            self._watch.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._process is not None:
            self._process.resume()
        if self._watch is not None:
            self._watch.resume()

    # -- Listener --

    def events(self, events: list[Event]) -> None:
        """A burst from the process."""
        if self._ended.called:
            return
        assert self._watch is not None
        self._watch.touch()
        if self._by_tool is not None:
            events = self._by_tool.translate(events)
        passed: list[Event] = []
        end: Finished | Failure | None = None
        for event in events:
            if isinstance(event, (Finished, Failure)):
                end = event
                break
            if self._stops is not None:
                passed.extend(self._stopped(event))
                if self._stops.found is not None:
                    end = self._cut(self._stops.found)
                    break
            else:
                passed.append(event)
                self.answer.add(event)
            if isinstance(event, Started):
                self._usage = event.usage
        if passed:
            if self._sink is None:
                self.held.extend(passed)
            else:
                self._sink(passed)
        if end is not None:
            self._ended.callback(end)

    def _stopped(self, event: Event) -> list[Event]:
        """``event`` as far as the stop sequences let it through."""
        assert self._stops is not None
        out = [event]
        if isinstance(event, TextDelta):
            text = self._stops.feed(event.text)
            out = [TextDelta(event.index, text)] if text else []
        elif isinstance(event, BlockStopped):
            text = self._stops.flush()
            if text:
                out.insert(0, TextDelta(event.index, text))
        for passed in out:
            self.answer.add(passed)
        return out

    def _cut(self, stop: str) -> Finished:
        """End the answer here. Upstream's own count never comes: four characters are a token."""
        assert self._process is not None
        self._process.kill()
        written = max(1, self.answer.size() // 4)
        return Finished("stop_sequence", stop, evolve(self._usage, output_tokens=written))

    def _expire(self, failure: Failure) -> None:
        if not self._ended.called:
            self._ended.callback(failure)
