"""Responses: the response object and its items, made of an answer.

Shapes: openai-python's ``types/responses`` and the OpenAPI document 2.3.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from claudeproxy.messages import (
    Assembly,
    Block,
    Finished,
    Request,
    Text,
    Thinking,
    ToolUse,
    Usage,
    plain_id,
)

from .fields import Fields

NAMES = {"messages": "input", "schema": "text.format.schema"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""

INCOMPLETE = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}
"""Stop reasons of the wire that leave a response incomplete, and its reason then."""


@frozen
class Head:
    """``ident``: what all ids of the answer are made of; ``created``: epoch seconds; ``echo``:
    the fields of the response that only repeat the request."""

    ident: str
    created: int
    echo: Mapping[str, Any]

    def response(self, status: str, output: Sequence[Any] = (), **changes: Any) -> dict[str, Any]:
        """The response object."""
        return {
            "id": f"resp_{self.ident}",
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": list(output),
            "usage": None,
            **self.echo,
            **changes,
        }

    def finished(self, end: Finished, output: Sequence[Any]) -> dict[str, Any]:
        """The response object of an answer that came to its end."""
        usage = usage_object(end.usage)
        reason = INCOMPLETE.get(end.stop_reason)
        if reason is None:
            return self.response("completed", output, usage=usage)
        details = {"reason": reason}
        return self.response("incomplete", output, usage=usage, incomplete_details=details)


def echo(body: Fields, request: Request, keep: bool, previous: str | None) -> dict[str, Any]:
    """The fields of a response that repeat the request, with what is in effect."""
    reasoning = body.raw("reasoning") or {}
    text = body.raw("text") or {}
    return {
        "background": False,
        "frequency_penalty": 0,
        "instructions": body.raw("instructions"),
        "max_output_tokens": request.max_tokens,
        "max_tool_calls": None,
        "metadata": body.object("metadata").value if "metadata" in body else {},
        "model": request.model,
        "parallel_tool_calls": request.tool_choice.parallel,
        "presence_penalty": 0,
        "previous_response_id": previous,
        "prompt_cache_key": body.raw("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": body.raw("safety_identifier"),
        "service_tier": "default",
        "store": keep,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": text.get("format") or {"type": "text"}},
        "tool_choice": body.raw("tool_choice") or "auto",
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description or None,
                "parameters": dict(tool.parameters),
                "strict": False,
            }
            for tool in request.tools
        ],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": "disabled",
        "user": body.raw("user"),
    }


@define
class Item:
    """An output item while it is written; ``place`` is its index in the output."""

    ident: str
    place: int
    block: Block
    parts: list[str] = field(factory=list)

    @property
    def id(self) -> str:
        """``msg_…``, ``rs_…`` or ``fc_…``; :func:`response_of` finds the response in it."""
        kind = {Text: "msg", Thinking: "rs", ToolUse: "fc"}[type(self.block)]
        return f"{kind}_{self.ident}x{self.place}"

    @property
    def written(self) -> str:
        """The text so far; the arguments of a call that has none are ``{}`` once it is whole."""
        return "".join(self.parts)

    def value(self, status: str) -> dict[str, Any]:
        """The item; ``in_progress`` it is empty."""
        text = self.written if status != "in_progress" else ""
        if isinstance(self.block, ToolUse):
            return {
                "id": self.id,
                "type": "function_call",
                "status": status,
                "call_id": plain_id(self.block.id),
                "name": self.block.name,
                "arguments": text if text or status == "in_progress" else "{}",
            }
        if isinstance(self.block, Thinking):
            summary = [{"type": "summary_text", "text": text}] if text else []
            return {"id": self.id, "type": "reasoning", "summary": summary}
        content = [] if status == "in_progress" else [output_text(text)]
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }


def whole(head: Head, assembly: Assembly, end: Finished) -> dict[str, Any]:
    """The response object of an answer that is not streamed."""
    blocks = assembly.indexed()
    output = []
    for place, (index, block) in enumerate(blocks):
        last = place == len(blocks) - 1
        item = Item(head.ident, place, block, [_written(assembly, index, block)])
        cut = last and end.stop_reason in INCOMPLETE
        output.append(item.value("incomplete" if cut else "completed"))
    return head.finished(end, output)


def _written(assembly: Assembly, index: int, block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    return block.thinking if isinstance(block, Thinking) else assembly.arguments(index)


def output_text(text: str) -> dict[str, Any]:
    """The one content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage in this dialect's words; the input includes what was read from or written to cache."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }
