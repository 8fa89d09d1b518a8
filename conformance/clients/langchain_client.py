"""LangChain: chat, stream, a tool loop, forced tools, structured output both ways."""

import sys

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Point(BaseModel):
    """A point in the plane."""

    x: float
    y: float


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def check(url: str) -> None:
    for responses in (False, True):
        model = ChatOpenAI(
            base_url=f"{url}/v1", api_key="none", model="sonnet", use_responses_api=responses
        )
        said = [SystemMessage("Be brief."), HumanMessage("Hello")]
        first = model.invoke(said)
        assert first.text == "You said: Hello", first
        assert first.usage_metadata["input_tokens"] > 0
        said += [first, HumanMessage("And again")]
        assert "".join(part.text for part in model.stream(said)) == "You said: And again"

        tools = model.bind_tools([add], parallel_tool_calls=False)
        said += [HumanMessage('[[call add {"a": 2, "b": 3}]]')]
        answer = tools.invoke(said)
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3}), call
        said += [answer, ToolMessage(str(add.invoke(call["args"])), tool_call_id=call["id"])]
        assert "5" in tools.invoke(said).text
        for choice in ("required", "any", "add"):
            forced = model.bind_tools([add], tool_choice=choice).invoke("Hello")
            assert forced.tool_calls[0]["name"] == "add", forced
        assert not model.bind_tools([add], tool_choice="none").invoke("Hello").tool_calls

        for method in ("json_schema", "function_calling"):
            point = model.with_structured_output(Point, method=method).invoke("A point, please.")
            assert isinstance(point, Point), point


check(sys.argv[1])
