"""Anthropic Messages: a body turned into a :class:`Request`. ``anthropic_answer`` is the way back.

Shapes: anthropic-python's ``types``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    Assembly,
    Effort,
    Failure,
    Finished,
    Request,
    Tool,
    ToolChoice,
)

from .anthropic_answer import NO_THREADS, Head, MessageStream, error, status, whole
from .anthropic_messages import read_messages
from .fields import Fields
from .shared import EFFORTS, add_tool, given, json_schema, model_name, named_tool, note

FIELDS: Mapping[str, str] = {
    "model": "honoured",
    "messages": "honoured: text, images, documents (data, text or URL), tool calls and results; "
    "thinking of earlier turns is left out, as the CLI leaves it out; cache_control is taken off "
    "(the CLI sets its own); citations are ignored and named",
    "max_tokens": "honoured, required",
    "system": "honoured",
    "tools": "honoured: tools of the client's own; `strict`, `defer_loading` and `input_examples` "
    "are ignored and named; Anthropic's own tools are refused",
    "tool_choice": "honoured: auto, any, tool, none; disable_parallel_tool_use",
    "thinking": "honoured: enabled (the effort nearest to the budget), adaptive, disabled (where "
    "the model can), display; without it thinking blocks are left out of the answer",
    "output_config": "honoured: effort, format, which the daemon validates; `task_budget` is "
    "ignored and named",
    "output_format": "honoured (beta)",
    "stop_sequences": "honoured: any number",
    "stream": "honoured",
    "temperature": "honoured where thinking can be switched off, else ignored and named",
    "top_p": "honoured as temperature is; beside a temperature it is ignored and named",
    "top_k": "ignored",
    "service_tier": "ignored",
    "inference_geo": "ignored",
    "speed": "ignored",
    "diagnostics": "ignored",
    "context_management": "ignored",
    "container": "refused",
    "mcp_servers": "refused",
    "thread": "refused (beta), in the words that make SDKs send the whole conversation instead",
    "cache_control": "accepted silently",
    "metadata": "accepted silently",
}
"""What happens to each field of a body. *Ignored* fields are named in ``x-claudemax-ignored``;
fields that are not here are accepted silently."""

_REFUSED = {
    "container": "there is no code execution here",
    "mcp_servers": "this server connects to no MCP servers; send their tools",
}
_BUDGETS: Mapping[Effort, int] = {
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 31_999,
}
"""Thinking tokens that stand for an effort."""

_LEVELS = tuple(level for level in EFFORTS if level not in ("none", "minimal"))
_TOKEN_BYTES = 4
_IMAGE_TOKENS = 1_600


@frozen
class Messages:
    """A Messages body, read: an :class:`~.shapes.Exchange`."""

    request: Request
    ignored: tuple[str, ...]
    head: Head

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked: one request."""
        return (self.request,)

    def stream(self) -> MessageStream:
        """A renderer for the streamed message."""
        return MessageStream(self.head)

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The message object."""
        return whole(self.head, *answers[0])

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure before anything of the answer was sent."""
        return status(failure), self.head.error(failure)


def refusal(failure: Failure, request_id: str | None = None) -> tuple[int, dict[str, Any]]:
    """Status and body of a failure that no body was read for."""
    return status(failure), error(failure, request_id)


def read(value: Any, ident: str, now: int) -> Messages:
    """Read a body; ``ident`` makes the message's id, of which ``now`` is no part.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    if body.whole("max_tokens", 1) is None:
        raise body.refuse("max_tokens", "is required")
    return _read(body, ident)


def count(value: Any) -> tuple[Request, int]:
    """What a ``count_tokens`` body asks about, and an **estimate** of its input tokens.

    There is no way to ask the API that spends no quota, so this counts four bytes of the JSON of
    system prompt, tools and messages as a token, and 1,600 tokens for an image.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    request = _read(body, "").request
    images: list[Any] = []
    counted = {name: body.raw(name) for name in ("system", "tools", "messages")}
    said = json.dumps(_without_images(counted, images), ensure_ascii=False)
    size = len(said.encode())
    return request, -(-size // _TOKEN_BYTES) + _IMAGE_TOKENS * len(images)


def _without_images(value: Any, images: list[Any]) -> Any:
    if isinstance(value, list):
        return [_without_images(entry, images) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "image":
        images.append(value)
        return None
    return {
        name: _without_images(entry, images)
        for name, entry in value.items()
        if entry is not None and name != "cache_control"
    }


def _read(body: Fields, ident: str) -> Messages:
    model = model_name(body)
    for name, why in _REFUSED.items():
        if body.raw(name):
            raise body.refuse(name, why)
    if body.raw("thread"):
        raise body.refuse("thread", "send the whole conversation instead", NO_THREADS)
    ignored = given(body, FIELDS)
    system, messages = read_messages(body, ignored)
    tools = _tools(body, ignored)
    effort, shown = _thinking(body)
    config = body.object("output_config") if "output_config" in body else Fields({})
    if "effort" in config:
        level = EFFORTS[config.choice("effort", _LEVELS)]
        effort = effort if effort == "none" else level
    if "task_budget" in config:
        ignored.append("output_config.task_budget")
    request = Request(
        model=model,
        messages=messages,
        system=system,
        tools=tools,
        tool_choice=_choice(body, tools),
        max_tokens=body.whole("max_tokens", 1),
        stop=tuple(stop for stop in body.strings("stop_sequences") if stop),
        temperature=body.number("temperature", 0, 1),
        top_p=body.number("top_p", 0, 1),
        effort=effort,
        schema=_schema(body, config),
        stream=body.flag("stream"),
    )
    body.whole("top_k", 0)
    return Messages(request, tuple(ignored), Head(ident, model, shown))


def _tools(body: Fields, ignored: list[str]) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for entry in body.objects("tools"):
        kind = entry.text("type", "custom")
        if kind != "custom":
            raise entry.refuse("type", f"Anthropic's own tool {kind!r} cannot be used here")
        for name in ("defer_loading", "input_examples"):
            if entry.raw(name):
                note(ignored, f"tools.{name}")
        if not isinstance(entry.raw("input_schema"), dict):
            raise entry.refuse("input_schema", "must be an object")
        add_tool(tools, entry, ignored, "input_schema")
    return tuple(tools.values())


def _choice(body: Fields, tools: tuple[Tool, ...]) -> ToolChoice:
    if "tool_choice" not in body:
        return ToolChoice()
    choice = body.object("tool_choice")
    mode = choice.choice("type", ("auto", "any", "tool", "none"))
    if not tools and mode in ("any", "tool"):
        raise body.refuse("tool_choice", "is only allowed together with tools")
    parallel = not choice.flag("disable_parallel_tool_use")
    if mode == "tool":
        return named_tool(tools, choice, parallel)
    return {
        "auto": ToolChoice("auto", parallel=parallel),
        "any": ToolChoice("any", parallel=parallel),
        "none": ToolChoice("none"),
    }[mode]


def _thinking(body: Fields) -> tuple[Effort | None, str]:
    """The effort asked for, and whether thinking is shown."""
    if "thinking" not in body:
        return None, Head.OMITTED
    thinking = body.object("thinking")
    mode = thinking.choice("type", ("enabled", "adaptive", "disabled"))
    if mode == "disabled":
        return "none", Head.OMITTED
    display = thinking.choice("display", ("summarized", "omitted"), "summarized")
    shown = Head.EMPTY if display == "omitted" else Head.SHOWN
    if mode == "adaptive":
        return None, shown
    budget = thinking.whole("budget_tokens", 1_024)
    if budget is None:
        raise thinking.refuse("budget_tokens", "is required")
    room = body.whole("max_tokens", 1)
    if room is not None and budget >= room:
        raise thinking.refuse("budget_tokens", "must be less than max_tokens")
    return min(_BUDGETS, key=lambda level: abs(_BUDGETS[level] - budget)), shown


def _schema(body: Fields, config: Fields) -> Mapping[str, Any] | None:
    for holder, name in ((config, "format"), (body, "output_format")):
        if name in holder:
            form = holder.object(name)
            form.choice("type", ("json_schema",))
            return json_schema(form)
    return None
