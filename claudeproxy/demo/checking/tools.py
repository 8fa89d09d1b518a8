"""What the Messages API refuses in `tools` and `tool_choice`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from claudeproxy.demo.checking.basics import (
    boolean,
    cache_control,
    fields,
    items,
    need,
    one_of,
    string,
)

_CUSTOM = (
    "type",
    "description",
    "cache_control",
    "strict",
    "defer_loading",
    "allowed_callers",
    "eager_input_streaming",
    "input_examples",
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_SERVER_TYPE = re.compile(r"\w+_\d{8}|mcp_toolset")

_CHOICES: Mapping[str, Collection[str]] = {
    "auto": ["disable_parallel_tool_use"],
    "any": ["disable_parallel_tool_use"],
    "tool": ["disable_parallel_tool_use"],
    "none": [],
}


def check_tools(tools: Any) -> None:
    """Refuse invalid tools; server tools (`web_search_20250305`, …) are taken as they are."""
    names = []
    for index, tool in enumerate(items(tools, "tools")):
        path = f"tools.{index}"
        need(isinstance(tool, Mapping), f"{path}: Input should be an object")
        if tool.get("type", "custom") in ("custom", None):
            _check_custom(tool, f"{path}.custom")
        else:
            known = isinstance(tool["type"], str) and _SERVER_TYPE.fullmatch(tool["type"])
            need(
                known,
                f"{path}: Input tag '{tool['type']}' found using 'type' does not match any of the "
                "expected tags: 'custom', 'web_search_20250305', …",
            )
        names.append(tool.get("name"))
    need(len(names) == len(set(names)), "tools: Tool names must be unique.")


def check_tool_choice(choice: Any, tools: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a choice of the wrong shape, of a tool that is not there, or without any tools."""
    fields(choice, "tool_choice", ["type"], ["name", "disable_parallel_tool_use"])
    kind = choice["type"]
    one_of(kind, "tool_choice.type", _CHOICES)
    named = ["name"] if kind == "tool" else []
    fields(choice, f"tool_choice.{kind}", ["type", *named], _CHOICES[kind])
    boolean(choice.get("disable_parallel_tool_use", False), "tool_choice.disable_parallel_tool_use")
    need(tools, "tool_choice: tool_choice may only be specified while providing tools")
    if kind == "tool":
        name = choice["name"]
        offered = any(tool.get("name") == name for tool in tools)
        need(offered, f"tool_choice: Tool '{name}' not found in provided tools")


def _check_custom(tool: Mapping[str, Any], path: str) -> None:
    fields(tool, path, ["name", "input_schema"], _CUSTOM)
    cache_control(tool, path)
    string(tool["name"], f"{path}.name")
    valid = _NAME.fullmatch(tool["name"])
    need(valid, f"{path}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if tool.get("description") is not None:
        string(tool["description"], f"{path}.description")
    schema = tool["input_schema"]
    path = f"{path}.input_schema"
    need(isinstance(schema, Mapping), f"{path}: Input should be a valid dictionary")
    need("type" in schema, f"{path}.type: Field required")
    one_of(schema["type"], f"{path}.type", ["object"])
    union = any(name in schema for name in ("oneOf", "allOf", "anyOf"))
    message = "input_schema does not support oneOf, allOf, or anyOf at the top level"
    need(not union, f"{path}: {message}")
    for name in schema.get("properties") or {}:
        need(
            _PROPERTY.fullmatch(name),
            f"{path}.properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{{1,64}}$'",
        )
