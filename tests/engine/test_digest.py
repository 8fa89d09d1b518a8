"""When a conversation is the one a process holds: what clients change does not count, edits do."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from claudeproxy.cli.names import ToolNames
from claudeproxy.engine.digest import LARGEST, Prefix, extended, prefixes
from claudeproxy.messages import (
    Image,
    Message,
    Request,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    normalise,
)

WORDS = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() == text)
ARGUMENTS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3)


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    messages: list[Message] = []
    for number in range(draw(st.integers(1, 3))):
        messages.append(Message("user", (Text(draw(WORDS)),)))
        call = ToolUse(f"toolu_{number}", draw(WORDS), draw(ARGUMENTS))
        answer = (Thinking(draw(WORDS), "sig"), Text(draw(WORDS)), call)
        messages.append(Message("assistant", answer))
        messages.append(Message("user", (ToolResult(call.id, (Text(draw(WORDS)),)),)))
        messages.append(Message("assistant", (Text(draw(WORDS)),)))
    return tuple(messages)


def chain(messages: tuple[Message, ...], **changes: Any) -> tuple[Prefix, ...]:
    model = changes.pop("model", "opus")
    request = evolve(Request("opus", messages=(), system=("be brief",)), **changes)
    return prefixes(request, model, messages)


def key(messages: tuple[Message, ...], **changes: Any) -> Prefix:
    return chain(messages, **changes)[-1]


def as_clients_send_it(message: Message) -> Message:
    """Trimmed, without reasoning, ids without punctuation, the text in one piece."""
    content = []
    for block in message.content:
        if isinstance(block, Thinking):
            continue
        if isinstance(block, Text) and message.role == "assistant":
            content.append(Text(f" {block.text}\n"))
        elif isinstance(block, ToolUse):
            arguments = json.loads(json.dumps(dict(reversed(list(block.input.items())))))
            content.append(evolve(block, id=block.id.replace("_", ""), input=arguments))
        elif isinstance(block, ToolResult):
            content.append(evolve(block, tool_use_id=block.tool_use_id.replace("_", "")))
        else:
            content.append(block)
    return Message(message.role, tuple(content))


@given(conversations())
def test_what_clients_change_still_matches(messages: tuple[Message, ...]) -> None:
    assert key(tuple(map(as_clients_send_it, messages))) == key(messages)


@given(conversations(), st.data())
def test_a_real_edit_never_matches(messages: tuple[Message, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(messages) - 1))
    message = messages[index]
    place = data.draw(st.integers(0, len(message.content) - 1))
    block = message.content[place]
    assume(not isinstance(block, Thinking))
    word = data.draw(WORDS)
    if isinstance(block, Text):
        assume(block.text != word)
        edited: Any = Text(word)
    elif isinstance(block, ToolUse):
        edited = evolve(block, input={**block.input, "edited": word})
    else:
        assert isinstance(block, ToolResult)
        edited = evolve(block, content=(*block.content, Text(word)))
    content = (*message.content[:place], edited, *message.content[place + 1 :])
    changed = (*messages[:index], Message(message.role, content), *messages[index + 1 :])
    assert key(changed) != key(messages)


@given(conversations())
def test_a_part_of_a_conversation_matches_as_far_as_it_goes(messages: tuple[Message, ...]) -> None:
    whole = chain(messages)
    assert len(set(whole)) == len(whole) == len(messages) + 1
    for end in range(len(messages)):
        assert chain(messages[:end]) == whole[: end + 1]
    assert extended(chain(messages[:-1]), messages[-1]) == whole


@given(conversations())
def test_after_an_edit_nothing_matches_any_more(messages: tuple[Message, ...]) -> None:
    edited = (Message("user", (Text("edited, and nothing that was drawn"),)), *messages[1:])
    assert chain(edited)[0] == chain(messages)[0]
    assert not set(chain(edited)[1:]) & set(chain(messages)[1:])


def test_the_size_of_a_message_is_that_of_its_json_and_bounded() -> None:
    def sizes(*texts: str) -> list[int]:
        return [prefix.size for prefix in chain(tuple(Message("user", (Text(t),)) for t in texts))]

    nothing, short, longer = sizes("a", "bcd")
    assert (nothing, longer - short) == (0, short + 2)
    assert sizes("a", "x" * 10 * LARGEST) == [0, short, short + LARGEST]


@given(conversations())
def test_another_frame_never_matches(messages: tuple[Message, ...]) -> None:
    tool = Tool("t", "d", {})
    keys = [
        key(messages),
        key(messages, model="sonnet"),
        key(messages, system=("be verbose",)),
        key(messages, system=("be", "brief")),
        key(messages, tools=(tool,)),
        key(messages, tools=(evolve(tool, description="other"),)),
        key(messages, tools=(evolve(tool, parameters={"type": "object"}),)),
        key(messages, tools=(evolve(tool, parameters={"type": "object", "required": ["a"]}),)),
    ]
    assert len(set(keys)) == len(keys)


def test_the_order_of_a_tools_properties_counts() -> None:
    """As it does for the tools' names upstream, under which the conversation has their calls."""
    text = {"type": "string"}
    tools = [
        Tool("t", "d", {"type": "object", "properties": {name: text for name in names}})
        for names in ("ab", "ba")
    ]
    one, other = (chain((Message("user", (Text("x"),)),), tools=(tool,)) for tool in tools)
    assert one != other
    assert ToolNames.of(tools[:1]) != ToolNames.of(tools[1:])


def test_a_users_white_space_counts() -> None:
    one = (Message("user", (Text("x"),)), Message("assistant", (Text("y"),)))
    other = (Message("user", (Text("x "),)), Message("assistant", (Text("y"),)))
    assert key(one) != key(other)


def test_errors_and_images_count() -> None:
    def with_result(result: ToolResult) -> Prefix:
        call = Message("assistant", (ToolUse("a", "t", {}),))
        return key((Message("user", (Text("x"),)), call, Message("user", (result,))))

    image = Image({"type": "base64", "media_type": "image/png", "data": "AAAA"})
    results = [
        ToolResult("a", (Text("r"),)),
        ToolResult("a", (Text("r"),), is_error=True),
        ToolResult("a", (Text("r"), image)),
        ToolResult("a", ()),
    ]
    assert len({with_result(result) for result in results}) == len(results)


@given(conversations())
def test_normalising_twice_changes_nothing(messages: tuple[Message, ...]) -> None:
    assert normalise(normalise(messages)) == normalise(messages)
