"""Fields that several dialects spell alike: tools, efforts, limits, schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from claudeproxy.messages import Effort, Tier, Tool, ToolChoice, tool_schema

from .fields import Fields

OPENAI_EFFORTS: Mapping[str, Effort] = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""OpenAI's reasoning efforts, and ours for them."""

MODES: Mapping[str, Any] = {"none": "none", "auto": "auto", "required": "any"}
"""OpenAI's tool choices, and ours for them."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def model_name(body: Fields) -> str:
    """The required, non-empty ``model``."""
    model = body.text("model")
    if not model:
        raise body.refuse("model", "is required")
    return model


def add_tool(
    tools: dict[str, Tool], function: Fields, ignored: list[str], schema: str = "parameters"
) -> None:
    """Add a tool; ``schema``: the name of the field with the JSON schema of its arguments."""
    name = tool_name(tools, function)
    given = function.raw(schema)
    parameters = {} if given is None else given
    kind = Fields(parameters, function.at(schema)).raw("type")
    if parameters and kind not in (None, "object"):
        where = f"{schema}.type"
        raise function.refuse(where, "a tool's parameters must be of type 'object'")
    if function.flag("strict"):
        note(ignored, "tools.strict")
    sent = tool_schema(parameters, function.at(schema))
    tools[name] = Tool(name, function.text("description", ""), sent)


def tool_name(tools: Mapping[str, Tool], function: Fields) -> str:
    """The name of another tool, which must be new."""
    name = function.text("name")
    if not _TOOL_NAME.fullmatch(name):
        raise function.refuse("name", "must be 1 to 128 letters, digits, '_' or '-'")
    if name in tools:
        raise function.refuse("name", f"there are two tools called {name!r}")
    return name


def named_tool(tools: Iterable[Tool], function: Fields, parallel: bool) -> ToolChoice:
    """The choice of the tool whose name ``function`` holds."""
    name = function.text("name")
    if all(tool.name != name for tool in tools):
        raise function.refuse("name", f"there is no tool called {name!r}")
    return ToolChoice("tool", name, parallel)


def allowed_tools(
    tools: Iterable[Tool], allowed: Fields, names: Sequence[str], parallel: bool
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """OpenAI's ``allowed_tools``: the tools that are named, and whether one of them must be
    called."""
    mode = allowed.choice("mode", ("auto", "required"), "auto")
    wanted = frozenset(names)
    chosen = tuple(tool for tool in tools if tool.name in wanted)
    if not chosen:
        raise allowed.refuse("tools", "names none of the tools")
    return chosen, ToolChoice(MODES[mode], parallel=parallel)


def effort(body: Fields, name: str) -> Effort | None:
    """One of OpenAI's efforts, or ``None`` when absent."""
    return OPENAI_EFFORTS[body.choice(name, tuple(OPENAI_EFFORTS))] if name in body else None


def limit(body: Fields, names: Iterable[str], ignored: list[str]) -> int | None:
    """The first limit of tokens that is given. The test suites of SDKs send 0, which means none."""
    for name in names:
        tokens = body.integer(name, 0)
        if tokens:
            return tokens
        if tokens == 0:
            ignored.append(name)
    return None


def json_schema(holder: Fields) -> Mapping[str, Any]:
    """The required field ``schema``, with the ``description`` beside it unless it has its own."""
    schema = holder.raw("schema")
    if not isinstance(schema, dict) or not schema:
        raise holder.refuse("schema", "must be a JSON schema")
    description = holder.text("description", "")
    return {"description": description, **schema} if description else schema


def usage_wanted(body: Fields) -> bool | None:
    """``stream_options.include_usage``; ``None`` if it is not given."""
    if "stream_options" not in body:
        return None
    options = body.object("stream_options")
    return options.flag("include_usage") if "include_usage" in options else None


def note(ignored: list[str], name: str) -> None:
    """Add the name of an ignored field, unless it is there."""
    if name not in ignored:
        ignored.append(name)


def unless_direct(tool: Fields, ignored: list[str]) -> None:
    """Name ``allowed_callers`` if others than the model itself are among them."""
    if tool.raw("allowed_callers") not in (None, ["direct"]):
        note(ignored, "tools.allowed_callers")


def tier(body: Fields, ignored: list[str]) -> Tier:
    """The ``service_tier``; those of OpenAI's that make no difference here are ``default``."""
    asked = body.choice(
        "service_tier", ("auto", "default", "flex", "priority", "scale", "standard"), "auto"
    )
    if asked == "scale":
        ignored.append("service_tier")
    return "flex" if asked == "flex" else "priority" if asked == "priority" else "default"
