"""Anthropic Messages by values: bodies to requests, events to the wire's own, errors to params."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.dialects import anthropic
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
    SearchResult,
    SignatureDelta,
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
    block_to_wire,
    normalise,
)

HI = [{"role": "user", "content": "Hi"}]
ADD = {"name": "add", "description": "adds", "input_schema": {"type": "object"}}
TOOL = Tool("add", "adds", {"type": "object"})
CACHED = {"cache_control": {"type": "ephemeral"}}
THINK = {"type": "enabled", "budget_tokens": 2000}


def asked(**fields: Any) -> anthropic.Messages:
    body = {"model": "opus", "max_tokens": 4000, "messages": HI, **fields}
    return anthropic.read(body, "abc", 7)


def refused(**fields: Any) -> Failure:
    with pytest.raises(FailureError) as caught:
        asked(**fields)
    return caught.value.failure


def test_a_plain_body() -> None:
    parsed = asked()
    message = Message("user", (Text("Hi"),))
    assert parsed.request == Request(model="opus", messages=(message,), max_tokens=4000)
    assert parsed.ignored == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"system": "Be brief"}, {"system": ("Be brief",)}),
        (
            {"system": [{"type": "text", "text": "a", **CACHED}, {"type": "text", "text": "b"}]},
            {"system": ("a", "b")},
        ),
        ({"stop_sequences": ["x", "y", " "]}, {"stop": ("x", "y", " ")}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stream": True}, {"stream": True}),
        ({"thinking": {"type": "disabled"}}, {"effort": "none"}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"effort": "low"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 10_000}, "max_tokens": 20_000},
            {"effort": "medium", "max_tokens": 20_000},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 50_000}, "max_tokens": 60_000},
            {"effort": "max", "max_tokens": 60_000},
        ),
        ({"output_config": {"effort": "xhigh"}}, {"effort": "xhigh"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {"schema": {"type": "object"}},
        ),
        (
            {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
            {"schema": {"type": "object"}},
        ),
        ({"tools": [{**ADD, **CACHED, "type": "custom"}]}, {"tools": (TOOL,)}),
        (
            {"tools": [ADD], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tools": (TOOL,), "tool_choice": ToolChoice("any", parallel=False)},
        ),
        (
            {"tools": [ADD], "tool_choice": {"type": "tool", "name": "add"}},
            {"tools": (TOOL,), "tool_choice": ToolChoice("tool", "add")},
        ),
        (
            {"tools": [ADD], "tool_choice": {"type": "none"}},
            {"tools": (TOOL,), "tool_choice": ToolChoice("none")},
        ),
    ],
)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    messages = (Message("user", (Text("Hi"),)),)
    assert asked(**fields).request == Request(
        **{"model": "opus", "messages": messages, "max_tokens": 4000, **expected}
    )


def test_a_conversation_of_blocks() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    parsed = asked(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look", **CACHED},
                    {"type": "image", "source": image},
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/b"}},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
                        "title": "t",
                        "context": "c",
                        "citations": {"enabled": True},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I will"},
                    {"type": "tool_use", "id": "toolu01", "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": "toolu_02", "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_01", "content": "one"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_02",
                        "is_error": True,
                        "content": [{"type": "text", "text": "two"}],
                    },
                    {"type": "text", "text": "go on"},
                ],
            },
        ]
    )
    assert parsed.ignored == ("citations",)
    assert parsed.request.messages == (
        Message(
            "user",
            (
                Text("look"),
                Image(image),
                Image({"type": "url", "url": "https://a.example/b"}),
                Document({"type": "text", "media_type": "text/plain", "data": "hi"}, "t", "c"),
            ),
        ),
        Message(
            "assistant",
            (
                Text("I will"),
                ToolUse("toolu_01", "add", {"a": 1}),
                ToolUse("toolu_02", "add", {}),
            ),
        ),
        Message(
            "user",
            (
                ToolResult("toolu_01", (Text("one"),)),
                ToolResult("toolu_02", (Text("two"),), is_error=True),
                Text("go on"),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"top_k": 5}, ("top_k",)),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "url", "url": "https://example.com/a.png"},
                                "transformations": {"oversized": "crop"},
                            }
                        ],
                    }
                ]
            },
            ("messages.transformations",),
        ),
        ({"service_tier": "auto"}, ("service_tier",)),
        ({"tools": [{**ADD, "strict": True}]}, ("tools.strict",)),
        ({"tools": [{**ADD, "defer_loading": True}]}, ("tools.defer_loading",)),
        ({"tools": [{**ADD, "allowed_callers": ["direct"]}]}, ()),
        (
            {"tools": [{**ADD, "allowed_callers": ["code_execution_20260120"]}]},
            ("tools.allowed_callers",),
        ),
        ({"output_config": {"task_budget": {}}}, ("output_config.task_budget",)),
        (
            {"fallbacks": "default", "billing_policy": {"bill_to": "self"}},
            ("fallbacks", "billing_policy"),
        ),
        ({"metadata": {"user_id": "me"}, **CACHED, "unknown": 1}, ()),
    ],
)
def test_ignored_fields_are_named(fields: dict[str, Any], ignored: tuple[str, ...]) -> None:
    assert asked(**fields).ignored == ignored


def test_what_a_search_found() -> None:
    cited = {**FOUND, "citations": {"enabled": True}}
    loaded = {"type": "tool_reference", "tool_name": "add"}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [cited, loaded]}
    parsed = asked(
        messages=[
            {"role": "user", "content": [FOUND, {"type": "text", "text": "Hi"}]},
            CALL,
            {"role": "user", "content": [result]},
        ]
    )
    block = SearchResult("https://a.example/b", "B", ("b",))
    first, _, last = parsed.request.messages
    assert first == Message("user", (block, Text("Hi")))
    assert last == Message("user", (ToolResult("c", (block, Text("Tool loaded: add"))),))
    assert parsed.ignored == ("citations",)
    assert block_to_wire(block) == FOUND


def reminder(text: str) -> Text:
    return Text(f"<system-reminder>\n{text}\n</system-reminder>")


def test_a_system_message_keeps_its_place() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "r"}
    parsed = asked(
        system="one",
        messages=[
            {"role": "system", "content": "two"},
            *HI,
            {
                "role": "system",
                "content": [{"type": "text", "text": "three", **CACHED}],
                "output_config": {"effort": "low"},
            },
            CALL,
            {"role": "system", "content": "four"},
            {"role": "user", "content": [result]},
            {"role": "system", "content": " "},
            {"role": "assistant", "content": "done"},
            {
                "role": "system",
                "content": [
                    {
                        "type": "tool_addition",
                        "tool": {"type": "tool_reference", "name": "add"},
                    },
                    {"type": "text", "text": "five"},
                ],
            },
        ],
    )
    assert parsed.request.system == ("one", "two")
    assert parsed.request.messages == (
        Message("user", (Text("Hi"), reminder("three"))),
        Message("assistant", (ToolUse("c", "a", {}),)),
        Message("user", (ToolResult("c", (Text("r"),)), reminder("four"))),
        Message("assistant", (Text("done"),)),
        Message("user", (reminder("five"),)),
    )
    assert parsed.ignored == ("messages.output_config", "messages.tool_addition")


def in_user(**block: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block]}]}


FOUND = {
    "type": "search_result",
    "source": "https://a.example/b",
    "title": "B",
    "content": [{"type": "text", "text": "b"}],
}
SYSTEM_BLOCK = "messages[1].content[0]"
CALL = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "a", "input": {}}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": "{"}]}, "messages[1]"),
        (
            {"messages": [*HI, {"role": "assistant", "content": "{"}, {**HI[0], "content": " "}]},
            "messages[2]",
        ),
        ({"messages": [*HI, {"role": "system", "content": [{"type": "image"}]}]}, SYSTEM_BLOCK),
        ({"messages": [*HI, CALL]}, "messages[1]"),
        ({"messages": [*HI, CALL, *HI]}, "messages[2]"),
        (in_user(type="server_tool_use"), "messages[0].content[0]"),
        (in_user(type="tool_reference", tool_name="x"), "messages[0].content[0]"),
        (in_user(**{**FOUND, "source": None}), "messages[0].content[0].source"),
        (in_user(**{**FOUND, "content": "x"}), "messages[0].content[0].content"),
        (
            in_user(**{**FOUND, "content": [{"type": "text", "text": " "}]}),
            "messages[0].content[0].content",
        ),
        (in_user(type="tool_result", tool_use_id="c"), "messages[0].content[0].tool_use_id"),
        (
            in_user(type="image", source={"type": "file", "file_id": "f"}),
            "messages[0].content[0].source.type",
        ),
        (
            in_user(type="image", source={"type": "base64", "media_type": "image/tiff"}),
            "messages[0].content[0].source.media_type",
        ),
        (
            in_user(
                type="image", source={"type": "base64", "media_type": "image/png", "data": "?"}
            ),
            "messages[0].content[0].source.data",
        ),
        (
            in_user(type="document", source={"type": "content", "content": []}),
            "messages[0].content[0].source.type",
        ),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "add"}]}, "tools[0].input_schema"),
        ({"tools": [ADD, ADD]}, "tools[1].name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tools": [ADD], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [5]}, "stop_sequences"),
        ({"output_config": {"effort": "none"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"container": "c"}, "container"),
        ({"compaction": {"type": "summary"}}, "compaction"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"thread": {"type": "create"}}, "thread"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str) -> None:
    failure = refused(**fields)
    assert (failure.status, failure.param) == (400, param)
    assert param.split("[")[0].split(".")[0] in failure.message


ANSWER: tuple[Event, ...] = (
    Started("msg_up", "claude", Usage(10, 1)),
    BlockStarted(0, Thinking("")),
    ThinkingDelta(0, "hm"),
    SignatureDelta(0, "sig"),
    BlockStopped(0),
    BlockStarted(1, Text("")),
    TextDelta(1, "Hello"),
    BlockStopped(1),
    BlockStarted(2, ToolUse("toolu_01", "add", {})),
    ArgumentsDelta(2, '{"a":1}'),
    BlockStopped(2),
)
END = Finished("tool_use", None, Usage(10, 5, 3, 2, 1, cache_write_1h_tokens=1))
NOTHING = {"container": None, "stop_details": None}
USAGE = {
    **dict.fromkeys(("inference_geo", "server_tool_use", "service_tier")),
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
    "input_tokens": 10,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
    "output_tokens": 5,
    "output_tokens_details": {"thinking_tokens": 1},
}


def rendered(parsed: anthropic.Messages, *events: Event) -> list[dict[str, Any]]:
    stream = parsed.stream()
    parts = stream.render(0, events).decode().removesuffix("\n\n").split("\n\n")
    assert stream.ended
    found = []
    for part in parts:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def blocks(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What tells of blocks: index, and the block or delta."""
    return [
        (e["index"], e.get("content_block") or e.get("delta"))
        for e in events
        if e["type"].startswith("content_block")
    ]


DIRECT = {"type": "direct"}
TEXT: list[tuple[Any, ...]] = [
    ({"type": "text", "text": "", "citations": []}),
    ({"type": "text_delta", "text": "Hello"}),
    None,
    ({"type": "tool_use", "id": "toolu_01", "name": "add", "input": {}, "caller": DIRECT}),
    ({"type": "input_json_delta", "partial_json": '{"a":1}'}),
    None,
]  # type: ignore[list-item]


def test_the_events_of_a_message() -> None:
    first, *events, delta, stop = rendered(asked(thinking=THINK), *ANSWER, END)
    assert first["type"] == "message_start"
    assert first["message"] == {
        "id": "msg_abc",
        "type": "message",
        "role": "assistant",
        "model": "opus",
        "content": [],
        **NOTHING,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            **USAGE,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 1,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    assert blocks(events) == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "thinking_delta", "thinking": "hm"}),
        (0, {"type": "signature_delta", "signature": "sig"}),
        (0, None),
        *zip((1, 1, 1, 2, 2, 2), TEXT, strict=True),
    ]
    assert delta == {
        "type": "message_delta",
        "delta": {**NOTHING, "stop_reason": "tool_use", "stop_sequence": None},
        "usage": USAGE,
    }
    assert stop == {"type": "message_stop"}


def test_thinking_that_was_not_asked_for_is_left_out() -> None:
    assert blocks(rendered(asked(), *ANSWER, END)) == list(
        zip((0, 0, 0, 1, 1, 1), TEXT, strict=True)
    )


def test_omitted_thinking_keeps_its_signature() -> None:
    parsed = asked(thinking={**THINK, "display": "omitted"})
    assert blocks(rendered(parsed, *ANSWER, END))[:3] == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "signature_delta", "signature": "sig"}),
        (0, None),
    ]


def complete(parsed: anthropic.Messages, end: Finished = END) -> dict[str, Any]:
    assembly = Assembly()
    for event in ANSWER:
        assembly.add(event)
    return parsed.complete([(assembly, end)])


def test_a_whole_message() -> None:
    text = {"type": "text", "text": "Hello", "citations": []}
    call = {"type": "tool_use", "id": "toolu_01", "name": "add", "input": {"a": 1}}
    call["caller"] = DIRECT
    thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    message = complete(asked(thinking=THINK))
    assert message["content"] == [thought, text, call]
    assert (message["id"], message["stop_reason"]) == ("msg_abc", "tool_use")
    assert message["usage"] == USAGE
    assert complete(asked())["content"] == [text, call]
    omitted = complete(asked(thinking={**THINK, "display": "omitted"}))
    assert omitted["content"][0] == {**thought, "thinking": ""}


@pytest.mark.parametrize("reason", ["end_turn", "refusal", "pause_turn", "a_new_word"])
def test_stop_reasons_pass_as_they_are(reason: str) -> None:
    assert complete(asked(), Finished(reason, None, Usage()))["stop_reason"] == reason


def test_an_answer_that_was_cut_inside_a_block() -> None:
    events = rendered(asked(), *ANSWER[:7], Finished("stop_sequence", "x", Usage()))
    kinds = [event["type"] for event in events[-3:]]
    assert kinds == ["content_block_stop", "message_delta", "message_stop"]
    stopped = {**NOTHING, "stop_reason": "stop_sequence", "stop_sequence": "x"}
    assert events[-2]["delta"] == stopped


def test_a_failure_on_the_way() -> None:
    events = rendered(asked(), *ANSWER[:7], Failure(Kind.OVERLOADED, "busy", 529))
    assert events[-1] == {
        "type": "error",
        "error": {
            "type": "overloaded_error",
            "message": "busy",
            "details": {"kind": "overloaded"},
        },
        "request_id": "req_abc",
    }


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (Kind.INVALID, 400, (400, "invalid_request_error")),
        (Kind.INVALID, 405, (405, "invalid_request_error")),
        (Kind.CONTEXT_LENGTH, 400, (400, "invalid_request_error")),
        (Kind.AUTHENTICATION, 401, (401, "authentication_error")),
        (Kind.PERMISSION, 403, (403, "permission_error")),
        (Kind.NOT_FOUND, 404, (404, "not_found_error")),
        (Kind.MODEL_NOT_FOUND, 404, (404, "not_found_error")),
        (Kind.TIMEOUT, 408, (408, "timeout_error")),
        (Kind.TOO_LARGE, 413, (413, "request_too_large")),
        (Kind.RATE_LIMIT, 429, (429, "rate_limit_error")),
        (Kind.PLAN_LIMIT, 429, (429, "rate_limit_error")),
        (Kind.UPSTREAM, 502, (500, "api_error")),
        (Kind.UNAVAILABLE, 503, (529, "overloaded_error")),
        (Kind.TIMEOUT, 504, (504, "timeout_error")),
        (Kind.OVERLOADED, 529, (529, "overloaded_error")),
    ],
)
def test_failures(kind: Kind, status: int, expected: tuple[int, str]) -> None:
    failure = Failure(kind, "no", status)
    found, body = anthropic.refusal(failure, "req_1")
    assert body["type"] == "error"
    assert body["request_id"] == "req_1"
    assert (found, body["error"]["type"]) == expected
    assert body["error"]["details"] == {"kind": kind.value}
    assert "request_id" not in anthropic.refusal(failure)[1]


def test_sdks_are_told_to_go_on_without_a_thread() -> None:
    _, body = anthropic.refusal(refused(thread={"type": "create"}))
    assert body["error"]["details"]["error_code"] == "thread_unsupported_request"
    assert "error_code" not in anthropic.refusal(refused(container="c"))[1]["error"]["details"]


def test_counting() -> None:
    request, tokens = anthropic.count({"model": "opus", "messages": HI})
    assert request.model == "opus"
    assert tokens == len('{"messages": [{"role": "user", "content": "Hi"}]}') // 4 + 1
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA" * 1000}
    picture = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    _, with_image = anthropic.count({"model": "opus", "messages": picture})
    assert 1_600 < with_image < 1_650
    with pytest.raises(FailureError):
        anthropic.count({"model": "opus", "messages": []})


def call(ident: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": "add", "input": {}}


def result(ident: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": ident, "content": ident}


def test_neighbouring_messages_of_one_role_are_one_turn() -> None:
    """Results may come in a message each, and so may calls."""
    messages = [
        *HI,
        {"role": "assistant", "content": [call("a")]},
        {"role": "assistant", "content": [call("b")]},
        {"role": "user", "content": [result("b")]},
        {"role": "user", "content": [result("a")]},
    ]
    said = normalise(asked(messages=messages).request.messages)
    assert [message.role for message in said] == ["user", "assistant", "user"]
    assert [b.tool_use_id for b in said[2].content if isinstance(b, ToolResult)] == ["a", "b"]


@pytest.mark.parametrize("more", [[], [{"role": "assistant", "content": "So."}, *HI]])
def test_a_call_without_a_result_is_refused(more: list[Any]) -> None:
    messages = [
        *HI,
        {"role": "assistant", "content": [call("a"), call("b")]},
        {"role": "user", "content": [result("a")]},
        *more,
    ]
    with pytest.raises(FailureError) as refused:
        asked(messages=messages)
    assert refused.value.failure.param == ("messages[3]" if more else "messages[2]")
    assert "unanswered: b" in refused.value.failure.message


def test_the_details_of_a_refusal_are_told() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "no"}
    end = Finished("refusal", None, Usage(), details)
    _, delta, _ = rendered(asked(), *ANSWER[:1], end)
    assert delta["delta"]["stop_details"] == details
    assert asked().complete([(Assembly(), end)])["stop_details"] == details
