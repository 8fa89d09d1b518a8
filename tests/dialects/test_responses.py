"""Responses by values: bodies to requests, events to events of a response, errors to params."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.dialects import chat_route, responses
from claudeproxy.dialects.responses import References, count, read, references
from claudeproxy.dialects.responses_input import Past
from claudeproxy.dialects.responses_items import listed, page
from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Document,
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
    ToolChoice,
    ToolResult,
    ToolUse,
    Usage,
)

ADD = {"type": "function", "name": "add", "parameters": {"type": "object"}}
FORMAT = {"type": "json_schema", "name": "point", "schema": {"type": "object"}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def asked(**fields: Any) -> responses.Responses:
    """A body as it is read with an empty store."""
    return read({"model": "opus", "input": "Hi", **fields}, "abc", 7, Past())


def refused(past: Past | None = Past(), **fields: Any) -> Failure:  # noqa: B008
    with pytest.raises(FailureError) as caught:
        read({"model": "opus", "input": "Hi", **fields}, "abc", 7, past)
    return caught.value.failure


def user(*texts: str) -> Message:
    return Message("user", tuple(Text(text) for text in texts))


def test_a_plain_body() -> None:
    parsed = asked()
    assert parsed.request == Request(model="opus", messages=(user("Hi"),))
    assert parsed.ignored == ()
    assert parsed.items == ({"type": "message", "role": "user", "content": "Hi"},)
    assert parsed.keep


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"instructions": "Be brief"}, {"system": ("Be brief",)}),
        ({"max_output_tokens": 20}, {"max_tokens": 20}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stream": True}, {"stream": True}),
        ({"reasoning": {"effort": "minimal", "summary": "auto"}}, {"effort": "low"}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"schema": {}}),
        (
            {
                "text": {
                    "format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
                }
            },
            {"schema": {"type": "object"}},
        ),
        ({"tools": [ADD]}, {"tools": (Tool("add", "", {"type": "object"}),)}),
        (
            {"tools": [{"type": "function", "function": {"name": "add"}}]},
            {"tools": (Tool("add", "", {}),)},
        ),
        (
            {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False},
            {
                "tools": (Tool("add", "", {"type": "object"}),),
                "tool_choice": ToolChoice("any", parallel=False),
            },
        ),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "name": "add"}},
            {
                "tools": (Tool("add", "", {"type": "object"}),),
                "tool_choice": ToolChoice("tool", "add"),
            },
        ),
        (
            {
                "tools": [ADD, {"type": "function", "name": "b"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "b"}],
                },
            },
            {"tools": (Tool("b", "", {}),), "tool_choice": ToolChoice("any")},
        ),
    ],
)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asked(**fields).request == Request(
        model="opus", **{"messages": (user("Hi"),), **expected}
    )


def test_a_conversation_of_items() -> None:
    parsed = asked(
        instructions="one",
        input=[
            {"role": "developer", "content": "two"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": PNG, "detail": "auto"},
                    {
                        "type": "input_file",
                        "filename": "a.txt",
                        "file_data": "data:text/plain;base64,aGk=",
                    },
                    {"type": "input_file", "file_url": "https://a.example/b.pdf"},
                ],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I will"}],
            },
            {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call", "call_id": "call_2", "name": "add", "arguments": ""},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "tool_search_output", "call_id": "ts_1", "tools": [ADD]},
            {"type": "function_call_output", "call_id": "call2", "output": "two"},
            {
                "type": "function_call_output",
                "call_id": "call_1",
                "output": [{"type": "input_image", "image_url": "https://a.example/b.png"}],
            },
            {"role": "user", "content": "go on"},
        ],
    )
    assert parsed.request.system == ("one", "two")
    assert parsed.ignored == ("input.web_search_call", "input.tool_search_output")
    assert parsed.request.messages == (
        Message(
            "user",
            (
                Text("look"),
                Image({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}),
                Document({"type": "text", "media_type": "text/plain", "data": "hi"}, "a.txt"),
                Document({"type": "url", "url": "https://a.example/b.pdf"}),
            ),
        ),
        Message(
            "assistant",
            (Text("I will"), ToolUse("call1", "add", {"a": 1}), ToolUse("call2", "add", {})),
        ),
        Message(
            "user",
            (
                ToolResult("call1", (Image({"type": "url", "url": "https://a.example/b.png"}),)),
                ToolResult("call2", (Text("two"),)),
                Text("go on"),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        (
            {"tools": [{"type": "web_search"}, {"type": "namespace"}]},
            ("tools.web_search", "tools.namespace"),
        ),
        ({"tools": [{**ADD, "strict": True}]}, ("tools.strict",)),
        (
            {
                "include": [
                    "reasoning.encrypted_content",
                    "made\r\nup",
                    "message.input_image.image_url",
                ]
            },
            ("include.reasoning.encrypted_content", "include"),
        ),
        ({"truncation": "auto"}, ()),
        (
            {"tools": [{**ADD, "output_schema": {}, "async": False, "defer_loading": True}]},
            ("tools.defer_loading",),
        ),
        (
            {"tools": [{"type": "custom", "name": "c", "allowed_callers": ["programmatic"]}]},
            ("tools.allowed_callers",),
        ),
        (
            {"reasoning": {"effort": "low", "context": "auto", "mode": "pro"}},
            ("reasoning.mode", "reasoning.context"),
        ),
        (
            {"image": {"context_compression": "enabled"}, "background_options": {}},
            ("background_options", "image"),
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": PNG, "detail": "high"}],
                    }
                ]
            },
            ("input.detail",),
        ),
        ({"text": {"verbosity": "low"}}, ("text.verbosity",)),
        ({"max_output_tokens": 0}, ("max_output_tokens",)),
        ({"service_tier": "scale", "top_logprobs": 2}, ("top_logprobs", "service_tier")),
        ({"truncation": "disabled", "user": "me", "metadata": {"a": "b"}}, ()),
    ],
)
def test_ignored_fields_are_named(fields: dict[str, Any], ignored: tuple[str, ...]) -> None:
    assert asked(**fields).ignored == ignored


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": "telepathy"}]}, "input[0].type"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_file", "file_url": "ftp://x"}]}
                ]
            },
            "input[0].content[0].file_url",
        ),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input[0]"),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "add", "arguments": ""}]},
            "input[0]",
        ),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "c", "name": "add"},
                    {"role": "user", "content": "x"},
                ]
            },
            "input[1]",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input[0].call_id",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"instructions": 5}, "instructions"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "rhyme"}}, "reasoning.summary"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {**FORMAT, "name": 5}}}, "text.format.name"),
        ({"text": {"format": {**FORMAT, "strict": "yes"}}}, "text.format.strict"),
        ({"text": {"format": {**FORMAT, "description": {}}}}, "text.format.description"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [ADD, ADD]}, "tools[1].name"),
        ({"tools": [{"type": "a b\n"}]}, "tools[0].type"),
        ({"tools": [{"name": "add"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "sub"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [ADD], "tool_choice": "maybe"}, "tool_choice"),
        ({"metadata": "x"}, "metadata"),
        ({"store": "yes"}, "store"),
        ({"truncation": "some"}, "truncation"),
        ({"background": True, "store": False}, "background"),
        ({"conversation": 5}, "conversation"),
        ({"conversation": {"id": 5}}, "conversation.id"),
        ({"conversation": "c", "previous_response_id": "r"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"previous_response_id": 5}, "previous_response_id"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str) -> None:
    failure = refused(**fields)
    assert (failure.status, failure.param) == (404 if param == "input[0].id" else 400, param)


def test_an_unknown_previous_response() -> None:
    failure = refused(Past(None), previous_response_id="resp_x")
    assert failure.message == "Previous response with id 'resp_x' not found."
    assert (failure.status, failure.code) == (400, "previous_response_not_found")
    assert refused(None, previous_response_id="resp_x").code == "previous_response_not_found"


def test_without_a_store() -> None:
    parsed = read({"model": "opus", "input": "Hi", "store": True}, "abc", 7, None)
    assert (parsed.keep, parsed.ignored) == (False, ("store",))
    assert not asked(store=False).keep
    assert "--no-store" in refused(None, background=True).message
    assert "store" in refused(background=True, store=False).message
    assert parsed.envelope.response("completed")["store"] is False


def test_what_went_before_comes_first_and_references_are_resolved() -> None:
    past = Past(
        history=({"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}),
        items={"msg_1": {"type": "message", "role": "assistant", "content": "four"}},
    )
    body = {
        "model": "opus",
        "previous_response_id": "resp_1",
        "input": [
            {"role": "user", "content": "three"},
            {"type": "item_reference", "id": "msg_1"},
            {"role": "user", "content": "five"},
        ],
    }
    parsed = read(body, "abc", 7, past)
    texts = [block.text for m in parsed.request.messages for block in m.content]  # type: ignore[union-attr]
    assert texts == ["one", "two", "three", "four", "five"]
    assert parsed.previous == "resp_1"
    assert parsed.items[1] == {"type": "message", "role": "assistant", "content": "four"}


def test_a_later_system_message_keeps_its_place() -> None:
    past = Past(history=({"role": "developer", "content": "a"}, {"role": "user", "content": "b"}))
    body = {
        "model": "opus",
        "instructions": "one",
        "previous_response_id": "resp_1",
        "input": [{"role": "system", "content": "c"}, {"role": "user", "content": "d"}],
    }
    request = read(body, "abc", 7, past).request
    assert request.system == ("one", "a")
    assert request.messages == (user("b", "<system-reminder>\nc\n</system-reminder>", "d"),)


def test_references() -> None:
    items = [
        {"type": "item_reference", "id": "msg_0a1x2"},
        {"type": "item_reference", "id": "rs_0a1x0"},
        {"type": "item_reference", "id": "elsewhere"},
        {"role": "user"},
        5,
    ]
    body = {"previous_response_id": "resp_9", "input": items}
    assert references(body) == References("resp_9", frozenset({"resp_0a1"}))
    for senseless in (None, [], {"input": 5, "previous_response_id": 5}):
        assert references(senseless) == References(None, frozenset())


ANSWER: tuple[Event, ...] = (
    Started("msg_up", "claude", Usage(10)),
    BlockStarted(0, Thinking("")),
    ThinkingDelta(0, "hm"),
    BlockStopped(0),
    BlockStarted(1, Text("")),
    TextDelta(1, "Hel"),
    TextDelta(1, "lo"),
    BlockStopped(1),
    BlockStarted(2, ToolUse("toolu_01", "add", {})),
    ArgumentsDelta(2, '{"a":'),
    ArgumentsDelta(2, "1}"),
    BlockStopped(2),
)
USAGE = Usage(10, 5, cache_read_tokens=3, cache_write_tokens=2, reasoning_tokens=1)


def rendered(*events: Event) -> list[dict[str, Any]]:
    """The events of a stream; checks what all of them have."""
    stream = asked(tools=[ADD]).stream()
    text = "".join(stream.render(0, [event]).decode() for event in events)
    assert stream.ended
    found = []
    for number, part in enumerate(text.removesuffix("\n\n").split("\n\n")):
        name, data = part.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event.pop("sequence_number") == number
        found.append(event)
    return found


def test_the_events_of_a_response() -> None:
    created, progress, *events, end = rendered(*ANSWER, Finished("tool_use", None, USAGE))
    assert (created["type"], progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == progress["response"]
    assert (created["response"]["status"], created["response"]["usage"]) == ("in_progress", None)
    thought = {"item_id": "rs_abcx0", "output_index": 0, "summary_index": 0}
    text = {"item_id": "msg_abcx1", "output_index": 1, "content_index": 0}
    call = {"item_id": "fc_abcx2", "output_index": 2}
    reasoning = {"id": "rs_abcx0", "type": "reasoning"}
    message = {"id": "msg_abcx1", "type": "message", "role": "assistant"}
    function = {"id": "fc_abcx2", "type": "function_call", "call_id": "toolu01", "name": "add"}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    done = {**part, "text": "Hello"}
    summary = {"type": "summary_text", "text": "hm"}
    output = [
        {**reasoning, "summary": [summary]},
        {**message, "status": "completed", "content": [done]},
        {**function, "status": "completed", "arguments": '{"a":1}'},
    ]
    opened = [
        {**reasoning, "summary": []},
        {**message, "status": "in_progress", "content": []},
        {**function, "status": "in_progress", "arguments": ""},
    ]
    r = "response."
    assert events == [
        {"type": r + "output_item.added", "output_index": 0, "item": opened[0]},
        {"type": r + "reasoning_summary_part.added", **thought, "part": {**summary, "text": ""}},
        {"type": r + "reasoning_summary_text.delta", **thought, "delta": "hm"},
        {"type": r + "reasoning_summary_text.done", **thought, "text": "hm"},
        {"type": r + "reasoning_summary_part.done", **thought, "part": summary},
        {"type": r + "output_item.done", "output_index": 0, "item": output[0]},
        {"type": r + "output_item.added", "output_index": 1, "item": opened[1]},
        {"type": r + "content_part.added", **text, "part": part},
        {"type": r + "output_text.delta", **text, "delta": "Hel", "logprobs": []},
        {"type": r + "output_text.delta", **text, "delta": "lo", "logprobs": []},
        {"type": r + "output_text.done", **text, "text": "Hello", "logprobs": []},
        {"type": r + "content_part.done", **text, "part": done},
        {"type": r + "output_item.done", "output_index": 1, "item": output[1]},
        {"type": r + "output_item.added", "output_index": 2, "item": opened[2]},
        {"type": r + "function_call_arguments.delta", **call, "delta": '{"a":'},
        {"type": r + "function_call_arguments.delta", **call, "delta": "1}"},
        {
            "type": r + "function_call_arguments.done",
            **call,
            "name": "add",
            "arguments": '{"a":1}',
        },
        {"type": r + "output_item.done", "output_index": 2, "item": output[2]},
    ]
    assert end["type"] == "response.completed"
    assert end["response"]["output"] == output
    assert end["response"]["usage"] == {
        "input_tokens": 15,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 20,
    }


def complete(events: tuple[Event, ...], end: Finished) -> dict[str, Any]:
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    return asked(tools=[ADD]).complete([(assembly, end)])


@pytest.mark.parametrize("reason", ["tool_use", "end_turn", "max_tokens", "refusal", "new_word"])
def test_the_last_event_carries_the_whole_response(reason: str) -> None:
    end = Finished(reason, None, USAGE)
    assert rendered(*ANSWER, end)[-1]["response"] == complete(ANSWER, end)


@pytest.mark.parametrize(
    ("stop", "status", "reason"),
    [
        ("max_tokens", "incomplete", "max_output_tokens"),
        ("model_context_window_exceeded", "incomplete", "max_output_tokens"),
        ("refusal", "incomplete", "content_filter"),
        ("end_turn", "completed", None),
        ("stop_sequence", "completed", None),
        ("pause_turn", "completed", None),
    ],
)
def test_how_a_response_ends(stop: str, status: str, reason: str | None) -> None:
    end = rendered(*ANSWER, Finished(stop, None, USAGE))[-1]
    assert end["type"] == f"response.{status}"
    response = end["response"]
    assert response["status"] == status
    assert (response["incomplete_details"] or {}).get("reason") == reason
    assert [item.get("status") for item in response["output"]] == [None, "completed", status]


def test_an_answer_that_was_cut_inside_a_block() -> None:
    events = rendered(*ANSWER[:7], Finished("stop_sequence", "x", USAGE))
    assert [event["type"] for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_empty_blocks() -> None:
    events = (
        BlockStarted(0, Thinking("")),
        BlockStopped(0),
        BlockStarted(1, ToolUse("toolu_1", "add", {})),
        BlockStopped(1),
    )
    end = rendered(*events, Finished("tool_use", None, USAGE))[-1]["response"]
    assert end["output"][0]["summary"] == []
    assert end["output"][1]["arguments"] == "{}"
    assert end == complete(events, Finished("tool_use", None, USAGE))


def test_a_failure_on_the_way_is_told_twice() -> None:
    failure = Failure(Kind.CONTEXT_LENGTH, "too long", 400, param="messages")
    *_, failed, error = rendered(*ANSWER[:6], failure)
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    reason = {"code": "context_length_exceeded", "message": "too long"}
    assert failed["response"]["error"] == reason
    assert error == {
        "type": "error",
        "code": "context_length_exceeded",
        "message": "too long",
        "param": "input",
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "input",
            "code": None,
        },
    }


def test_a_failure_that_comes_first() -> None:
    kinds = [event["type"] for event in rendered(Failure(Kind.UPSTREAM, "gone", 502))]
    assert kinds == ["response.created", "response.in_progress", "response.failed", "error"]


def test_the_response_repeats_what_was_asked() -> None:
    response = asked(
        instructions="Be brief",
        metadata={"a": "b"},
        reasoning={"effort": "high"},
        tools=[ADD, {"type": "web_search"}],
        tool_choice="auto",
        max_output_tokens=9,
    ).envelope.response("completed")
    assert response["id"] == "resp_abc"
    assert response["created_at"] == 7
    assert response["instructions"] == "Be brief"
    assert response["metadata"] == {"a": "b"}
    assert response["reasoning"] == {"effort": "high", "summary": None}
    assert [tool["name"] for tool in response["tools"]] == ["add"]
    assert response["max_output_tokens"] == 9
    assert response["store"] is True


@pytest.mark.parametrize(
    ("form", "echoed"),
    [
        (None, {"type": "text"}),
        ({"type": "text", "more": 1}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (FORMAT, {**FORMAT, "description": None, "strict": False}),
        (
            {**FORMAT, "name": None, "strict": True, "description": "d", "more": 1},
            {**FORMAT, "name": "response", "strict": True, "description": "d"},
        ),
    ],
)
def test_the_format_is_repeated_with_all_its_fields(form: Any, echoed: dict[str, Any]) -> None:
    response = asked(text={"format": form}).envelope.response("completed")
    assert response["text"] == {"format": echoed}


@pytest.mark.parametrize(
    ("stop", "expected"), [("end_turn", 11), ("max_tokens", None), ("refusal", None)]
)
def test_when_a_response_was_completed(stop: str, expected: int | None) -> None:
    clock = iter((11, 12))
    body = {"model": "opus", "input": "Hi"}
    parsed = read(body, "abc", 7, Past(), lambda: next(clock))
    end = Finished(stop, None, USAGE)
    stream = parsed.stream().render(0, [Started("m", "c", Usage()), end]).decode()
    *_, last = (json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: "))
    assert (last["response"]["created_at"], last["response"]["completed_at"]) == (7, expected)
    assert parsed.complete([(Assembly(), end)]) == last["response"]


def test_an_unknown_model_is_a_bad_request_here() -> None:
    failure = Failure(Kind.MODEL_NOT_FOUND, "no", 404, param="model", code="model_not_found")
    status, body = asked().refusal(failure)
    assert (status, body["error"]["code"]) == (400, "model_not_found")


def test_counting() -> None:
    assert count({"input": "Hi"}) == (None, len('{"input": "Hi"}') // 4 + 1)
    model, tokens = count({"model": "opus", "input": "Hi", "instructions": "x" * 4000})
    assert model == "opus"
    assert 1_000 < tokens < 1_020
    past = Past(history=({"role": "user", "content": "y" * 4000},))
    assert 1_000 < count({"input": "Hi", "previous_response_id": "resp_1"}, past)[1] < 1_040
    picture = [{"role": "user", "content": [{"type": "input_image", "image_url": PNG}]}]
    assert 1_600 < count({"input": picture})[1] < 1_650
    for bad in ({}, {"input": []}, {"input": "Hi", "tools": [{"type": "function"}]}, 5):
        with pytest.raises(FailureError):
            count(bad)


ITEMS = [
    {"role": "user", "content": "Hi"},
    {"type": "message", "role": "assistant", "content": "Ho", "id": None},
    {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "r", "id": "fco_own"},
    {"type": "reasoning", "summary": []},
    {"type": "item_of_others", "status": "failed"},
]


def test_the_items_of_a_list() -> None:
    assert listed("resp_abc", ITEMS) == [
        {
            "id": "msg_abci0",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hi"}],
        },
        {
            "id": "msg_abci1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Ho", "annotations": [], "logprobs": []}],
        },
        {**ITEMS[2], "id": "fc_abci2", "status": "completed"},
        {**ITEMS[3], "status": "completed"},
        {**ITEMS[4], "id": "rs_abci4"},
        {**ITEMS[5], "id": "item_abci5"},
    ]


def test_pages_of_items() -> None:
    items = [{"id": f"i{number}"} for number in range(30)]

    def ids(**query: str) -> list[str]:
        return [item["id"] for item in page(items, query)["data"]]

    assert ids() == [f"i{number}" for number in range(29, 9, -1)]
    assert ids(order="asc", limit="2") == ["i0", "i1"]
    assert ids(order="asc", limit="2", after="i27") == ["i28", "i29"]
    assert ids(after="i1") == ["i0"]
    first = page(items, {"limit": "100"})
    assert (first["first_id"], first["last_id"], first["has_more"]) == ("i29", "i0", False)
    assert page(items, {"limit": "29"})["has_more"]
    assert page(items, {"after": "i0"}) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("limit", "0"), ("limit", "101"), ("limit", "x"), ("order", "up"), ("after", "nowhere")],
)
def test_bad_pages(name: str, value: str) -> None:
    with pytest.raises(FailureError) as caught:
        page([{"id": "a"}], {name: value})
    assert (caught.value.failure.status, caught.value.failure.param) == (400, name)


def test_refusals_have_the_dialects_own_params() -> None:
    failure = Failure(Kind.INVALID, "no", 400, param="schema")
    status, body = asked().refusal(failure)
    assert (status, body["error"]["param"]) == (400, "text.format.schema")


def test_a_responses_body_on_the_chat_route() -> None:
    body = {"model": "opus", "input": [{"role": "user", "content": "Hi"}], "stream": True}
    parsed = chat_route.read(body, "abc", 7)
    assert parsed.request == asked(stream=True).request
    assert parsed.envelope.id == "chatcmpl-abc"
    chat = {"model": "opus", "messages": [{"role": "user", "content": "Hi"}]}
    assert chat_route.read(chat, "abc", 7).request == asked().request
    with pytest.raises(FailureError) as caught:
        chat_route.read({"model": "opus"}, "abc", 7)
    assert caught.value.failure.param == "messages"
