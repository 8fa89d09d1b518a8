"""One process, turn after turn, over the CLI's double: a process of its own with real pipes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from harness import until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.cli import process as module
from claudeproxy.cli.installation import Installation
from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State
from claudeproxy.messages import (
    Event,
    Failure,
    Finished,
    Message,
    Request,
    Text,
    TextDelta,
    Tool,
    ToolResult,
)
from claudeproxy.testing import fake_cli, journal

LOOK = Tool("look", "Looks.", {"type": "object"})
FIND = Tool("find", "Finds.", {"type": "object"})


class Keeps:
    """Owner and listener of one process."""

    def __init__(self) -> None:
        self.up = self.rests = self.gone = False
        self.heard: list[Event] = []

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        self.up = True

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        pass

    def rested(self, process: CLIProcess) -> None:
        self.rests = True

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        pass

    def sizes(self, tokens: Mapping[str, int]) -> None:
        pass

    def process_ended(self, process: CLIProcess) -> None:
        self.gone = True

    def events(self, events: list[Event]) -> None:
        self.heard += events

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.heard if isinstance(event, TextDelta))

    @property
    def end(self) -> Event | None:
        ends = [event for event in self.heard if isinstance(event, (Finished, Failure))]
        return ends[0] if ends else None


class Serving:
    """A process that has started up."""

    def __init__(self, executable: str, process: CLIProcess, owner: Keeps) -> None:
        self.executable, self.process, self.owner = executable, process, owner

    def put(self, *texts: str, since: int = 0, tools: tuple[Tool, ...] = ()) -> None:
        roles = ("user", "assistant")
        asks = tuple(Message(roles[n % 2], (Text(t),)) for n, t in enumerate(texts))  # type: ignore[arg-type]
        self.owner.heard.clear()
        self.owner.rests = False
        setup = Setup.of(Request("opus", asks, (), tools))
        self.process.open(self.owner, asks, setup, {"model": "opus"}, since)

    async def ask(self, *texts: str, since: int = 0, tools: tuple[Tool, ...] = ()) -> str:
        """The text of an answer that goes well."""
        self.put(*texts, since=since, tools=tools)
        await until(lambda: self.owner.end is not None)
        assert isinstance(self.owner.end, Finished), self.owner.end
        return self.owner.text

    async def rest(self) -> None:
        await until(lambda: self.process.state is State.IDLE)

    @property
    def noted(self) -> list[str]:
        return journal(self.executable)


@pytest_twisted.async_yield_fixture
async def serving(tmp_path: Path) -> Any:
    """``await serving(**plan)``: a process of the double."""
    opened: list[Installation] = []

    async def start(**plan: Any) -> Serving:
        executable = fake_cli(tmp_path / "cli", **plan)
        made = Installation(reactor, executable, "2.1.330", str(tmp_path / "work"))
        made.environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        made.open()
        opened.append(made)
        owner = Keeps()
        process = made.spawn(owner)
        await until(lambda: owner.up)
        return Serving(executable, process, owner)

    yield start
    for one in opened:
        await one.close()


@ensureDeferred
async def test_it_serves_one_conversation_after_the_other(serving: Any) -> None:
    one = await serving()
    assert one.process.can_rewind
    assert await one.ask("a") == "You said: a"
    await one.rest()
    assert await one.ask("b") == "You said: b", "another conversation"
    assert await one.ask("b", "You said: b", "c", since=2) == "You said: c", "the same"
    await one.rest()
    assert await one.ask("b", "You said: b", "d", since=2) == "You said: d", "edited"
    await one.rest()
    assert await one.ask("x", "y", "z", tools=(LOOK,)) == "You said: z", "with a history"
    assert one.noted == [
        "start", "turn", "rewind", "turn", "turn", "rewind", "turn", "rewind", "turn",
    ]  # fmt: skip
    assert not one.owner.gone


@ensureDeferred
async def test_a_turn_given_up_in_mid_answer_is_over_at_once(serving: Any) -> None:
    one = await serving(deltas=1000, pause=0.02)
    one.put("a")
    await until(lambda: one.owner.text)
    one.process.give_up()
    await until(lambda: one.owner.rests)
    heard = one.owner.text
    fake_cli(Path(one.executable).parent)
    assert await one.ask("b") == "You said: b"
    assert len(heard) < 200
    assert one.noted == ["start", "turn", "rewind", "turn"]


@pytest.mark.parametrize("order", ["result", "error", "begin", "nothing", "unknown", "sleep 0.1"])
@ensureDeferred
async def test_what_it_says_before_it_has_rewound_is_nobodys(serving: Any, order: str) -> None:
    one = await serving(deltas=1000, pause=0.02)
    one.put(f"a [[rewind {order}]]")
    await until(lambda: one.owner.text)
    one.process.give_up()
    fake_cli(Path(one.executable).parent)
    await until(lambda: one.owner.rests)
    assert await one.ask("b") == "You said: b"


@ensureDeferred
async def test_tools_are_exchanged_and_called(serving: Any) -> None:
    one = await serving()
    for tool in (LOOK, FIND, LOOK):
        await one.ask(f"a [[call {tool.name} {{}}]]", tools=(tool,))
        assert one.process.state is State.PARKED
        (call,) = one.process.calls
        one.owner.heard.clear()
        result = ToolResult(call, (Text(f"of {tool.name}"),))
        one.process.return_tool_results(one.owner, [result], {"model": "opus"})
        await until(lambda: one.owner.end is not None)
        assert one.owner.text == f"You said: the tool says of {tool.name}"
    assert "went on" not in one.noted


@ensureDeferred
async def test_a_parked_one_is_put_something_else(serving: Any) -> None:
    one = await serving()
    await one.ask("a [[call look {}]]", tools=(LOOK,))
    assert await one.ask("b") == "You said: b"
    assert one.noted == ["start", "turn", "rewind", "turn"]


@pytest.mark.parametrize("how", ["turn_running", "partly"])
@ensureDeferred
async def test_a_rewind_that_goes_wrong_costs_the_process_and_no_turn(
    serving: Any, how: str
) -> None:
    one = await serving(rewinds=how)
    assert one.process.can_rewind, "the look whether it can says nothing of how well"
    await one.ask("a")
    await one.rest()
    one.put("b")
    await until(lambda: one.owner.end is not None)
    assert isinstance(one.owner.end, Failure)
    assert one.process.lost
    await until(lambda: one.owner.gone)
    assert one.noted.count("turn") == 1


@pytest.mark.parametrize("order", ["silence", "exit", "broken"])
@ensureDeferred
async def test_a_rewind_that_is_not_answered_costs_the_process_and_no_turn(
    serving: Any, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REWIND_GRACE", 0.3)
    one = await serving(rewind=order)
    await one.ask("a")
    await one.rest()
    one.put("b")
    await until(lambda: one.owner.end is not None)
    assert isinstance(one.owner.end, Failure)
    assert one.process.lost
    await until(lambda: one.owner.gone)
    assert one.noted.count("turn") == 1


@ensureDeferred
async def test_an_old_one_goes_on_where_it_is_and_nothing_else(serving: Any) -> None:
    one = await serving(rewinds="unknown")
    assert not one.process.can_rewind
    await one.ask("a")
    await one.rest()
    assert one.process.points == (2,)
    assert await one.ask("a", "You said: a", "b", since=2) == "You said: b"
    with pytest.raises(ValueError):
        one.put("other")
    await one.rest()
    one.put("a", "You said: a", "b", "You said: b", "c", since=4)
    one.process.give_up()
    await until(lambda: one.owner.gone)
