"""smolagents: two tasks for an agent that calls tools, and one for an agent that writes code."""

import sys

from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool


@tool
def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one
        b: the other
    """
    return a + b


model = OpenAIModel("sonnet", api_base=f"{sys.argv[1]}/v1", api_key="none")
agent = ToolCallingAgent([add], model, max_steps=1, verbosity_level=0, stream_outputs=True)
assert agent.run('[[call final_answer {"answer": "Hello"}]]') == "Hello"
agent.run('[[call add {"a": 2, "b": 3}]]', reset=False)
assert agent.memory.steps[-2].observations == "5", agent.memory.steps

for streamed in (False, True):
    coder = CodeAgent([add], model, verbosity_level=0, stream_outputs=streamed)
    assert coder.run("[[say <code>\nfinal_answer(add(2, 3))\n</code>]]") == 5
