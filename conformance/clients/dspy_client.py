"""DSPy: two turns, structured output, a tool by function calling."""

import sys

import dspy


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(dspy.Signature):
    """Do what is asked."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    outputs: dspy.ToolCalls = dspy.OutputField()


asked = {"api_base": f"{sys.argv[1]}/v1", "api_key": "none", "cache": False}
lm = dspy.LM("openai/sonnet", **asked)
assert lm("Hello") == ["You said: Hello"]
# What it does not know by name it asks for JSON in words, and has no tools for.
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
talk = dspy.Predict("history: dspy.History, question -> x: float")
history = dspy.History(messages=[])
for number in (1, 2):
    question = f'[[say {{"x": {number}}}]]'
    point = talk(history=history, question=question)
    assert point.x == number, point
    history.messages.append({"question": question, "x": point.x})
known = dspy.LM("openai/gpt-5", temperature=1.0, max_tokens=16000, **asked)
dspy.configure(lm=known, adapter=dspy.JSONAdapter(use_native_function_calling=True))
assert isinstance(dspy.Predict("question -> x: float")(question="A point").x, float)
called = dspy.Predict(Sum)(question='[[call add {"a": 2, "b": 3}]]', tools=[dspy.Tool(add)])
(call,) = called.outputs.tool_calls
assert (call.name, call.args) == ("add", {"a": 2, "b": 3}), called
