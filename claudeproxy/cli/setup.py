"""What a conversation is set up with, once and for good: a later ``initialize`` changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from claudeproxy.messages import Request, Tool

from .tools import SERVER, ToolServer

PARK_MS = 24 * 3600 * 1000
"""The CLI's own limit of a tool call, far beyond ours, so that ours decides."""


@frozen
class Setup:
    """System prompt and tools of a conversation; ``schema``: the answer is to come by the CLI's
    ``StructuredOutput`` tool."""

    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    schema: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, request: Request, schema: Mapping[str, Any] | None = None) -> Setup:
        """The set-up that ``request`` needs."""
        return cls(request.system, request.tools, schema)

    def control_request(self) -> dict[str, Any]:
        """The ``initialize`` request."""
        setup: dict[str, Any] = {"subtype": "initialize", "systemPrompt": list(self.system)}
        if self.tools:
            setup["sdkMcpServers"] = [SERVER]
            setup["sdkMcpServerManifests"] = {SERVER: ToolServer(self.tools).manifest()}
            setup["sdkMcpServerConfigs"] = {SERVER: {"timeout": PARK_MS}}
        if self.schema is not None:
            setup["jsonSchema"] = dict(self.schema)
        return setup
