"""Messages and stream events in the lines of the CLI, which have the shapes of the Messages API."""

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

from .altered import NOTHING
from .names import ToolNames

MOVED = "What the call returned stands behind all results."
"""The result of a failed call that returned no text."""


def message_line(message: Message, line_id: str, names: ToolNames, *, query: bool) -> bytes:
    """The line of one message for stdin, with its newline.

    ``names``: the upstream names of the tools. ``query``: the model is to answer the message;
    otherwise it is history. ``client_composed`` makes the CLI deliver the text as written. Each
    assistant line needs a ``message.id`` of its own, because the CLI merges lines of equal ids.
    """
    wire = message_to_wire(message)
    arriving = _answer_arriving if message.role == "assistant" else _results_arriving
    wire["content"] = arriving(wire["content"])
    line: dict[str, Any] = {"type": message.role, "parent_tool_use_id": None, "session_id": ""}
    if message.role == "user":
        line.update(uuid=line_id, client_composed=True)
        if not query:
            line["shouldQuery"] = False
    else:
        wire.update(id=f"msg_{uuid4().hex}", type="message", model="claude")
        for block in wire["content"]:
            if block["type"] == "tool_use":
                block["input"] = names.told(block["name"], block["input"])
                block["name"] = names.upstream(block["name"])
    line["message"] = wire
    # As UTF-8, a third of what escapes take; a lone surrogate has no UTF-8 and stays an escape.
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _answer_arriving(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer that is only "(no content)", once or several times over, the first of them split in
    two: the CLI would leave it out."""
    texts = [block["text"] for block in content if block["type"] == "text"]
    if not content or [text.strip() for text in texts] != [NOTHING] * len(content):
        return content
    middle = texts[0].index(")")
    split = [{"type": "text", "text": part} for part in (texts[0][:middle], texts[0][middle:])]
    return [*split, *content[1:]]


def _results_arriving(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move what is not text in the result of a failed call behind all results: the CLI would leave
    it out, because the API accepts only text there, and some there must be."""
    behind: list[dict[str, Any]] = []
    for block in content:
        if block.get("is_error"):
            moved = [part for part in block["content"] if part["type"] != "text"]
            texts = [part for part in block["content"] if part["type"] == "text"]
            block["content"] = texts or ([{"type": "text", "text": MOVED}] if moved else [])
            behind += moved
    results = sum(block["type"] == "tool_result" for block in content)
    return [*content[:results], *behind, *content[results:]]


_DELTAS: Mapping[str, tuple[Callable[[int, str], Event], str]] = {
    "text_delta": (TextDelta, "text"),
    "thinking_delta": (ThinkingDelta, "thinking"),
    "signature_delta": (SignatureDelta, "signature"),
    "input_json_delta": (ArgumentsDelta, "partial_json"),
}
"""For each kind of delta, the event and the field that holds its text."""


class MessageReader:
    """Reads one streamed assistant message, and remembers what decides how the turn continues."""

    def __init__(self, names: ToolNames) -> None:
        self._names = names
        self.stop_reason: str | None = None
        self.calls: set[str] = set()
        """The ids of its tool calls."""
        self.callable = True
        """Whether each call is one of an existing tool, with a JSON object as its arguments."""
        self._known: dict[int, bool] = {}  # false for a block of an unknown kind, which is skipped
        self._stop_sequence: str | None = None
        self._stop_details: Mapping[str, Any] | None = None
        self._usage = Usage()
        self._arguments: dict[int, list[str]] = {}
        self._restored: dict[int, str] = {}  # tools whose arguments have to be restored, by index

    @property
    def content(self) -> bool:
        """Whether any block has begun."""
        return bool(self._known)

    def event(self, event: Mapping[str, Any]) -> Sequence[Event]:
        """The events of one ``stream_event``; none for unknown kinds.

        :raises KeyError, TypeError: when it does not have the shape of the Messages API.
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
            details = event["delta"].get("stop_details")
            self._stop_details = details if isinstance(details, Mapping) else None
        return ()

    def finished(self) -> Finished:
        """The end of the message; to be called after its ``message_delta``."""
        assert self.stop_reason is not None
        return Finished(self.stop_reason, self._stop_sequence, self._usage, self._stop_details)

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Sequence[Event]:
        made = _DELTAS.get(delta["type"])
        if made is None or not self._known[index]:
            return ()
        kind, field = made
        part = _text(delta[field])
        if kind is ArgumentsDelta:
            self._arguments[index].append(part)
            if index in self._restored:
                return ()
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
            self.calls.add(call)
            self.callable &= self._names.known(name)
            self._arguments[index] = []
            own = self._names.client(name)
            if self._names.altered(own):
                self._restored[index] = own
            return (BlockStarted(index, ToolUse(call, own, {})),)
        return ()

    def _block_stop(self, index: int) -> Sequence[Event]:
        if not self._known[index]:
            return ()
        arguments = "".join(self._arguments.get(index, ()))
        if arguments.strip():
            try:
                self.callable &= isinstance(strict_json(arguments), dict)
            except (ValueError, RecursionError):
                self.callable = False
        if arguments and index in self._restored:
            restored = self._names.restored(self._restored[index], arguments)
            return (ArgumentsDelta(index, restored), BlockStopped(index))
        return (BlockStopped(index),)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} instead of a text")
    return value


def _usage(wire: Mapping[str, Any], before: Usage) -> Usage:
    details = wire.get("output_tokens_details") or {}
    written = wire.get("cache_creation") or {}
    changes = {
        "input_tokens": wire.get("input_tokens"),
        "output_tokens": wire.get("output_tokens"),
        "cache_read_tokens": wire.get("cache_read_input_tokens"),
        "cache_write_tokens": wire.get("cache_creation_input_tokens"),
        "cache_write_1h_tokens": written.get("ephemeral_1h_input_tokens"),
        "reasoning_tokens": details.get("thinking_tokens"),
    }
    return evolve(before, **{n: count for n, count in changes.items() if isinstance(count, int)})
