"""Chat completions: turns events into chunks, or into one body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Event,
    Failure,
    Finished,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    Tier,
    ToolUse,
    Usage,
    normalise_tool_id,
)

from .custom_tools import InputReader, input_of
from .shapes import ServerSentEvents, error, sse

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""OpenAI's words for stop reasons of the API; any other one is a ``stop``."""


@frozen
class ChatEnvelope:
    """What all chunks of an answer share. ``created``: epoch seconds; ``model``: as
    requested; ``legacy``: calls are rendered as ``function_call``; ``custom``: the names of custom
    tools; ``tier``: the ``service_tier``."""

    id: str
    created: int
    model: str
    legacy: bool = False
    custom: frozenset[str] = frozenset()
    tier: Tier | None = None

    def object(self, kind: str, **rest: Any) -> dict[str, Any]:
        """The outermost object, of OpenAI's type ``kind`` (``chat.completion`` …)."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            **({} if self.tier is None else {"service_tier": self.tier}),
            **rest,
        }


class ChatStream(ServerSentEvents):
    """Renders the events of all ``n`` answers into one SSE body."""

    def __init__(self, envelope: ChatEnvelope, n: int, usage: bool | None) -> None:
        """``usage``: see :class:`~.chat.Chat`."""
        self._envelope = envelope
        self._choices = [_Choice(index, envelope) for index in range(n)]
        self._open = n
        self._usage = usage
        self._total = Usage()

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The SSE bytes for a burst of events of answer ``index``, with the end of the stream when
        the last answer has ended."""
        out: list[bytes] = []
        choice = self._choices[index]
        for event in events:
            if isinstance(event, Failure):
                out.append(sse(error(event)))
                self._open = 0
                break
            if isinstance(event, Finished):
                self._total += event.usage
                self._open -= 1
                out.append(self._chunk(choice.chunk({}, choice.finish(event)), self._open == 0))
                continue
            for delta in choice.deltas(event):
                out.append(self._chunk(choice.chunk(delta, None)))
        if self.ended and out:
            if self._usage and not isinstance(event, Failure):
                usage = usage_object([self._total])
                out.append(
                    sse(self._envelope.object("chat.completion.chunk", choices=[], usage=usage))
                )
            if not isinstance(event, Failure):
                out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._open == 0

    def _chunk(self, choice: dict[str, Any], last: bool = False) -> bytes:
        chunk = self._envelope.object("chat.completion.chunk", choices=[choice])
        if self._usage:
            chunk["usage"] = None
        elif last and self._usage is None:
            chunk["usage"] = usage_object([self._total])
        return sse(chunk)


class _Choice:
    """One of the answers of a stream."""

    def __init__(self, index: int, envelope: ChatEnvelope) -> None:
        self._index = index
        self._legacy = envelope.legacy
        self._custom = envelope.custom
        self._calls: dict[int, int] = {}
        self._inputs: dict[int, InputReader] = {}
        self._written: set[int] = set()

    def deltas(self, event: Event) -> Sequence[dict[str, Any]]:
        if isinstance(event, TextDelta):
            return ({"content": event.text},)
        if isinstance(event, ThinkingDelta):
            return ({"reasoning_content": event.thinking},)
        if isinstance(event, ArgumentsDelta):
            if not event.json or event.index not in self._calls:
                return ()
            if event.index in self._inputs:
                return self._input(event.index, self._inputs[event.index].feed(event.json))
            self._written.add(event.index)
            return (self._call(event.index, {"arguments": event.json}),)
        if isinstance(event, Started):
            return ({"role": "assistant", "content": ""},)
        if isinstance(event, BlockStarted) and isinstance(event.block, ToolUse):
            self._calls[event.index] = len(self._calls)
            name, ident = event.block.name, normalise_tool_id(event.block.id)
            if name in self._custom:
                self._inputs[event.index] = InputReader()
                return (self._call(event.index, {"name": name, "input": ""}, ident, "custom"),)
            return (self._call(event.index, {"name": name, "arguments": ""}, ident),)
        if isinstance(event, BlockStopped) and event.index in self._inputs:
            return self._input(event.index, self._inputs[event.index].finish())
        if isinstance(event, BlockStopped) and event.index in self._calls.keys() - self._written:
            return (self._call(event.index, {"arguments": "{}"}),)
        return ()

    def _input(self, block: int, text: str) -> Sequence[dict[str, Any]]:
        return (self._call(block, {"input": text}, kind="custom"),) if text else ()

    def _call(
        self,
        block: int,
        function: dict[str, str],
        identifier: str | None = None,
        kind: str = "function",
    ) -> dict[str, Any]:
        if self._legacy:
            return {"function_call": function}
        call: dict[str, Any] = {"index": self._calls[block]}
        if identifier is not None:
            call.update(id=identifier, type=kind)
        call[kind] = function
        return {"tool_calls": [call]}

    def finish(self, event: Finished) -> str:
        return finish_reason(event.stop_reason, self._legacy)

    def chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": reason}


def finish_reason(stop_reason: str, legacy: bool = False) -> str:
    """OpenAI's word for a stop reason of the API."""
    reason = FINISH_REASONS.get(stop_reason, "stop")
    return "function_call" if legacy and reason == "tool_calls" else reason


def complete_body(
    envelope: ChatEnvelope, answers: Sequence[tuple[Assembly, Finished]]
) -> dict[str, Any]:
    """The body of a completion that is not streamed."""
    return envelope.object(
        "chat.completion",
        choices=[
            {
                "index": index,
                "message": _message(assembly, envelope),
                "logprobs": None,
                "finish_reason": finish_reason(finished.stop_reason, envelope.legacy),
            }
            for index, (assembly, finished) in enumerate(answers)
        ],
        usage=usage_object([finished.usage for _, finished in answers]),
    )


def _message(assembly: Assembly, envelope: ChatEnvelope) -> dict[str, Any]:
    text, thinking = "", ""
    calls: list[dict[str, Any]] = []
    for index, block in assembly.indexed():
        if isinstance(block, Text):
            text += block.text
        elif isinstance(block, Thinking):
            thinking += block.thinking
        elif isinstance(block, ToolUse):
            calls.append(_call(block, assembly.arguments(index), envelope))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
    }
    if thinking:
        message["reasoning_content"] = thinking
    if calls and envelope.legacy:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return message


def _call(block: ToolUse, arguments: str, envelope: ChatEnvelope) -> dict[str, Any]:
    call: dict[str, Any] = {"id": normalise_tool_id(block.id)}
    if block.name in envelope.custom:
        custom = {"name": block.name, "input": input_of(arguments)}
        return {**call, "type": "custom", "custom": custom}
    function = {"name": block.name, "arguments": arguments or "{}"}
    return {**call, "type": "function", "function": function}


def usage_object(usages: Sequence[Usage]) -> dict[str, Any]:
    """The sum in OpenAI's shape; ``prompt_tokens`` includes tokens read from or written to
    cache."""
    total = sum(usages, Usage())
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.output_tokens,
        "total_tokens": total.prompt_tokens + total.output_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": total.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
