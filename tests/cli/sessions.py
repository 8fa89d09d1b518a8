"""Sessions in every state, brought there by what a CLI prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from claudeproxy.cli.errors import LoginAdvice
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.outputs import MustEnd, Output, Write
from claudeproxy.cli.session import Session
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State, Step
from claudeproxy.messages import Failure, Message, Request, Text, Tool, ToolResult
from claudeproxy.testing import transcripts as cli

LOOK = Tool("look", "Looks.", {"type": "object"})
FIND = Tool("find", "Finds.", {"type": "object"})
NAMES = ToolNames.of((LOOK,))
UPSTREAM = NAMES.upstream("look")
FLAGS: dict[str, Any] = {"model": "opus"}
GRANTED = {**FLAGS, "permissions": {"allow": [f"mcp__{NAMES.server}"]}}
"""What is sent for FLAGS where LOOK is offered."""

INFO = {"status": "allowed", "rateLimitType": "five_hour", "resetsAt": 5000}


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def messages(*texts: str) -> tuple[Message, ...]:
    """By user and assistant in turn."""
    roles = ("user", "assistant")
    return tuple(Message(roles[n % 2], (Text(t),)) for n, t in enumerate(texts))  # type: ignore[arg-type]


def request(*texts: str, tools: tuple[Tool, ...] = (LOOK,)) -> Request:
    return Request("opus", messages(*texts), ("Be brief.",), tools)


def sent(outputs: Iterable[Output]) -> list[Any]:
    """The lines written."""
    data = b"".join(output.data for output in outputs if isinstance(output, Write))
    return [json.loads(line) for line in data.splitlines()]


def told(outputs: Iterable[Output]) -> list[Output]:
    """All but what is written."""
    return [output for output in outputs if not isinstance(output, Write)]


def kinds(lines: Iterable[Any]) -> list[str]:
    """What was written: a message's role, or what a control request is called."""
    return [line["request"]["subtype"] if "request" in line else line["type"] for line in lines]


def doom(outputs: Iterable[Output]) -> Failure:
    """The only failure, behind which the process has to end."""
    said = told(outputs)
    assert isinstance(said[-2], Failure), said
    assert isinstance(said[-1], MustEnd), said
    return said[-2]


class Scene(Session):
    """A session that remembers its steps and what it wrote."""

    def __init__(self, advice: LoginAdvice | None = None) -> None:
        super().__init__(lambda: 1000.0, advice)
        self.steps: list[tuple[State, Step]] = []
        self.written: list[Any] = []
        self.outputs: list[Output] = []

    def _go(self, step: Step) -> None:
        was = self.state
        super()._go(step)
        self.steps.append((was, step))

    def do(self, outputs: Iterable[Output]) -> list[Output]:
        """Remember ``outputs``."""
        outputs = list(outputs)
        self.written += sent(outputs)
        self.outputs += outputs
        return outputs

    def hear(self, data: bytes) -> list[Output]:
        return self.do(self.feed(data))

    def put(
        self,
        *texts: str,
        since: int = 0,
        tools: tuple[Tool, ...] = (LOOK,),
        flags: dict[str, Any] = FLAGS,
    ) -> list[Output]:
        """Open a turn with the messages ``texts``."""
        asks = request(*texts, tools=tools)
        return self.do(self.open(asks.messages, Setup.of(asks), flags, since))

    @property
    def lines(self) -> list[Any]:
        """The user lines written."""
        return [line for line in self.written if line["type"] == "user"]

    @property
    def rewind(self) -> Any:
        """The last rewind written."""
        return next(
            line
            for line in reversed(self.written)
            if line.get("request", {}).get("subtype") == "rewind_conversation"
        )

    @property
    def rewound(self) -> bytes:
        """The answer to it, where it goes to the beginning."""
        return self.rewound_to(None)

    def rewound_to(self, before: str | None) -> bytes:
        """The answer to it, ``before`` being the last answer left."""
        rewind = self.rewind
        return cli.rewound(rewind["request_id"], rewind["request"]["target_message_uuid"], before)

    @property
    def begun(self) -> bytes:
        """What is printed as the CLI begins with the last line."""
        return cli.lifecycle(self.lines[-1]["uuid"], "started")

    @property
    def taken_in(self) -> bytes:
        """What is printed for the last line."""
        return cli.completed(self.lines[-1]["uuid"])


def started(advice: LoginAdvice | None = None) -> Scene:
    scene = Scene(advice)
    scene.do(scene.start())
    return scene


def warm(*, rewinds: bool = True, advice: LoginAdvice | None = None) -> Scene:
    scene = started(advice)
    probe = scene.written[0]["request_id"]
    known = cli.rewound_not(probe, "target_not_found")
    scene.hear(known if rewinds else cli.refused(probe, "no such request"))
    scene.hear(cli.ready())
    return scene


def asked(*texts: str, tools: tuple[Tool, ...] = (LOOK,), rewinds: bool = True) -> Scene:
    """One that answers, or takes in what is before the last of ``texts``."""
    scene = warm(rewinds=rewinds)
    scene.put(*(texts or ("x",)), tools=tools)
    return scene


def replaying() -> Scene:
    return asked("a", "b", "c")


def preparing() -> Scene:
    scene = replaying()
    scene.do(scene.give_up())
    return scene


def answering() -> Scene:
    scene = asked()
    scene.hear(cli.requesting())
    return scene


def withdrawn() -> Scene:
    """Given up before the CLI has begun."""
    scene = asked()
    scene.do(scene.give_up())
    return scene


def answer(reason: str = "end_turn") -> bytes:
    """All of an answer up to ``message_stop``."""
    return cli.requesting() + cli.opening() + b"".join(cli.text_block(["a"])) + cli.closing(reason)


def awaiting_result() -> Scene:
    scene = asked()
    scene.hear(answer())
    return scene


def queued() -> Scene:
    scene = awaiting_result()
    scene.put("x", "a", "y", since=2)
    return scene


def idle() -> Scene:
    scene = awaiting_result()
    scene.hear(cli.result("a"))
    return scene


def cut() -> Scene:
    """Answered, and the CLI would go on by itself."""
    scene = asked()
    scene.hear(answer("max_tokens"))
    return scene


def limits(info: Any = None) -> bytes:
    return cli.line({"type": "rate_limit_event", "rate_limit_info": INFO if info is None else info})


def call_lines(call_id: str = "toolu1", name: str = UPSTREAM, arguments: str = "{}") -> bytes:
    begun = cli.requesting() + cli.opening()
    return begun + b"".join(cli.call_block(call_id, name, arguments, 0))


def tools_call(call_id: str = "toolu1", request_id: str = "r1", rpc_id: int = 1) -> bytes:
    return cli.tools_call(call_id, UPSTREAM, request_id, rpc_id)


def calls(call_id: str = "toolu1") -> bytes:
    """An answer that calls, and the call."""
    return call_lines(call_id) + cli.closing("tool_use") + tools_call(call_id)


def results(*call_ids: str) -> list[ToolResult]:
    return [ToolResult(call_id, (Text("one"),)) for call_id in call_ids or ("toolu1",)]


def parked() -> Scene:
    scene = asked()
    scene.hear(calls())
    return scene


def rewinding() -> Scene:
    """Given up in mid-answer."""
    scene = asked()
    scene.hear(cli.requesting() + cli.opening())
    scene.do(scene.give_up())
    return scene


def reopening() -> Scene:
    """At rest before, and now put another conversation."""
    scene = idle()
    scene.put("other")
    return scene


def dead() -> Scene:
    scene = idle()
    scene.do(scene.end())
    return scene


IN: dict[State, Callable[[], Scene]] = {
    State.STARTING: started,
    State.UNUSED: warm,
    State.REPLAYING: replaying,
    State.ASKED: asked,
    State.WITHDRAWN: withdrawn,
    State.ANSWERING: answering,
    State.CUT: cut,
    State.AWAITING_RESULT: awaiting_result,
    State.QUEUED: queued,
    State.PARKED: parked,
    State.IDLE: idle,
    State.PREPARING: preparing,
    State.REWINDING: rewinding,
    State.REOPENING: reopening,
    State.DEAD: dead,
}
"""A scene in each state."""
