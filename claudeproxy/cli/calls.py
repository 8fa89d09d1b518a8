"""The tool calls of one CLI that have reached us, and their results on the way back to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from claudeproxy.messages import ToolResult

from .control import mcp_answer
from .outputs import Write
from .setup import Setup
from .tools import call_answer


def is_call(message: Mapping[str, Any]) -> bool:
    """Whether an MCP ``message`` calls a tool."""
    return message.get("method") == "tools/call"


class ToolCalls:
    """Calls and results may come in either order; results leave in the client's. Methods return
    the lines to write."""

    def __init__(self) -> None:
        self._server = Setup().server()
        self._waiting: dict[str, tuple[str, object]] = {}
        self._results: deque[ToolResult] = deque()

    def offer(self, setup: Setup) -> None:
        """From now on the CLI can call the tools of ``setup``."""
        self._server = setup.server()

    def heard(self, request_id: str, message: Mapping[str, Any]) -> list[Write]:
        """The CLI sent an MCP ``message`` in the control request ``request_id``.

        :raises KeyError, TypeError: when a call does not have the shape that the CLI gives it.
        """
        if not is_call(message):
            return [mcp_answer(request_id, self._server.handle(message))]
        use_id = message["params"]["_meta"]["claudecode/toolUseId"]
        self._waiting[use_id] = (request_id, message.get("id"))
        return self._deliver()

    def answer(self, results: Iterable[ToolResult]) -> list[Write]:
        """The client has returned ``results``."""
        self._results.extend(results)
        return self._deliver()

    def _deliver(self) -> list[Write]:
        writes: list[Write] = []
        while self._results and self._results[0].tool_use_id in self._waiting:
            result = self._results.popleft()
            request_id, call_id = self._waiting.pop(result.tool_use_id)
            writes.append(mcp_answer(request_id, call_answer(call_id, result)))
        return writes

    def forget(self) -> None:
        """The CLI was taken back to before these calls."""
        self._waiting.clear()
        self._results.clear()
