"""Ollama's chat and generate: turns a body into a :class:`Request`. ``ollama_answer`` renders the
answer.

Shapes as in Ollama's ``docs/api.md`` and the types of its Go API (0.13).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from claudeproxy.messages import (
    Assembly,
    Block,
    Effort,
    Failure,
    FailureError,
    Finished,
    Image,
    Kind,
    Message,
    Request,
    Text,
    Tool,
    ToolResult,
)

from .conversation import Conversation
from .fields import Fields
from .media import image, image_type
from .ollama_answer import OllamaEnvelope, OllamaStream, complete_body
from .policies import HONOURED, IGNORED, SILENT, VALIDATED, Policies, Policy, ignored_fields
from .shared import add_tool

_OPTIONS: Policies = {
    "options.num_predict": Policy(HONOURED, "-1 and -2 are the model's own limit"),
    "options.stop": Policy(HONOURED),
    "options.temperature": Policy(
        HONOURED, "up to 1, where thinking can be switched off; otherwise ignored and named"
    ),
    "options.top_p": Policy(HONOURED, "as temperature is; beside one it is ignored and named"),
    **{
        f"options.{name}": Policy(IGNORED)
        for name in (
            "frequency_penalty", "min_p", "mirostat", "mirostat_eta", "mirostat_tau", "num_ctx",
            "num_keep", "penalize_newline", "presence_penalty", "repeat_last_n", "repeat_penalty",
            "seed", "tfs_z", "top_k", "typical_p",
        )
    },
}  # fmt: skip

_COMMON: Policies = {
    "model": Policy(HONOURED, "with or without `:latest`"),
    "stream": Policy(HONOURED, "true unless it is given"),
    "format": Policy(HONOURED, f"json or a JSON schema; {VALIDATED}"),
    "think": Policy(
        HONOURED,
        "low, medium, high, max; true is the model's own effort; false is none, or the lowest "
        "where the model cannot do without, and then no thinking is told. Without this field it "
        "is told where there is any",
    ),
    "keep_alive": Policy(SILENT, "how long a process is kept is `--keep-seconds`"),
    "logprobs": Policy(IGNORED),
    "top_logprobs": Policy(IGNORED),
    **_OPTIONS,
}

CHAT_FIELDS: Policies = {
    "messages": Policy(HONOURED, "an empty list loads nothing and is answered at once"),
    "tools": Policy(HONOURED),
    **_COMMON,
}
"""What becomes of each field of a body of ``/api/chat``."""

GENERATE_FIELDS: Policies = {
    "prompt": Policy(HONOURED, "an empty one loads nothing and is answered at once"),
    "system": Policy(HONOURED),
    "images": Policy(HONOURED),
    "suffix": Policy(IGNORED),
    "template": Policy(IGNORED),
    "context": Policy(IGNORED),
    "raw": Policy(IGNORED),
    **_COMMON,
}
"""What becomes of each field of a body of ``/api/generate``."""

_NAMES = {"schema": "format"}
_EFFORTS: Mapping[Any, Effort | None] = {
    None: None, True: None, False: "none",
    "low": "low", "medium": "medium", "high": "high", "max": "max",
}  # fmt: skip


@frozen
class Ollama:
    """A body, read: an :class:`~.shapes.ParsedBody`."""

    request: Request
    ignored: tuple[str, ...]
    envelope: OllamaEnvelope

    @property
    def requests(self) -> tuple[Request, ...]:
        """What is asked: one request."""
        return (self.request,)

    def stream(self) -> OllamaStream:
        """A renderer for the streamed answer."""
        return OllamaStream(self.envelope)

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of the whole answer."""
        return complete_body(self.envelope, *answers[0])

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answer was sent."""
        return refusal(failure)


def refusal(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Status and body of a failure: Ollama's own are one sentence."""
    message = failure.message
    if failure.kind is Kind.MODEL_NOT_FOUND:
        # Clients look for these words, to pull it.
        message = f"model not found: {message}"
    elif failure.param in _NAMES:
        message = f"{_NAMES[failure.param]}: {message}"
    return failure.status, {"error": message}


def model_name(body: Fields) -> str:
    """The model that ``body`` names, without Ollama's default tag."""
    # The clients of older versions say ``name``.
    name = body.text("model", "") or body.text("name", "")
    if not name:
        raise body.refuse("model", "is required")
    return name.removesuffix(":latest")


def loads(value: Any, chat: bool) -> OllamaEnvelope | None:
    """What to say to a body that asks nothing, but to load a model; ``None`` if it does ask.
    ``chat``: it is one of ``/api/chat``.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    asks = any(body.raw(name) for name in ("messages", "prompt", "images"))
    return None if asks else OllamaEnvelope(model_name(body), chat=chat, begun=0.0)


def read_chat(value: Any, clock: Callable[[], float]) -> Ollama:
    """Read a body of ``/api/chat``; ``clock``: epoch seconds.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    said = _Said()
    for message in body.objects("messages"):
        said.add(message)
    system, messages = said.conversation.closed("messages")
    tools: dict[str, Tool] = {}
    ignored = ignored_fields(body, CHAT_FIELDS)
    for entry in body.objects("tools"):
        entry.choice("type", ("function",), "function")
        add_tool(tools, entry.object("function"), ignored)
    return _read(body, system, messages, ignored, clock, tools, chat=True)


def read_generate(value: Any, clock: Callable[[], float]) -> Ollama:
    """Read a body of ``/api/generate``, as :func:`read_chat` does."""
    body = Fields(value)
    said = Conversation()
    said.instruct(body.text("system", ""))
    said.say("user", [*_images(body), Text(body.text("prompt", ""))], "prompt")
    system, messages = said.closed("prompt")
    # Clients send the empty ones, too.
    ignored = [name for name in ignored_fields(body, GENERATE_FIELDS) if body.raw(name)]
    return _read(body, system, messages, ignored, clock, {}, chat=False)


def _read(
    body: Fields,
    system: tuple[str, ...],
    messages: tuple[Message, ...],
    ignored: list[str],
    clock: Callable[[], float],
    tools: Mapping[str, Tool],
    chat: bool,
) -> Ollama:
    model = model_name(body)
    options = body.object("options") if "options" in body else Fields({}, "options")
    ignored += [
        name
        for name, policy in _OPTIONS.items()
        if policy.effect is IGNORED and options.raw(name.removeprefix("options.")) is not None
    ]
    think = body.raw("think")
    if not isinstance(think, (bool, str, type(None))) or think not in _EFFORTS:
        raise body.refuse("think", "must be true, false, low, medium, high or max")
    limit = options.integer("num_predict", -2)
    if limit == 0:
        ignored.append("options.num_predict")
    request = Request(
        model=model,
        messages=messages,
        system=system,
        tools=tuple(tools.values()),
        max_tokens=limit if limit and limit > 0 else None,
        stop=tuple(stop for stop in options.strings("stop") if stop),
        temperature=options.number("temperature", 0, 2),
        top_p=options.number("top_p", 0, 1),
        effort=_EFFORTS[think],
        schema=_schema(body),
        stream=body.flag("stream", True),
    )
    told = OllamaEnvelope(model, chat, clock(), clock, thinks=think is not False)
    return Ollama(request, tuple(ignored), told)


def _schema(body: Fields) -> Mapping[str, Any] | None:
    form = body.raw("format")
    if form in (None, ""):
        return None
    if form == "json":
        return {}
    if not isinstance(form, dict) or not form:
        raise body.refuse("format", 'must be "json" or a JSON schema')
    return form


@define
class _Said:
    conversation: Conversation = field(factory=Conversation)
    open: list[tuple[str, str]] = field(factory=list)
    """The id and the name of each call that has no result yet."""
    calls: int = 0

    def add(self, message: Fields) -> None:
        role = message.choice("role", ("system", "user", "assistant", "tool"))
        text = message.text("content", "")
        if role == "tool":
            self._result(message, text)
            return
        self.conversation.settle(message.path)
        self.open.clear()
        if role == "system":
            self.conversation.instruct(text)
        elif role == "user":
            self.conversation.say("user", [*_images(message), Text(text)], message.path)
        else:
            calls = [self._call(call) for call in message.objects("tool_calls")]
            self.conversation.say("assistant", [Text(text), *calls], message.path)

    def _call(self, call: Fields) -> Block:
        """A call. Most clients send no id with it: its place in the conversation makes one."""
        function = call.object("function")
        name, arguments = function.text("name"), function.raw("arguments")
        if isinstance(arguments, str):
            arguments = self.conversation.arguments(function)
        elif arguments is None:
            arguments = {}
        elif not isinstance(arguments, dict):
            raise function.refuse("arguments", "must be an object")
        self.calls += 1
        given = call.text("id", "") or f"call_{self.calls}"
        self.open.append((given, name))
        return self.conversation.call(given, name, arguments, call.at("id"))

    def _result(self, message: Fields, text: str) -> None:
        """A result: of the call that it names by id or tool, else of the first one."""
        given = message.text("tool_call_id", "")
        name = message.text("tool_name", "") or message.text("name", "")
        matching = [one for one in self.open if given == one[0]]
        matching += [one for one in self.open if not given and name in (one[1], "")]
        if not matching:
            raise FailureError.invalid(f"{message.path}: answers no open tool call", message.path)
        self.open.remove(matching[0])
        call = self.conversation.answered(matching[0][0], message.path)
        parts: tuple[Text | Image, ...] = (Text(text), *_images(message))
        self.conversation.say("user", (ToolResult(call, parts),), message.path)


def _images(holder: Fields) -> list[Image]:
    return [
        image(_data_url(data, path := f"{holder.at('images')}[{index}]"), path)
        for index, data in enumerate(holder.strings("images"))
    ]


def _data_url(data: str, path: str) -> str:
    data = data.replace("\r", "").replace("\n", "")  # as Ollama does: encoders break lines
    if data.startswith("data:"):
        return data
    kind = image_type(data)
    if kind is None:
        raise FailureError.invalid(
            f"{path}: is not the base64 of a JPEG, PNG, GIF or WebP image", path
        )
    return f"data:{kind};base64,{data}"
