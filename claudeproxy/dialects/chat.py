"""Chat completions: a body turned into a :class:`Request`. ``chat_answer`` is the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import Assembly, Failure, Finished, Request, Tool, ToolChoice

from .chat_answer import ChatStream, Head, whole
from .chat_messages import read_messages
from .fields import Fields
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
    usage_wanted,
)

FIELDS: Mapping[str, str] = {
    "model": "honoured",
    "messages": "honoured",
    "tools": "honoured; `strict` is ignored and named",
    "tool_choice": "honoured: none, auto, required, a function, allowed_tools",
    "parallel_tool_calls": "honoured",
    "functions": "honoured (legacy)",
    "function_call": "honoured (legacy)",
    "response_format": "honoured: text, json_object, json_schema; the daemon validates the answer",
    "reasoning_effort": "honoured: the model's nearest level that is not higher",
    "max_tokens": "honoured; 0 is ignored and named",
    "max_completion_tokens": "honoured; 0 is ignored and named",
    "stop": "honoured: any number",
    "n": "honoured, up to 128",
    "temperature": "honoured up to 1 where thinking can be switched off, else ignored and named",
    "top_p": "honoured as temperature is; beside a temperature it is ignored and named",
    "stream": "honoured",
    "stream_options": "honoured: include_usage",
    "seed": "ignored",
    "presence_penalty": "ignored",
    "frequency_penalty": "ignored",
    "logit_bias": "ignored",
    "logprobs": "ignored",
    "top_logprobs": "ignored",
    "service_tier": "ignored",
    "prediction": "ignored",
    "verbosity": "ignored",
    "modalities": "ignored: text; refused: audio",
    "web_search_options": "ignored",
    "audio": "ignored",
    "user": "accepted silently",
    "metadata": "accepted silently",
    "store": "accepted silently",
    "prompt_cache_key": "accepted silently",
    "prompt_cache_retention": "accepted silently",
    "safety_identifier": "accepted silently",
}
"""What happens to each field of a body. *Ignored* fields are named in ``x-claudemax-ignored``;
fields that are not here are accepted silently."""

NAMES = {"schema": "response_format.json_schema.schema"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""


@frozen
class Chat:
    """A chat body, read: an :class:`~.shapes.Exchange`.

    ``usage``: whether a stream ends with a usage chunk of its own (true), carries usage on its
    finish chunk (``None``, unasked) or not at all (false).
    """

    request: Request
    ignored: tuple[str, ...]
    head: Head
    usage: bool | None

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked: one request."""
        return (self.request,)

    def stream(self) -> ChatStream:
        """A renderer for the streamed answer."""
        return ChatStream(self.head, self.request.n, self.usage)

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of the whole answer."""
        return whole(self.head, answers)

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure before anything of the answer was sent."""
        return failure.status, error(named(failure, NAMES))


def read(value: Any, ident: str, now: int) -> Chat:
    """Read a chat body; ``ident`` and ``now`` make the answer's id and time.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    system, messages = read_messages(body)
    if "audio" in body.strings("modalities"):
        raise body.refuse("modalities", "no audio here")
    ignored = given(body, FIELDS)
    body.number("presence_penalty", -2, 2)
    body.number("frequency_penalty", -2, 2)
    legacy = "functions" in body and not body.raw("tools")
    tools = _tools(body, legacy, ignored)
    tools, choice = _choice(body, tools, legacy)
    stream = body.flag("stream")
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
            n=body.whole("n", 1, 128) or 1,
            stream=stream,
        ),
        ignored=tuple(ignored),
        head=Head(f"chatcmpl-{ident}", now, model, legacy),
        usage=usage_wanted(body),
    )


def _tools(body: Fields, legacy: bool, ignored: list[str]) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for entry in body.objects("functions" if legacy else "tools"):
        if legacy:
            function = entry
        else:
            entry.choice("type", ("function",), "function")
            function = entry.object("function")
        add_tool(tools, function, ignored)
    return tuple(tools.values())


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
    if not legacy and choice.choice("type", ("function", "allowed_tools")) == "allowed_tools":
        allowed = choice.object("allowed_tools")
        names = [entry.object("function").text("name") for entry in allowed.objects("tools")]
        return allowed_tools(tools, allowed, names, parallel)
    function = choice if legacy else choice.object("function")
    return tools, named_tool(tools, function, parallel)


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
