"""Chat completions: a body turned into a :class:`Request`. ``chat_answer`` is the way back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from attrs import frozen

from claudeproxy.messages import Assembly, Effort, Finished, Request, Tool, ToolChoice

from .chat_answer import ChatStream, Head, whole
from .chat_messages import read_messages
from .fields import Fields

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
    "audio": "refused",
    "user": "accepted silently",
    "metadata": "accepted silently",
    "store": "accepted silently",
    "prompt_cache_key": "accepted silently",
    "prompt_cache_retention": "accepted silently",
    "safety_identifier": "accepted silently",
}
"""What happens to each field of a body. *Ignored* fields are named in ``x-claudemax-ignored``;
fields that are not here are accepted silently."""

_IGNORED = tuple(name for name, policy in FIELDS.items() if policy.startswith("ignored"))
_EFFORTS = {
    "none": "none",
    "minimal": "low",
    **{level: level for level in ("low", "medium", "high", "xhigh", "max")},
}
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


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

    def stream(self) -> ChatStream:
        """A renderer for the streamed answer."""
        return ChatStream(self.head, self.request.n, self.usage)

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of the whole answer."""
        return whole(self.head, answers)


def read(value: Any, ident: str, now: int) -> Chat:
    """Read a chat body; ``ident`` and ``now`` make the answer's id and time.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = body.text("model")
    if not model:
        raise body.refuse("model", "is required")
    system, messages = read_messages(body)
    if "audio" in body or "audio" in (body.raw("modalities") or ()):
        raise body.refuse("audio" if "audio" in body else "modalities", "no audio here")
    ignored = [name for name in _IGNORED if body.raw(name) not in (None, False)]
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
            max_tokens=_max_tokens(body, ignored),
            stop=tuple(stop for stop in body.strings("stop") if stop),
            temperature=body.number("temperature", 0, 2),
            top_p=body.number("top_p", 0, 1),
            effort=_effort(body),
            schema=_schema(body),
            n=body.whole("n", 1, 128) or 1,
            stream=stream,
        ),
        ignored=tuple(ignored),
        head=Head(f"chatcmpl-{ident}", now, model, legacy),
        usage=_usage(body),
    )


def _tools(body: Fields, legacy: bool, ignored: list[str]) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for entry in body.objects("functions" if legacy else "tools"):
        if legacy:
            function = entry
        else:
            entry.choice("type", ("function",), "function")
            function = entry.object("function")
        name = function.text("name")
        if not _TOOL_NAME.fullmatch(name):
            raise function.refuse("name", "must be 1 to 128 letters, digits, '_' or '-'")
        if name in tools:
            raise function.refuse("name", f"there are two tools called {name!r}")
        parameters = function.raw("parameters")
        if parameters is None:
            parameters = {}
        schema = Fields(parameters, function.at("parameters"))
        if parameters and schema.raw("type") not in (None, "object"):
            raise schema.refuse("type", "a tool's parameters must be of type 'object'")
        if function.flag("strict") and "tools.strict" not in ignored:
            ignored.append("tools.strict")
        tools[name] = Tool(name, function.text("description", ""), parameters)
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
        return tools, ToolChoice(_MODES[mode], parallel=parallel)
    choice = body.object(key)
    if not legacy and choice.choice("type", ("function", "allowed_tools")) == "allowed_tools":
        allowed = choice.object("allowed_tools")
        mode = allowed.choice("mode", ("auto", "required"), "auto")
        names = [entry.object("function").text("name") for entry in allowed.objects("tools")]
        chosen = tuple(tool for tool in tools if tool.name in names)
        if not chosen:
            raise allowed.refuse("tools", "names none of the tools")
        return chosen, ToolChoice(_MODES[mode], parallel=parallel)
    function = choice if legacy else choice.object("function")
    name = function.text("name")
    if all(tool.name != name for tool in tools):
        raise function.refuse("name", f"none of the tools is called {name!r}")
    return tools, ToolChoice("tool", name, parallel)


_MODES: Mapping[str, Any] = {"none": "none", "auto": "auto", "required": "any"}


def _max_tokens(body: Fields, ignored: list[str]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        limit = body.whole(name, 0)
        if limit:
            return limit
        if limit == 0:
            ignored.append(name)
    return None


def _effort(body: Fields) -> Effort | None:
    if "reasoning_effort" not in body:
        return None
    return cast(Effort, _EFFORTS[body.choice("reasoning_effort", tuple(_EFFORTS))])


def _schema(body: Fields) -> Mapping[str, Any] | None:
    if "response_format" not in body:
        return None
    form = body.object("response_format")
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    given = form.object("json_schema")
    schema = given.raw("schema")
    if not isinstance(schema, dict) or not schema:
        raise given.refuse("schema", "must be a JSON schema")
    return schema


def _usage(body: Fields) -> bool | None:
    if "stream_options" not in body:
        return None
    options = body.object("stream_options")
    return options.flag("include_usage") if "include_usage" in options else None
