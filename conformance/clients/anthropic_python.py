"""The anthropic SDK: two turns, stream, its own tool runner."""

import sys

from anthropic import Anthropic, beta_tool


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers.

    Args:
        a: one
        b: the other
    """
    return str(a + b)


client = Anthropic(base_url=sys.argv[1], api_key="none")
asked = {"model": "sonnet", "max_tokens": 1000}
said = [{"role": "user", "content": "Hello"}]
first = client.messages.create(messages=said, **asked)
assert first.content[0].text == "You said: Hello", first
said += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "Again"}]
with client.messages.stream(messages=said, **asked) as stream:
    assert "".join(stream.text_stream) == "You said: Again"
    assert stream.get_final_message().usage.output_tokens > 0
said += [{"role": "user", "content": '[[call add {"a": 2, "b": 3}]]'}]
for streamed in (False, True):
    last = client.beta.messages.tool_runner(
        messages=said, tools=[add], stream=streamed, **asked
    ).until_done()
    assert last.content[0].text == "The tool said: 5", last
