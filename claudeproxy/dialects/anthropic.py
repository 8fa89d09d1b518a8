"""Anthropic Messages: turns a body into a :class:`Request`. ``anthropic_answer`` renders the
answer.

Shapes: anthropic-python's ``types``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from attrs import frozen

from claudeproxy.messages import (
    BUDGETS,
    EFFORTS,
    MIN_BUDGET,
    Assembly,
    Effort,
    Failure,
    Finished,
    Request,
    Tool,
    ToolChoice,
)

from .anthropic_answer import (
    NO_THREADS,
    MessageEnvelope,
    MessageStream,
    complete_body,
    error,
    status,
)
from .anthropic_messages import read_messages
from .estimate import tokens
from .fields import Fields
from .policies import (
    HONOURED,
    IGNORED,
    REFUSED,
    SCHEMAS,
    SILENT,
    TOP_P,
    VALIDATED,
    Policies,
    Policy,
    ignored_fields,
)
from .shared import (
    add_tool,
    json_schema,
    model_name,
    named_tool,
    note,
    unless_direct,
)

FIELDS: Policies = {
    "model": Policy(HONOURED),
    "messages": Policy(
        HONOURED,
        "text, images, documents (data, text or URL), search results, tool calls and results; a "
        "system message after the first message keeps its place, as a `<system-reminder>` text in "
        "the user's turn; tool references become text; thinking of earlier turns is not "
        "replayed, but a kept process still has its own; cache_control is removed (the CLI "
        "sets its own); citations, `transformations` of images, and `output_config`, `clear_at` "
        "and tool changes of system messages, are ignored and named; a last message of the "
        "assistant (prefill) is refused",
    ),
    "max_tokens": Policy(
        HONOURED, "required; the model's own limit holds above that, and it is named"
    ),
    "system": Policy(HONOURED),
    "tools": Policy(
        HONOURED,
        "tools of the client's own; `strict`, `defer_loading`, `input_examples` and "
        "`allowed_callers` are ignored and named; Anthropic's own tools are refused; " + SCHEMAS,
    ),
    "tool_choice": Policy(HONOURED, "auto, any, tool, none; disable_parallel_tool_use"),
    "thinking": Policy(
        HONOURED,
        "enabled (the effort nearest to the budget), adaptive, disabled (where "
        "the model can), display; without it thinking blocks are left out of the answer",
    ),
    "output_config": Policy(
        HONOURED, f"effort, format; {VALIDATED}; `task_budget` is ignored and named"
    ),
    "output_format": Policy(HONOURED, "beta"),
    "stop_sequences": Policy(HONOURED, "up to 1,000"),
    "stream": Policy(HONOURED),
    "temperature": Policy(
        HONOURED, "where thinking can be switched off; otherwise ignored and named"
    ),
    "top_p": TOP_P,
    "top_k": Policy(IGNORED),
    "service_tier": Policy(IGNORED),
    "inference_geo": Policy(IGNORED),
    "speed": Policy(IGNORED),
    "diagnostics": Policy(IGNORED),
    "context_management": Policy(IGNORED),
    "fallbacks": Policy(IGNORED, "no other model than the one that is asked answers"),
    "fallback_credit_token": Policy(IGNORED),
    "billing_policy": Policy(IGNORED),
    "compaction": Policy(REFUSED),
    "container": Policy(REFUSED),
    "mcp_servers": Policy(REFUSED),
    "thread": Policy(REFUSED, "beta; worded so that SDKs send the whole conversation instead"),
    "cache_control": Policy(SILENT),
    "metadata": Policy(SILENT),
}
"""What becomes of each field of a body."""

_REFUSED = {
    "compaction": "nothing is compacted here; ask for a summary in the conversation",
    "container": "there is no code execution here",
    "mcp_servers": "this server connects to no MCP servers; send their tools",
}


@frozen
class Messages:
    """A Messages body, read: an :class:`~.shapes.ParsedBody`."""

    request: Request
    ignored: tuple[str, ...]
    envelope: MessageEnvelope

    @property
    def requests(self) -> tuple[Request, ...]:
        """The one request of the body."""
        return (self.request,)

    def stream(self) -> MessageStream:
        """A renderer for the streamed message."""
        return MessageStream(self.envelope)

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The message object."""
        return complete_body(self.envelope, *answers[0])

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answer was sent."""
        return status(failure), self.envelope.error(failure)


def refusal(failure: Failure, request_id: str | None = None) -> tuple[int, dict[str, Any]]:
    """Status and body of a failure for which no body was read."""
    return status(failure), error(failure, request_id)


def read(value: Any, ident: str, now: int) -> Messages:
    """Read a body; ``ident`` becomes the message's id, ``now`` is not needed.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    if body.integer("max_tokens", 1) is None:
        raise body.refuse("max_tokens", "is required")
    return _read(body, ident)


def count(value: Any) -> tuple[Request, int]:
    """The request in a ``count_tokens`` body, and an **estimate** of its input tokens.

    It counts system prompt, tools and messages: see :func:`.estimate.tokens`.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    request = _read(body, "").request
    return request, tokens({name: body.raw(name) for name in ("system", "tools", "messages")})


def _read(body: Fields, ident: str) -> Messages:
    model = model_name(body)
    for name, why in _REFUSED.items():
        if body.raw(name):
            raise body.refuse(name, why)
    if body.raw("thread"):
        raise body.refuse("thread", "send the whole conversation instead", NO_THREADS)
    ignored = ignored_fields(body, FIELDS)
    system, messages = read_messages(body, ignored)
    tools = _tools(body, ignored)
    effort, shown = _thinking(body)
    config = body.object("output_config") if "output_config" in body else Fields({})
    if "effort" in config:
        level = cast(Effort, config.choice("effort", EFFORTS))
        effort = effort if effort == "none" else level
    if "task_budget" in config:
        ignored.append("output_config.task_budget")
    request = Request(
        model=model,
        messages=messages,
        system=system,
        tools=tools,
        tool_choice=_choice(body, tools),
        max_tokens=body.integer("max_tokens", 1),
        stop=tuple(stop for stop in body.strings("stop_sequences") if stop),
        temperature=body.number("temperature", 0, 1),
        top_p=body.number("top_p", 0, 1),
        effort=effort,
        schema=_schema(body, config),
        stream=body.flag("stream"),
    )
    body.integer("top_k", 0)
    return Messages(request, tuple(ignored), MessageEnvelope(ident, model, shown))


def _tools(body: Fields, ignored: list[str]) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for entry in body.objects("tools"):
        kind = entry.text("type", "custom")
        if kind != "custom":
            raise entry.refuse("type", f"Anthropic's own tool {kind!r} cannot be used here")
        for name in ("defer_loading", "input_examples"):
            if entry.raw(name):
                note(ignored, f"tools.{name}")
        unless_direct(entry, ignored)
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
    """The requested effort, and whether thinking is shown."""
    if "thinking" not in body:
        return None, MessageEnvelope.OMITTED
    thinking = body.object("thinking")
    mode = thinking.choice("type", ("enabled", "adaptive", "disabled"))
    if mode == "disabled":
        return "none", MessageEnvelope.OMITTED
    display = thinking.choice("display", ("summarized", "omitted"), "summarized")
    shown = MessageEnvelope.EMPTY if display == "omitted" else MessageEnvelope.SHOWN
    if mode == "adaptive":
        return None, shown
    budget = thinking.integer("budget_tokens", MIN_BUDGET)
    if budget is None:
        raise thinking.refuse("budget_tokens", "is required")
    room = body.integer("max_tokens", 1)
    if room is not None and budget >= room:
        raise thinking.refuse("budget_tokens", "must be less than max_tokens")
    return min(BUDGETS, key=lambda level: abs(BUDGETS[level] - budget)), shown


def _schema(body: Fields, config: Fields) -> Mapping[str, Any] | None:
    for holder, name in ((config, "format"), (body, "output_format")):
        if name in holder:
            form = holder.object(name)
            form.choice("type", ("json_schema",))
            return json_schema(form)
    return None
