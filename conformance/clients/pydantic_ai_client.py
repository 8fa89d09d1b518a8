"""pydantic-ai, four kinds of model: two turns, stream, a tool loop, structured output."""

import asyncio
import sys

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Point(BaseModel):
    """A point in the plane."""

    x: float
    y: float


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def check(url: str) -> None:
    openai = OpenAIProvider(openai_client=AsyncOpenAI(base_url=f"{url}/v1", api_key="none"))
    for model in (
        OpenAIChatModel("sonnet", provider=openai),
        OpenAIResponsesModel("sonnet", provider=openai),
        AnthropicModel("sonnet", provider=AnthropicProvider(base_url=url, api_key="none")),
        OllamaModel("sonnet", provider=OllamaProvider(base_url=f"{url}/v1")),
    ):
        agent = Agent(model, instructions="Be brief.", tools=[add])
        first = await agent.run("Hello")
        assert first.output == "You said: Hello", first
        async with agent.run_stream("Again", message_history=first.all_messages()) as second:
            assert await second.get_output() == "You said: Again"
        order = '[[call add {"a": 2, "b": 3}]]'
        looped = await agent.run(order, message_history=second.all_messages())
        assert looped.output == "The tool said: 5", looped
        assert looped.usage.output_tokens > 0, looped
        outputs = [ToolOutput(Point)]
        if not isinstance(model, AnthropicModel):  # goes by names of models that it knows
            outputs.append(NativeOutput(Point))
        for output in outputs:
            point = await Agent(model, output_type=output).run("A point")
            assert isinstance(point.output, Point), point


asyncio.run(check(sys.argv[1]))
