"""Responses: a body turned into a :class:`Request`. ``responses_answer`` is the way back."""

from __future__ import annotations

import re
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

from .fields import Fields
from .responses_answer import NAMES, Head, echo, whole
from .responses_input import Item, Past, read_input
from .responses_stream import ResponsesStream
from .shapes import error, named
from .shared import (
    MODES,
    add_tool,
    allowed_tools,
    effort,
    given,
    json_schema,
    limit,
    model_name,
    named_tool,
    note,
)

FIELDS: Mapping[str, str] = {
    "model": "honoured",
    "input": "honoured: text, images, files (data or URL), function calls and their outputs; "
    "reasoning of earlier turns is left out, as the CLI leaves it out; items of tools that cannot "
    "run here are left out and named",
    "instructions": "honoured",
    "previous_response_id": "honoured, for stored responses",
    "store": "honoured: true unless given; with --no-store ignored and named",
    "tools": "honoured: functions (`strict` is ignored and named); all others are left out and "
    "named",
    "tool_choice": "honoured: none, auto, required, a function, allowed_tools",
    "parallel_tool_calls": "honoured",
    "text": "honoured: format text, json_object, json_schema, which the daemon validates; "
    "`verbosity` is ignored and named",
    "reasoning": "honoured: effort (the model's nearest level that is not higher); thinking is "
    "always summarised in full, whatever `summary` says",
    "max_output_tokens": "honoured; 0 is ignored and named",
    "temperature": "honoured up to 1 where thinking can be switched off, else ignored and named",
    "top_p": "honoured as temperature is; beside a temperature it is ignored and named",
    "stream": "honoured",
    "metadata": "echoed",
    "truncation": "disabled is honoured; auto is ignored and named",
    "include": "ignored",
    "service_tier": "ignored",
    "top_logprobs": "ignored",
    "max_tool_calls": "ignored",
    "moderation": "ignored",
    "context_management": "ignored",
    "access_programs": "ignored",
    "background": "refused",
    "conversation": "refused",
    "prompt": "refused",
    "stream_options": "accepted silently",
    "user": "accepted silently",
    "prompt_cache_key": "accepted silently",
    "prompt_cache_options": "accepted silently",
    "prompt_cache_retention": "accepted silently",
    "safety_identifier": "accepted silently",
}
"""What happens to each field of a body. *Ignored* fields are named in ``x-claudemax-ignored``;
fields that are not here are accepted silently."""

_REFUSED = {
    "background": "there are no background responses here",
    "conversation": "there are no stored conversations here; use previous_response_id",
    "prompt": "there are no stored prompts here",
}
_KIND = re.compile(r"\w{1,64}", re.ASCII)
_ITEM_ID = re.compile(r"(?:msg|rs|fc)_([0-9A-Za-z]+)x\d+")


@frozen
class Responses:
    """A Responses body, read: an :class:`~.shapes.Exchange`.

    ``items``: its own input; ``keep``: whether the response is to be stored after ``previous``.
    """

    request: Request
    ignored: tuple[str, ...]
    head: Head
    items: tuple[Item, ...]
    keep: bool
    previous: str | None

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked: one request."""
        return (self.request,)

    def stream(self) -> ResponsesStream:
        """A renderer for the streamed response."""
        return ResponsesStream(self.head)

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The response object; for a streamed answer, the one its last event carries."""
        return whole(self.head, *answers[0])

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure before anything of the answer was sent."""
        return failure.status, error(named(failure, NAMES))


@frozen
class References:
    """What of the store a body refers to: the response it goes on from, and the responses whose
    items it names."""

    previous: str | None
    responses: frozenset[str]


def references(value: Any) -> References:
    """What :func:`read` has to be told of the store; nothing when ``value`` makes no sense."""
    body = value if isinstance(value, dict) else {}
    previous, items = body.get("previous_response_id"), body.get("input")
    wanted = [
        match.group(1)
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("type") == "item_reference"
        if (match := _ITEM_ID.fullmatch(str(item.get("id"))))
    ]
    return References(
        previous if isinstance(previous, str) else None,
        frozenset(f"resp_{ident}" for ident in wanted),
    )


def read(value: Any, ident: str, now: int, past: Past | None = None) -> Responses:
    """Read a body; ``ident`` and ``now`` make the response's ids and time. ``past``: what the
    store knows of its :func:`references`; ``None`` when there is no store.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    for name, why in _REFUSED.items():
        if body.raw(name):
            raise body.refuse(name, why)
    ignored = given(body, FIELDS)
    if body.choice("truncation", ("auto", "disabled"), "disabled") == "auto":
        ignored.append("truncation")
    previous = body.text("previous_response_id", "") or None
    if past is None:
        past = Past(None if previous else ())
        keep = False
        if body.flag("store"):
            ignored.append("store")
    else:
        keep = body.flag("store", True)
    said = read_input(body, past, ignored)
    tools, choice = _choice(body, _tools(body, ignored))
    level, schema = _effort(body), _schema(body, ignored)
    request = Request(
        model=model,
        messages=said.messages,
        system=said.system,
        tools=tools,
        tool_choice=choice,
        max_tokens=limit(body, ("max_output_tokens",), ignored),
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        effort=level,
        schema=schema,
        stream=body.flag("stream"),
    )
    head = Head(ident, now, echo(body, request, keep, previous))
    return Responses(request, tuple(ignored), head, said.items, keep, previous)


def _tools(body: Fields, ignored: list[str]) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for entry in body.objects("tools"):
        kind = entry.text("type")
        if kind == "function":
            # Some clients (Cursor) send the chat format's nested object.
            function = entry.object("function") if "function" in entry else entry
            add_tool(tools, function, ignored)
        elif _KIND.fullmatch(kind):
            note(ignored, f"tools.{kind}")
        else:
            raise entry.refuse("type", "must be a word")
    return tuple(tools.values())


def _choice(body: Fields, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice]:
    parallel = body.flag("parallel_tool_calls", True)
    value = body.raw("tool_choice")
    if value is None:
        return tools, ToolChoice(parallel=parallel)
    if isinstance(value, str):
        mode = body.choice("tool_choice", tuple(MODES))
        if mode == "required" and not tools:
            raise body.refuse("tool_choice", "there is no tool here that could be called")
        return tools, ToolChoice(MODES[mode], parallel=parallel)
    choice = body.object("tool_choice")
    if choice.text("type") == "allowed_tools":
        names = [entry.text("name", "") for entry in choice.objects("tools")]
        return allowed_tools(tools, choice, names, parallel)
    if choice.text("type") != "function":
        raise choice.refuse("type", "only functions can be called here")
    function = choice.object("function") if "function" in choice else choice
    return tools, named_tool(tools, function, parallel)


def _effort(body: Fields) -> Effort | None:
    if "reasoning" not in body:
        return None
    reasoning = body.object("reasoning")
    for name in ("summary", "generate_summary"):
        reasoning.choice(name, ("auto", "concise", "detailed"), "auto")
    return effort(reasoning, "effort")


def _schema(body: Fields, ignored: list[str]) -> Mapping[str, Any] | None:
    if "text" not in body:
        return None
    text = body.object("text")
    if "verbosity" in text:
        ignored.append("text.verbosity")
    if "format" not in text:
        return None
    form = text.object("format")
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return json_schema(form)
    return {} if kind == "json_object" else None
