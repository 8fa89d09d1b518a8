"""The lines that are written to the CLI, and what is looked for in those it prints.

Raw JSON, and none of :mod:`claudeproxy.cli`'s session code: the facts pin the CLI, not us.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Line = dict[str, Any]
Match = Callable[[Line], bool]

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def text(said: str) -> Line:
    """A text block."""
    return {"type": "text", "text": said}


def call(call_id: str, name: str = "look", **arguments: Any) -> Line:
    """A tool call."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id: str, *content: Line, **more: Any) -> Line:
    """The result of a tool call."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(content), **more}


def user(*content: str | Line, query: bool = True, composed: bool = True) -> Line:
    """A user line; strings are text blocks. ``query``: an answer is wanted."""
    line: Line = {
        "type": "user",
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
        "message": {"role": "user", "content": _blocks(content)},
    }
    if composed:
        line["client_composed"] = True
    if not query:
        line["shouldQuery"] = False
    return line


def assistant(*content: str | Line, id: str | None = None) -> Line:
    """An assistant line of the history."""
    message = {
        "role": "assistant",
        "content": _blocks(content),
        "id": id or f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "model": "claude",
    }
    return {"type": "assistant", "parent_tool_use_id": None, "session_id": "", "message": message}


def _blocks(content: Iterable[str | Line]) -> list[Line]:
    return [text(part) if isinstance(part, str) else part for part in content]


def control(request_id: str, subtype: str, **fields: Any) -> Line:
    """A control request."""
    request = {"subtype": subtype, **fields}
    return {"type": "control_request", "request_id": request_id, "request": request}


def flags(**settings: Any) -> Line:
    """The settings line; its id is always the same, as the daemon's is."""
    return control("flags", "apply_flag_settings", settings=settings)


def environ(**variables: str) -> Line:
    """Flags that set variables of the running process."""
    return flags(env=variables)


def extra(**body: Any) -> Line:
    """Flags that add fields to the request's body."""
    return environ(CLAUDE_CODE_EXTRA_BODY=json.dumps(body))


def tool(
    name: str = "look",
    description: str = "Looks.",
    schema: Mapping[str, Any] | None = None,
    *,
    parallel: bool = True,
) -> Line:
    """A tool of the MCP server."""
    return {
        "name": name,
        "description": description,
        "inputSchema": schema or {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True} if parallel else {},
        "_meta": {"anthropic/maxResultSizeChars": 500_000},
    }


def serving(*tools: Line, server: str = "c", **config: Any) -> Line:
    """The fields of ``initialize`` that announce an MCP server."""
    manifest = {"initializeResult": greeting(server), "toolsListResult": {"tools": list(tools)}}
    return {
        "sdkMcpServers": [server],
        "sdkMcpServerManifests": {server: manifest},
        "sdkMcpServerConfigs": {server: {"timeout": 86_400_000, **config}},
    }


def greeting(server: str) -> Line:
    """What an MCP server answers to ``initialize``."""
    return {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": server, "version": "1"},
    }


# -- what matches --


def of_type(kind: str, subtype: str | None = None) -> Match:
    """Lines of that type."""
    return lambda line: line["type"] == kind and subtype in (None, line.get("subtype"))


RESULT = of_type("result")
REQUESTING = of_type("system", "status")


def event(kind: str) -> Match:
    """Relayed events of that type."""
    return lambda line: line["type"] == "stream_event" and line["event"]["type"] == kind


def tools_call(line: Line) -> bool:
    """Calls of a tool."""
    request = line.get("request") or {}
    return (request.get("message") or {}).get("method") == "tools/call"


def use_id(call_line: Line) -> Any:
    """The id of the ``tool_use`` block that a call is about."""
    return call_line["request"]["message"]["params"]["_meta"]["claudecode/toolUseId"]


def completed(line: Line) -> Match:
    """The end of a user line's own processing."""
    return lambda said: (
        said["type"] == "command_lifecycle"
        and said["command_uuid"] == line["uuid"]
        and said["state"] == "completed"
    )


# -- what arrived upstream --


def conversation(body: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """The messages as (role, blocks), without what the CLI adds."""
    found = []
    for message in body["messages"]:
        if message["role"] != "system":
            content = message["content"]
            blocks = [text(content)] if isinstance(content, str) else content
            found.append((message["role"], [_bare(b) for b in blocks if not is_reminder(b)]))
    return found


def _bare(block: Line) -> Line:
    return {name: value for name, value in block.items() if name != "cache_control"}


def is_reminder(block: Line) -> bool:
    """Whether the CLI added this block by itself."""
    return block["type"] == "text" and bool(block["text"].startswith("<system-reminder>"))


def system_texts(body: Mapping[str, Any]) -> list[str]:
    """The parts of the system prompt."""
    return [block["text"] for block in body.get("system") or ()]


def tools_of(body: Mapping[str, Any]) -> dict[str, Line]:
    """The tools by name."""
    return {tool["name"]: tool for tool in body.get("tools") or ()}
