"""LangChain's tool calls and structured output, through the real CLI."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Daemon, in_thread
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pytest_twisted import ensureDeferred

pytestmark = pytest.mark.cli

BOTH = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
CALL = '[[call add {"a": 2, "b": 3}]]'


class Point(BaseModel):
    """A point in the plane."""

    x: float
    y: float


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def langchain(daemon: Daemon, responses: bool) -> Any:
    return ChatOpenAI(
        base_url=daemon.url + "/v1",
        api_key="none",  # type: ignore[arg-type]
        model="sonnet",
        use_responses_api=responses,
        max_retries=0,
    )


@BOTH
@ensureDeferred
async def test_a_tool_loop(daemon: Daemon, responses: bool) -> None:
    model = langchain(daemon, responses).bind_tools([add], parallel_tool_calls=False)
    said: list[BaseMessage] = [HumanMessage(CALL)]
    answer = await in_thread(model.invoke, said)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
    said += [answer, ToolMessage(str(add(**call["args"])), tool_call_id=call["id"])]
    assert (await in_thread(model.invoke, said)).text == "The tool said: 5"


@BOTH
@pytest.mark.parametrize("choice", ["required", "any", "add"])
@ensureDeferred
async def test_a_forced_tool(daemon: Daemon, choice: str, responses: bool) -> None:
    model = langchain(daemon, responses).bind_tools([add], tool_choice=choice)
    (call,) = (await in_thread(model.invoke, "Hello")).tool_calls
    assert call["name"] == "add"


@BOTH
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@ensureDeferred
async def test_structured_output(daemon: Daemon, method: str, responses: bool) -> None:
    model = langchain(daemon, responses).with_structured_output(Point, method=method)
    assert isinstance(await in_thread(model.invoke, "A point, please."), Point)
