"""What a conversation is set up with, once and for good: a later ``initialize`` changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from claudeproxy.messages import Request, Tool

from .tools import SERVER, ToolServer

PARK_MS = 24 * 3600 * 1000
"""The CLI's own limit of a tool call, far beyond ours, so that ours decides."""


@frozen
class Setup:
    """System prompt and tools of a conversation; ``schema``: the answer is to come by the CLI's
    ``StructuredOutput`` tool. Two are equal when the same bytes are sent for them: in Python,
    a schema's ``1`` would equal its ``true``."""

    system: tuple[str, ...] = field(default=(), eq=False)
    tools: tuple[Tool, ...] = field(default=(), eq=False)
    schema: Mapping[str, Any] | None = field(default=None, eq=False)
    _sent: str = field(init=False, repr=False)

    @_sent.default
    def _as_sent(self) -> str:
        return json.dumps(self.control_request())

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
