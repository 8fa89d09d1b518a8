"""LlamaIndex, openai-like and Ollama: two turns, stream, an agent with a tool, a schema."""

import asyncio
import sys

from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.workflow import Context
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

URL = sys.argv[1]


class Point(BaseModel):
    """A point in the plane."""

    x: float
    y: float


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def check(llm: OpenAILike | Ollama) -> None:
    said = [ChatMessage("Hello")]
    first = await llm.achat(said)
    assert first.message.content == "You said: Hello", first
    said += [first.message, ChatMessage("Again")]
    text = "".join([part.delta or "" async for part in await llm.astream_chat(said)])
    assert text == "You said: Again", text
    point = llm.structured_predict(Point, PromptTemplate("A point"))
    assert isinstance(point, Point), point

    agent = FunctionAgent(tools=[add], llm=llm)
    context = Context(agent)
    hello = await agent.run("Hello", ctx=context)
    assert str(hello) == "You said: Hello", hello
    looped = await agent.run('[[call add {"a": 2, "b": 3}]]', ctx=context)
    assert str(looped) == "The tool said: 5", looped


async def main() -> None:
    like = {"api_base": f"{URL}/v1", "api_key": "none", "is_chat_model": True}
    await check(OpenAILike("sonnet", is_function_calling_model=True, **like))
    await check(Ollama("claude-sonnet-4", base_url=URL))


asyncio.run(main())
