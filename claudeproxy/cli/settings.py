"""What a request asks of model and API, as the CLI's ``apply_flag_settings`` takes it.

``env`` merges over what an earlier turn of the process set, so every variable is sent every time.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

from claudeproxy.messages import Request

from .models import ModelInfo
from .tools import SCHEMA_TOOL

BUDGETS = {"low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 31_999}
"""Thinking tokens per effort, for the models that think within a budget."""

MIN_BUDGET = 1_024
"""The API's smallest thinking budget; it has to be below ``max_tokens`` too."""


RELEASE = {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000"}
"""The CLI's own limit of a conversation's tokens, out of the way: upstream knows the real one."""

BRAKE = {"env": {"CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "1"}}
"""Applied once an answer has begun: whatever the CLI would ask of itself afterwards (after
``max_tokens``, a broken call, a closed pipe while parked) it then refuses as too long."""


@frozen
class TurnSettings:
    """``flags``: the settings object to apply; ``ignored``: the fields of the request that this
    model cannot honour, by their Messages API names."""

    flags: dict[str, Any]
    ignored: tuple[str, ...]


def turn_settings(
    request: Request, model: ModelInfo, *, schema_by_tool: bool = False
) -> TurnSettings:
    """The settings of one turn. Where thinking excludes what was asked, thinking gives way.

    ``schema_by_tool``: the schema is bound by the CLI's tool, not by the API.
    """
    body: dict[str, Any] = {}
    ignored: list[str] = []
    thinking = _thinking(request, model)
    choice = _tool_choice(request)
    if schema_by_tool and not request.tools:
        choice = {"type": "tool", "name": SCHEMA_TOOL}
    if choice and choice["type"] in ("any", "tool"):
        thinking = {"type": "disabled"}
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is None or value == 1:
            continue  # 1 is what the API does anyway, and goes with thinking
        if not model.thinking_off or value > 1:
            ignored.append(name)
            continue
        body[name] = value
        thinking = {"type": "disabled"}
    if "temperature" in body and "top_p" in body:
        # The API takes only one of the two on current models.
        del body["top_p"]
        ignored.append("top_p")
    if thinking:
        body["thinking"] = thinking
    stops = [stop for stop in request.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    if choice:
        body["tool_choice"] = choice
    if request.schema and not schema_by_tool:
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
    order = list(BUDGETS)
    if request.effort == "none":
        return model.efforts[0]
    rank = order.index(request.effort)
    lower = [e for e in model.efforts if e in order and order.index(e) <= rank]
    return lower[-1] if lower else model.efforts[0]


def _thinking(request: Request, model: ModelInfo) -> dict[str, Any] | None:
    if request.effort == "none" and model.thinking_off:
        return {"type": "disabled"}
    if model.adaptive:
        return None
    room = request.max_tokens
    if room is not None and room <= MIN_BUDGET:
        return {"type": "disabled"}
    if request.effort in BUDGETS:
        budget = BUDGETS[request.effort]
        return {
            "type": "enabled",
            "budget_tokens": budget if room is None else max(MIN_BUDGET, min(budget, room - 1)),
        }
    return None


def _tool_choice(request: Request) -> dict[str, Any] | None:
    choice = request.tool_choice
    if not request.tools or (choice.mode == "auto" and choice.parallel):
        return None
    wire: dict[str, Any] = {"type": choice.mode}
    if choice.mode == "tool":
        wire["name"] = choice.name
    if not choice.parallel and choice.mode != "none":
        wire["disable_parallel_tool_use"] = True
    return wire
