"""Ollama's chat and generate by values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from attrs import evolve

from claudeproxy.dialects import ollama
from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Event,
    Failure,
    FailureError,
    Finished,
    Image,
    Kind,
    Message,
    Request,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501
STARTED = Started("msg_up", "claude", Usage(10))
END = Finished("end_turn", None, Usage(10, 5, 90))
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}


class Clock:
    """Goes on by a second with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def chat(*messages: Any, **fields: Any) -> ollama.Ollama:
    said = list(messages) or [{"role": "user", "content": "Hi"}]
    return ollama.read_chat({"model": "opus:latest", "messages": said, **fields}, Clock())


def generate(**fields: Any) -> ollama.Ollama:
    return ollama.read_generate({"model": "opus", "prompt": "Hi", **fields}, Clock())


HI = Request(model="opus", messages=(Message("user", (Text("Hi"),)),), stream=True)


def test_a_plain_body() -> None:
    assert chat().request == generate().request == HI
    assert chat().ignored == generate().ignored == ()
    assert chat(stream=False).request == evolve(HI, stream=False)


def test_all_that_is_honoured() -> None:
    schema = {"type": "object"}
    options = {"num_predict": 9, "stop": ["x", ""], "temperature": 0.5, "top_p": 0.9}
    for parsed in (
        chat(options=options, format=schema, think="high"),
        generate(options=options, format=schema, think="high"),
    ):
        assert parsed.request == evolve(
            HI, max_tokens=9, stop=("x",), temperature=0.5, top_p=0.9, schema=schema, effort="high"
        )
    assert chat(format="json").request.schema == {}
    assert chat(format="").request.schema is None
    assert chat(think=False).request.effort == "none"
    assert chat(think=True).request.effort is None
    assert chat(options={"num_predict": -1}).request.max_tokens is None


def test_ignored_fields_are_named() -> None:
    options = {"num_ctx": 4096, "seed": 0, "num_gpu": 1, "num_predict": 0}
    parsed = chat(options=options, logprobs=True, keep_alive="5m")
    assert parsed.ignored == (
        "logprobs", "options.num_ctx", "options.seed", "options.num_predict",
    )  # fmt: skip
    fields = {"suffix": "", "template": "", "context": [], "raw": False}
    assert generate(**fields).ignored == ()
    fields = {"suffix": "x", "template": "x", "context": [1], "raw": True}
    assert set(generate(**fields).ignored) == set(fields)


def test_a_conversation_with_calls() -> None:
    calls = [
        {"function": {"name": "add", "arguments": {"a": 1}}},
        {"function": {"name": "sub", "arguments": '{"a": 2}'}},
        {"function": {"name": "add", "arguments": None}},
    ]
    parsed = chat(
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hi", "images": [PNG]},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "sub", "content": "s"},
        {"role": "tool", "tool_name": "add", "content": "first"},
        {"role": "tool", "content": "the last"},
        {"role": "assistant", "content": "Done", "thinking": "hm"},
        {"role": "user", "content": "Again"},
        {"role": "assistant", "tool_calls": [{**calls[0], "id": "given"}]},
        {"role": "tool", "tool_call_id": "given", "content": "ok", "images": [PNG]},
        tools=[ADD],
    )
    picture = Image({"type": "base64", "media_type": "image/png", "data": PNG})
    ids = [
        block.id
        for message in parsed.request.messages
        for block in message.content
        if isinstance(block, ToolUse)
    ]
    assert len(set(ids)) == 4
    assert parsed.request.system == ("Be brief",)
    assert parsed.request.messages == (
        Message("user", (picture, Text("Hi"))),
        Message(
            "assistant",
            (
                ToolUse(ids[0], "add", {"a": 1}),
                ToolUse(ids[1], "sub", {"a": 2}),
                ToolUse(ids[2], "add", {}),
            ),
        ),
        Message(
            "user",
            (
                ToolResult(ids[0], (Text("first"),)),
                ToolResult(ids[1], (Text("s"),)),
                ToolResult(ids[2], (Text("the last"),)),
            ),
        ),
        Message("assistant", (Text("Done"),)),
        Message("user", (Text("Again"),)),
        Message("assistant", (ToolUse(ids[3], "add", {"a": 1}),)),
        Message("user", (ToolResult(ids[3], (Text("ok"), picture)),)),
    )
    [tool] = parsed.request.tools
    assert tool == Tool("add", "adds", ADD["function"]["parameters"])  # type: ignore[index]


def test_a_text_to_generate_has_a_system_prompt_and_images() -> None:
    parsed = generate(system="Be brief", images=[PNG, f"data:image/gif;base64,{PNG}"])
    assert parsed.request.system == ("Be brief",)
    kinds = [b.source["media_type"] for b in parsed.request.messages[0].content[:2]]  # type: ignore[union-attr]
    assert kinds == ["image/png", "image/png"]
    broken = generate(images=[f"{PNG[:5]}\r\n{PNG[5:]}\n"])
    assert broken.request.messages[0].content[0] == parsed.request.messages[0].content[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ""}, "model: is required"),
        ({"model": 5}, "model: must be a string"),
        ({"messages": {}}, "messages: must be a list"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role: must be one of"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: must be a string"),
        ({"messages": [{"role": "user", "images": ["eA=="]}]}, "messages[0].images[0]: is not the"),
        ({"messages": [{"role": "user", "images": ["iVBORw0KGgo!"]}]}, "messages[0].images[0]: is"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]: answers no open tool"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages: there is nothing"),
        ({"think": "deeply"}, "think: must be"),
        ({"think": []}, "think: must be"),
        ({"format": "yaml"}, 'format: must be "json"'),
        ({"format": {}}, 'format: must be "json"'),
        ({"options": []}, "options must be an object"),
        ({"options": {"temperature": "hot"}}, "options.temperature: must be a number"),
        ({"options": {"num_predict": -3}}, "options.num_predict: must be at least -2"),
        ({"options": {"stop": 5}}, "options.stop: must be a string or"),
        ({"stream": "yes"}, "stream: must be"),
        ({"tools": [{"type": "web"}]}, "tools[0].type: must be one of function"),
        ({"tools": [ADD, ADD]}, "tools[1].function.name: there are two"),
    ],
)
def test_refused_bodies(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(FailureError) as caught:
        chat(**fields)
    status, body = ollama.refusal(caught.value.failure)
    assert status == 400
    assert body["error"].startswith(words)
    assert list(body) == ["error"]


def test_calls_without_their_results() -> None:
    calls = [{"function": {"name": "add", "arguments": {}}}]
    with pytest.raises(FailureError, match="must each be answered"):
        chat(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "user", "content": "Hi"},
        )
    with pytest.raises(FailureError, match="answers no open tool call"):
        chat(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "tool_name": "sub", "content": "x"},
        )


def test_what_loads_a_model() -> None:
    nothing = ({"messages": []}, {"messages": None}, {}, {"prompt": ""}, {"keep_alive": 0})
    for body, chat in product(nothing, (True, False)):
        told = ollama.loads({"model": "opus:latest", **body}, chat)
        assert told is not None and told.chat is chat
    for body in ({"messages": [{}]}, {"prompt": "x"}, {"images": [PNG]}):
        assert ollama.loads({"model": "opus", **body}, chat=True) is None


def test_refusals_in_ollamas_form() -> None:
    missing = Failure(Kind.MODEL_NOT_FOUND, "there is no model 'x' here", 404)
    assert ollama.refusal(missing) == (
        404, {"error": "model not found: there is no model 'x' here"},
    )  # fmt: skip
    schema = Failure(Kind.INVALID, "is no schema", 400, param="schema")
    assert ollama.refusal(schema) == (400, {"error": "format: is no schema"})


# -- answers --


def answer(*events: Event, parsed: ollama.Ollama) -> list[dict[str, Any]]:
    """The lines of a streamed answer."""
    stream = parsed.stream()
    assert not stream.ended
    lines = b"".join(stream.render(0, [event]) for event in (STARTED, *events))
    assert stream.ended
    assert stream.content_type == b"application/x-ndjson"
    return [json.loads(line) for line in lines.splitlines()]


SAID: tuple[Event, ...] = (
    BlockStarted(0, Thinking("")),
    ThinkingDelta(0, "hm"),
    BlockStopped(0),
    BlockStarted(1, Text("")),
    TextDelta(1, "Hel"),
    TextDelta(1, "lo"),
    BlockStopped(1),
)
CALLED: tuple[Event, ...] = (
    BlockStarted(2, ToolUse("toolu_1", "add", {})),
    ArgumentsDelta(2, '{"a":'),
    ArgumentsDelta(2, "1}"),
    BlockStopped(2),
    BlockStarted(3, ToolUse("toolu_2", "now", {})),
    BlockStopped(3),
)


def messages(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        assert line["model"] == "opus"
        assert line["created_at"].startswith("1970-01-01T00:00:")
        yield line["message"]


def test_a_streamed_answer() -> None:
    lines = answer(*SAID, END, parsed=chat())
    assert list(messages(lines)) == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "lo"},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False] * 3 + [True]
    last = lines[-1]
    assert last["done_reason"] == "stop"
    assert (last["prompt_eval_count"], last["eval_count"]) == (100, 5)
    spent = last["prompt_eval_duration"] + last["eval_duration"]
    assert last["total_duration"] >= spent > last["load_duration"] == 0


def test_a_streamed_call_comes_whole() -> None:
    end = evolve(END, stop_reason="tool_use")
    *_, calls, last = answer(*SAID, *CALLED, end, parsed=chat())
    assert calls["message"]["tool_calls"] == [
        {"id": "toolu1", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}},
        {"id": "toolu2", "function": {"index": 1, "name": "now", "arguments": {}}},
    ]
    assert (calls["done"], last["done"], last["done_reason"]) == (False, True, "stop")
    assert calls["created_at"] < last["created_at"]


def test_a_streamed_text() -> None:
    lines = answer(*SAID, evolve(END, stop_reason="max_tokens"), parsed=generate())
    assert [line["response"] for line in lines] == ["", "Hel", "lo", ""]
    assert lines[0]["thinking"] == "hm"
    assert lines[-1]["done_reason"] == "length"


def test_thinking_that_nobody_wants_is_not_told() -> None:
    lines = answer(*SAID, END, parsed=chat(think=False))
    assert not any("thinking" in message for message in messages(lines))


def test_a_stream_that_breaks() -> None:
    failure = Failure(Kind.UPSTREAM, "it broke", 502)
    assert answer(*SAID, failure, parsed=chat())[-1] == {"error": "it broke"}


def test_what_is_sent_to_keep_a_connection_alive_says_nothing() -> None:
    line = json.loads(chat().stream().keep_alive())
    assert (line["message"], line["done"]) == ({"role": "assistant", "content": ""}, False)


def test_a_whole_answer() -> None:
    assembly = Assembly()
    for event in (*SAID, *CALLED):
        assembly.add(event)
    told = chat().complete([(assembly, END)])
    assert told["message"] == {
        "role": "assistant",
        "content": "Hello",
        "thinking": "hm",
        "tool_calls": [
            {"id": "toolu1", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}},
            {"id": "toolu2", "function": {"index": 1, "name": "now", "arguments": {}}},
        ],
    }
    assert (told["done"], told["done_reason"], told["eval_count"]) == (True, "stop", 5)
    assert told["total_duration"] > 0
    assert generate().complete([(assembly, END)])["response"] == "Hello"
