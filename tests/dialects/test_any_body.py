"""Whatever a body holds, it is read, or refused with a 4xx that names the field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claudeproxy.dialects import anthropic, chat, chat_route, completions, responses
from claudeproxy.messages import FailureError

USER = {"role": "user", "content": "x"}
WHOLE: dict[str, dict[str, Any]] = {
    "chat": {"messages": [USER]},
    "responses": {"input": [USER]},
    "anthropic": {"messages": [USER], "max_tokens": 5},
    "completions": {"prompt": "x"},
}
READ = {
    "chat": chat_route.read,
    "responses": responses.read,
    "anthropic": anthropic.read,
    "completions": completions.read,
}
FIELDS = {
    "chat": chat.FIELDS,
    "responses": responses.FIELDS,
    "anthropic": anthropic.FIELDS,
    "completions": completions.FIELDS,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
LIKELY = st.sampled_from(
    [
        [USER],
        [{"role": "tool"}],
        [{"type": "function", "name": "a"}],
        [{"type": "function", "function": {"name": "a", "parameters": 1}}],
        [{"type": "custom", "name": "a", "format": {"type": "grammar", "syntax": "lark"}}],
        [{"type": "custom", "custom": {"name": "a", "format": {"type": "text"}}}],
        {"type": "custom", "name": "a", "custom": {"name": "a"}},
        [USER, {"role": "system", "content": "x"}],
        [USER, {"type": "custom_tool_call", "call_id": "a", "name": "a", "input": "x"}],
        [{"role": "user", "content": [{"type": "search_result", "source": "a", "title": "b"}]}],
        {"type": "json_schema"},
        {"format": {"type": "json_schema", "schema": 5}},
        {"type": "tool", "name": 1},
        [{"role": "user", "content": [{"type": "image", "source": 1}]}],
        [{"type": "message", "role": "assistant", "content": [{"type": "output_text"}]}],
        [{"type": "function_call_output", "call_id": "a", "output": [1]}],
        [{"type": "tool_result", "tool_use_id": 1}],
        "auto",
        [[]],
        [None],
    ]
)


@pytest.mark.parametrize("dialect", READ)
def test_any_value_of_any_field(dialect: str) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(st.sampled_from(sorted(FIELDS[dialect])), LIKELY | JSON, max_size=3))
    def check(changes: dict[str, Any]) -> None:
        body = {"model": "sonnet", **WHOLE[dialect], **changes}
        try:
            READ[dialect](body, "1", 5)
        except FailureError as refused:
            assert 400 <= refused.failure.status < 500

    check()


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "x"}
RICH: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "user", "name": "n", "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": "https://a.example", "detail": "low"}}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "r"}],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}},
            {"type": "custom", "custom": {"name": "g", "format": {
                "type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "description": "d", "schema": SCHEMA}},
    },
    "responses": {
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "x"},
                {"type": "input_image", "image_url": "https://a.example", "detail": "high"},
                {"type": "input_file", "file_url": "https://a.example"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": "o"}]},
            {"type": "function_call_output", "call_id": "c", "output": [
                {"type": "input_text", "text": "r"}]}],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "allowed_callers": []},
                  {"type": "custom", "name": "g", "format": GRAMMAR}, {"type": "web_search"}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "mode": "x"},
    },
    "anthropic": {
        "max_tokens": 3000,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "url", "url": "https://a.example"}},
                {"type": "document", "source": {"type": "text", "data": "d"}, "citations": {}},
                {"type": "search_result", "source": "s", "title": "t",
                 "content": [{"type": "text", "text": "z"}]}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [
                {"type": "tool_reference", "tool_name": "f"}]}]},
            {"role": "system", "content": "x"}],
        "tools": [{"name": "f", "input_schema": SCHEMA, "allowed_callers": ["direct"]}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "completions": {"prompt": ["x"], "stream_options": {"include_usage": True}},
}  # fmt: skip
JUNK = (None, True, -1, 1.5, "", "x", [], {}, [None], [[]], ["x"], [{}], {"a": 1}, {"type": None})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inner:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places(part, (*path, key))


@pytest.mark.parametrize("dialect", READ)
def test_any_value_in_any_place(dialect: str) -> None:
    whole = {"model": "sonnet", **RICH[dialect]}
    READ[dialect](whole, "1", 5)
    for *before, last in places(whole):
        for junk in JUNK:
            body = copy.deepcopy(whole)
            holder = reduce(getitem, before, body)
            holder[last] = junk
            try:
                READ[dialect](body, "1", 5)
            except FailureError as refused:
                assert 400 <= refused.failure.status < 500
