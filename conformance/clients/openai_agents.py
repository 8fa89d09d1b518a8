"""OpenAI Agents SDK, over Responses and over chat: two turns, a tool loop, structured output."""

import asyncio
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel


class Point(BaseModel):
    x: float
    y: float


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def check(url: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        model = kind("sonnet", client)
        agent = Agent("Helper", instructions="Be brief.", tools=[add], model=model)
        first = await Runner.run(agent, "Hello")
        assert first.final_output == "You said: Hello", first
        second = {"role": "user", "content": '[[call add {"a": 2, "b": 3}]]'}
        looped = await Runner.run(agent, [*first.to_input_list(), second])
        assert looped.final_output == "The tool said: 5", looped
        streamed = Runner.run_streamed(agent, [*looped.to_input_list(), second])
        kinds = [event.type async for event in streamed.stream_events()]
        assert "raw_response_event" in kinds
        assert streamed.final_output == "The tool said: 5", streamed
        pointed = await Runner.run(Agent("P", output_type=Point, model=model), "A point")
        assert isinstance(pointed.final_output, Point)


asyncio.run(check(sys.argv[1]))
