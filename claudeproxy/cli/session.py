"""One CLI process as a state machine without I/O: bytes in, bytes and events out.

It says what to write, what the model said, and when the process has to end. :mod:`.states` is the
table of its life; here the state changes in one place, :meth:`Session._go`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from claudeproxy.messages import Failure, Kind, Message, ToolResult

from .calls import ToolCalls, is_call
from .configured import SERVERS, SETUP, Configured
from .control import control_request, write_line
from .errors import LoginAdvice, classify
from .held import HeldConversation
from .lines import Lines, LineTooLong
from .models import parse_models
from .outputs import (
    Account,
    BillingKnown,
    ContextSizes,
    Limits,
    MustEnd,
    Output,
    Ready,
    Rested,
    Write,
)
from .script import Script
from .setup import Setup
from .states import AT_REST, IN_TURN, OWES, REWINDS, State, Step, after
from .wire import MessageReader

_HARMLESS_STOPS = frozenset({"end_turn", "stop_sequence", "tool_use"})
_READY = "ready"
_CAN_REWIND = "can rewind"
_INTERRUPT = "interrupt"
_HEARD_WHILE_REWINDING = ("control_request", "control_response", "rate_limit_event")


class Session:
    """Each method returns the outputs that it causes, in order."""

    def __init__(
        self,
        now: Callable[[], float],
        advice: LoginAdvice | None = None,
        line_limit: int = 64 * 1024 * 1024,
    ) -> None:
        """``now``: epoch seconds, for the reset times of plan windows; ``advice``: what to tell a
        client when the login has expired. ``line_limit``: bytes of one line."""
        self.state = State.STARTING
        self.can_rewind = False
        """Whether this CLI supports rewinding; known before its models are."""
        self.request_sent = False
        """Whether a request for this turn may have gone upstream."""
        self.skipped_lines = 0
        """Lines so far that were not messages."""
        self.rewinds = 0
        """Rewinds so far."""
        self._now = now
        self._advice = advice or LoginAdvice()
        self._lines = Lines(line_limit)
        self._configured = Configured()
        self._calls = ToolCalls()
        self._held = HeldConversation()
        self._script = Script(self._configured, self._calls, self._held)
        self._rewind_id: str | None = None
        self._reader = MessageReader(Setup().names)
        self._limits: Mapping[str, Any] | None = None
        self._said = ""
        self._said_status: int | None = None
        self._billing_open = False
        self._untold = False  # a turn was given up, and whoever asked has yet to be told

    def _go(self, step: Step) -> None:
        self.state = after(self.state, step)

    # -- what the engine asks for --

    def start(self) -> list[Output]:
        """Ask for the models: their arrival means that the process has started up. A rewind to
        nowhere, sent first, shows whether the CLI supports rewinding."""
        nowhere = {"subtype": "rewind_conversation", "target_message_uuid": str(uuid4())}
        return [
            control_request(_CAN_REWIND, nowhere),
            control_request(_READY, {"subtype": "list_models"}),
        ]

    def ask_account(self) -> list[Output]:
        """Ask it whose login it uses. That commits it to having no system prompt."""
        return [self._configured.set_up(Setup())]

    def open(
        self, messages: Sequence[Message], setup: Setup, flags: Mapping[str, Any], since: int = 0
    ) -> list[Output]:
        """Give it a turn: ``messages``, the last of which is to be answered.

        ``since``: how many of them it already holds, one of :attr:`points`. Whatever it holds
        beyond them is cut off first, and nothing else is sent until that is done.

        :raises ValueError: if it is busy, or bound to another set-up (:attr:`.Setup.lasting`);
            nothing has changed then.
        """
        if self.setup is not None and self.setup.lasting != setup.lasting:
            raise ValueError("a process keeps its first system prompt, and its plain tools")
        if since not in self.points:
            raise ValueError(f"no turn can begin at message {since} in {self.state.name}")
        self._script.put(messages[since:], since, setup, flags)
        billing = self._report_billing()
        self.request_sent = False
        if self.state is State.AWAITING_RESULT:
            # A line sent before the last turn's result could be drawn into that turn.
            self._go(Step.QUEUE)
            return billing
        return [*billing, *self._continue()]

    def _continue(self) -> list[Output]:
        """Play the script, first cutting off any messages beyond those it starts from."""
        if self._script.since < self._held.count:
            self._go(Step.REOPEN)
            return [self._rewind(self._script.since)]
        self._go(Step.RESULT if self.state is State.QUEUED else Step.OPEN)
        return self._play()

    def return_tool_results(
        self, results: Sequence[ToolResult], flags: Mapping[str, Any]
    ) -> list[Output]:
        """Return the results of all calls this process is parked on, in the client's order.

        :raises ValueError: if these are not the results of exactly those calls.
        """
        if self.state is not State.PARKED or {r.tool_use_id for r in results} != self.calls:
            raise ValueError(f"these are no results of what it called ({self.state.name})")
        billing = self._report_billing()
        self._held.added()
        self._begin()
        return [*billing, self._configured.apply(flags), *self._calls.answer(results)]

    def give_up(self) -> list[Output]:
        """Nobody waits for its turn any more: stop it, and go back to before its question.

        :raises ValueError: if it has no turn that can be given up.
        """
        was = self.state
        outputs = self._report_billing()
        self._go(Step.GIVE_UP)
        self._script.clear()
        if was in (State.REPLAYING, State.REOPENING):
            return outputs  # nothing has been asked; what is under way will finish
        if not (self.can_rewind and self._held.points):
            return [*outputs, *self._must_end("it cannot be taken back")]
        if was is State.ASKED:
            # A rewind would be refused, and the question asked all the same.
            return [*outputs, self._configured.brake()]
        return [*outputs, self._rewind(self._held.points[-1])]

    @property
    def setup(self) -> Setup | None:
        """What it is set up for; ``None`` while it fits any request."""
        return self._configured.setup

    @property
    def points(self) -> tuple[int, ...]:
        """The message counts that a turn can go on from, in ascending order. The last is all it
        holds, unless it is parked. Empty while it is busy."""
        if self.state not in AT_REST:
            return ()
        points = self._held.points if self.can_rewind else ()
        return points if self.state is State.PARKED else (*points, self._held.count)

    def end(self) -> list[Output]:
        """Give up whatever it is doing. Once its stdin is closed as well, the CLI ends by itself:
        it finishes any renewal of the login, and sends nothing else upstream."""
        at_rest = self.state in (State.STARTING, State.UNUSED, State.IDLE, State.DEAD)
        self._untold |= self.in_turn
        self._go(Step.END)
        if at_rest:
            return []
        # The brake as well: an interrupt leaves alone what the CLI has not yet begun with.
        return [self._configured.brake(), control_request(_INTERRUPT, {"subtype": "interrupt"})]

    @property
    def held(self) -> int:
        """How many messages of a conversation it holds."""
        return self._held.count

    @property
    def calls(self) -> frozenset[str]:
        """The ids of the tool calls it is parked on."""
        return frozenset(self._reader.calls) if self.state is State.PARKED else frozenset()

    @property
    def unsent(self) -> bool:
        """Whether the last message it was given is still unwritten."""
        return self._script.unsent

    @property
    def awaits_billing(self) -> bool:
        """Whether it has answered, but not yet reported how that was paid for."""
        return self._billing_open and self.state in (State.CUT, State.PARKED, State.AWAITING_RESULT)

    @property
    def in_turn(self) -> bool:
        """Whether somebody is waiting for an answer from this process."""
        return self.state in IN_TURN

    def ended(self, how: str) -> list[Output]:
        """The process is gone; ``how`` goes into the failure of a turn it leaves open."""
        untold = self._untold or self.in_turn
        self._untold = False
        self._go(Step.END)
        if not untold:
            return []
        return [Failure(Kind.UPSTREAM, f"the Claude CLI ended before its answer did ({how})", 502)]

    def feed(self, data: bytes) -> list[Output]:
        """Take in what the process printed, split anywhere."""
        outputs: list[Output] = []
        try:
            lines = self._lines.feed(data)
        except LineTooLong as error:
            return self._broken(f"the Claude CLI printed {error}")
        for line in lines:
            if self.state is State.DEAD:
                break
            if line.strip():
                outputs.extend(self._line(line))
        return outputs

    # -- what the CLI says --

    def _line(self, line: bytes) -> Sequence[Output]:
        if not line.lstrip().startswith(b"{"):
            self.skipped_lines += 1  # printed by a wrapper of the CLI, not for us
            return ()
        try:
            message = json.loads(line)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._broken("the Claude CLI printed no stream-json")
        handler = self._HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            return ()
        begun: list[Output] = []
        try:
            if self.state in (State.ASKED, State.WITHDRAWN) and self._begins(kind, message):
                begun = self._begun()
            if self.state in REWINDS and kind not in _HEARD_WHILE_REWINDING:
                return begun
            return [*begun, *handler(self, message)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            cause = f"the Claude CLI printed a malformed {kind} line"
            return self._broken(f"{cause} ({error!r})", cause)

    def _begins(self, kind: str, line: Mapping[str, Any]) -> bool:
        """Whether the CLI begins with the question; it says so, but then not always first."""
        if kind == "command_lifecycle":
            return line.get("command_uuid") == self._held.last and line.get("state") != "queued"
        return kind in ("stream_event", "result") or line.get("status") == "requesting"

    def _begun(self) -> list[Output]:
        self._go(Step.BEGUN)
        return [self._rewind(self._held.points[-1])] if self.state is State.REWINDING else []

    def _stream_event(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line.get("parent_tool_use_id") is not None:
            return ()
        event = line["event"]
        if self.state is not State.ANSWERING:
            if event["type"] != "message_start":
                return ()
            if self.state in (State.CUT, State.PARKED, State.AWAITING_RESULT):
                return self.give_up()
            return self._broken("the Claude CLI asked the model by itself")
        if event["type"] == "message_start" and self._reader.content:
            return self._failed(Failure(Kind.UPSTREAM, "the answer broke off and began anew", 502))
        if event["type"] == "message_stop":
            return self._stopped()
        outputs: list[Output] = list(self._reader.event(event))
        stop = self._reader.stop_reason
        if event["type"] == "message_delta" and stop is not None and not self._may_go_on(stop):
            outputs.append(self._reader.finished())
            self._go(Step.OVERRAN)
        return outputs

    def _may_go_on(self, stop: str) -> bool:
        return stop in _HARMLESS_STOPS and self._reader.callable

    def _status(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line.get("subtype") != "status" or line.get("status") != "requesting":
            return ()
        if self.state is State.CUT:
            return self.give_up()
        if self.state is State.ANSWERING:
            # Printed just before each request, and the brake must be on before the answer comes.
            self.request_sent = True
            return [self._configured.brake()]
        return ()

    def _stopped(self) -> Sequence[Output]:
        if self._reader.stop_reason is None:
            # The CLI ends a broken stream like this, having just said why it broke.
            said = self._said or "the answer broke off"
            return self._failed(self._classify(said, self._said_status, None))
        self._go(Step.CALLED if self._reader.calls else Step.ANSWERED)
        self._held.added()
        return [self._reader.finished()]

    def overdue(self) -> list[Output]:
        """What it owes did not come in time: the end of what is under way, or a report of how its
        answer was paid for. Without a report, that has not changed."""
        if self.state in OWES:
            return self._broken("the Claude CLI did not finish what it was at in time")
        return self._take_stock()

    def _take_stock(self) -> list[Output]:
        return self.give_up() if self.state is State.CUT else self._report_billing()

    def _report_billing(self) -> list[Output]:
        if not self.awaits_billing:
            return []
        self._billing_open = False
        return [BillingKnown(self._limits or {})]

    def _result(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if self.state in (State.CUT, State.PARKED):
            return self.give_up()
        if self.state in (State.REPLAYING, State.PREPARING) and not line.get("is_error"):
            return ()  # every line of history ends in a result of its own
        if self.state is State.ANSWERING:
            said = str(line.get("result") or self._said or "; ".join(line.get("errors") or ()))
            if not line.get("is_error"):
                said = "the Claude CLI ended the turn without an answer"
            status, reason = line.get("api_error_status"), line.get("terminal_reason")
            return self._failed(self._classify(said, status, reason))
        if line.get("is_error"):
            if self.state is State.AWAITING_RESULT:
                return self.give_up()
            return self._broken(f"the Claude CLI failed: {line.get('result')}")
        if self.state is State.QUEUED:
            return self._continue()
        if self.state is State.AWAITING_RESULT:
            billing = self._report_billing()
            self._go(Step.RESULT)
            return [*billing, *_sizes(line.get("modelUsage")), *self._configured.release()]
        return ()

    def _assistant(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line["message"].get("model") == "<synthetic>":
            self._said = "".join(b.get("text", "") for b in line["message"]["content"])
            self._said_status = line.get("api_error_status")
        return ()

    def _lifecycle(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if not self._script.processed(line):
            return ()
        if self.state is State.PREPARING:
            self._go(Step.RESTED)
            return [Rested()]
        return self._play()

    def _rate_limit(self, line: Mapping[str, Any]) -> Sequence[Output]:
        # Printed only when something has changed since this process last printed it. With a good
        # answer it follows message_stop.
        self._limits = line["rate_limit_info"]
        outputs: list[Output] = [Limits(self._limits)]
        if self.state in (State.PARKED, State.IDLE) and not self._billing_open:
            outputs.append(BillingKnown(self._limits))  # it came after the wait for it was over
        return [*outputs, *self._take_stock()]

    def _control_request(self, line: Mapping[str, Any]) -> Sequence[Output]:
        request, request_id = line["request"], line["request_id"]
        if request.get("subtype") != "mcp_message":
            response = {"subtype": "error", "error": "not supported", "request_id": request_id}
            return [write_line({"type": "control_response", "response": response})]
        if is_call(request["message"]):
            if self.state is State.CUT:
                return self.give_up()
            if self.state in REWINDS:
                return ()
        return self._calls.heard(request_id, request["message"])

    def _control_response(self, line: Mapping[str, Any]) -> Sequence[Output]:
        response = line["response"]
        answer, asked = response.get("response") or {}, response.get("request_id")
        if asked == _CAN_REWIND:
            self.can_rewind = response.get("subtype") == "success" and "rewound" in answer
            return ()
        if self.state in REWINDS and asked == self._rewind_id:
            return self._rewound(answer, response.get("error"))
        refused = response.get("subtype") == "error"
        if refused or (asked == SERVERS and answer.get("errors")):
            cause = "the Claude CLI refused a control request"
            return self._broken(f"{cause}: {response.get('error') or answer['errors']}", cause)
        if asked == _READY and self.state is State.STARTING:
            models = parse_models(answer["models"])
            self._go(Step.STARTED)
            return [Ready(models)]
        if asked == SETUP:
            return [Account(answer.get("account"))]
        return ()

    _HANDLERS: Mapping[str, Callable[[Session, Mapping[str, Any]], Sequence[Output]]] = {
        "stream_event": _stream_event,
        "result": _result,
        "system": _status,
        "assistant": _assistant,
        "command_lifecycle": _lifecycle,
        "rate_limit_event": _rate_limit,
        "control_request": _control_request,
        "control_response": _control_response,
    }

    # -- what it does --

    def _play(self) -> list[Output]:
        """Write what may be written of the turn; once the question is, it is begun."""
        writes: list[Output] = [*self._script.play()]
        if writes and not self._script.unsent:
            self._begin()
        return writes

    def _begin(self) -> None:
        assert self.setup is not None
        self._go(Step.ASKED)
        self._reader = MessageReader(self.setup.names)
        self._billing_open = True
        self.request_sent = False
        self._said, self._said_status = "", None

    def _rewind(self, at: int) -> Write:
        self._rewind_id = str(uuid4())
        self._calls.forget()
        return control_request(self._rewind_id, self._held.rewind(at))

    def _rewound(self, answer: Mapping[str, Any], error: object) -> list[Output]:
        self._rewind_id = None
        if answer.get("rewound") is not True:
            why = answer.get("reason") or error or "no reason given"
            return self._broken(f"the Claude CLI refused to rewind: {why}")
        if self.held == 0 and answer.get("precedingAssistantUuid") is not None:
            return self._broken("the Claude CLI has kept a part of what it was to forget")
        self.rewinds += 1
        self._go(Step.REWOUND)
        if self.state is State.REPLAYING:
            return self._play()
        return [*self._configured.release(), Rested()]

    # -- what goes wrong --

    def _classify(self, said: str, status: int | None, reason: str | None) -> Failure:
        return classify(said, status, reason, self._limits, self._now(), self._advice)

    def _failed(self, failure: Failure) -> list[Output]:
        """The turn has failed, but the process is as good as before, unless it has lost its login:
        it would not get that back."""
        if failure.kind is Kind.AUTHENTICATION:
            return self._must_end("it has no login", failure)
        return [failure, *self.give_up()]

    def _broken(self, why: str, cause: str | None = None) -> list[Output]:
        """What it does no longer makes sense: it has to end."""
        return self._must_end(why, Failure(Kind.UPSTREAM, why, 502, cause=cause or why))

    def _must_end(self, why: str, failure: Failure | None = None) -> list[Output]:
        outputs: list[Output] = [failure] if failure is not None and self.in_turn else []
        outputs += [*self.end(), MustEnd(why)]
        self._untold = False
        return outputs


def _sizes(used: Any) -> list[Output]:
    """What a result says of the models that answered (``modelUsage``)."""
    found = {}
    for model, about in used.items() if isinstance(used, Mapping) else ():
        tokens = about.get("contextWindow") if isinstance(about, Mapping) else None
        if isinstance(tokens, int) and tokens > 0:
            found[model] = tokens
    return [ContextSizes(found)] if found else []
