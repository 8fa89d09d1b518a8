"""Fields that several dialects spell alike: tools, efforts, limits, schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from claudeproxy.messages import Effort, Tool, ToolChoice

from .fields import Fields

EFFORTS: Mapping[str, Effort] = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""OpenAI's reasoning efforts."""

MODES: Mapping[str, Any] = {"none": "none", "auto": "auto", "required": "any"}
"""OpenAI's words for a tool choice."""

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
    """Take in a tool; ``schema`` names the field with the JSON schema of its arguments."""
    name = function.text("name")
    if not _TOOL_NAME.fullmatch(name):
        raise function.refuse("name", "must be 1 to 128 letters, digits, '_' or '-'")
    if name in tools:
        raise function.refuse("name", f"there are two tools called {name!r}")
    given = function.raw(schema)
    parameters = {} if given is None else given
    kind = Fields(parameters, function.at(schema)).raw("type")
    if parameters and kind not in (None, "object"):
        where = f"{schema}.type"
        raise function.refuse(where, "a tool's parameters must be of type 'object'")
    if function.flag("strict"):
        note(ignored, "tools.strict")
    tools[name] = Tool(name, function.text("description", ""), parameters)


def named_tool(tools: Iterable[Tool], function: Fields, parallel: bool) -> ToolChoice:
    """The choice of the tool whose name ``function`` holds."""
    name = function.text("name")
    if all(tool.name != name for tool in tools):
        raise function.refuse("name", f"none of the tools is called {name!r}")
    return ToolChoice("tool", name, parallel)


def allowed_tools(
    tools: Iterable[Tool], allowed: Fields, names: Sequence[str], parallel: bool
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """OpenAI's ``allowed_tools``: those of the tools that are named, and whether one must be
    called."""
    mode = allowed.choice("mode", ("auto", "required"), "auto")
    chosen = tuple(tool for tool in tools if tool.name in names)
    if not chosen:
        raise allowed.refuse("tools", "names none of the tools")
    return chosen, ToolChoice(MODES[mode], parallel=parallel)


def effort(body: Fields, name: str) -> Effort | None:
    """One of OpenAI's efforts, or ``None`` when absent."""
    return EFFORTS[body.choice(name, tuple(EFFORTS))] if name in body else None


def limit(body: Fields, names: Iterable[str], ignored: list[str]) -> int | None:
    """The first limit of tokens that is given; SDKs' own suites send 0, which means none."""
    for name in names:
        tokens = body.whole(name, 0)
        if tokens:
            return tokens
        if tokens == 0:
            ignored.append(name)
    return None


def json_schema(holder: Fields) -> Mapping[str, Any]:
    """The required field ``schema``."""
    schema = holder.raw("schema")
    if not isinstance(schema, dict) or not schema:
        raise holder.refuse("schema", "must be a JSON schema")
    return cast(Mapping[str, Any], schema)


def usage_wanted(body: Fields) -> bool | None:
    """``stream_options.include_usage``; ``None`` when it is not given."""
    if "stream_options" not in body:
        return None
    options = body.object("stream_options")
    return options.flag("include_usage") if "include_usage" in options else None


def note(ignored: list[str], name: str) -> None:
    """Name an ignored field, once."""
    if name not in ignored:
        ignored.append(name)


def given(body: Fields, fields: Mapping[str, str]) -> list[str]:
    """The fields of ``body`` that the table ``fields`` says are ignored."""
    return [
        name
        for name, policy in fields.items()
        if policy.startswith("ignored") and body.raw(name) not in (None, False)
    ]
