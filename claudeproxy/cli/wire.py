"""The Messages API's own shapes, as they pass through the CLI's lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from attrs import evolve

from claudeproxy.messages import (
    ArgumentsDelta,
    BlockStarted,
    BlockStopped,
    Event,
    Finished,
    Message,
    SignatureDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
    message_to_wire,
    strict_json,
)


def message_line(message: Message, line_id: str, *, query: bool) -> bytes:
    """The stdin line of one message, newline included.

    ``query``: the model is to answer it; otherwise it is history. ``client_composed``: the text
    is delivered as written. An assistant line needs a ``message.id`` of its own, equal ids are
    merged.
    """
    wire = message_to_wire(message)
    line: dict[str, Any] = {"type": message.role, "parent_tool_use_id": None, "session_id": ""}
    if message.role == "user":
        line.update(uuid=line_id, client_composed=True)
        if not query:
            line["shouldQuery"] = False
    else:
        wire.update(id=f"msg_{uuid4().hex}", type="message", model="claude")
    line["message"] = wire
    return json.dumps(line).encode() + b"\n"


_DELTAS: Mapping[str, tuple[Callable[[int, str], Event], str]] = {
    "text_delta": (TextDelta, "text"),
    "thinking_delta": (ThinkingDelta, "thinking"),
    "signature_delta": (SignatureDelta, "signature"),
    "input_json_delta": (ArgumentsDelta, "partial_json"),
}
"""The event for each kind of delta, and the field that holds its text."""


class Answer:
    """Reads one streamed assistant message; remembers what decides how the turn goes on."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self.calls: dict[str, str] = {}
        """Tool-use id to tool name."""
        self.arguments_parse = True
        self._known: dict[int, bool] = {}  # false: a block of a kind nobody knows, passed over
        self._stop_sequence: str | None = None
        self._usage = Usage()
        self._arguments: dict[int, list[str]] = {}

    @property
    def content(self) -> bool:
        """Whether any block has begun."""
        return bool(self._known)

    def event(self, event: Mapping[str, Any]) -> Sequence[Event]:
        """The events one ``stream_event`` spells; none for kinds nobody knows.

        :raises KeyError, TypeError: when it is not of the Messages API's shape.
        """
        kind = event["type"]
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "content_block_start":
            return self._block(event["index"], event["content_block"])
        if kind == "content_block_stop":
            return self._block_stop(event["index"])
        if kind == "message_start":
            message = event["message"]
            self._usage = _usage(message.get("usage") or {}, Usage())
            return [Started(_text(message["id"]), _text(message["model"]), self._usage)]
        if kind == "message_delta":
            self._usage = _usage(event.get("usage") or {}, self._usage)
            self.stop_reason = event["delta"].get("stop_reason")
            self._stop_sequence = event["delta"].get("stop_sequence")
        return ()

    def finished(self) -> Finished:
        """What the message ended with; after its ``message_delta``."""
        assert self.stop_reason is not None
        return Finished(self.stop_reason, self._stop_sequence, self._usage)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Sequence[Event]:
        made = _DELTAS.get(delta["type"])
        if made is None or not self._known[index]:
            return ()
        kind, field = made
        part = _text(delta[field])
        if kind is ArgumentsDelta:
            self._arguments[index].append(part)
        return (kind(index, part),)

    def _block(self, index: int, block: Mapping[str, Any]) -> Sequence[Event]:
        kind = block["type"]
        self._known[index] = kind in ("text", "thinking", "tool_use")
        if kind == "text":
            return (BlockStarted(index, Text(_text(block.get("text", "")))),)
        if kind == "thinking":
            return (BlockStarted(index, Thinking(_text(block.get("thinking", "")))),)
        if kind == "tool_use":
            call, name = _text(block["id"]), _text(block["name"])
            self.calls[call] = name
            self._arguments[index] = []
            return (BlockStarted(index, ToolUse(call, name, {})),)
        return ()

    def _block_stop(self, index: int) -> Sequence[Event]:
        if not self._known[index]:
            return ()
        arguments = "".join(self._arguments.get(index, ()))
        if arguments.strip():
            try:
                self.arguments_parse &= isinstance(strict_json(arguments), dict)
            except (ValueError, RecursionError):
                self.arguments_parse = False
        return (BlockStopped(index),)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} in place of a text")
    return value


def _usage(wire: Mapping[str, Any], before: Usage) -> Usage:
    details = wire.get("output_tokens_details") or {}
    changes = {
        "input_tokens": wire.get("input_tokens"),
        "output_tokens": wire.get("output_tokens"),
        "cache_read_tokens": wire.get("cache_read_input_tokens"),
        "cache_write_tokens": wire.get("cache_creation_input_tokens"),
        "reasoning_tokens": details.get("thinking_tokens"),
    }
    return evolve(before, **{n: count for n, count in changes.items() if isinstance(count, int)})
