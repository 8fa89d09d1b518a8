"""Anthropic Messages: turns events back into those of the API, or into one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    Block,
    BlockStarted,
    BlockStopped,
    Event,
    Failure,
    Finished,
    Kind,
    SignatureDelta,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
    block_to_wire,
)

from .shapes import ServerSentEvents, sse

_TYPES = {
    Kind.AUTHENTICATION: "authentication_error",
    Kind.BILLING: "billing_error",
    Kind.PERMISSION: "permission_error",
    Kind.NOT_FOUND: "not_found_error",
    Kind.MODEL_NOT_FOUND: "not_found_error",
    Kind.TOO_LARGE: "request_too_large",
    Kind.RATE_LIMIT: "rate_limit_error",
    Kind.PLAN_LIMIT: "rate_limit_error",
    Kind.OVERLOADED: "overloaded_error",
    Kind.UPSTREAM: "api_error",
    Kind.TIMEOUT: "timeout_error",
    Kind.UNAVAILABLE: "overloaded_error",
}
_STATUSES = {Kind.UPSTREAM: 500, Kind.TIMEOUT: 504, Kind.UNAVAILABLE: 529, Kind.OVERLOADED: 529}
"""The API's statuses for failures that are not the client's fault."""

NO_THREADS = "thread_unsupported_request"
"""The code after which SDKs continue without a thread that is kept by the server."""


@frozen
class MessageEnvelope:
    """``ident``: the part that the ids share; ``thinking``: whether thinking blocks are shown,
    shown without their text, or left out."""

    ident: str
    model: str
    thinking: str = "omit"

    SHOWN = "show"
    EMPTY = "empty"
    OMITTED = "omit"

    def message(self, usage: Usage, **changes: Any) -> dict[str, Any]:
        """The message object."""
        return {
            "id": f"msg_{self.ident}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "container": None,
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": usage_object(usage),
            **changes,
        }

    def error(self, failure: Failure) -> dict[str, Any]:
        """The error object, with the id in the ``request-id`` header of the reply."""
        return error(failure, f"req_{self.ident}")

    def shown(self, block: Block) -> Block | None:
        """``block`` as the client wants to see it."""
        if isinstance(block, Thinking) and self.thinking != self.SHOWN:
            return evolve(block, thinking="") if self.thinking == self.EMPTY else None
        return block


class MessageStream(ServerSentEvents):
    """Renders events. Blocks that are left out make no gap in the indices."""

    def __init__(self, envelope: MessageEnvelope) -> None:
        self._envelope = envelope
        self._places: dict[int, int] = {}
        self._open: int | None = None
        self._ended = False

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The SSE bytes for a burst of events."""
        return b"".join(sse(out, out["type"]) for event in events for out in self._event(event))

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._ended

    def _event(self, event: Event) -> Iterator[dict[str, Any]]:
        if isinstance(event, Started):
            yield {"type": "message_start", "message": self._envelope.message(event.usage)}
        elif isinstance(event, BlockStarted):
            block = self._envelope.shown(event.block)
            if block is not None:
                self._open = event.index
                place = self._places[event.index] = len(self._places)
                wire = block_object(block)
                yield {"type": "content_block_start", "index": place, "content_block": wire}
        elif isinstance(event, BlockStopped):
            yield from self._close()
        elif isinstance(event, Finished):
            yield from self._close()  # of an answer that was cut
            yield self._end(event)
            yield {"type": "message_stop"}
            self._ended = True
        elif isinstance(event, Failure):
            yield self._envelope.error(event)
            self._ended = True
        elif event.index in self._places:
            delta = self._delta(event)
            if delta is not None:
                place = self._places[event.index]
                yield {"type": "content_block_delta", "index": place, "delta": delta}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._places[self._open]}
            self._open = None

    def _delta(
        self, event: TextDelta | ThinkingDelta | SignatureDelta | ArgumentsDelta
    ) -> dict[str, Any] | None:
        if isinstance(event, TextDelta):
            return {"type": "text_delta", "text": event.text}
        if isinstance(event, ArgumentsDelta):
            return {"type": "input_json_delta", "partial_json": event.json}
        if isinstance(event, SignatureDelta):
            return {"type": "signature_delta", "signature": event.signature}
        if self._envelope.thinking == MessageEnvelope.SHOWN:
            return {"type": "thinking_delta", "thinking": event.thinking}
        return None

    @staticmethod
    def _end(event: Finished) -> dict[str, Any]:
        delta = {
            "container": None,
            "stop_reason": event.stop_reason,
            "stop_sequence": event.stop_sequence,
            "stop_details": event.stop_details,
        }
        return {"type": "message_delta", "delta": delta, "usage": usage_object(event.usage)}


def complete_body(envelope: MessageEnvelope, assembly: Assembly, end: Finished) -> dict[str, Any]:
    """The message of a reply that is not streamed."""
    shown = (envelope.shown(block) for block in assembly.blocks())
    return envelope.message(
        end.usage,
        content=[block_object(block) for block in shown if block is not None],
        stop_reason=end.stop_reason,
        stop_sequence=end.stop_sequence,
        stop_details=end.stop_details,
    )


def block_object(block: Block) -> dict[str, Any]:
    """A block of the answer, with the fields that only blocks of answers must have.

    Of ``citations`` there are none: suites want the field, and Vercel's AI SDK 6 takes no null.
    """
    wire = block_to_wire(block)
    if isinstance(block, Text):
        wire["citations"] = []
    elif isinstance(block, ToolUse):
        wire["caller"] = {"type": "direct"}
    return wire


def usage_object(usage: Usage) -> dict[str, Any]:
    """The usage in the API's shape: ``input_tokens`` excludes both cache figures."""
    return {
        **dict.fromkeys(("inference_geo", "server_tool_use", "service_tier")),
        "input_tokens": usage.input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def error(failure: Failure, request_id: str | None = None) -> dict[str, Any]:
    """``{"type": "error", "error": {"type", "message", "details": {"kind"}}, "request_id"}``.

    The kind is ours, and finer than the type: ``plan_limit`` or ``rate_limit``.
    """
    kind = _TYPES.get(failure.kind, "invalid_request_error")
    details = {"kind": failure.kind.value}
    if failure.code == NO_THREADS:
        details["error_code"] = failure.code
    why = {"type": kind, "message": failure.message, "details": details}
    wire = {"type": "error", "error": why}
    return wire if request_id is None else {**wire, "request_id": request_id}


def status(failure: Failure) -> int:
    """The API's status for ``failure``."""
    return failure.status if failure.status < 500 else _STATUSES.get(failure.kind, failure.status)
