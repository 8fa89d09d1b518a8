"""Settings, tools, errors and launch, by values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.cli import launch
from claudeproxy.cli.errors import classify
from claudeproxy.cli.models import EFFORTS, ModelInfo, guess_model, parse_models
from claudeproxy.cli.settings import BUDGETS, MIN_BUDGET, turn_settings
from claudeproxy.cli.tools import (
    MAX_DESCRIPTION,
    ToolServer,
    call_answer,
    definition,
    verbatim,
)
from claudeproxy.messages import (
    Document,
    Image,
    Kind,
    Message,
    Request,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
)
from claudeproxy.testing import MODELS, fake_cli

OLD = ModelInfo("claude-sonnet-4-5", "claude-sonnet-4-5")
NEW = ModelInfo("opus", "claude-opus-5-5", "Opus", EFFORTS, adaptive=True, thinking_off=False)
LOOK = Tool("look", "Looks.", {"type": "object"})


def asked(**fields: Any) -> Request:
    return Request("opus", (Message("user", (Text("x"),)),), **fields)


# -- settings --


def body(model: ModelInfo = OLD, *, schema_by_tool: bool = False, **fields: Any) -> Any:
    flags = turn_settings(asked(**fields), model, schema_by_tool=schema_by_tool).flags
    return json.loads(flags["env"]["CLAUDE_CODE_EXTRA_BODY"])


def test_nothing_asked_clears_what_an_earlier_turn_set() -> None:
    flags = turn_settings(asked(), OLD).flags
    assert flags["model"] == "claude-sonnet-4-5"
    assert flags["effortLevel"] is None
    assert flags["env"]["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == ""
    assert flags["env"]["CLAUDE_CODE_EXTRA_BODY"] == "{}"


@pytest.mark.parametrize(
    ("fields", "model", "expected"),
    [
        ({"temperature": 0.5}, OLD, {"temperature": 0.5, "thinking": {"type": "disabled"}}),
        ({"temperature": 1.0}, OLD, {}),
        ({"temperature": 0.5}, NEW, {}),
        ({"temperature": 1.5}, OLD, {}),
        ({"top_p": 0.5}, OLD, {"top_p": 0.5, "thinking": {"type": "disabled"}}),
        ({"temperature": 0.2, "top_p": 0.5}, OLD,
         {"temperature": 0.2, "thinking": {"type": "disabled"}}),
        ({"stop": ("a", " ", "b")}, OLD, {"stop_sequences": ["a", "b"]}),
        ({"stop": ("\n",)}, OLD, {}),
        ({"effort": "none"}, OLD, {"thinking": {"type": "disabled"}}),
        ({"effort": "none"}, NEW, {}),
        ({"effort": "high"}, NEW, {}),
        ({"effort": "high"}, OLD, {"thinking": {"type": "enabled", "budget_tokens": 16384}}),
        ({"effort": "high", "max_tokens": 4000}, OLD,
         {"thinking": {"type": "enabled", "budget_tokens": 3999}}),
        ({"effort": "high", "max_tokens": 500}, OLD, {"thinking": {"type": "disabled"}}),
        ({"max_tokens": 55}, OLD, {"thinking": {"type": "disabled"}}),
        ({"tool_choice": ToolChoice("any")}, OLD, {}),
        ({"tool_choice": ToolChoice("any"), "tools": (LOOK,)}, OLD,
         {"tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}),
        ({"tool_choice": ToolChoice("tool", "look", parallel=False), "tools": (LOOK,)}, OLD,
         {"tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
          "thinking": {"type": "disabled"}}),
        ({"tool_choice": ToolChoice("none", parallel=False), "tools": (LOOK,)}, OLD,
         {"tool_choice": {"type": "none"}}),
        ({"tools": (LOOK,)}, OLD, {}),
        ({"schema": {"type": "object"}}, NEW,
         {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
    ],
)  # fmt: skip
def test_the_body(fields: Any, model: ModelInfo, expected: Any) -> None:
    assert body(model, **fields) == expected


def test_a_schema_by_tool_forces_that_tool() -> None:
    assert body(schema={"type": "object"}, schema_by_tool=True) == {
        "tool_choice": {"type": "tool", "name": "StructuredOutput"},
        "thinking": {"type": "disabled"},
    }


@pytest.mark.parametrize(
    ("fields", "model", "ignored"),
    [
        ({"temperature": 0.5}, NEW, ("temperature",)),
        ({"temperature": 1.5}, OLD, ("temperature",)),
        ({"temperature": 0.5, "top_p": 0.5}, NEW, ("temperature", "top_p")),
        ({"temperature": 0.5, "top_p": 0.5}, OLD, ("top_p",)),
        ({"temperature": 1}, NEW, ()),
    ],
)
def test_what_a_model_cannot_honour_is_named(fields: Any, model: Any, ignored: Any) -> None:
    assert turn_settings(asked(**fields), model).ignored == ignored


@pytest.mark.parametrize(
    ("effort", "efforts", "level"),
    [
        (None, EFFORTS, None),
        ("high", EFFORTS, "high"),
        ("high", (), None),
        ("none", EFFORTS, "low"),
        ("max", ("low", "medium", "high"), "high"),
        ("low", ("medium", "high"), "medium"),
    ],
)
def test_effort(effort: Any, efforts: tuple[str, ...], level: Any) -> None:
    model = ModelInfo("m", "m", "m", efforts, adaptive=True)
    assert turn_settings(asked(effort=effort), model).flags["effortLevel"] == level


@settings(deadline=None)
@given(
    st.sampled_from([None, "none", *BUDGETS]),
    st.none() | st.integers(0, 40_000),
    st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([ToolChoice("any"), ToolChoice("auto"), ToolChoice("tool", "look")]),
    st.sampled_from([OLD, NEW]),
)
def test_thinking_never_excludes_what_is_sent(
    effort: Any, room: int | None, temperature: float | None, choice: ToolChoice, model: ModelInfo
) -> None:
    """What the API refuses together is never sent together."""
    sent = body(model, effort=effort, max_tokens=room, temperature=temperature,
                tool_choice=choice, tools=(LOOK,))  # fmt: skip
    thinking = sent.get("thinking", {"type": "disabled"})
    if thinking["type"] == "enabled":
        assert thinking["budget_tokens"] >= MIN_BUDGET
        assert room is None or thinking["budget_tokens"] < room
        assert "temperature" not in sent
        assert sent.get("tool_choice", {"type": "auto"})["type"] == "auto"
    if "temperature" in sent:
        assert sent["thinking"] == {"type": "disabled"}


# -- models --


def test_models_without_a_name_are_passed_over() -> None:
    assert [m.name for m in parse_models([*MODELS, {}, {"value": 5}])] == [
        "default", "opus", "sonnet", "haiku",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "adaptive", "thinking_off"),
    [
        ("claude-3-5-haiku-20241022", False, True),
        ("claude-sonnet-4-5-20250929", False, True),
        ("claude-opus-4-6", True, True),
        ("claude-opus-4-7", True, False),
        ("claude-opus-5", True, False),
        ("opus", True, False),
    ],
)
def test_a_guess(name: str, adaptive: bool, thinking_off: bool) -> None:
    model = guess_model(name)
    assert (model.adaptive, model.thinking_off) == (adaptive, thinking_off)


# -- tools --


def test_an_empty_schema_becomes_that_of_an_object() -> None:
    assert definition(Tool("a", "", {}))["inputSchema"] == {"type": "object", "properties": {}}
    assert definition(Tool("a", "", {"properties": {}}))["inputSchema"]["type"] == "object"


def test_the_clients_schema_is_not_changed() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"description": "kept"}}}
    definition(Tool("a", "d" * 5000, schema))
    assert schema == {"properties": {"a": {"description": "kept"}}}


def test_a_long_description_arrives_whole() -> None:
    words = "first line\n" + "word " * 1000
    tool = definition(Tool("a", words, {"type": "object", "description": "own"}))
    assert len(json.dumps(tool["description"])) <= MAX_DESCRIPTION
    assert words in tool["inputSchema"]["description"]
    assert tool["inputSchema"]["description"].endswith("own")


def test_an_unknown_method_is_an_error() -> None:
    answer = ToolServer().handle({"jsonrpc": "2.0", "id": 5, "method": "resources/list"})
    assert (answer["id"], answer["error"]["code"]) == (5, -32601)


PICTURE = Image({"type": "base64", "media_type": "image/png", "data": "AAAA"})


@pytest.mark.parametrize(
    ("content", "is_error", "kept"),
    [
        ((Text("x"),), False, True),
        ((Text("x"), PICTURE), False, True),
        ((), False, False),
        ((Text("x"),), True, False),
        ((Image({"type": "url", "url": "https://a.example"}),), False, False),
        ((Document({"type": "text", "data": "x"}),), False, False),
        ((Text("x" * 300_000),), False, False),
        ((Text("€" * 200_000),), False, None),
    ],
)
def test_what_a_parked_call_delivers_word_for_word(
    content: Any, is_error: bool, kept: bool | None
) -> None:
    answer = verbatim(ToolResult("t", content, is_error))
    assert kept is None or answer is kept


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


# -- errors --


@pytest.mark.parametrize(
    ("text", "status", "reason", "kind", "http"),
    [
        ("API Error: 400 messages: bad", 400, None, Kind.INVALID, 400),
        ("Failed to authenticate. API Error: 401 no", 401, None, Kind.AUTHENTICATION, 401),
        ("API Error: 403 no", 403, None, Kind.PERMISSION, 403),
        ("API Error: 404 no such model", 404, None, Kind.MODEL_NOT_FOUND, 404),
        ("API Error: 404 nothing", 404, None, Kind.NOT_FOUND, 404),
        ("API Error: 413 large", 413, None, Kind.TOO_LARGE, 413),
        ("API Error: 418 teapot", 418, None, Kind.INVALID, 400),
        ("API Error: Request rejected (429) · slow", 429, None, Kind.RATE_LIMIT, 429),
        ("API Error: 500 oops", 500, None, Kind.UPSTREAM, 500),
        ("API Error: 529 busy", 529, None, Kind.OVERLOADED, 529),
        ("API Error: Connection error.", None, None, Kind.UPSTREAM, 502),
        ("Prompt is too long", None, None, Kind.CONTEXT_LENGTH, 400),
        ("", None, "prompt_too_long", Kind.CONTEXT_LENGTH, 400),
        ("Not logged in · Please run /login", None, None, Kind.AUTHENTICATION, 401),
        ("", None, None, Kind.UPSTREAM, 502),
    ],
)
def test_errors(text: str, status: Any, reason: Any, kind: Kind, http: int) -> None:
    failure = classify(text, status, reason, None, 0.0)
    assert (failure.kind, failure.status) == (kind, http)
    assert failure.message
    assert "API Error" not in failure.message


def test_a_plan_limit_tells_when_it_is_over() -> None:
    window = {"status": "rejected", "rateLimitType": "five_hour", "resetsAt": 1500}
    failure = classify("API Error: 429", 429, None, window, 1000.0)
    assert (failure.kind, failure.status, failure.retry_after) == (Kind.PLAN_LIMIT, 429, 500.0)
    assert "five hour" in failure.message
    past = classify("API Error: 429", 429, None, {**window, "resetsAt": 5}, 1000.0)
    assert past.retry_after == 1.0


def test_a_window_without_a_type_is_no_plan_limit() -> None:
    assert classify("API Error: 429", 429, None, {"status": "rejected"}, 0.0).kind is (
        Kind.RATE_LIMIT
    )


# -- launch --


@pytest.mark.parametrize("said", ["2.1.290", "2.1.330 (Claude Code)", "3.0.0", "2.2.1"])
def test_versions_that_do(said: str) -> None:
    assert launch.parse_version(said, "claude") == said.split(" ")[0]


@pytest.mark.parametrize("said", ["2.1.289", "2.0.999", "1.9.9", "", "ls (GNU) 9.4", "v2.1.330"])
def test_versions_that_do_not(said: str) -> None:
    with pytest.raises(launch.CLIError) as refused:
        launch.parse_version(said, "claude")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("output", "logged_in"),
    [
        (b'{"loggedIn": true}', True),
        (b'{"loggedIn": false, "authMethod": "none"}', False),
        (b'{"loggedIn": "yes"}', None),
        (b"{}", None),
        (b"[]", None),
        (b"error: \xff", None),
        (b"", None),
    ],
)
def test_login(output: bytes, logged_in: bool | None) -> None:
    assert launch.parse_login(output) is logged_in


def test_the_cli_is_found(tmp_path: Path) -> None:
    path = fake_cli(tmp_path)
    assert launch.find(path) == path
    assert launch.find(None, str(tmp_path)) == path
    with pytest.raises(launch.CLIError, match="no Claude CLI at /nowhere"):
        launch.find("/nowhere")


def test_the_double_has_a_version(tmp_path: Path) -> None:
    assert launch.check_version(fake_cli(tmp_path), {}) == "2.1.330"
