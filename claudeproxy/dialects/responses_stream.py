"""Responses: turns events into those of a streamed response."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from claudeproxy.messages import (
    ArgumentsDelta,
    Block,
    BlockStarted,
    Event,
    Failure,
    Finished,
    Kind,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
)

from .custom_tools import InputReader
from .responses_answer import INCOMPLETE, NAMES, Item, ResponseEnvelope, output_text
from .shapes import ServerSentEvents, error, sse, with_client_names

_CODES = {
    Kind.RATE_LIMIT: "rate_limit_exceeded",
    Kind.PLAN_LIMIT: "rate_limit_exceeded",
    Kind.BILLING: "insufficient_quota",
    Kind.CONTEXT_LENGTH: "context_length_exceeded",
    Kind.INVALID: "invalid_prompt",
    Kind.OVERLOADED: "server_is_overloaded",
}
"""Codes of ``response.error``; everything else is a ``server_error``."""


class ResponsesStream(ServerSentEvents):
    """Renders the events of an answer into those of a response.

    An item is closed only when the next one begins or the answer ends: whether it is complete,
    depends on the stop reason of the answer.
    """

    def __init__(self, envelope: ResponseEnvelope) -> None:
        self._envelope = envelope
        self._sequence = 0
        self._item: Item | None = None
        self._input = InputReader()
        self._output: list[dict[str, Any]] = []
        self._begun = False
        self._ended = False
        self.status = "queued"
        """As in the response: ``queued`` until something comes, then ``in_progress``, then how it
        ended."""
        self._last: dict[str, Any] | None = None

    @property
    def response(self) -> dict[str, Any]:
        """The response so far, with the items that are complete."""
        return self._last or self._envelope.response(self.status, self._output)

    def queue(self) -> bytes:
        """The SSE bytes that tell of a response which has yet to begin. They come first."""
        self._begun = True
        queued = self._envelope.response("queued")
        created = self._send("response.created", response=queued)
        return created + self._send("response.queued", response=queued)

    def cancel(self) -> bytes:
        """The SSE bytes for the end of a response that nobody wants any more."""
        return self.close("incomplete") + self.end("cancelled")

    def close(self, status: str) -> bytes:
        """The SSE bytes for the end of the item that is written, if any."""
        return b"".join(self._close(status))

    def end(self, status: str, **changes: Any) -> bytes:
        """The SSE bytes of the last event; ``changes``: fields of the response that it brings."""
        self._ended = True
        self.status = status
        self._last = self._envelope.response(status, self._output, **changes)
        return self._send(f"response.{status}", response=self._last)

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The SSE bytes for a burst of events."""
        return b"".join(out for event in events for out in self._event(event))

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._ended

    def _event(self, event: Event) -> Iterator[bytes]:
        if self.status == "queued":
            self.status = "in_progress"
            begun = self._envelope.response("in_progress")
            if not self._begun:
                self._begun = True
                yield self._send("response.created", response=begun)
            yield self._send("response.in_progress", response=begun)
        if isinstance(event, BlockStarted):
            yield from self._close("completed")
            yield from self._open(event.block)
        elif isinstance(event, (TextDelta, ThinkingDelta, ArgumentsDelta)):
            yield from self._delta(event)
        elif isinstance(event, Finished):
            cut = event.stop_reason in INCOMPLETE
            yield from self._close("incomplete" if cut else "completed")
            yield self.end(**self._envelope.finished(event))
        elif isinstance(event, Failure):
            yield from self._failed(event)

    def _open(self, block: Block) -> Iterator[bytes]:
        self._item = item = self._envelope.item(len(self._output), block)
        self._input = InputReader()
        value = item.value("in_progress")
        yield self._send("response.output_item.added", output_index=item.place, item=value)
        if isinstance(block, Text):
            part = output_text("")
            yield self._of_item("response.content_part.added", content_index=0, part=part)
            if block.text:
                yield from self._text("output_text", block.text, content_index=0, logprobs=[])
        elif isinstance(block, Thinking) and block.thinking:
            yield from self._thought(block.thinking)

    def _delta(self, event: TextDelta | ThinkingDelta | ArgumentsDelta) -> Iterator[bytes]:
        if isinstance(event, TextDelta):
            yield from self._text("output_text", event.text, content_index=0, logprobs=[])
        elif isinstance(event, ThinkingDelta):
            yield from self._thought(event.thinking)
        elif self._item is not None and self._item.custom:
            yield from self._text("custom_tool_call_input", self._input.feed(event.json))
        else:
            yield from self._text("function_call_arguments", event.json)

    def _thought(self, text: str) -> Iterator[bytes]:
        if text and self._item is not None and not self._item.parts:
            part = {"type": "summary_text", "text": ""}
            kind = "response.reasoning_summary_part.added"
            yield self._of_item(kind, summary_index=0, part=part)
        yield from self._text("reasoning_summary_text", text, summary_index=0)

    def _text(self, kind: str, text: str, **fields: Any) -> Iterator[bytes]:
        if text and self._item is not None:
            self._item.parts.append(text)
            yield self._of_item(f"response.{kind}.delta", delta=text, **fields)

    def _close(self, status: str) -> Iterator[bytes]:
        item = self._item
        if item is None:
            return
        if item.custom:
            yield from self._text("custom_tool_call_input", self._input.finish())
        value = item.value(status)
        text = item.written
        if item.custom:
            yield self._of_item("response.custom_tool_call_input.done", input=text)
        elif isinstance(item.block, ToolUse):
            done = {"name": item.block.name, "arguments": value["arguments"]}
            yield self._of_item("response.function_call_arguments.done", **done)
        elif isinstance(item.block, Text):
            whole = {"content_index": 0, "text": text, "logprobs": []}
            yield self._of_item("response.output_text.done", **whole)
            part = output_text(text)
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        elif text:
            kind = "response.reasoning_summary_text.done"
            yield self._of_item(kind, summary_index=0, text=text)
            kind, part = "response.reasoning_summary_part.done", value["summary"][0]
            yield self._of_item(kind, summary_index=0, part=part)
        yield self._send("response.output_item.done", output_index=item.place, item=value)
        self._output.append(value)
        self._item = None

    def _failed(self, failure: Failure) -> Iterator[bytes]:
        # Both are needed: OpenAI's SDKs do not raise for `response.failed` alone, and other clients
        # (Codex) do not read an `error` event.
        why = with_client_names(failure, NAMES)
        code = failure.code or _CODES.get(failure.kind, "server_error")
        reason = {"code": code, "message": failure.message}
        yield self.end("failed", error=reason)
        yield self._send("error", **reason, param=why.param, **error(why))

    def _of_item(self, kind: str, **fields: Any) -> bytes:
        assert self._item is not None
        return self._send(kind, item_id=self._item.id, output_index=self._item.place, **fields)

    def _send(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse(event, kind)


def unstored(events: bytes) -> bytes:
    """SSE bytes of whole ``events``, whose responses now say that they are not stored."""
    out = []
    for event in events.split(b"\n\n")[:-1]:
        value = json.loads(event.partition(b"data: ")[2])
        if "response" in value:
            value["response"]["store"] = False
        out.append(sse(value, value["type"]))
    return b"".join(out)
