"""Chat completions: turns a body into a :class:`Request`. ``chat_answer`` renders the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import Assembly, Failure, Finished, Request, Tool, ToolChoice

from .chat_answer import ChatEnvelope, ChatStream, complete_body
from .chat_messages import read_messages
from .custom_tools import add_custom_tool, grammar_of
from .fields import Fields
from .metadata import read_metadata
from .policies import (
    HONOURED,
    IGNORED,
    LIMIT,
    SCHEMAS,
    SILENT,
    TEMPERATURE,
    TIER,
    TOOL_CHOICE,
    TOOLS,
    TOP_P,
    VALIDATED,
    Policies,
    Policy,
    ignored_fields,
)
from .shapes import error, with_client_names
from .shared import (
    MODES,
    add_tool,
    allowed_tools,
    effort,
    json_schema,
    limit,
    model_name,
    named_tool,
    tier,
    usage_wanted,
)

FIELDS: Policies = {
    "model": Policy(HONOURED),
    "messages": Policy(
        HONOURED,
        "a system or developer message after the first message keeps its place, as a "
        "`<system-reminder>` text in the user's turn; a last message of the assistant is refused; "
        "the `name` of a user precedes what the user says; other names, `detail` of an image and "
        "`audio` are ignored and named",
    ),
    "tools": Policy(HONOURED, f"{TOOLS}; {SCHEMAS}"),
    "tool_choice": TOOL_CHOICE,
    "parallel_tool_calls": Policy(HONOURED),
    "functions": Policy(HONOURED, "legacy"),
    "function_call": Policy(HONOURED, "legacy"),
    "response_format": Policy(HONOURED, f"text, json_object, json_schema; {VALIDATED}"),
    "reasoning_effort": Policy(HONOURED, "the model's nearest level that is not higher"),
    "max_tokens": LIMIT,
    "max_completion_tokens": LIMIT,
    "stop": Policy(HONOURED, "up to 1,000"),
    "n": Policy(HONOURED, "up to 128"),
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "stream": Policy(HONOURED),
    "stream_options": Policy(HONOURED, "include_usage"),
    "seed": Policy(IGNORED),
    "presence_penalty": Policy(IGNORED),
    "frequency_penalty": Policy(IGNORED),
    "logit_bias": Policy(IGNORED),
    "logprobs": Policy(IGNORED),
    "top_logprobs": Policy(IGNORED),
    "service_tier": TIER,
    "prediction": Policy(IGNORED, "the API has nothing of the kind"),
    "verbosity": Policy(IGNORED, "the API has nothing of the kind; say in the prompt how much"),
    "modalities": Policy(IGNORED, "text; audio is refused"),
    "web_search_options": Policy(
        IGNORED,
        "a search runs at the API, as a tool of its own, which the CLI lets nobody else add",
    ),
    "audio": Policy(IGNORED),
    "moderation": Policy(IGNORED),
    "user": Policy(SILENT),
    "metadata": Policy(HONOURED, "of stored completions; otherwise accepted silently"),
    "store": Policy(
        HONOURED,
        "false unless given; with --no-store, or while the store is lost, ignored and named",
    ),
    "prompt_cache_key": Policy(SILENT),
    "prompt_cache_options": Policy(SILENT),
    "prompt_cache_retention": Policy(SILENT),
    "safety_identifier": Policy(SILENT),
}
"""What becomes of each field of a body."""

_KINDS = ("function", "custom")

NAMES = {"schema": "response_format.json_schema.schema"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""


@frozen
class Stored:
    """What is stored with a completion."""

    metadata: Mapping[str, str]
    messages: Sequence[Mapping[str, Any]]


@frozen
class Chat:
    """A chat body, read: an :class:`~.shapes.ParsedBody`.

    ``usage``: whether a stream ends with a usage chunk of its own (true), carries usage on its
    finish chunk (``None``, unasked) or not at all (false). ``stored``: what is to be stored with
    the completion; ``None`` if it is not.
    """

    request: Request
    ignored: tuple[str, ...]
    envelope: ChatEnvelope
    usage: bool | None
    stored: Stored | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked: one request."""
        return (self.request,)

    def stream(self) -> ChatStream:
        """A renderer for the streamed answer."""
        return ChatStream(self.envelope, self.request.n, self.usage)

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of the whole answer."""
        return complete_body(self.envelope, answers)

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answer was sent."""
        return failure.status, error(with_client_names(failure, NAMES))


def read(value: Any, ident: str, now: int) -> Chat:
    """Read a chat body; ``ident`` and ``now`` make the answer's id and time.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    ignored = ignored_fields(body, FIELDS)
    system, messages = read_messages(body, ignored)
    if "audio" in body.strings("modalities"):
        raise body.refuse("modalities", "no audio here")
    body.number("presence_penalty", -2, 2)
    body.number("frequency_penalty", -2, 2)
    legacy = "functions" in body and not body.raw("tools")
    tools, custom = _tools(body, legacy, ignored)
    tools, choice = _choice(body, tools, legacy)
    stream, level = body.flag("stream"), tier(body, ignored)
    return Chat(
        request=Request(
            model=model,
            messages=messages,
            system=system,
            tools=tools,
            tool_choice=choice,
            max_tokens=limit(body, ("max_completion_tokens", "max_tokens"), ignored),
            stop=tuple(stop for stop in body.strings("stop") if stop),
            temperature=body.number("temperature", 0, 2),
            top_p=body.number("top_p", 0, 1),
            effort=effort(body, "reasoning_effort"),
            schema=_schema(body),
            n=body.integer("n", 1, 128) or 1,
            stream=stream,
            tier=level,
        ),
        ignored=tuple(ignored),
        envelope=ChatEnvelope(f"chatcmpl-{ident}", now, model, legacy, custom, level),
        usage=usage_wanted(body),
        stored=Stored(read_metadata(body), body.raw("messages")) if body.flag("store") else None,
    )


def stored_messages(ident: str, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ``messages`` of the stored completion ``ident``, as they are listed."""
    listed = []
    for place, message in enumerate(messages):
        content = message.get("content")
        parts = content if isinstance(content, list) else None
        whole = {"content": None if parts else content, "content_parts": parts}
        listed.append({**message, "id": f"{ident}-{place}", **whole})
    return listed


def _tools(
    body: Fields, legacy: bool, ignored: list[str]
) -> tuple[tuple[Tool, ...], frozenset[str]]:
    """The tools, and the names of the custom ones."""
    tools: dict[str, Tool] = {}
    custom: list[str] = []
    for entry in body.objects("functions" if legacy else "tools"):
        if legacy:
            add_tool(tools, entry, ignored)
        elif entry.choice("type", _KINDS, "function") == "custom":
            tool = entry.object("custom")
            add_custom_tool(tools, tool, ignored, grammar_of(tool, nested=True))
            custom.append(tool.text("name"))
        else:
            add_tool(tools, entry.object("function"), ignored)
    return tuple(tools.values()), frozenset(custom)


def _choice(
    body: Fields, tools: tuple[Tool, ...], legacy: bool
) -> tuple[tuple[Tool, ...], ToolChoice]:
    parallel = body.flag("parallel_tool_calls", True) and not legacy
    key = "function_call" if legacy else "tool_choice"
    value = body.raw(key)
    if value is None:
        return tools, ToolChoice(parallel=parallel)
    if not tools and not (value in ("none", "auto") and body.raw("tools") == []):
        raise body.refuse(key, "is only allowed together with tools")
    if isinstance(value, str):
        mode = body.choice(key, ("none", "auto") if legacy else ("none", "auto", "required"))
        return tools, ToolChoice(MODES[mode], parallel=parallel)
    choice = body.object(key)
    if legacy:
        return tools, named_tool(tools, choice, parallel)
    kind = choice.choice("type", (*_KINDS, "allowed_tools"))
    if kind == "allowed_tools":
        allowed = choice.object(kind)
        entries = allowed.objects("tools")
        names = [e.object(e.choice("type", _KINDS, "function")).text("name") for e in entries]
        return allowed_tools(tools, allowed, names, parallel)
    return tools, named_tool(tools, choice.object(kind), parallel)


def _schema(body: Fields) -> Mapping[str, Any] | None:
    if "response_format" not in body:
        return None
    form = body.object("response_format")
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    return json_schema(form.object("json_schema"))
