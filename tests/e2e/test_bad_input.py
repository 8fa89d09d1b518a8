"""Bad input gets a clear error, names the field at fault, and costs nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import treq
from harness import Daemon
from pytest_twisted import ensureDeferred

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def body(**changes: Any) -> dict[str, Any]:
    fields = {"model": "claude-sonnet-4", "messages": [USER], **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


CASES: dict[str, tuple[Any, int, str | None, str | None]] = {
    "not JSON": (b"{", 400, None, None),
    "no body": (b"", 400, None, None),
    "not an object": (b"[]", 400, None, None),
    "NaN": (b'{"model":"sonnet","temperature":NaN}', 400, None, None),
    "a number too large": (b'{"model":"sonnet","temperature":1e999}', 400, None, None),
    "a very long number": (body(temperature=10**399), 400, "temperature", None),
    "modalities": (body(modalities=5), 400, "modalities", None),
    "a tool with a schema that is none": (
        body(tools=[{"type": "function", "function": {"name": "t", "parameters": {"anyOf": [1]}}}]),
        400,
        "tools[0].function.parameters.anyOf[0]",
        None,
    ),
    "a large schema": (
        body(
            response_format={
                "type": "json_schema",
                "json_schema": {"schema": {"type": "object", "enum": ["x" * 60_000]}},
            }
        ),
        400,
        "response_format.json_schema.schema",
        None,
    ),
    "an entangled schema": (
        body(
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "schema": {
                        "$ref": "#/$defs/a0",
                        "$defs": {
                            f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2}
                            for i in range(30)
                        },
                    }
                },
            }
        ),
        400,
        "response_format.json_schema.schema",
        None,
    ),
    "more answers than fit": (body(n=100), 400, "n", None),
    "not UTF-8": (b'{"model":"\xff"}', 400, None, None),
    "too deep": (body(metadata=deep(150)), 400, None, None),
    "much too deep": (b'{"a":' + b"[" * 100_000, 400, None, None),
    "no model": (body(model=...), 400, "model", None),
    "model of the wrong type": (body(model=1), 400, "model", None),
    "unknown model": (body(model="gpt-4"), 404, "model", "model_not_found"),
    "no messages": (body(messages=...), 400, "messages", None),
    "empty messages": (body(messages=[]), 400, "messages", None),
    "messages not a list": (body(messages="hi"), 400, "messages", None),
    "a message not an object": (body(messages=["hi"]), 400, "messages[0]", None),
    "bad role": (body(messages=[{"role": "robot"}]), 400, "messages[0].role", None),
    "no role": (body(messages=[{"content": "x"}]), 400, "messages[0].role", None),
    "blank only": (body(messages=[{"role": "user", "content": " "}]), 400, "messages", None),
    "assistant last": (
        body(messages=[USER, {"role": "assistant", "content": "so"}]),
        400,
        "messages[1]",
        None,
    ),
    "content of the wrong type": (
        body(messages=[{"role": "user", "content": 5}]),
        400,
        "messages[0].content",
        None,
    ),
    "half a surrogate pair": (
        body(messages=[{"role": "user", "content": "\ud800"}]),
        400,
        "messages[0].content",
        None,
    ),
    "unknown part": (
        body(messages=[{"role": "user", "content": [{"type": "video"}]}]),
        400,
        "messages[0].content[0]",
        None,
    ),
    "audio part": (
        body(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]),
        400,
        "messages[0].content[0]",
        None,
    ),
    "broken base64": (
        body(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}
                    ],
                }
            ]
        ),
        400,
        "messages[0].content[0].image_url.url",
        None,
    ),
    "file by id": (
        body(messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]),
        400,
        "messages[0].content[0].file.file_id",
        None,
    ),
    "audio out": (body(modalities=["text", "audio"]), 400, "modalities", None),
    "temperature": (body(temperature=2.5), 400, "temperature", None),
    "top_p": (body(top_p=-1), 400, "top_p", None),
    "n": (body(n=0), 400, "n", None),
    "max_tokens": (body(max_tokens=-1), 400, "max_tokens", None),
    "max_tokens as text": (body(max_tokens="5"), 400, "max_tokens", None),
    "stop": (body(stop=[1]), 400, "stop", None),
    "effort": (body(reasoning_effort="huge"), 400, "reasoning_effort", None),
    "stream": (body(stream="yes"), 400, "stream", None),
    "tool choice without tools": (body(tool_choice="required"), 400, "tool_choice", None),
    "tool choice of an absent tool": (
        body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "nope"}}),
        400,
        "tool_choice.function.name",
        None,
    ),
    "duplicate tools": (body(tools=[TOOL, TOOL]), 400, "tools[1].function.name", None),
    "nameless tool": (
        body(tools=[{"type": "function", "function": {}}]),
        400,
        "tools[0].function.name",
        None,
    ),
    "tool parameters that are no object": (
        body(
            tools=[{"type": "function", "function": {"name": "a", "parameters": {"type": "array"}}}]
        ),
        400,
        "tools[0].function.parameters.type",
        None,
    ),
    "result without a call": (
        body(messages=[USER, {"role": "tool", "tool_call_id": "c9", "content": "r"}]),
        400,
        "messages[1].tool_call_id",
        None,
    ),
    "call without a result": (
        body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}, USER]),
        400,
        "messages[2]",
        None,
    ),
    "no schema": (
        body(response_format={"type": "json_schema", "json_schema": {"name": "n"}}),
        400,
        "response_format.json_schema.schema",
        None,
    ),
    "response_format": (body(response_format={"type": "xml"}), 400, "response_format.type", None),
}


@pytest.mark.parametrize("name", CASES)
@ensureDeferred
async def test_bad_input(daemon: Daemon, name: str) -> None:
    sent, status, param, code = CASES[name]
    before = len(daemon.turns())
    response = await daemon.post("/v1/chat/completions", sent)
    answer = await treq.json_content(response)
    assert response.code == status, answer
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"]
    assert len(daemon.turns()) == before
    assert daemon.api.engine.admission.running == 0


ODD_SCHEMA = {"anyOf": [{}, True], "properties": None}

LENIENT: dict[str, dict[str, Any]] = {
    "max_tokens 0": body(max_tokens=0),
    "stream_options without stream": body(stream_options={"include_usage": True}),
    "no tools": body(tools=[]),
    "no tools to choose from": body(tools=[], tool_choice="auto"),
    "unknown keys": body(whatever={"a": 1}),
    "nulls": body(stop=None, tools=None, temperature=None, response_format=None, n=None),
    "cache_control on a part": body(
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            }
        ]
    ),
    "$schema in parameters": body(
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "t",
                    "parameters": {
                        "$schema": "http://json-schema.org/draft-07/schema#",
                        "type": "object",
                    },
                },
            }
        ]
    ),
    "a tool with an odd schema": body(
        tools=[{"type": "function", "function": {"name": "t", "parameters": ODD_SCHEMA}}]
    ),
    "a call with a number that is none": body(
        messages=[
            USER,
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "function": {"name": "t", "arguments": '{"x": NaN, "y": 1e999}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ]
    ),
    "a tool without parameters": body(tools=[{"type": "function", "function": {"name": "t"}}]),
    "assistant first": body(messages=[{"role": "assistant", "content": "Hi!"}, USER]),
    "a name": body(messages=[{"role": "user", "content": "x", "name": "Ann"}]),
    "null content": body(
        messages=[USER, {"role": "assistant", "content": None}, {"role": "user", "content": "y"}]
    ),
}


@pytest.mark.parametrize("name", LENIENT)
@ensureDeferred
async def test_lenient_where_clients_need_it(daemon: Daemon, name: str) -> None:
    response = await daemon.post("/v1/chat/completions", LENIENT[name])
    answer = await treq.json_content(response)
    assert response.code == 200, answer


@ensureDeferred
async def test_content_type_is_required(daemon: Daemon) -> None:
    sent = json.dumps(body()).encode()
    url = daemon.url + "/v1/chat/completions"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = await treq.post(url, data=sent, headers={"content-type": kind})
        assert response.code == 415
        assert (await treq.json_content(response))["error"]["type"] == "invalid_request_error"
    response = await treq.post(
        url, data=sent, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert response.code == 200
    await treq.content(response)


@ensureDeferred
async def test_unknown_routes_and_methods(daemon: Daemon) -> None:
    response = await treq.get(daemon.url + "/v1/embeddings")
    error = (await treq.json_content(response))["error"]
    assert (response.code, error["code"]) == (404, "unknown_url")
    assert "/v1/chat/completions" in error["message"]
    response = await treq.get(daemon.url + "/v1/completions")
    assert response.code == 405
    assert "error" in await treq.json_content(response)
    response = await treq.get(daemon.url + "/v1/models/gpt-4")
    error = (await treq.json_content(response))["error"]
    assert (response.code, error["code"]) == (404, "model_not_found")


@ensureDeferred
async def test_too_large_a_body(make_daemon: Any) -> None:
    daemon = await make_daemon(max_body=1000)
    response = await daemon.post("/v1/chat/completions", body(metadata={"a": "x" * 2000}))
    assert response.code == 413
    assert "--max-body" in (await treq.json_content(response))["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("previous_response_id", "resp_\ud800", "previous_response_id"),
        ("conversation", "conv_\ud800", "conversation"),
        ("conversation", {"id": "conv_\ud800"}, "conversation.id"),
    ],
)
@ensureDeferred
async def test_half_a_surrogate_pair_in_an_id(
    daemon: Daemon, field: str, value: Any, param: str
) -> None:
    response = await daemon.post("/v1/responses", {"model": "haiku", "input": "x", field: value})
    assert response.code == 400
    assert (await treq.json_content(response))["error"]["param"] == param
