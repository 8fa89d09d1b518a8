"""The rules by values: what is refused and in which words, and what is not."""

import base64

import pytest

from claudeproxy.demo.checking.rules import BODY_LIMIT, refusal

HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
PNG = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
TOOL = {"name": "add", "input_schema": {"type": "object", "properties": {"a": {}}}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
CACHED = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
MANUAL = {"type": "enabled", "budget_tokens": 1024}
ADAPTIVE = {"type": "adaptive"}
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def text(words):
    return {"type": "text", "text": words}


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def says(*content):
    return {"messages": [user(*content)]}


def body(**changes):
    base = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": "hello"}],
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def schema(**keywords):
    return {"output_config": {"format": {"type": "json_schema", "schema": keywords}}}


REFUSED = [
    ({"model": ...}, "model: Field required"),
    ({"messages": ...}, "messages: Field required"),
    ({"max_tokens": ...}, "max_tokens: Field required"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    ({"n": 2}, "n: Extra inputs are not permitted"),
    ({"betas": ["x"]}, "betas: Extra inputs are not permitted"),
    ({"stream": "yes"}, "stream: Input should be a valid boolean"),
    ({"metadata": {"id": "x"}}, "metadata.id: Extra inputs are not permitted"),
    ({"system": [text("")]}, "system: text content blocks must be non-empty"),
    ({"system": [{"type": "image"}]}, "system.0: Input tag 'image'"),
    # messages and roles
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": "hi"}, "messages: Input should be a valid array"),
    ({"messages": [assistant(text("a"))]}, 'messages: first message must use the "user" role'),
    (
        {"messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Input should be 'user', 'assistant' or 'system'",
    ),
    (
        {"messages": [{"role": "user", "content": "x", "name": "bob"}]},
        "messages.0.name: Extra inputs are not permitted",
    ),
    (says(), "messages.0: all messages must have non-empty content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-"),
    (
        {"messages": [user(text("a")), assistant(text("b ")), assistant(text("c "))]},
        "messages: final assistant content cannot end with trailing whitespace",
    ),
    # blocks
    (says("hi"), "messages.0.content.0: Input should be an object"),
    (says({"text": "hi"}), "messages.0.content.0.type: Field required"),
    (says({"type": "video"}), "messages.0.content.0: Input tag 'video' found using 'type'"),
    (says({"type": "text"}), "messages.0.content.0.text.text: Field required"),
    (says(text("")), "messages: text content blocks must be non-empty"),
    (says(text(" \n")), "messages: text content blocks must contain non-whitespace text"),
    (
        says({**text("a"), "id": 1}),
        "messages.0.content.0.text.id: Extra inputs are not permitted",
    ),
    (
        says({**text("a"), "cache_control": {"type": "forever"}}),
        "messages.0.content.0.text.cache_control.type: Input should be 'ephemeral'",
    ),
    (
        says({"type": "image", "source": {**PNG, "media_type": "image/bmp"}}),
        "messages.0.content.0.image.source.base64.media_type: Input should be 'image/jpeg', "
        "'image/png', 'image/gif' or 'image/webp'",
    ),
    (
        says({"type": "image", "source": {**PNG, "data": "not base64!"}}),
        "messages.0.content.0.image.source.base64: invalid base64 data",
    ),
    (
        says({"type": "image", "source": {**PNG, "data": "AAAA" * (2 << 20)}}),
        "messages.0.content.0.image.source.base64: image exceeds 5 MB maximum",
    ),
    (
        says({"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}),
        "messages.0.content.0.image.source.url.url: Only HTTPS URLs are supported.",
    ),
    (
        says({"type": "document", "source": {**PNG}}),
        "messages.0.content.0.document.source.base64.media_type: Input should be 'application/pdf'",
    ),
    (
        says({"type": "document", "source": {"type": "text", "data": "x"}}),
        "messages.0.content.0.document.source.text.media_type: Field required",
    ),
    (
        says({"type": "document", "source": {"type": "ftp"}}),
        "messages.0.content.0.document.source: Input tag 'ftp'",
    ),
    (says(USE), "messages.0.content.0: `tool_use` blocks can only be in `assistant` messages"),
    (
        {"messages": [user(text("a")), assistant(RESULT)]},
        "messages.1.content.0: `tool_result` blocks can only be in `user` messages",
    ),
    # tool calls and results
    (
        {"messages": [user(text("a")), assistant({**USE, "id": "a b"}), user(RESULT)]},
        "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
    ),
    (
        {"messages": [user(text("a")), assistant({**USE, "input": "{}"}), user(RESULT)]},
        "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
    ),
    (
        {"messages": [user(text("a")), assistant(USE), user(text("b"))]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: "
        "toolu_1.",
    ),
    (
        {"messages": [user(text("a")), assistant(USE)]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after",
    ),
    (
        {"messages": [user(text("a")), assistant(USE), user(text("b"), RESULT)]},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after",
    ),
    (
        says(RESULT),
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1.",
    ),
    (
        {"messages": [user(text("a")), assistant(USE), user(RESULT, RESULT)]},
        "messages.2.content.1: each tool_use must have a single result.",
    ),
    (
        {"messages": [user(text("a")), assistant(USE), user(RESULT), assistant(USE), user(RESULT)]},
        "messages: `tool_use` ids must be unique",
    ),
    (
        {
            "messages": [
                user(text("a")),
                assistant(USE),
                user({**RESULT, "content": "", "is_error": True}),
            ]
        },
        "messages.2.content.0.tool_result: content cannot be empty if `is_error` is true",
    ),
    (
        {
            "messages": [
                user(text("a")),
                assistant(USE),
                user({**RESULT, "content": [{"type": "image", "source": PNG}], "is_error": True}),
            ]
        },
        'messages.2.content.0.tool_result: all content must be type "text" if `is_error` is true',
    ),
    (
        {"messages": [user(text("a")), assistant(USE), user({**RESULT, "content": [USE]})]},
        "messages.2.content.0.tool_result.content.0: Input tag 'tool_use'",
    ),
    # tools
    ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
    (
        {"tools": [{**TOOL, "parameters": {}}]},
        "tools.0.custom.parameters: Extra inputs are not permitted",
    ),
    (
        {"tools": [{**TOOL, "name": "a.b"}]},
        "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    (
        {"tools": [{"name": "a", "input_schema": {}}]},
        "tools.0.custom.input_schema.type: Field required",
    ),
    (
        {"tools": [{"name": "a", "input_schema": {"type": "array"}}]},
        "tools.0.custom.input_schema.type: Input should be 'object'",
    ),
    (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "anyOf": []}}]},
        "tools.0.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf",
    ),
    (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "properties": {"a b": {}}}}]},
        "tools.0.custom.input_schema.properties: Property keys should match pattern",
    ),
    ({"tools": [{"type": "function"}]}, "tools.0: Input tag 'function'"),
    ({"tool_choice": {"type": "auto"}}, "tool_choice: tool_choice may only be specified while"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "sub"}},
        "tool_choice: Tool 'sub' not found in provided tools",
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type: Input should be"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool"}},
        "tool_choice.tool.name: Field required",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
        "tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted",
    ),
    # cache_control
    (
        {"system": [CACHED] * 3, **says(CACHED, CACHED)},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    (
        {
            "system": [CACHED],
            **says({**CACHED, "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
        },
        "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block.",
    ),
    # sampling and thinking
    ({"temperature": 1.1}, "temperature: Input should be less than or equal to 1"),
    ({"top_p": -1}, "top_p: Input should be greater than or equal to 0"),
    ({"temperature": 0, "top_p": 1}, "`temperature` and `top_p` cannot both be specified"),
    ({"stop_sequences": ["a", "\n"]}, "stop_sequences: each stop sequence must contain non-white"),
    ({"stop_sequences": "END"}, "stop_sequences: Input should be a valid array"),
    ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 1000}},
        "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
    ),
    (
        {"thinking": MANUAL, "max_tokens": 1024},
        "`max_tokens` must be greater than `thinking.budget_tokens`.",
    ),
    (
        {"thinking": {"type": "adaptive", "budget_tokens": 1}},
        "thinking.adaptive.budget_tokens: Extra inputs are not permitted",
    ),
    (
        {"thinking": MANUAL, "tools": [TOOL], "tool_choice": {"type": "any"}},
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    (
        {"model": "claude-opus-5-5", "thinking": ADAPTIVE, "tools": [TOOL]}
        | {"tool_choice": {"type": "tool", "name": "add"}},
        "Thinking may not be enabled when tool_choice forces tool use.",
    ),
    ({"thinking": MANUAL, "temperature": 0}, "`temperature` may only be set to 1 when thinking"),
    ({"thinking": MANUAL, "top_k": 5}, "`top_k` must be unset when thinking is enabled."),
    ({"thinking": MANUAL, "top_p": 0.9}, "`top_p` must be greater than or equal to 0.95"),
    # structured output
    (
        {"output_config": {"effort": "huge"}},
        "output_config.effort: Input should be 'low', 'medium'",
    ),
    ({"output_config": {"schema": {}}}, "output_config.schema: Extra inputs are not permitted"),
    (
        {"output_config": {"format": {"type": "json_object"}}},
        "output_config.format.schema: Field required",
    ),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": [], "name": "x"}}},
        "output_config.format.name: Extra inputs are not permitted",
    ),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": []}}},
        "output_config.format.schema: Input should be a valid dictionary",
    ),
    (
        schema(type="object"),
        "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly "
        "set to false",
    ),
    (
        schema(**{**CLOSED, "properties": {"a": {"type": "number", "minimum": 0, "maximum": 1}}}),
        "output_config.format.schema: For 'number' type, properties maximum, minimum are not "
        "supported",
    ),
    (
        schema(**{**CLOSED, "properties": {"a": {"anyOf": [{"type": "string", "minLength": 1}]}}}),
        "output_config.format.schema: For 'string' type, property 'minLength' is not supported",
    ),
    (
        schema(type="array", items={"type": "string"}, minItems=8),
        "output_config.format.schema: For 'array' type, 'minItems' values other than 0 or 1",
    ),
    # models
    (
        {"model": "claude-opus-4-7", "temperature": 0.5},
        "`temperature` is deprecated for this model.",
    ),
    ({"model": "claude-sonnet-5", "top_k": 1}, "`top_k` is deprecated for this model."),
    (
        {"model": "claude-opus-5-5", "thinking": MANUAL},
        '"thinking.type.enabled" is not supported for this model.',
    ),
    ({"thinking": ADAPTIVE}, "adaptive thinking is not supported on this model"),
    (
        {"model": "claude-haiku-4-5-20251001", "output_config": {"effort": "low"}},
        "This model does not support the effort parameter.",
    ),
    (
        {"model": "claude-opus-4-6", "messages": [user(text("a")), assistant(text("b"))]},
        "This model does not support assistant message prefill.",
    ),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refused_in_the_words_of_the_api(changes, message):
    refused = refusal(body(**changes), HEADERS)
    assert refused is not None
    assert refused.message.startswith(message)
    assert (refused.status, refused.type) == (400, "invalid_request_error")


ACCEPTED = [
    {},
    {"messages": [user(text("a")), user(text("b")), assistant(text("c")), user(text("d"))]},
    {"messages": [user(text("a")), assistant(text("prefill"))]},
    {"messages": [user(text("a")), assistant()]},
    {"messages": [user(text("a")), {"role": "system", "content": "environment"}]},
    {"messages": [user(text("a")), assistant(text("b"), USE), user(RESULT, text("c"))]},
    {"messages": [user(text("a")), assistant(USE), user({**RESULT, "content": ...})]},
    {"messages": [user(text("a")), assistant(USE), user(RESULT), user(text("c"))]},
    {
        "messages": [
            user(text("a")),
            assistant(USE, {**USE, "id": "call-2"}),
            user({**RESULT, "tool_use_id": "call-2", "content": [text("x")]}, RESULT),
        ]
    },
    says({"type": "image", "source": PNG}, {"type": "image", "source": {**PNG}}),
    says({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}),
    says(
        {"type": "document", "source": {**PNG, "media_type": "application/pdf"}},
        {
            "type": "document",
            "title": "t",
            "source": {"type": "text", "media_type": "text/plain", "data": "x"},
        },
        {"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}},
        {"type": "document", "source": {"type": "content", "content": [text("x")]}},
    ),
    {"system": "You are X.", "metadata": {"user_id": "u"}, "stop_sequences": ["END"], "tools": []},
    {"system": [CACHED] * 3, **says(CACHED)},
    {
        "system": [{**CACHED, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        **says(CACHED),
    },
    {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]},
    {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    {"thinking": MANUAL, "temperature": 1, "top_k": None},
    {"thinking": MANUAL, "top_p": 0.95},
    {"thinking": {"type": "disabled"}, "temperature": 0.5},
    {"model": "claude-opus-5-5", "thinking": ADAPTIVE, "output_config": {"effort": "max"}},
    {"model": "claude-opus-5-5", "thinking": {"type": "disabled"}, "temperature": 1},
    {"model": "claude-opus-4", "temperature": 0.5, "top_p": 0.5},
    schema(**{**CLOSED, "properties": {"a": {"type": ["string", "null"]}}}),
    schema(type="array", items={"$ref": "#/$defs/a"}, minItems=1, **{"$defs": {"a": CLOSED}}),
]


@pytest.mark.parametrize("changes", ACCEPTED)
def test_accepted(changes):
    for message in changes.get("messages", ()):
        for block in message["content"]:
            if isinstance(block, dict) and block.get("content") is ...:
                del block["content"]
    assert refusal(body(**changes), HEADERS) is None


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"anthropic-version": "2023-06-01"}, 401, "authentication_error"),
        ({"x-api-key": "any"}, 400, "invalid_request_error"),
    ],
)
def test_headers_that_are_missing(headers, status, kind):
    refused = refusal(body(), headers)
    assert refused is not None
    assert (refused.status, refused.type) == (status, kind)


def test_a_bearer_token_will_do():
    headers = {"authorization": "Bearer x", "anthropic-version": "2023-06-01"}
    assert refusal(body(), headers) is None


def test_a_name_that_is_no_claude_model_is_not_found():
    refused = refusal(body(model="gpt-4"), HEADERS)
    assert refused is not None
    assert (refused.status, refused.type, refused.message) == (
        404,
        "not_found_error",
        "model: gpt-4",
    )


def test_a_request_over_32_mb_is_too_large():
    assert refusal(body(), HEADERS, size=BODY_LIMIT) is None
    refused = refusal(body(), HEADERS, size=BODY_LIMIT + 1)
    assert refused is not None
    assert (refused.status, refused.type) == (413, "request_too_large")


def test_a_prompt_over_the_context_window_is_too_long():
    long = body(messages=[user(text("word" * 1000))])
    assert refusal(long, HEADERS, context_window=1100) is None
    refused = refusal(long, HEADERS, context_window=1000)
    assert refused is not None
    assert refused.message.endswith(" tokens > 1000 maximum")
    assert refused.message.startswith("prompt is too long: 10")
