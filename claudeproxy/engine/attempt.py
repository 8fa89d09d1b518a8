"""One request put to one process, and what the request wants done to the answer on its way."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from claudeproxy.cli.altered import held_as_said
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.settings import turn_settings
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import AT_REST, State
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

from .answer_tool import AnswerTool
from .constrained import closed
from .context import EngineContext, TurnSink
from .deadlines import Watch
from .flow import Flow
from .permit import Permit
from .placing import Placement, Wanted
from .stops import StopFilter
from .structured import OutputMode

OUTLIVE = 60.0
"""Seconds for which an abandoned answer may continue, to learn how it was paid for."""


class Attempt:
    """Claims a process, puts the request to it, and passes its events on."""

    def __init__(
        self,
        context: EngineContext,
        permit: Permit,
        request: Request,
        model: ModelInfo,
        mode: OutputMode,
        flow: Flow,
        sink: TurnSink | None,
    ) -> None:
        """``sink``: ``None`` to keep the events back, in :attr:`withheld`."""
        self._context = context
        self._permit = permit
        self._tool = AnswerTool(request) if mode is OutputMode.TOOL else None
        self._request = request if self._tool is None else self._tool.bound
        if request.schema is not None:
            schema = closed(request.schema) if mode is OutputMode.NATIVE else None
            self._request = evolve(self._request, schema=schema)
        self._model = model
        self._flow = flow
        self._sink = sink
        self._placement: Placement | None = None
        self._watch: Watch | None = None
        self._stops = StopFilter(request.stop) if request.stop else None
        self._begun = False
        self._claiming: Deferred[Placement] | None = None
        self._ended: Deferred[Finished | Failure] = Deferred()
        self.answer = Assembly()
        self.withheld: list[Event] = []
        self.placement = ""
        self.spent = Usage()
        """What upstream has counted so far; of an answer that was given up, the output is our
        estimate."""
        self.sent = 0
        """Bytes written to the process."""
        self.awaits_billing = False
        """Whether the process has yet to report how the answer is paid for."""
        self.lost = False
        """Whether the process that held the conversation failed before a request went upstream."""

    async def run(self) -> Finished | Failure:
        """The end of the answer; everything before it is in the sink, or withheld.

        :raises FailureError: when no process can be started.
        """
        watch = Watch(self._context.reactor, self._context.deadlines, self._expire)
        self._watch = watch
        self._flow.attach(watch)
        try:
            return await self._ask()
        finally:
            watch.stop()
            self._flow.detach(watch)

    async def _ask(self) -> Finished | Failure:
        request = self._request
        setup = Setup.of(request, plain_names=self._context.plain_names)
        flags = turn_settings(request, self._model, setup.names).flags
        placement = await self._claim(Wanted(request, self._model.name, setup))
        if placement is None:
            return await self._ended
        self._placement = placement
        self.placement = placement.how
        process = placement.kept.process
        on_billing = self._permit.billing_known if self._context.quota.applies else None
        self._flow.attach(process)
        self.sent -= process.sent
        try:
            if placement.results:
                process.return_tool_results(self, placement.results, flags, on_billing)
            else:
                messages, since = request.messages, placement.since
                process.open(self, messages, setup, flags, since, on_billing)
            end = await self._ended
        except BaseException:
            self._release(None)
            raise
        if isinstance(end, Failure):
            self.lost = placement.how != "warm" and process.lost
            given_up = end.status in (502, 504)
            end = evolve(end, spent=process.request_sent and (self._begun or given_up))
        self._release(end)
        return end

    async def _claim(self, wanted: Wanted) -> Placement | None:
        """A process from the keeper; ``None`` if a deadline passed before there was one."""
        self._claiming = self._context.keeper.claim(wanted)
        try:
            return await self._claiming
        except CancelledError:
            if self._ended.called:  # by the deadline
                return None
            raise
        finally:
            self._claiming = None

    def _release(self, end: Finished | Failure | None) -> None:
        assert self._placement is not None
        process, keeper = self._placement.kept.process, self._context.keeper
        process.listener = None
        if not isinstance(end, Finished) and self._begun:
            self.spent = self._estimated()
        self._flow.detach(process)
        self.sent += process.sent
        held: Message | None = None
        try:
            held = self._held(process, end)
        finally:
            # Whatever is wrong with the answer: a process not given back would be busy for ever.
            self._leave_billing(process, end)
            keeper.give_back(self._placement, held)
        if process.state is State.PARKED:
            keeper.fill_later()  # the client returns its call's result at once
        else:
            keeper.fill()

    def _held(self, process: CLIProcess, end: Finished | Failure | None) -> Message | None:
        """The answer, if the client and ``process`` both hold it."""
        if not isinstance(end, Finished) or process.state not in AT_REST:
            return None
        cut = self._stops is not None and self._stops.found is not None
        # After an answer by tool, the process holds a call where the client's history will hold
        # text: they are not the same conversation.
        aside = self._tool is not None and self._tool.called
        blocks = self.answer.blocks()
        if cut or aside or not held_as_said(blocks):
            return None
        return Message("assistant", blocks)

    def _leave_billing(self, process: CLIProcess, end: Finished | Failure | None) -> None:
        """Let ``process`` report how the answer is paid for, if that is still to come."""
        self.awaits_billing = isinstance(end, Finished) and process.awaits_billing
        if self._permit.undecided and process.is_asking:
            process.outlive(OUTLIVE)
            self.awaits_billing = True
        if not isinstance(end, Finished) and not self.awaits_billing:
            process.on_billing = None  # this attempt's billing stays unknown; the next may report

    # -- Listener --

    def events(self, events: list[Event]) -> None:
        """A burst from the process."""
        if self._ended.called:
            return
        assert self._watch is not None
        self._watch.touch()
        if self._tool is not None:
            events = self._tool.translate(events)
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
                self.spent = event.usage
        if passed:
            self._begun = True
            if self._sink is None:
                self.withheld.extend(passed)
            else:
                self._sink(passed)
        if isinstance(end, Finished):
            self.spent = end.usage
        if end is not None:
            # Not to the sink, where the deltas go: the turn sends the end, after giving back the
            # process, the permit and the slot; or it asks again instead.
            self._ended.callback(end)

    def _stopped(self, event: Event) -> list[Event]:
        """The part of ``event`` that the stop sequences let through."""
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
        """End the answer here."""
        return Finished("stop_sequence", stop, self._estimated())

    def _estimated(self) -> Usage:
        """What an answer cost that ends early, so that the upstream's own count of its output will
        not arrive: four characters a token."""
        return evolve(self.spent, output_tokens=max(1, self.answer.size() // 4))

    def _expire(self, failure: Failure) -> None:
        if self._ended.called:
            return
        if self._claiming is None:
            self._ended.callback(failure)
        else:
            waited = f"no Claude CLI was ready for this turn: {failure.message}"
            self._ended.callback(evolve(failure, message=waited))
            self._claiming.cancel()
