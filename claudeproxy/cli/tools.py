"""The MCP server inside the daemon, which offers the client's tools to the CLI.

The CLI speaks MCP to it in ``mcp_message`` control requests. A ``tools/call`` is not run here: it
waits until the client's next request brings the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from claudeproxy.messages import Image, Text, Tool, ToolResult

from .names import ToolNames

RESERVED = "ToolSearch"
"""A name that the CLI reserves: with plain names, a tool of this name never reaches the model."""

PROTOCOL = "2025-11-25"
MAX_RESULT_CHARS = 500_000
"""The CLI would write a longer result to disk and replace it by a preview."""

MAX_DESCRIPTION = 2048
"""Characters after which older CLIs truncate a tool's description."""


class ToolServer:
    """Answers the MCP messages of one process; pure, so that transcripts can test it."""

    def __init__(self, tools: Iterable[Tool], names: ToolNames) -> None:
        self._name = names.server
        self._tools = [{**definition(tool), "name": names.served(tool.name)} for tool in tools]

    def manifest(self) -> dict[str, Any]:
        """What saves the CLI the round trips of the handshake (``sdkMcpServerManifests``)."""
        return {"initializeResult": self._greeting(), "toolsListResult": {"tools": self._tools}}

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON-RPC answer to any message but ``tools/call``."""
        method = str(message.get("method"))
        if method == "initialize":
            result = self._greeting()
        elif method == "tools/list":
            result = {"tools": self._tools}
        elif method == "ping" or method.startswith("notifications/"):
            result = {}
        else:
            error = {"code": -32601, "message": f"no method {method}"}
            return {"jsonrpc": "2.0", "id": message.get("id"), "error": error}
        return {"jsonrpc": "2.0", "id": message.get("id", 0), "result": result}

    def _greeting(self) -> dict[str, Any]:
        return {
            "protocolVersion": PROTOCOL,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": self._name, "version": "1"},
        }


def definition(tool: Tool) -> dict[str, Any]:
    """``tool`` as an MCP tool. ``readOnlyHint`` makes parallel calls arrive at once. A description
    that older CLIs would truncate is moved to the ``description`` of the schema, which none
    does."""
    schema = flat(tool.parameters) or {"type": "object", "properties": {}}
    schema.setdefault("type", "object")
    description = tool.description
    if len(description) > MAX_DESCRIPTION:
        own = schema.get("description")
        schema["description"] = f"{description}\n\n{own}" if own else description
        description = description.split("\n", 1)[0][:200] + " (in full in the input schema)"
    return {
        "name": tool.name,
        "description": description,
        "inputSchema": schema,
        "annotations": {"readOnlyHint": True},
        "_meta": {"anthropic/maxResultSizeChars": MAX_RESULT_CHARS},
    }


_COMBINERS = ("anyOf", "oneOf", "allOf")


def flat(schema: Mapping[str, Any]) -> dict[str, Any]:
    """``schema`` without combiners at its root: the API refuses them there, and older CLIs drop
    the tool. All properties of the branches are allowed, and the constraints become words."""
    out = {name: value for name, value in schema.items() if name not in _COMBINERS}
    combined = {name: schema[name] for name in _COMBINERS if isinstance(schema.get(name), list)}
    if not combined:
        return dict(schema)
    properties: dict[str, Any] = {}
    for branches in combined.values():
        for branch in branches:
            if isinstance(branch, Mapping) and isinstance(branch.get("properties"), Mapping):
                properties.update(branch["properties"])
    out["type"] = "object"
    own = out.get("properties")
    out["properties"] = {**properties, **(own if isinstance(own, Mapping) else {})}
    bound = f"The input must also satisfy this JSON schema: {json.dumps(combined)}"
    out["description"] = f"{out['description']}\n\n{bound}" if "description" in out else bound
    return out


def verbatim(result: ToolResult) -> bool:
    """Whether a parked call delivers ``result`` word for word. Other results are replayed.

    The CLI turns an empty result into a sentence, joins and truncates errors, and saves documents
    and long texts to disk.
    """
    if result.is_error or not result.content:
        return False
    if not all(isinstance(part, (Text, Image)) for part in result.content):
        return False
    if any(
        isinstance(part, Image) and part.source.get("type") != "base64" for part in result.content
    ):
        return False
    return sum(len(p.text) for p in result.content if isinstance(p, Text)) <= MAX_RESULT_CHARS // 2


def call_answer(call_id: object, result: ToolResult) -> dict[str, Any]:
    """The JSON-RPC answer to a waiting ``tools/call``, with ``result``."""
    content: list[dict[str, Any]] = []
    for part in result.content:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            source = part.source
            content.append(
                {"type": "image", "data": source["data"], "mimeType": source["media_type"]}
            )
    return {"jsonrpc": "2.0", "id": call_id, "result": {"content": content, "isError": False}}
