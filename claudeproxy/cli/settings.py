"""The settings of a turn, as the CLI's ``apply_flag_settings`` accepts them.

``env`` is merged into what an earlier turn of the process has set, so each turn sends all
variables.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from claudeproxy.messages import BUDGETS, EFFORTS, MIN_BUDGET, Request

from .altered import integers_change, texts_change
from .models import ModelInfo, most_tokens
from .names import ToolNames

RELEASE = {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000"}
"""Raises the CLI's own limit of a conversation's tokens out of reach: the upstream knows the real
one."""

BRAKE = {"env": {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "1"}}
"""Applied once an answer has begun. Whatever the CLI would then ask by itself (after
``max_tokens``, a broken call, a closed pipe while parked), it refuses as too long."""


@frozen
class TurnSettings:
    """``flags``: the settings to apply; ``ignored``: the fields of the request that the model
    cannot honour, by their names in the Messages API."""

    flags: dict[str, Any]
    ignored: tuple[str, ...]


def turn_settings(
    request: Request, model: ModelInfo, names: ToolNames | None = None
) -> TurnSettings:
    """The settings of one turn. Where thinking excludes what is asked for, it is switched off.

    ``names``: the upstream names of its tools.
    """
    body: dict[str, Any] = {}
    ignored: list[str] = []
    if request.max_tokens and request.max_tokens > most_tokens(model.resolved):
        ignored.append("max_tokens")
    for tool in request.tools:
        told = [tool.description, tool.parameters]
        for name, changes in (("tools.text", texts_change), ("tools.integers", integers_change)):
            if name not in ignored and changes(told):
                ignored.append(name)
    thinking = _thinking(request, model)
    choice = _tool_choice(request, names or ToolNames.of(request.tools))
    if choice and choice["type"] in ("any", "tool"):
        thinking = {"type": "disabled"}
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is None or value == 1:
            continue  # 1 is the API's default, and compatible with thinking
        if not model.thinking_off or value > 1:
            ignored.append(name)
            continue
        body[name] = value
        thinking = {"type": "disabled"}
    if "temperature" in body and "top_p" in body:
        # Current models accept only one of the two.
        del body["top_p"]
        ignored.append("top_p")
    if thinking:
        body["thinking"] = thinking
    stops = [stop for stop in request.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    if choice:
        body["tool_choice"] = choice
    if request.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(request.schema)}}
    flags = {
        "model": model.name,
        "effortLevel": _effort(request, model),
        "env": {
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request.max_tokens or ""),
            "CLAUDE_CODE_EXTRA_BODY": json.dumps(body),
            **RELEASE,
        },
    }
    return TurnSettings(flags, tuple(ignored))


def _effort(request: Request, model: ModelInfo) -> str | None:
    if request.effort is None or not model.efforts:
        return None
    if request.effort in model.efforts:
        return request.effort
    if request.effort == "none":
        return model.efforts[0]
    up_to = EFFORTS[: EFFORTS.index(request.effort) + 1]
    lower = [level for level in model.efforts if level in up_to]
    return lower[-1] if lower else model.efforts[0]


def _thinking(request: Request, model: ModelInfo) -> dict[str, Any] | None:
    if request.effort == "none" and model.thinking_off:
        return {"type": "disabled"}
    if model.adaptive:
        return None
    room = request.max_tokens
    if room is not None and room <= MIN_BUDGET:
        return {"type": "disabled"}
    if request.effort is not None and request.effort in BUDGETS:
        budget = BUDGETS[request.effort]
        return {
            "type": "enabled",
            "budget_tokens": budget if room is None else max(MIN_BUDGET, min(budget, room - 1)),
        }
    return None


def _tool_choice(request: Request, names: ToolNames) -> dict[str, Any] | None:
    choice = request.tool_choice
    if not request.tools or (choice.mode == "auto" and choice.parallel):
        return None
    wire: dict[str, Any] = {"type": choice.mode}
    if choice.mode == "tool":
        assert choice.name is not None
        wire["name"] = names.upstream(choice.name)
    if not choice.parallel and choice.mode != "none":
        wire["disable_parallel_tool_use"] = True
    return wire
