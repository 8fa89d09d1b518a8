"""Responses: ``tools`` and ``tool_choice``."""

from __future__ import annotations

import re
from typing import Any

from claudeproxy.messages import Tool, ToolChoice

from .custom_tools import Custom, add_custom_tool, grammar_of
from .fields import Fields
from .shared import MODES, add_tool, allowed_tools, named_tool, note, unless_direct

_KIND = re.compile(r"\w{1,64}", re.ASCII)


def read_tools(body: Fields, ignored: list[str]) -> tuple[tuple[Tool, ...], Custom]:
    """The tools that can be called here, and those of them that are custom tools. The types of all
    others are added to ``ignored``."""
    tools: dict[str, Tool] = {}
    custom: dict[str, dict[str, Any]] = {}
    for entry in body.objects("tools"):
        kind = entry.text("type")
        if kind == "function":
            # Some clients (Cursor) send the nested object of chat completions.
            function = entry.object("function") if "function" in entry else entry
            add_tool(tools, function, ignored)
            _unheeded(function, ignored)
        elif kind == "custom":
            echoed = add_custom_tool(tools, entry, ignored, grammar_of(entry))
            custom[echoed["name"]] = echoed
            _unheeded(entry, ignored)
        elif _KIND.fullmatch(kind):
            note(ignored, f"tools.{kind}")
        else:
            raise entry.refuse("type", "must be a word")
    return tuple(tools.values()), custom


def _unheeded(tool: Fields, ignored: list[str]) -> None:
    for name in ("async", "defer_loading", "output_schema"):
        if tool.raw(name):
            note(ignored, f"tools.{name}")
    unless_direct(tool, ignored)


def read_choice(body: Fields, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and whether one must be."""
    parallel = body.flag("parallel_tool_calls", True)
    value = body.raw("tool_choice")
    if value is None:
        return tools, ToolChoice(parallel=parallel)
    if isinstance(value, str):
        mode = body.choice("tool_choice", tuple(MODES))
        if mode == "required" and not tools:
            raise body.refuse("tool_choice", "none of the tools can be called here")
        return tools, ToolChoice(MODES[mode], parallel=parallel)
    choice = body.object("tool_choice")
    if choice.text("type") == "allowed_tools":
        names = [entry.text("name", "") for entry in choice.objects("tools")]
        return allowed_tools(tools, choice, names, parallel)
    if choice.text("type") not in ("function", "custom"):
        raise choice.refuse("type", "only functions and custom tools can be called here")
    function = choice.object("function") if "function" in choice else choice
    return tools, named_tool(tools, function, parallel)
