"""LiteLLM: chat by two providers, Responses and Messages: two turns, stream, a tool loop."""

import sys

import litellm

URL = sys.argv[1]
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}

for model, base in (("openai/sonnet", f"{URL}/v1"), ("anthropic/sonnet", URL)):
    asked = {"model": model, "api_base": base, "api_key": "none"}
    said = [{"role": "user", "content": "Hello"}]
    first = litellm.completion(messages=said, **asked).choices[0].message
    assert first.content == "You said: Hello", first
    said += [first.model_dump(), {"role": "user", "content": "Again"}]
    chunks = litellm.completion(messages=said, stream=True, **asked)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "You said: Again", text
    said += [{"role": "user", "content": '[[call add {"a": 2, "b": 3}]]'}]
    answer = litellm.completion(messages=said, tools=[ADD], **asked).choices[0].message
    (call,) = answer.tool_calls
    assert call.function.name == "add", answer
    said += [answer.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "5"}]
    last = litellm.completion(messages=said, tools=[ADD], **asked).choices[0].message
    assert last.content == "The tool said: 5", last

asked = {"model": "openai/sonnet", "api_base": f"{URL}/v1", "api_key": "none"}
response = litellm.responses(input="Hello", **asked)
assert response.output[0].content[0].text == "You said: Hello", response
