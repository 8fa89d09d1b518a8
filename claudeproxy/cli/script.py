"""What has yet to be written of a turn: its set-up, the history before it, and the question."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from claudeproxy.messages import Message

from .calls import ToolCalls
from .configured import Configured
from .held import HeldConversation
from .outputs import Write
from .setup import Setup
from .wire import message_line


class Script:
    """The CLI queues user lines but not assistant lines, so it must have processed a user line
    before it is sent the lines that follow."""

    def __init__(self, configured: Configured, calls: ToolCalls, held: HeldConversation) -> None:
        self._configured = configured
        self._calls = calls
        self._held = held
        self._steps: deque[Callable[[], Sequence[Write]]] = deque()
        self._awaited: str | None = None
        self.since = 0
        """How many messages the CLI is to hold when it begins."""

    def put(
        self, messages: Sequence[Message], since: int, setup: Setup, flags: Mapping[str, Any]
    ) -> None:
        """Have ``messages`` written, those from number ``since`` on of a conversation; the last
        is to be answered."""
        *before, last = messages
        self.since = since
        self._steps.append(partial(self._set_up, setup, flags))
        self._steps.extend(partial(self._write, message, query=False) for message in before)
        self._steps.append(partial(self._write, last, query=True))

    @property
    def unsent(self) -> bool:
        """Whether the question is still unwritten."""
        return bool(self._steps)

    def clear(self) -> None:
        """Nobody waits for the turn any more."""
        self._steps.clear()

    def play(self) -> list[Write]:
        """The lines up to the next that must be awaited, or to the question."""
        writes: list[Write] = []
        while self._steps and self._awaited is None:
            writes.extend(self._steps.popleft()())
        return writes

    def processed(self, line: Mapping[str, Any]) -> bool:
        """Whether ``line``, a ``command_lifecycle``, says that what was awaited is processed."""
        if self._awaited is None or line.get("command_uuid") != self._awaited:
            return False
        if line.get("state") != "completed":
            return False
        self._awaited = None
        return True

    def _set_up(self, setup: Setup, flags: Mapping[str, Any]) -> Sequence[Write]:
        self._calls.offer(setup)
        return self._configured.change(setup, flags)

    def _write(self, message: Message, *, query: bool) -> Sequence[Write]:
        assert self._configured.setup is not None
        line_id = str(uuid4())
        if message.role == "user" and not query:
            self._awaited = line_id
        self._held.wrote(message, line_id)
        return [Write(message_line(message, line_id, self._configured.setup.names, query=query))]
