"""Whatever a body holds, it is read, or refused with a 4xx that names the field."""

from __future__ import annotations

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
