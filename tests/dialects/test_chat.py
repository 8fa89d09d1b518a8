"""Chat completions by values: bodies to requests, events to chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.dialects import chat
from claudeproxy.dialects.chat_answer import ChatEnvelope, ChatStream, finish_reason, usage_object
from claudeproxy.dialects.policies import IGNORED
from claudeproxy.dialects.shapes import error
from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Event,
    Failure,
    FailureError,
    Finished,
    Kind,
    Message,
    SignatureDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
)

USER = {"role": "user", "content": "x"}
ENVELOPE = ChatEnvelope("chatcmpl-1", 5, "sonnet")
ANSWER: list[Event] = [
    Started("msg_1", "claude-sonnet-5-5", Usage(input_tokens=3, cache_read_tokens=4)),
    BlockStarted(0, Thinking("")),
    ThinkingDelta(0, "hm"),
    SignatureDelta(0, "sig"),
    BlockStopped(0),
    BlockStarted(1, Text("")),
    TextDelta(1, "Hel"),
    TextDelta(1, "lo"),
    BlockStopped(1),
    BlockStarted(2, ToolUse("toolu_01", "look", {})),
    ArgumentsDelta(2, '{"a"'),
    ArgumentsDelta(2, ":1}"),
    BlockStopped(2),
    BlockStarted(3, ToolUse("toolu_02", "find", {})),
    BlockStopped(3),
    Finished("tool_use", None, Usage(3, 9, 4, 2, reasoning_tokens=1)),
]


def read(**body: Any) -> chat.Chat:
    return chat.read({"model": "sonnet", "messages": [USER], **body}, "1", 5)


def chunks(stream: ChatStream, events: list[Event]) -> list[Any]:
    lines = stream.render(0, events).decode().split("\n\n")
    assert lines.pop() == ""
    data = [line.removeprefix("data: ") for line in lines]
    return [json.loads(line) if line != "[DONE]" else line for line in data]


def test_a_stream_chunk_by_chunk() -> None:
    *sent, finish, done = chunks(ChatStream(ENVELOPE, 1, None), ANSWER)
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in sent]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "Hel"},
        {"content": "lo"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "toolu01",
                    "type": "function",
                    "function": {"name": "look", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "toolu02",
                    "type": "function",
                    "function": {"name": "find", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
    ]
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert finish["usage"]["prompt_tokens"] == 9
    assert all("usage" not in chunk for chunk in sent)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "sonnet"}
    for chunk in [*sent, finish]:
        assert head.items() <= chunk.items()


def test_a_failure_ends_a_stream_without_done() -> None:
    failure = Failure(Kind.UPSTREAM, "it broke", 502)
    (event,) = chunks(ChatStream(ENVELOPE, 1, True), [failure])
    assert event == {
        "error": {"message": "it broke", "type": "server_error", "param": None, "code": None}
    }


def test_usage_is_summed_over_all_answers() -> None:
    stream = ChatStream(ENVELOPE, 2, True)
    end = Finished("end_turn", None, Usage(input_tokens=10, output_tokens=2))
    assert b"[DONE]" not in stream.render(1, [end])
    assert not stream.ended
    last = stream.render(0, [end])
    assert stream.ended
    *_, usage, done, rest = last.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert json.loads(usage[6:])["usage"]["total_tokens"] == 24


def assembled() -> Assembly:
    assembly = Assembly()
    for event in ANSWER[:-1]:
        assembly.add(event)
    return assembly


def test_a_whole_answer() -> None:
    asked = read()
    end = ANSWER[-1]
    assert isinstance(end, Finished)
    body = asked.complete([(assembled(), end)])
    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "toolu01",
                "type": "function",
                "function": {"name": "look", "arguments": '{"a":1}'},
            },
            {"id": "toolu02", "type": "function", "function": {"name": "find", "arguments": "{}"}},
        ],
    }
    assert body["usage"] == usage_object([end.usage])


def test_assembled_blocks() -> None:
    assert assembled().blocks() == (
        Thinking("hm", "sig"),
        Text("Hello"),
        ToolUse("toolu_01", "look", {"a": 1}),
        ToolUse("toolu_02", "find", {}),
    )


def test_usage_includes_the_cache() -> None:
    usage = usage_object([Usage(10, 5, 20, 30, 2)])
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        60,
        5,
        65,
    )
    assert usage["prompt_tokens_details"]["cached_tokens"] == 20
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 2


@pytest.mark.parametrize(
    ("reason", "legacy", "expected"),
    [
        ("end_turn", False, "stop"),
        ("tool_use", False, "tool_calls"),
        ("tool_use", True, "function_call"),
        ("max_tokens", False, "length"),
        ("refusal", False, "content_filter"),
        ("nobody knows", False, "stop"),
    ],
)
def test_finish_reasons(reason: str, legacy: bool, expected: str) -> None:
    assert finish_reason(reason, legacy) == expected


def test_roles_and_calls() -> None:
    call = {"id": "call_9", "function": {"name": "look", "arguments": '{"a": 1}'}}
    asked = read(
        messages=[
            {"role": "system", "content": "be"},
            USER,
            {"role": "developer", "content": [{"type": "text", "text": "brief"}]},
            {"role": "assistant", "content": "let me", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call9", "content": "seen"},
            {"role": "user", "content": "and?", "name": "Ann"},
        ]
    )
    assert asked.request.system == ("be",)
    reminder = Text("<system-reminder>\nbrief\n</system-reminder>")
    assert asked.request.messages == (
        Message("user", (Text("x"), reminder)),
        Message("assistant", (Text("let me"), ToolUse("call9", "look", {"a": 1}))),
        Message("user", (ToolResult("call9", (Text("seen"),)), Text("Ann:"), Text("and?"))),
    )


def test_the_last_message_is_not_the_assistants() -> None:
    with pytest.raises(FailureError) as caught:
        read(messages=[USER, {"role": "assistant", "content": "{"}])
    assert caught.value.failure.param == "messages[1]"
    assert "prefill" in caught.value.failure.message
    with pytest.raises(FailureError, match=r"messages\[2\]: the last message is empty"):
        read(messages=[USER, {"role": "assistant", "content": "{"}, {**USER, "content": " "}])
    asked = read(messages=[USER, {"role": "assistant"}])
    assert asked.request.messages == (Message("user", (Text("x"),)),)


def test_arguments_that_are_no_object_are_kept() -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": '{"a": '}}
    asked = read(
        messages=[
            USER,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
        ]
    )
    (use,) = asked.request.messages[1].content
    assert use == ToolUse("c1", "look", {"arguments": '{"a": '})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("any")),
        ({"type": "function", "function": {"name": "a"}}, ToolChoice("tool", "a")),
    ],
)
def test_tool_choice(choice: Any, expected: ToolChoice) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    assert read(tools=tools, tool_choice=choice).request.tool_choice == expected


def test_allowed_tools() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    asked = read(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool.name for tool in asked.request.tools] == ["b"]
    assert asked.request.tool_choice == ToolChoice("any")


def test_every_ignored_field_is_named() -> None:
    fields = {
        name: {"logit_bias": {}, "modalities": ["text"], "prediction": {"a": 1}}.get(name, 1)
        for name, policy in chat.FIELDS.items()
        if policy.effect is IGNORED
    }
    assert set(read(**fields).ignored) == set(fields)


def picture(**fields: Any) -> dict[str, Any]:
    url = {"url": "https://example.com/a.png", **fields}
    return {"role": "user", "content": [{"type": "image_url", "image_url": url}]}


@pytest.mark.parametrize(
    ("message", "ignored"),
    [
        ({**USER, "name": "bob"}, ()),
        ({"role": "system", "content": "s", "name": "bob"}, ("messages.name",)),
        ({"role": "assistant", "content": "a", "name": "b", "audio": {"id": "1"}},
         ("messages.name", "messages.audio")),
        (picture(), ()),
        (picture(detail="auto"), ()),
        (picture(detail="low"), ("messages.detail",)),
    ],
)  # fmt: skip
def test_what_is_ignored_of_messages_is_named(message: Any, ignored: tuple[str, ...]) -> None:
    assert read(messages=[message, USER]).ignored == ignored


def test_the_name_of_a_result_is_named() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "r", "name": "look"}
    messages = [USER, {"role": "assistant", "tool_calls": [call]}, result]
    assert read(messages=messages).ignored == ("messages.name",)


def test_the_description_of_a_format_is_that_of_its_schema() -> None:
    form = {"name": "p", "description": "A person.", "schema": {"type": "object"}}
    asked = read(response_format={"type": "json_schema", "json_schema": form}).request
    assert asked.schema == {"description": "A person.", "type": "object"}
    own = {**form, "schema": {"description": "Own."}}
    asked = read(response_format={"type": "json_schema", "json_schema": own}).request
    assert asked.schema == {"description": "Own."}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_failure_has_all_four_keys(kind: Kind) -> None:
    rendered = error(Failure(kind, "m", 400))["error"]
    assert list(rendered) == ["message", "type", "param", "code"]


@pytest.mark.parametrize(
    ("asked", "tier"),
    [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority")],
)
def test_service_tier(asked: str, tier: str) -> None:
    parsed = read(service_tier=asked)
    assert (parsed.request.tier, parsed.ignored) == (tier, ())
    assert parsed.complete([(Assembly(), ANSWER[-1])])["service_tier"] == tier  # type: ignore[list-item]


def test_metadata_of_what_is_stored_is_unicode() -> None:
    for metadata in ({"\ud800": "x"}, {"a": "\ud800"}):
        with pytest.raises(FailureError) as refused:
            read(store=True, metadata=metadata)
        assert "half of a surrogate pair" in refused.value.failure.message


def test_an_unknown_service_tier_is_refused() -> None:
    with pytest.raises(FailureError) as refused:
        read(service_tier="gold")
    assert refused.value.failure.param == "service_tier"
