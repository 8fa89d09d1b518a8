"""The conversation a process holds, and the lines it can be taken back to.

``rewind_conversation`` cuts a conversation off before one of its user lines, named by the id that
line was written with. A line that holds a tool result cannot be a target, nor can anything that was
never written as a line: an answer, or a result returned to a parked call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from claudeproxy.messages import Message, ToolResult


@frozen
class _Line:
    id: str
    at: int
    target: bool


@define
class HeldConversation:
    """``count``: how many messages it holds."""

    count: int = 0
    _lines: list[_Line] = field(factory=list)

    def wrote(self, message: Message, line_id: str) -> None:
        """``message`` was written as the line ``line_id``; ids of answers do not matter."""
        if message.role == "user":
            target = not any(isinstance(block, ToolResult) for block in message.content)
            self._lines.append(_Line(line_id, self.count, target))
        self.count += 1

    def added(self) -> None:
        """A message was added that we did not write as a line."""
        self.count += 1

    @property
    def last(self) -> str | None:
        """The id of the last user line."""
        return self._lines[-1].id if self._lines else None

    @property
    def points(self) -> tuple[int, ...]:
        """The message counts that a rewind can go back to, in ascending order."""
        return tuple(line.at for line in self._lines if line.target)

    def rewind(self, at: int) -> Mapping[str, Any]:
        """Forget all but the first ``at`` messages, one of :attr:`points`. Returns the request."""
        (target,) = (line.id for line in self._lines if line.target and line.at == at)
        request = {
            "subtype": "rewind_conversation",
            "target_message_uuid": target,
            "last_seen_user_message_uuid": self.last,
            "interrupt_if_running": True,
        }
        self._lines = [line for line in self._lines if line.at < at]
        self.count = at
        return request
