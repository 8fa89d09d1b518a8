"""Ollama's answers: turns events into lines of JSON, or into one body."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    Event,
    Failure,
    Finished,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
    normalise_tool_id,
)

_LENGTH = ("max_tokens", "model_context_window_exceeded")


@frozen
class OllamaEnvelope:
    """What all lines of an answer share. ``model``: as requested; ``chat``: it is a chat's answer,
    not a generated text; ``begun``: epoch seconds, as ``clock`` tells them; ``thinks``: thinking is
    told."""

    model: str
    chat: bool
    begun: float
    clock: Callable[[], float] = time.time
    thinks: bool = True

    def line(
        self, text: str = "", thinking: str = "", calls: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """A piece of an answer."""
        more: dict[str, Any] = {"thinking": thinking} if thinking and self.thinks else {}
        if not self.chat:
            return self._object({"response": text, **more}, done=False)
        if calls:
            more = {**more, "tool_calls": list(calls)}
        message = {"role": "assistant", "content": text, **more}
        return self._object({"message": message}, done=False)

    def last(self, line: dict[str, Any], reason: str, **more: int) -> dict[str, Any]:
        """``line`` as the last of an answer."""
        return {**line, "done": True, "done_reason": reason, **more}

    def _object(self, piece: dict[str, Any], done: bool) -> dict[str, Any]:
        now = datetime.fromtimestamp(self.clock(), timezone.utc)
        created = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"model": self.model, "created_at": created, **piece, "done": done}


class OllamaStream:
    """Renders the events of an answer into lines of JSON."""

    content_type = b"application/x-ndjson"

    def __init__(self, envelope: OllamaEnvelope) -> None:
        self._envelope = envelope
        self._assembly = Assembly()
        self._calls: list[int] = []
        self._first: float | None = None
        self.ended = False
        """Whether the stream has ended."""

    def keep_alive(self) -> bytes:
        """A line that says nothing."""
        return _bytes(self._envelope.line())

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The lines for a burst of events of the one answer."""
        return b"".join(line for event in events for line in self._lines(event))

    def _lines(self, event: Event) -> list[bytes]:
        told = self._envelope
        if isinstance(event, Failure):
            self.ended = True
            return [_bytes({"error": event.message})]
        if isinstance(event, Finished):
            self.ended = True
            # A call is told whole, as Ollama's clients expect.
            calls = calls_of(self._assembly)
            lines = [told.line(calls=calls)] if calls else []
            last = told.last(told.line(), done_reason(event), **self._counts(event.usage))
            return [_bytes(line) for line in (*lines, last)]
        if isinstance(event, (TextDelta, ThinkingDelta, ArgumentsDelta)) and self._first is None:
            self._first = told.clock()
        if isinstance(event, TextDelta):
            return [_bytes(told.line(event.text))]
        if isinstance(event, ThinkingDelta):
            return [_bytes(told.line(thinking=event.thinking))] if told.thinks else []
        if isinstance(event, BlockStarted) and isinstance(event.block, ToolUse):
            self._calls.append(event.index)
            self._assembly.add(event)
        elif isinstance(event, ArgumentsDelta) and event.index in self._calls:
            self._assembly.add(event)
        return []

    def _counts(self, usage: Usage) -> dict[str, int]:
        first = self._envelope.clock() if self._first is None else self._first
        return counts(self._envelope, usage, first)


def complete_body(
    envelope: OllamaEnvelope, assembly: Assembly, finished: Finished
) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    blocks = assembly.blocks()
    thinking = "".join(block.thinking for block in blocks if isinstance(block, Thinking))
    text = "".join(block.text for block in blocks if isinstance(block, Text))
    line = envelope.line(text, thinking, calls_of(assembly))
    told = counts(envelope, finished.usage, envelope.begun)
    return envelope.last(line, done_reason(finished), **told)


def calls_of(assembly: Assembly) -> list[dict[str, Any]]:
    """The calls of an answer."""
    calls = [block for block in assembly.blocks() if isinstance(block, ToolUse)]
    return [
        {
            "id": normalise_tool_id(call.id),
            "function": {"index": index, "name": call.name, "arguments": dict(call.input)},
        }
        for index, call in enumerate(calls)
    ]


def counts(envelope: OllamaEnvelope, usage: Usage, first: float) -> dict[str, int]:
    """The figures of the last line, times in nanoseconds; ``first``: when the first token came. No
    model is loaded for a turn, so that takes no time."""
    now = envelope.clock()
    return {
        "total_duration": _nanoseconds(now - envelope.begun),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(first - envelope.begun),
        "eval_count": usage.output_tokens,
        "eval_duration": _nanoseconds(now - first),
    }


def done_reason(finished: Finished) -> str:
    """Ollama's word for a stop reason of the API."""
    return "length" if finished.stop_reason in _LENGTH else "stop"


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
