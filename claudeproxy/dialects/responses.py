"""Responses: turns a body into a :class:`Request`. ``responses_answer`` renders the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    Assembly,
    Effort,
    Failure,
    Finished,
    Kind,
    Request,
)

from .estimate import tokens
from .fields import Fields
from .policies import ignored_fields
from .responses_answer import NAMES, ResponseEnvelope, complete_body, echo
from .responses_fields import FIELDS
from .responses_input import Item, Past, conversation_id, read_input
from .responses_stream import ResponsesStream
from .responses_tools import read_choice, read_tools
from .shapes import error, with_client_names
from .shared import (
    effort,
    json_schema,
    limit,
    model_name,
    note,
    tier,
)

_INCLUDED = "message.input_image.image_url"
_INCLUDABLE = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
_ITEM_ID = re.compile(r"(?:msg|rs|fc|ctc)_([0-9A-Za-z]+)x\d+")


@frozen
class Responses:
    """A Responses body, read: an :class:`~.shapes.ParsedBody`.

    ``items``: its own input; ``keep``: whether the response is to be stored after ``previous``;
    ``conversation``: the id of the one that it belongs to; ``dropped``: how many turns of it were
    left out; ``history``: all items before its own.
    """

    request: Request
    ignored: tuple[str, ...]
    envelope: ResponseEnvelope
    items: tuple[Item, ...]
    keep: bool
    previous: str | None
    conversation: str | None = None
    background: bool = False
    dropped: int = 0
    history: tuple[Item, ...] = ()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The one request of the body."""
        return (self.request,)

    def stream(self) -> ResponsesStream:
        """A renderer for the streamed response."""
        return ResponsesStream(self.envelope)

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The response object; for a streamed answer, that of its last event."""
        return complete_body(self.envelope, *answers[0])

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answer was sent."""
        return refusal(failure)


def refusal(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Status and body of a failure; an unknown model is a 400, as at OpenAI."""
    status = 400 if failure.kind is Kind.MODEL_NOT_FOUND else failure.status
    return status, error(with_client_names(failure, NAMES))


@frozen
class References:
    """What a body refers to: the response, or else the conversation, that it continues, and the
    responses whose items it names. ``background``: it is to be stored before it has an answer."""

    previous: str | None
    responses: frozenset[str]
    conversation: str | None = None
    background: bool = False

    def __bool__(self) -> bool:
        """Whether the body can only be answered with a store."""
        return any((self.previous, self.responses, self.conversation, self.background))


def references(value: Any) -> References:
    """What :func:`read` needs from the store; nothing if ``value`` is malformed."""
    body = value if isinstance(value, dict) else {}
    previous, items = body.get("previous_response_id"), body.get("input")
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    wanted = [
        match.group(1)
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("type") == "item_reference"
        if (match := _ITEM_ID.fullmatch(str(item.get("id"))))
    ]
    return References(
        _text(previous),
        frozenset(f"resp_{ident}" for ident in wanted),
        _text(conversation),
        body.get("background") is True,
    )


def _text(value: Any) -> str | None:
    """``value``, if it is Unicode: no half of a surrogate pair is in it."""
    is_text = isinstance(value, str) and value.encode(errors="ignore").decode() == value
    return value if is_text else None


def read(
    value: Any,
    ident: str,
    now: int,
    past: Past | None = None,
    clock: Callable[[], int] | None = None,
    context: Callable[[str], int] | None = None,
) -> Responses:
    """Read a body; ``ident`` and ``now`` become the response's ids and time. ``past``: what is
    stored of its :func:`references`; ``None`` without a store. ``clock``: returns the epoch
    seconds, and is called when the response is completed. ``context``: returns the tokens that the
    model with a name reads, for ``truncation: auto``.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    if body.raw("prompt"):
        raise body.refuse("prompt", "there are no stored prompts here; send input and instructions")
    ignored = ignored_fields(body, FIELDS)
    _include(body, ignored)
    auto = body.choice("truncation", ("auto", "disabled"), "disabled") == "auto"
    previous, conversation = body.text("previous_response_id", "") or None, conversation_id(body)
    background = body.flag("background")
    if past is None:
        source = "conversation" if conversation else "previous_response_id"
        past = Past(None if previous or conversation else (), source=source, stores=False)
    keep = past.stores and body.flag("store", True)
    if not past.stores and body.flag("store"):
        ignored.append("store")
    if background and not keep:
        without = "store: false" if past.stores else "a server that runs with --no-store"
        raise body.refuse("background", f"needs a stored response, so it cannot go with {without}")
    room = context(model) if auto and context is not None else None
    said = read_input(body, past, ignored, room)
    tools, custom = read_tools(body, ignored)
    tools, choice = read_choice(body, tools)
    level, schema = _effort(body, ignored), _schema(body, ignored)
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
        tier=tier(body, ignored),
    )
    repeated = {
        **echo(body, request, custom, keep, previous),
        "background": background,
        "conversation": conversation and {"id": conversation},
        "truncation": "auto" if auto else "disabled",
    }
    envelope = ResponseEnvelope(ident, now, repeated, custom.keys(), cache(clock or (lambda: now)))
    return Responses(
        request,
        tuple(ignored),
        envelope,
        said.items,
        keep,
        previous,
        conversation,
        background,
        said.dropped,
        tuple(past.history or ()),
    )


def count(value: Any, past: Past | None = None) -> tuple[str | None, int]:
    """The model that an ``input_tokens`` body names, if any, and an **estimate** of its tokens:
    see :func:`.estimate.tokens`. ``past``: as for :func:`read`.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = body.text("model", "") or None
    read({**value, "model": model or "any"}, "", 0, past)
    history = list(past.history or ()) if past is not None else []
    counted = {name: body.raw(name) for name in ("instructions", "tools", "input")}
    return model, tokens({**counted, "history": history or None})


def _include(body: Fields, ignored: list[str]) -> None:
    for value in body.strings("include"):
        if value != _INCLUDED:
            # The name goes into a header: not what the client made up.
            note(ignored, f"include.{value}" if value in _INCLUDABLE else "include")


def _effort(body: Fields, ignored: list[str]) -> Effort | None:
    if "reasoning" not in body:
        return None
    reasoning = body.object("reasoning")
    for name in ("summary", "generate_summary"):
        reasoning.choice(name, ("auto", "concise", "detailed"), "auto")
    for name in ("mode", "context"):
        if name in reasoning:
            note(ignored, f"reasoning.{name}")
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
    form.text("name", "")
    form.flag("strict")
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return json_schema(form)
    return {} if kind == "json_object" else None
