"""Settings, models and launch, by values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.cli import account_query, launch
from claudeproxy.cli.models import ModelInfo, guess_model, parse_models
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.settings import turn_settings
from claudeproxy.messages import (
    BUDGETS,
    EFFORTS,
    MIN_BUDGET,
    Message,
    Request,
    Text,
    Tool,
    ToolChoice,
)
from claudeproxy.testing import MODELS, fake_cli

OLD = ModelInfo("claude-sonnet-4-5", "claude-sonnet-4-5")
NEW = ModelInfo("opus", "claude-opus-5-5", "Opus", EFFORTS, adaptive=True, thinking_off=False)
LOOK = Tool("look", "Looks.", {"type": "object"})
HALF = Tool("half", "", {"properties": {"a": {"title": "½"}}})
HUGE = Tool("huge", "", {"properties": {"a": {"default": 2**53 + 1}}})
UPSTREAM = ToolNames.of((LOOK,)).upstream("look")


def asked(**fields: Any) -> Request:
    return Request("opus", (Message("user", (Text("x"),)),), **fields)


# -- settings --


def body(model: ModelInfo = OLD, **fields: Any) -> Any:
    flags = turn_settings(asked(**fields), model).flags
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
        ({"effort": "none"}, evolve(OLD, thinking_off=False), {}),
        ({"effort": "high"}, NEW, {}),
        ({"effort": "high"}, OLD, {"thinking": {"type": "enabled", "budget_tokens": 16384}}),
        ({"effort": "high", "max_tokens": 4000}, OLD,
         {"thinking": {"type": "enabled", "budget_tokens": 3999}}),
        ({"effort": "high", "max_tokens": 500}, OLD, {"thinking": {"type": "disabled"}}),
        ({"effort": "high", "max_tokens": MIN_BUDGET}, OLD, {"thinking": {"type": "disabled"}}),
        ({"effort": "high", "max_tokens": MIN_BUDGET + 1}, OLD,
         {"thinking": {"type": "enabled", "budget_tokens": MIN_BUDGET}}),
        ({"max_tokens": 55}, OLD, {"thinking": {"type": "disabled"}}),
        ({"tool_choice": ToolChoice("any")}, OLD, {}),
        ({"tool_choice": ToolChoice("any"), "tools": (LOOK,)}, OLD,
         {"tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}),
        ({"tool_choice": ToolChoice("tool", "look", parallel=False), "tools": (LOOK,)}, OLD,
         {"tool_choice": {"type": "tool", "name": UPSTREAM, "disable_parallel_tool_use": True},
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


def test_a_choice_under_plain_names() -> None:
    request = asked(tools=(LOOK,), tool_choice=ToolChoice("tool", "look"))
    flags = turn_settings(request, OLD, ToolNames.of((LOOK,), plain=True)).flags
    choice = json.loads(flags["env"]["CLAUDE_CODE_EXTRA_BODY"])["tool_choice"]
    assert choice == {"type": "tool", "name": "look"}


@pytest.mark.parametrize(
    ("fields", "model", "ignored"),
    [
        ({"temperature": 0.5}, NEW, ("temperature",)),
        ({"temperature": 1.5}, OLD, ("temperature",)),
        ({"temperature": 0.5, "top_p": 0.5}, NEW, ("temperature", "top_p")),
        ({"temperature": 0.5, "top_p": 0.5}, OLD, ("top_p",)),
        ({"temperature": 1}, NEW, ()),
        ({"max_tokens": 64_000}, OLD, ()),
        ({"max_tokens": 64_001}, OLD, ("max_tokens",)),
        ({"tools": (LOOK,)}, NEW, ()),
        ({"tools": (LOOK, HALF, HALF, HUGE)}, NEW, ("tools.text", "tools.integers")),
        ({"tools": (evolve(LOOK, description="½"),), "temperature": 0.5, "max_tokens": 200_000},
         NEW, ("max_tokens", "tools.text", "temperature")),
    ],
)  # fmt: skip
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
        ("medium", ("low", "high"), "low"),
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


# -- launch --


@pytest.mark.parametrize("said", ["2.1.290", "2.1.330 (Claude Code)", "3.0.0", "2.2.1"])
def test_versions_that_do(said: str) -> None:
    assert launch.parse_version(said, "claude") == said.split(" ")[0]


def test_a_wrapper_may_print_before_the_version() -> None:
    assert launch.parse_version("Welcome!\n[]\n2.1.330 (Claude Code)", "claude") == "2.1.330"


@pytest.mark.parametrize("said", ["2.1.289", "2.0.999", "1.9.9", "", "ls (GNU) 9.4", "v2.1.330"])
def test_versions_that_do_not(said: str) -> None:
    with pytest.raises(launch.CLIError) as refused:
        launch.parse_version(said, "claude")
    assert "\n" not in str(refused.value)


def test_its_environment_is_an_allow_list_and_switches() -> None:
    environ = {
        "HOME": "/home/a",
        "LC_ALL": "C",
        "ANTHROPIC_API_KEY": "stray",
        "CLAUDE_CODE_MAX_RETRIES": "99",
        "CLAUDE_CODE_OAUTH_TOKEN": "token",
        "SECRET": "x",
    }
    given = launch.environment(environ)
    assert (given["HOME"], given["LC_ALL"]) == ("/home/a", "C")
    assert given["CLAUDE_CODE_OAUTH_TOKEN"] == "token"
    assert "ANTHROPIC_API_KEY" not in given and "SECRET" not in given
    assert given["CLAUDE_CODE_MAX_RETRIES"] == "0"
    assert given["CLAUDE_CODE_NO_MODEL_FALLBACK"] == "1"
    assert given["ENABLE_CLAUDEAI_MCP_SERVERS"] == "false"
    assert "CLAUDE_AGENT_SDK_MCP_NO_PREFIX" not in given
    plain = launch.environment(environ, plain_names=True)
    assert plain == {**given, "CLAUDE_AGENT_SDK_MCP_NO_PREFIX": "1"}


def test_no_login_is_in_reach_of_another_upstream() -> None:
    upstream = launch.Upstream("http://u", "key", "/empty")
    given = launch.environment({"CLAUDE_CODE_OAUTH_TOKEN": "token", "HOME": "/h"}, upstream)
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in given
    assert (given["ANTHROPIC_BASE_URL"], given["ANTHROPIC_API_KEY"]) == ("http://u", "key")
    assert given["CLAUDE_CONFIG_DIR"] == "/empty"


def test_no_other_session_may_speak_to_ours() -> None:
    place = launch.ARGUMENTS.index("--settings")
    assert json.loads(launch.ARGUMENTS[place + 1]) == {"crossSessionInbound": "refuse"}


def test_the_cli_is_found(tmp_path: Path) -> None:
    path = fake_cli(tmp_path)
    assert launch.find(path) == path
    assert launch.find(None, str(tmp_path)) == path
    with pytest.raises(launch.CLIError, match="no Claude CLI at /nowhere"):
        launch.find("/nowhere")


def test_the_double_has_a_version(tmp_path: Path) -> None:
    assert launch.check_version(fake_cli(tmp_path), {}) == "2.1.330"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\nprintf '\\377\\n'\n", "is not the Claude CLI: --version printed '\ufffd'"),
        ("#!/usr/bin/env no-such-node\n", "does not run: .*no-such-node.*: No such file"),
        ("#!/no/such/program\n", "does not run: No such file or directory$"),
    ],
)
def test_what_is_no_cli_is_told_in_a_line(script: str, why: str, tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text(script)
    program.chmod(0o755)
    with pytest.raises(launch.CLIError, match=why) as caught:
        launch.check_version(str(program), {"PATH": os.environ["PATH"], "LC_ALL": "C"})
    assert "\n" not in str(caught.value)


def test_a_cli_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its version nor whose login it finds is waited for without end."""
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(launch, "PATIENCE", 0.5)
    monkeypatch.setattr(account_query, "PATIENCE", 0.5)
    with pytest.raises(launch.CLIError, match="did not tell its version in"):
        launch.check_version(str(program), {"PATH": os.environ["PATH"]})
    told = account_query.ask(str(program), {"PATH": os.environ["PATH"]}, str(tmp_path))
    assert told is None
