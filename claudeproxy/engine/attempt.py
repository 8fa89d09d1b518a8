"""One question put to one process, and what the request asks of its answer on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

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
    Finished,
    Message,
    Request,
    Started,
    TextDelta,
    Usage,
)

from .admission import Admission
from .conversations import Conversations
from .deadlines import Deadlines, Watch
from .pool import Pool
from .standing import Standing
from .stops import StopFilter
from .structured import Form, Structure, ToolAnswer, closed

Sink = Callable[[list[Event]], None]
"""Where a turn's events go, in bursts; the last one is ``Finished`` or a ``Failure``."""


REFILL = 0.5
"""Seconds that a tool's result gets before the next start competes with it for the CPU."""

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


class Attempt:
    """Claims a process, puts the request to it, and passes its events on."""

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
        self._begun = False
        self._ended: Deferred[Finished | Failure] = Deferred()
        self.answer = Assembly()
        self.held: list[Event] = []
        self.way = ""
        self.lost = False
        """Whether the process that held the conversation failed without a word of an answer, and
        not because of what was asked."""

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
        if kept is not None:
            process = kept.process
        else:
            schema = (request.schema or {"type": "object"}) if schema_by_tool else None
            setup = Setup.of(request, schema)
            process = await self._means.pool.claim(setup, flags)
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
        never_asked = process.reaped or process.unasked
        self.lost = (
            kept is not None and isinstance(end, Failure) and never_asked and not self._begun
        )
        self._release(end)
        return end

    def _release(self, end: Finished | Failure | None) -> None:
        assert self._watch is not None and self._process is not None
        process = self._process
        self._watch.stop()
        process.listener = None
        process.resume()
        cut = self._stops is not None and self._stops.found is not None
        if isinstance(end, Finished) and not cut and process.state in _HOLDING:
            request = self._request
            messages = (*request.messages, Message("assistant", self.answer.blocks()))
            self._means.conversations.keep(request, self._model.name, messages, process)
        else:
            process.stop()
        if process.state is State.PARKED:
            self._means.reactor.callLater(REFILL, self._means.pool.fill)
        else:
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
            self._begun = True
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
