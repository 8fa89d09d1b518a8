"""One CLI process as a machine without I/O: bytes in, bytes and events out.

It says what to write, what the model said, and when the process has to die. The way through it::

    STARTING -> WARM -> REPLAYING -> ANSWERING -> SETTLING -> IDLE -> ANSWERING ...
                                         |  ^
                                         v  |
                                        PARKED            (anything) -> DEAD
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any
from uuid import uuid4

from claudeproxy.messages import Failure, Kind, Message, Request, ToolResult

from .control import apply_flags, control_request, mcp_answer, write_line
from .errors import classify, used_up
from .lines import Lines, LineTooLong
from .models import parse_models
from .outputs import Doomed, Output, Ready, Window, Write
from .settings import BRAKE, RELEASE
from .setup import Setup
from .tools import ToolServer, call_answer
from .wire import Answer, message_line


class State(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    WARM = "warm"
    REPLAYING = "replaying"
    ANSWERING = "answering"
    SETTLING = "settling"
    IDLE = "idle"
    PARKED = "parked"
    DEAD = "dead"


_HARMLESS_STOPS = frozenset({"end_turn", "stop_sequence", "tool_use"})
_READY = "ready"
_SETUP = "setup"


class Session:
    """Every method returns the outputs it causes, in order."""

    def __init__(self, now: Callable[[], float], line_limit: int = 64 * 1024 * 1024) -> None:
        """``now``: epoch seconds, for the reset times of plan windows."""
        self.state = State.STARTING
        self.setup: Setup | None = None
        self._now = now
        self._lines = Lines(line_limit)
        self._tools = ToolServer()
        self._script: deque[Message] = deque()
        self._awaited: str | None = None
        self._answer = Answer()
        self._calls: dict[str, tuple[str, object]] = {}
        self._results: deque[ToolResult] = deque()
        self._after: list[bytes] = []
        self._window: Mapping[str, Any] | None = None
        self._said = ""
        self._said_status: int | None = None
        self._one_answer = False
        self._flags: Mapping[str, Any] = {}

    # -- what the engine asks --

    def start(self) -> list[Output]:
        """Ask for the models: the answer tells that the process has started up."""
        return [control_request(_READY, {"subtype": "list_models"})]

    def prime(self, setup: Setup, flags: Mapping[str, Any]) -> list[Output]:
        """Set a waiting process up for conversations that need ``setup``, and warm it through.

        ``flags``: what the next turn's are expected to be; with others it costs 11 ms more. The
        blank line runs a turn's code without a request and leaves no trace: a first turn then
        begins in half the time (measured).
        """
        assert self.state is State.WARM and self.setup is None, (self.state, self.setup)
        self._awaited = str(uuid4())
        blank = message_line(Message("user", ()), self._awaited, query=False)
        return [self._set_up(setup), self._apply_flags(flags), Write(blank)]

    def open(self, request: Request, setup: Setup, flags: Mapping[str, Any]) -> list[Output]:
        """Begin a conversation on a waiting process: set-up, history, then the turn."""
        assert self.state in (State.STARTING, State.WARM), self.state
        outputs: list[Output] = []
        if self.setup is None:
            outputs.append(self._set_up(setup))
        assert self.setup == setup
        if flags != self._flags:
            outputs.append(self._apply_flags(flags))
        self._script.extend(request.messages)
        self.state = State.REPLAYING
        if self._awaited is None:
            outputs.extend(self._play())
        return outputs

    def _set_up(self, setup: Setup) -> Write:
        self.setup = setup
        self._tools = ToolServer(setup.tools)
        # Unless such a process dies with its answer, the CLI asks again for a better one.
        self._one_answer = setup.schema is not None
        return control_request(_SETUP, setup.control_request())

    def extend(self, message: Message, flags: Mapping[str, Any]) -> list[Output]:
        """The next user message of the conversation this process holds."""
        assert self.state in (State.SETTLING, State.IDLE), self.state
        settling = self.state is State.SETTLING
        lines = [Write(message_line(message, str(uuid4()), query=True))]
        if settling or flags != self._flags:
            lines.insert(0, self._apply_flags(flags))
        self._begin()
        if settling:
            # A line sent before the last turn's result could be drawn into that turn.
            self._after = [write.data for write in lines]
            return []
        return [*lines]

    def answer(self, results: Sequence[ToolResult], flags: Mapping[str, Any]) -> list[Output]:
        """The results of all calls this process is parked on, in the client's order."""
        assert self.state is State.PARKED, self.state
        self._begin()
        self._results.extend(results)
        return [self._apply_flags(flags), *self._return_results()]

    def _apply_flags(self, flags: Mapping[str, Any]) -> Write:
        self._flags = flags
        return apply_flags(flags)

    @property
    def calls(self) -> frozenset[str]:
        """The ids of the calls it is parked on."""
        return frozenset(self._answer.calls) if self.state is State.PARKED else frozenset()

    @property
    def unasked(self) -> bool:
        """Whether the message it was given last still waits for the result of the turn before."""
        return bool(self._after)

    @property
    def in_turn(self) -> bool:
        """Whether somebody waits for an answer of this process."""
        return self.state in (State.REPLAYING, State.ANSWERING)

    def ended(self, how: str) -> list[Output]:
        """The process is gone; ``how`` it went, for the message of a turn it leaves open."""
        was_in_turn = self.in_turn
        self.state = State.DEAD
        if not was_in_turn:
            return []
        return [Failure(Kind.UPSTREAM, f"the Claude CLI ended before its answer did ({how})", 502)]

    def feed(self, data: bytes) -> list[Output]:
        """What the process printed, cut anywhere."""
        outputs: list[Output] = []
        try:
            lines = self._lines.feed(data)
        except LineTooLong as error:
            return self._fail(Failure(Kind.UPSTREAM, f"the Claude CLI printed {error}", 502))
        for line in lines:
            if self.state is State.DEAD:
                break
            if line.strip():
                outputs.extend(self._line(line))
        return outputs

    # -- what the CLI says --

    def _line(self, line: bytes) -> Sequence[Output]:
        try:
            message = json.loads(line)
            kind = message["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._fail(Failure(Kind.UPSTREAM, "the Claude CLI printed no stream-json", 502))
        handler = self._HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            return ()
        try:
            return handler(self, message)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = f"the Claude CLI printed a {kind} line that makes no sense ({error!r})"
            return self._fail(Failure(Kind.UPSTREAM, why, 502))

    def _stream_event(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line.get("parent_tool_use_id") is not None:
            return ()
        event = line["event"]
        if self.state is not State.ANSWERING:
            if event["type"] == "message_start":
                return self._doom("it went on by itself after its answer")
            return ()
        if event["type"] == "message_start" and self._answer.content:
            return self._fail(Failure(Kind.UPSTREAM, "the answer broke off and began anew", 502))
        if event["type"] == "message_stop":
            return self._stopped()
        outputs: list[Output] = list(self._answer.event(event))
        if event["type"] == "message_start":
            outputs.append(apply_flags(BRAKE))
        stop = self._answer.stop_reason
        if event["type"] == "message_delta" and stop is not None and not self._may_go_on(stop):
            outputs.append(self._answer.finished())
            outputs.extend(self._doom(f"the CLI would go on by itself after {stop}"))
        return outputs

    def _may_go_on(self, stop: str) -> bool:
        if self._one_answer:
            return False
        called = self._answer.calls
        known = all(name in self._tools.names for name in called.values())
        return stop in _HARMLESS_STOPS and known and self._answer.arguments_parse

    def _stopped(self) -> Sequence[Output]:
        if self._answer.stop_reason is None:
            # What the CLI makes of a broken stream; why it broke, it said just before.
            said = self._said or "the answer broke off"
            return self._fail(classify(said, self._said_status, None, self._window, self._now()))
        self.state = State.PARKED if self._answer.calls else State.SETTLING
        return [self._answer.finished()]

    def _result(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if self.state is State.REPLAYING and not line.get("is_error"):
            return ()  # every line of history ends in a result of its own
        if self.in_turn and not self._after:
            said = str(line.get("result") or self._said or "; ".join(line.get("errors") or ()))
            if not line.get("is_error"):
                said = "the Claude CLI ended the turn without an answer"
            status, reason = line.get("api_error_status"), line.get("terminal_reason")
            return self._fail(classify(said, status, reason, self._window, self._now()))
        if line.get("is_error"):
            failure = classify(str(line.get("result")), None, None, None, self._now())
            return self._fail(failure) if self._after else self._doom("its turn ended in an error")
        if self._after:
            after, self._after = self._after, []
            return [Write(data) for data in after]
        if self.state is State.PARKED:
            return self._doom("it gave up its tool calls")
        if self.state is State.SETTLING:
            self.state = State.IDLE
            # Off with the brake while nobody waits: the next turn begins 8 ms earlier, and with
            # no more than the brake in it, for all settings would cost that turn 3 ms.
            return [apply_flags({"env": RELEASE})]
        return ()

    def _assistant(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line["message"].get("model") == "<synthetic>":
            self._said = "".join(b.get("text", "") for b in line["message"]["content"])
            self._said_status = line.get("api_error_status")
        return ()

    def _lifecycle(self, line: Mapping[str, Any]) -> Sequence[Output]:
        if line.get("state") == "completed" and line.get("command_uuid") == self._awaited:
            self._awaited = None
            return self._play()
        return ()

    def _rate_limit(self, line: Mapping[str, Any]) -> Sequence[Output]:
        info = line["rate_limit_info"]
        if used_up(info):
            self._window = info
        return [Window(info)]

    def _control_request(self, line: Mapping[str, Any]) -> Sequence[Output]:
        request, request_id = line["request"], line["request_id"]
        if request.get("subtype") != "mcp_message":
            response = {"subtype": "error", "error": "not supported", "request_id": request_id}
            return [write_line({"type": "control_response", "response": response})]
        message = request["message"]
        if message.get("method") == "tools/call":
            use_id = message["params"]["_meta"]["claudecode/toolUseId"]
            self._calls[use_id] = (request_id, message.get("id"))
            return self._return_results()
        return [mcp_answer(request_id, self._tools.handle(message))]

    def _control_response(self, line: Mapping[str, Any]) -> Sequence[Output]:
        response = line["response"]
        if response.get("subtype") == "error":
            why = f"the Claude CLI refused a control request: {response.get('error')}"
            return self._fail(Failure(Kind.UPSTREAM, why, 502))
        if response.get("request_id") == _READY:
            if self.state is State.STARTING:
                self.state = State.WARM
            return [Ready(parse_models(response["response"]["models"]))]
        return ()

    _HANDLERS: Mapping[str, Callable[[Session, Mapping[str, Any]], Sequence[Output]]] = {
        "stream_event": _stream_event,
        "result": _result,
        "assistant": _assistant,
        "command_lifecycle": _lifecycle,
        "rate_limit_event": _rate_limit,
        "control_request": _control_request,
        "control_response": _control_response,
    }

    # -- steps --

    def _play(self) -> list[Output]:
        """History up to the next user line that must be awaited, or to the turn itself.

        User lines queue in the CLI and assistant lines do not, so an earlier user line has to be
        taken in before what follows it is sent.
        """
        outputs: list[Output] = []
        while self._script:
            message = self._script.popleft()
            line_id = str(uuid4())
            last = not self._script
            outputs.append(Write(message_line(message, line_id, query=last)))
            if last:
                self._begin()
            elif message.role == "user":
                self._awaited = line_id
                break
        return outputs

    def _begin(self) -> None:
        self._answer = Answer()
        self._window = None
        self._said, self._said_status = "", None
        self.state = State.ANSWERING

    def _return_results(self) -> list[Output]:
        """Answer the calls in the client's order, as far as they have reached us."""
        outputs: list[Output] = []
        while self._results and self._results[0].tool_use_id in self._calls:
            result = self._results.popleft()
            request_id, call_id = self._calls.pop(result.tool_use_id)
            outputs.append(mcp_answer(request_id, call_answer(call_id, result)))
        return outputs

    def _fail(self, failure: Failure) -> list[Output]:
        outputs: list[Output] = [failure] if self.in_turn else []
        return [*outputs, *self._doom(f"it failed: {failure.kind.value}")]

    def _doom(self, why: str) -> list[Output]:
        self.state = State.DEAD
        return [Doomed(why)]
