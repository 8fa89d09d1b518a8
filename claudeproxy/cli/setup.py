"""What a conversation is set up with. The system prompt is a process's for good, as a later
``initialize`` changes nothing; its tools can be exchanged between conversations, but not under
plain names."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from claudeproxy.messages import Request, Tool

from .names import ToolNames
from .tools import ToolServer

BOUNDARY = "__SYSTEM_PROMPT_DYNAMIC_BOUNDARY__"
"""A part of the system prompt that the CLI reserves for itself."""

PARK_MS = 24 * 3600 * 1000
"""Milliseconds of the CLI's own limit for a tool call: far beyond ours, so that ours decides."""


@frozen(eq=False)
class Setup:
    """System prompt and tools of a conversation."""

    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    names: ToolNames = field(factory=lambda: ToolNames.of(()))

    @classmethod
    def of(cls, request: Request, *, plain_names: bool = False) -> Setup:
        """The set-up that ``request`` needs."""
        names = ToolNames.of(request.tools, plain=plain_names)
        return cls(request.system, request.tools, names)

    @property
    def lasting(self) -> tuple[tuple[str, ...], str]:
        """The part that a process keeps for good: the system prompt, and under plain names the
        tools. Once the CLI knows a tool's name, it sends the definition that it had first."""
        return self.system, self.names.server if self.tools and not self.names.prefix else ""

    def server(self) -> ToolServer:
        """The MCP server that offers its tools."""
        return ToolServer(self.tools, self.names)

    @property
    def permissions(self) -> dict[str, Any]:
        """The part of the settings that allows its tools to be called."""
        return {"permissions": {"allow": [f"mcp__{self.names.server}"]}} if self.tools else {}

    @property
    def servers(self) -> dict[str, Any]:
        """The MCP servers it needs, by name. The name tells the tools, in whatever order: the CLI
        sorts them."""
        return {self.names.server: {"timeout": PARK_MS}} if self.tools else {}

    def change_of_servers(self) -> dict[str, Any]:
        """The request that puts its tools in the place of others."""
        servers = {
            name: {"type": "sdk", "name": name, **config} for name, config in self.servers.items()
        }
        return {"subtype": "mcp_set_servers", "servers": servers}

    def control_request(self) -> dict[str, Any]:
        """The ``initialize`` request."""
        setup: dict[str, Any] = {"subtype": "initialize", "systemPrompt": _prompt(self.system)}
        if self.tools:
            server = self.names.server
            setup["sdkMcpServers"] = [server]
            setup["sdkMcpServerManifests"] = {server: self.server().manifest()}
            setup["sdkMcpServerConfigs"] = self.servers
        return setup


def _prompt(system: tuple[str, ...]) -> list[str]:
    """``system``, joined as the CLI joins it if the CLI would leave out a part."""
    if BOUNDARY not in system:
        return list(system)
    # Even alone, it must not be a whole part.
    return [f"{BOUNDARY}\n"] if len(system) == 1 else ["\n\n".join(system)]
