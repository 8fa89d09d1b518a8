"""Responses: turns an answer into the response object and its items.

Shapes: openai-python's ``types/responses`` and the OpenAPI document 2.3.0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from attrs import define, field, frozen

from claudeproxy.messages import (
    Assembly,
    Block,
    Finished,
    Request,
    Text,
    Thinking,
    Tool,
    ToolUse,
    Usage,
    normalise_tool_id,
)

from .custom_tools import Custom, input_of
from .fields import Fields

NAMES = {"messages": "input", "schema": "text.format.schema"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""

INCOMPLETE = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}
"""The stop reasons of the API that make a response incomplete, and its reason for that."""


@frozen
class ResponseEnvelope:
    """``ident``: the part that all ids of the answer share; ``created``: epoch seconds; ``echo``:
    the fields of the response that only repeat the request; ``custom``: the names of its custom
    tools; ``completed``: returns the epoch second in which it was first called, at the end."""

    ident: str
    created: int
    echo: dict[str, Any]
    custom: Collection[str]
    completed: Callable[[], int]

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

    def forget(self) -> None:
        """The response could not be stored: from now on it says so."""
        self.echo["store"] = False

    def item(self, place: int, block: Block) -> Item:
        """A new item at ``place`` of the output, for ``block``."""
        custom = isinstance(block, ToolUse) and block.name in self.custom
        return Item(self.ident, place, block, custom)

    def finished(self, end: Finished) -> dict[str, Any]:
        """The status of an answer that has ended, and the other fields that tell how."""
        usage = usage_object(end.usage)
        reason = INCOMPLETE.get(end.stop_reason)
        if reason is None:
            return {"status": "completed", "usage": usage, "completed_at": self.completed()}
        details = {"reason": reason}
        return {"status": "incomplete", "usage": usage, "incomplete_details": details}


def echo(
    body: Fields, request: Request, custom: Custom, keep: bool, previous: str | None
) -> dict[str, Any]:
    """The fields of a response that repeat the request, with the values in effect."""
    reasoning = body.raw("reasoning") or {}
    return {
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
        "service_tier": request.tier,
        "store": keep,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": _format(body)},
        "tool_choice": body.raw("tool_choice") or "auto",
        "tools": [custom.get(tool.name) or _function(tool) for tool in request.tools],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "user": body.raw("user"),
    }


def _format(body: Fields) -> dict[str, Any]:
    """``text.format`` with all its fields."""
    form = (body.raw("text") or {}).get("format") or {}
    kind = form.get("type", "text")
    if kind != "json_schema":
        return {"type": kind}
    return {
        "type": kind,
        "description": form.get("description"),
        "name": form.get("name") or "response",
        "schema": form["schema"],
        "strict": form.get("strict") is True,
    }


def _function(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": dict(tool.parameters),
        "strict": False,
    }


@define
class Item:
    """An output item while it is written; ``place`` is its index in the output; ``custom``: it is
    the call of a custom tool."""

    ident: str
    place: int
    block: Block
    custom: bool
    parts: list[str] = field(factory=list)

    @property
    def id(self) -> str:
        """``msg_…``, ``rs_…``, ``fc_…`` or ``ctc_…``; ``references`` finds the response in it."""
        call = "ctc" if self.custom else "fc"
        kind = {Text: "msg", Thinking: "rs", ToolUse: call}[type(self.block)]
        return f"{kind}_{self.ident}x{self.place}"

    @property
    def written(self) -> str:
        """The text so far; the arguments of a complete call without any are ``{}``."""
        return "".join(self.parts)

    def value(self, status: str) -> dict[str, Any]:
        """The item, which is empty while ``in_progress``."""
        text = self.written if status != "in_progress" else ""
        if isinstance(self.block, ToolUse):
            call = {"call_id": normalise_tool_id(self.block.id), "name": self.block.name}
            if self.custom:
                kind = "custom_tool_call"
                return {"id": self.id, "type": kind, "status": status, **call, "input": text}
            call["arguments"] = text if text or status == "in_progress" else "{}"
            return {"id": self.id, "type": "function_call", "status": status, **call}
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


def complete_body(envelope: ResponseEnvelope, assembly: Assembly, end: Finished) -> dict[str, Any]:
    """The response object of an answer that is not streamed."""
    blocks = assembly.indexed()
    output = []
    for place, (index, block) in enumerate(blocks):
        last = place == len(blocks) - 1
        item = envelope.item(place, block)
        text = _written(assembly, index, block)
        item.parts.append(input_of(text) if item.custom else text)
        cut = last and end.stop_reason in INCOMPLETE
        output.append(item.value("incomplete" if cut else "completed"))
    return envelope.response(output=output, **envelope.finished(end))


def _written(assembly: Assembly, index: int, block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    return block.thinking if isinstance(block, Thinking) else assembly.arguments(index)


def output_text(text: str) -> dict[str, Any]:
    """The one content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def usage_object(usage: Usage) -> dict[str, Any]:
    """The usage in this dialect; the input includes tokens read from or written to cache."""
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
