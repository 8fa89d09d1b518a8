"""What a program gets: a whole answer, its pieces, or an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from claudeproxy.messages import (
    Assembly,
    Block,
    BlockStarted,
    BlockStopped,
    Event,
    FailureError,
    Finished,
    Kind,
    Message,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
    parse_arguments,
)


@frozen
class Answer:
    """A whole answer.

    ``content``: its blocks, in order. ``stop_reason``: why it ends there, in the API's words:
    ``end_turn``, ``tool_use``, ``max_tokens``, ``stop_sequence``, ``refusal``. ``stop_sequence``:
    the one that was found. ``model``: the one that has answered.
    """

    content: tuple[Block, ...]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    model: str = ""
    usage: Usage = field(factory=Usage)

    @property
    def text(self) -> str:
        """All that it says."""
        return "".join(block.text for block in self.content if isinstance(block, Text))

    @property
    def calls(self) -> tuple[ToolUse, ...]:
        """The tools that it calls. The next message must have a :class:`ToolResult` for each.

        With the stop reason ``max_tokens`` the last one may be cut off.
        """
        return tuple(block for block in self.content if isinstance(block, ToolUse))

    @property
    def message(self) -> Message:
        """The answer as a message, to go on from: ``[*messages, answer.message, ...]``."""
        return Message("assistant", self.content)

    def json(self) -> Any:
        """The value of an answer to a question with a ``schema``.

        :raises ValueError: when it is not JSON, which it may be if it was cut off or refused: see
            ``stop_reason``.
        """
        return json.loads(self.text)


Piece: TypeAlias = Text | Thinking | ToolUse | Answer
"""Of an answer that is streamed: the next words that it says or thinks, a call of a tool, and at
last the whole answer."""


class ClaudeError(FailureError):
    """Why there is no answer, or no more of it. Its text is one line that names the remedy;
    ``failure`` has all that is known."""

    @property
    def kind(self) -> Kind:
        """What went wrong."""
        return self.failure.kind

    @property
    def retry_after(self) -> float | None:
        """Seconds after which another try makes sense; ``None`` if that is not known."""
        return self.failure.retry_after

    @property
    def spent(self) -> bool:
        """Whether tokens were spent on it, so that another try spends them twice. Over HTTP it is
        true also where that is not known."""
        return self.failure.spent


class PieceReader:
    """Makes pieces of events, and at the end the answer."""

    def __init__(self) -> None:
        self._assembly = Assembly()
        self._calls: dict[int, ToolUse] = {}
        self._model = ""

    def pieces(self, event: Event) -> Iterator[Piece]:
        """The pieces in the next event, which is not a failure."""
        self._assembly.add(event)
        if isinstance(event, TextDelta):
            yield Text(event.text)
        elif isinstance(event, ThinkingDelta):
            yield Thinking(event.thinking)
        elif isinstance(event, BlockStarted) and isinstance(event.block, ToolUse):
            self._calls[event.index] = event.block
        elif isinstance(event, BlockStopped) and event.index in self._calls:
            written = self._assembly.arguments(event.index)
            yield evolve(self._calls[event.index], input=parse_arguments(written))
        elif isinstance(event, Started):
            self._model = event.model
        elif isinstance(event, Finished):
            yield Answer(
                self._assembly.blocks(),
                event.stop_reason,
                event.stop_sequence,
                self._model,
                event.usage,
            )
