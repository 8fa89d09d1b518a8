"""The MCP server inside the daemon: what it offers and what it answers, by whole values."""

from __future__ import annotations

from typing import Any

import pytest

from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.tools import (
    MAX_DESCRIPTION,
    MAX_RESULT_CHARS,
    PROTOCOL,
    ToolServer,
    call_answer,
    definition,
    flat,
    verbatim,
)
from claudeproxy.messages import Document, Image, Text, Tool, ToolResult

LOOK = Tool("look", "Looks.", {"type": "object"})
DOTTED = Tool("a.b", "", {})
NAMES = ToolNames.of((LOOK, DOTTED))
GREETING = {
    "protocolVersion": PROTOCOL,
    "capabilities": {"tools": {}},
    "serverInfo": {"name": NAMES.server, "version": "1"},
}
REST = {
    "annotations": {"readOnlyHint": True},
    "_meta": {"anthropic/maxResultSizeChars": MAX_RESULT_CHARS},
}
OFFERED = {
    "tools": [
        {"name": "look", "description": "Looks.", "inputSchema": {"type": "object"}, **REST},
        {
            "name": NAMES.served("a.b"),
            "description": "",
            "inputSchema": {"type": "object", "properties": {}},
            **REST,
        },
    ]
}


def test_the_manifest_spares_the_handshake() -> None:
    server = ToolServer((LOOK, DOTTED), NAMES)
    assert server.manifest() == {"initializeResult": GREETING, "toolsListResult": OFFERED}


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"id": 1, "method": "initialize"}, {"id": 1, "result": GREETING}),
        ({"id": "two", "method": "tools/list"}, {"id": "two", "result": OFFERED}),
        ({"id": 3, "method": "ping"}, {"id": 3, "result": {}}),
        ({"method": "notifications/initialized"}, {"id": 0, "result": {}}),
        (
            {"id": 5, "method": "resources/list"},
            {"id": 5, "error": {"code": -32601, "message": "no method resources/list"}},
        ),
        ({}, {"id": None, "error": {"code": -32601, "message": "no method None"}}),
    ],
    ids=["initialize", "list", "ping", "initialized", "unknown", "nothing"],
)
def test_an_answer(message: Any, answer: Any) -> None:
    server = ToolServer((LOOK, DOTTED), NAMES)
    assert server.handle({"jsonrpc": "2.0", **message}) == {"jsonrpc": "2.0", **answer}


# -- definitions --


def test_a_schema_becomes_that_of_an_object() -> None:
    assert definition(Tool("a", "", {}))["inputSchema"] == {"type": "object", "properties": {}}
    assert definition(Tool("a", "", {"properties": {}}))["inputSchema"] == {
        "type": "object",
        "properties": {},
    }


def test_the_clients_schema_is_not_changed() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"description": "kept"}}}
    definition(Tool("a", "d" * 5000, schema))
    assert schema == {"properties": {"a": {"description": "kept"}}}


def test_only_a_description_that_would_be_cut_moves_into_the_schema() -> None:
    longest = "d" * MAX_DESCRIPTION
    tool = definition(Tool("a", longest, {"type": "object"}))
    assert (tool["description"], tool["inputSchema"]) == (longest, {"type": "object"})
    tool = definition(Tool("a", longest + "d", {"type": "object"}))
    assert tool["description"] == "d" * 200 + " (in full in the input schema)"
    assert tool["inputSchema"] == {"type": "object", "description": longest + "d"}


def test_a_long_description_arrives_whole() -> None:
    words = "the first line\n" + "word " * 1000 + "\nthe last"
    tool = definition(Tool("a", words, {"type": "object", "description": "own"}))
    assert tool == {
        "name": "a",
        "description": "the first line (in full in the input schema)",
        "inputSchema": {"type": "object", "description": f"{words}\n\nown"},
        **REST,
    }


BRANCHES = [{"properties": {"a": {"const": 1}, "b": {}}}, {"required": ["c"]}, True]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "anyOf": "x"}, {"type": "object", "anyOf": "x"}),
        (
            {"anyOf": BRANCHES},
            {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {}},
                "description": "The input must also satisfy this JSON schema: "
                '{"anyOf": [{"properties": {"a": {"const": 1}, "b": {}}}, {"required": ["c"]}, '
                "true]}",
            },
        ),
        (
            {
                "$defs": {"d": {}},
                "description": "Own.",
                "properties": {"a": {"type": "integer"}},
                "oneOf": [{"properties": {"b": {}}}, {"properties": 5}],
                "allOf": [{"properties": {"a": {}, "c": {}}}],
            },
            {
                "$defs": {"d": {}},
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {}, "c": {}},
                "description": "Own.\n\nThe input must also satisfy this JSON schema: "
                '{"oneOf": [{"properties": {"b": {}}}, {"properties": 5}], '
                '"allOf": [{"properties": {"a": {}, "c": {}}}]}',
            },
        ),
        (
            {"type": ["object", "null"], "properties": 5, "allOf": []},
            {
                "type": "object",
                "properties": {},
                "description": 'The input must also satisfy this JSON schema: {"allOf": []}',
            },
        ),
    ],
    ids=["none", "any", "own", "odd"],
)
def test_combiners_at_the_root_are_told_in_words(schema: Any, expected: Any) -> None:
    assert flat(schema) == expected
    assert definition(Tool("a", "", schema))["inputSchema"] == expected


# -- results --

PICTURE = Image({"type": "base64", "media_type": "image/png", "data": "AAAA"})
HALF = Text("€" * (MAX_RESULT_CHARS // 4))


@pytest.mark.parametrize(
    ("content", "is_error", "kept"),
    [
        ((Text("x"),), False, True),
        ((Text("x"), PICTURE), False, True),
        ((), False, False),
        ((Text("x"),), True, False),
        ((Image({"type": "url", "url": "https://a.example"}),), False, False),
        ((Document({"type": "text", "data": "x"}),), False, False),
        ((HALF, PICTURE, HALF), False, True),
        ((HALF, Text("x"), HALF), False, False),
    ],
    ids=range(8),
)
def test_what_a_parked_call_delivers_word_for_word(
    content: Any, is_error: bool, kept: bool
) -> None:
    assert verbatim(ToolResult("t", content, is_error)) is kept


def test_a_calls_answer() -> None:
    result = ToolResult("t", (Text("a"), PICTURE))
    assert call_answer(7, result) == {
        "jsonrpc": "2.0",
        "id": 7,
        "result": {
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            ],
            "isError": False,
        },
    }
