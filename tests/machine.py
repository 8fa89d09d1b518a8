"""A whole engine on a clock that the test turns, over CLIs that are a pipe and a script."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure as Reason

from claudeproxy.cli.models import parse_models
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.session import Session
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.engine.engine import Engine, Limits, TurnGroup
from claudeproxy.messages import Assembly, Event, Message, Request, Text, Tool
from claudeproxy.testing import transcripts as cli

LOOK = Tool("look", "Looks.", {"type": "object"})
NAMES = ToolNames.of((LOOK,))

NOBODY = 1 << 30
"""No process has so large a number: whatever is done to it is done to nobody."""


def user(*texts: str) -> tuple[Message, ...]:
    """Messages in turn by user and assistant."""
    roles = ("user", "assistant")
    return tuple(Message(roles[n % 2], (Text(text),)) for n, text in enumerate(texts))  # type: ignore[arg-type]


def request(*texts: str, **fields: Any) -> Request:
    return Request("opus", user(*(texts or ("x",))), **fields)


def begun(*parts: str) -> bytes:
    """An answer up to the end of its text."""
    return cli.requesting() + cli.opening() + b"".join(cli.text_block(parts))


def said(*parts: str, reason: str = "end_turn") -> bytes:
    """A whole answer."""
    return begun(*parts) + cli.closing(reason) + cli.result("".join(parts))


def call(call_id: str = "toolu_1", arguments: str = "{}", name: str = "look") -> bytes:
    """An answer that calls a tool, and waits."""
    upstream = NAMES.upstream(name)
    params = {"name": upstream, "_meta": {"claudecode/toolUseId": call_id}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    asks = {"subtype": "mcp_message", "server_name": "c", "message": message}
    return (
        cli.requesting()
        + cli.opening()
        + b"".join(cli.call_block(call_id, upstream, arguments, 0))
        + cli.closing("tool_use")
        + cli.line({"type": "control_request", "request_id": "r1", "request": asks})
    )


class Claude:
    """One CLI: what it reads, and what it says to that."""

    pid = NOBODY

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.read: list[Any] = []
        self.holds: list[tuple[str, str]] = []
        """The conversation as it stands: of each message the id of its user line, and its text."""
        self.upstream: list[list[str]] = []
        """The conversations that it has asked upstream to answer."""
        self.closed = False
        self.paused = False
        self.process = CLIProcess(machine.clock, Session(machine.now), machine.engine)
        self.process.transport = self

    @property
    def asked(self) -> list[Any]:
        """The messages put to it, history included."""
        return [line["message"] for line in self.read if line["type"] == "user"]

    @property
    def settings(self) -> Any:
        """The settings of its last turn."""
        return next(
            line["request"]["settings"]
            for line in reversed(self.read)
            if line.get("request", {}).get("settings", {}).get("model")
        )

    def say(self, data: bytes) -> None:
        if not self.process.ended.called:
            self.process.outReceived(data)

    def die(self) -> None:
        if not self.process.ended.called:
            self.process.processExited(Reason(ProcessDone(0)))
            self.process.processEnded(Reason(ProcessDone(0)))

    @property
    def rewinds(self) -> int:
        """How often it was taken back."""
        return sum("interrupt_if_running" in line.get("request", {}) for line in self.read)

    # -- as the transport of its process --

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            self.machine.clock.callLater(0, self._take, json.loads(line))

    def closeStdin(self) -> None:
        self.closed = True
        self.machine.clock.callLater(0, self.die)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def _take(self, line: Any) -> None:
        self.read.append(line)
        asked = line.get("request", {})
        subtype = asked.get("subtype")
        if subtype == "list_models":
            if self.machine.starts:
                self.say(cli.ready(line["request_id"]))
        elif subtype == "rewind_conversation":
            self._rewind(line["request_id"], asked)
        elif subtype == "mcp_set_servers":
            self._answer(line["request_id"], {"added": [], "removed": [], "errors": {}})
        elif line["type"] in ("user", "assistant"):
            self.holds.append((line.get("uuid", ""), *texts([line["message"]])))
            if line["type"] == "user" and line.get("shouldQuery") is False:
                self.say(cli.completed(line["uuid"]))
            elif line["type"] == "user":
                self.say(cli.lifecycle(line["uuid"], "started"))
                self._ask()
        elif "mcp_response" in str(line):
            self._ask()

    def _ask(self) -> None:
        self.upstream.append([text for _, text in self.holds])
        says = self.machine.script.pop(0)
        self.holds.append(("", _said(says)))
        self.say(says)

    def _rewind(self, request_id: str, asked: Any) -> None:
        ids = [line_id for line_id, _ in self.holds]
        target = asked["target_message_uuid"]
        if self.machine.rewinds is None:
            return  # it does not answer
        if not self.machine.rewinds:
            self._answer(request_id, {}, subtype="error", error="unknown request")
        elif target not in ids:
            self._answer(request_id, {"rewound": False, "reason": "target_not_found"})
        else:
            assert [line_id for line_id in ids if line_id][-1] == asked[
                "last_seen_user_message_uuid"
            ]
            del self.holds[ids.index(target) :]
            before = "an answer" if self.holds else None
            self._answer(request_id, {"rewound": True, "precedingAssistantUuid": before})

    def _answer(
        self, request_id: str, answer: Any, subtype: str = "success", **fields: Any
    ) -> None:
        response = {"subtype": subtype, "request_id": request_id, "response": answer, **fields}
        self.say(cli.line({"type": "control_response", "response": response}))


def _said(answer: bytes) -> str:
    """The text of an answer."""
    events = [json.loads(line).get("event", {}) for line in answer.splitlines()]
    return "".join(event.get("delta", {}).get("text", "") for event in events)


@define(eq=False)
class Heard:
    """An answer as it comes."""

    group: TurnGroup
    events: list[Event]

    @property
    def text(self) -> str:
        answer = Assembly()
        for event in self.events[:-1]:
            answer.add(event)
        return answer.text()

    @property
    def end(self) -> Any:
        """Its last event, once the turn is over."""
        assert self.group.done.called
        return self.events[-1]


@define(eq=False)
class Machine:
    """``script``: what the CLIs say to the messages put to them, in order."""

    made: ClassVar[list[Machine]] = []

    script: list[bytes] = field(factory=list)
    limits: Limits = field(factory=lambda: Limits(processes=4))
    rewinds: bool | None = True
    """Whether they know how to rewind; ``None``: they do not answer to that."""
    starts: bool = True
    """Whether those that start tell their models."""
    no_spawn: Exception | None = None
    """Why none can be started."""
    clock: Clock = field(factory=Clock)
    clis: list[Claude] = field(factory=list)
    engine: Engine = field(init=False)

    def __attrs_post_init__(self) -> None:
        catalogue = Catalogue()
        catalogue.learn(parse_models(cli.MODELS))
        self.engine = Engine(self.clock, self._spawn, catalogue, self.limits, self.now)
        self.engine.start()
        self.run()
        self.made.append(self)

    @classmethod
    def end_all(cls) -> None:
        """No turn is left running: those that are collected while they run are closed in any
        order, and what the end of one fires finds another closed."""
        while cls.made:
            machine = cls.made.pop()
            for group in list(machine.engine._groups):
                group.cancel()
            machine.run()

    def now(self) -> float:
        return 1000.0 + self.clock.seconds()

    def _spawn(self, engine: Engine) -> CLIProcess:
        if self.no_spawn is not None:
            raise self.no_spawn
        claude = Claude(self)
        self.clis.append(claude)
        claude.process.connectionMade()
        return claude.process

    def run(self, seconds: float = 0.0) -> None:
        """What is due happens, and what comes of it."""
        self.clock.advance(seconds)

    def ask(self, *requests: Request) -> Heard:
        """A request, as far as it goes by itself."""
        events: list[Event] = []
        group = self.engine.ask_all(requests, lambda _, burst: events.extend(burst))
        self.run()
        return Heard(group, events)

    @property
    def alive(self) -> list[Claude]:
        return [claude for claude in self.clis if claude.process in self.engine.processes]


def texts(messages: Iterable[Any]) -> list[str]:
    """The texts of lines put to a CLI."""
    return ["".join(b["text"] for b in m["content"] if b["type"] == "text") for m in messages]
