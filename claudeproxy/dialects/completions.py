"""Legacy completions: turns a body into a :class:`Request` for each prompt, and events into chunks.

Each prompt becomes a conversation of one user message, which the model answers rather than
continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    Assembly,
    Event,
    Failure,
    Finished,
    Message,
    Request,
    Started,
    Text,
    TextDelta,
    Usage,
)

from .chat_answer import ChatEnvelope, finish_reason, usage_object
from .fields import Fields, check_text
from .policies import (
    HONOURED,
    IGNORED,
    REFUSED,
    SILENT,
    TEMPERATURE,
    TOP_P,
    Policies,
    Policy,
    ignored_fields,
)
from .shapes import ServerSentEvents, error, sse, with_client_names
from .shared import limit, model_name, usage_wanted

FIELDS: Policies = {
    "model": Policy(HONOURED),
    "prompt": Policy(HONOURED, "a string or a list of strings; tokens are refused"),
    "echo": Policy(HONOURED),
    "n": Policy(HONOURED, "up to 128 answers in all"),
    "max_tokens": Policy(
        HONOURED, "the model's own limit holds without it, not 16; 0 is ignored and named"
    ),
    "stop": Policy(HONOURED, "up to 1,000"),
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "stream": Policy(HONOURED),
    "stream_options": Policy(HONOURED, "include_usage"),
    "best_of": Policy(IGNORED),
    "frequency_penalty": Policy(IGNORED),
    "logit_bias": Policy(IGNORED),
    "logprobs": Policy(IGNORED),
    "presence_penalty": Policy(IGNORED),
    "seed": Policy(IGNORED),
    "suffix": Policy(REFUSED),
    "user": Policy(SILENT),
}
"""What becomes of each field of a body."""

NAMES = {"messages": "prompt"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""

MAX_ANSWERS = 128


@frozen
class Completions:
    """A completions body, read: an :class:`~.shapes.ParsedBody`.

    ``echoes``: the beginning of each answer's text; ``usage``: see :class:`~.chat.Chat`.
    """

    requests: tuple[Request, ...]
    ignored: tuple[str, ...]
    envelope: ChatEnvelope
    echoes: tuple[str, ...]
    usage: bool | None

    def stream(self) -> CompletionStream:
        """A renderer for the streamed answers."""
        return CompletionStream(self.envelope, self.echoes, self.usage)

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of a reply that is not streamed."""
        choices = [
            _choice(index, echo + assembly.text(), finish_reason(end.stop_reason))
            for index, (echo, (assembly, end)) in enumerate(zip(self.echoes, answers, strict=True))
        ]
        usage = usage_object([end.usage for _, end in answers])
        return self.envelope.object("text_completion", choices=choices, usage=usage)

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure from before anything of the answers was sent."""
        return failure.status, error(with_client_names(failure, NAMES))


def read(value: Any, ident: str, now: int) -> Completions:
    """Read a body; ``ident`` and ``now`` become the answer's id and time.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    if body.raw("suffix"):
        raise body.refuse("suffix", "text cannot be inserted before a suffix here")
    prompts = _prompts(body)
    n = body.integer("n", 1, MAX_ANSWERS) or 1
    if n * len(prompts) > MAX_ANSWERS:
        raise body.refuse("n", f"{len(prompts)} prompts make more than {MAX_ANSWERS} answers")
    ignored = ignored_fields(body, FIELDS)
    echoes = tuple(prompt for prompt in prompts for _ in range(n))
    tokens = limit(body, ("max_tokens",), ignored)
    requests = tuple(
        Request(
            model=model,
            messages=(Message("user", (Text(prompt),)),),
            max_tokens=tokens,
            stop=tuple(stop for stop in body.strings("stop") if stop),
            temperature=body.number("temperature", 0, 2),
            top_p=body.number("top_p", 0, 1),
            n=n,
            stream=body.flag("stream"),
        )
        for prompt in prompts
    )
    return Completions(
        requests=requests,
        ignored=tuple(ignored),
        envelope=ChatEnvelope(f"cmpl-{ident}", now, model),
        echoes=echoes if body.flag("echo") else ("",) * len(echoes),
        usage=usage_wanted(body),
    )


def _prompts(body: Fields) -> tuple[str, ...]:
    value = body.raw("prompt")
    prompts = value if isinstance(value, list) else [value]
    if value is None or not prompts:
        raise body.refuse("prompt", "is required: a string or a list of strings")
    for index, prompt in enumerate(prompts):
        name = f"prompt[{index}]" if isinstance(value, list) else "prompt"
        if isinstance(prompt, (int, list)) and not isinstance(prompt, bool):
            raise body.refuse("prompt", "tokens cannot be read here; send text")
        if not isinstance(prompt, str):
            raise body.refuse(name, "must be a string")
        check_text(prompt, name)
        if not prompt.strip():
            raise body.refuse(name, "must not be blank")
    return tuple(prompts)


class CompletionStream(ServerSentEvents):
    """Renders the events of all answers into one SSE body."""

    def __init__(self, envelope: ChatEnvelope, echoes: Sequence[str], usage: bool | None) -> None:
        """``usage``: see :class:`~.chat.Chat`."""
        self._envelope = envelope
        self._echoes = echoes
        self._open = len(echoes)
        self._usage = usage
        self._total = Usage()

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The SSE bytes for a burst of events of answer ``index``, with the end of the stream when
        the last answer has ended."""
        return b"".join(out for event in events for out in self._event(index, event))

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return self._open == 0

    def _event(self, index: int, event: Event) -> list[bytes]:
        if isinstance(event, Started) and self._echoes[index]:
            return [self._chunk(_choice(index, self._echoes[index], None))]
        if isinstance(event, TextDelta):
            return [self._chunk(_choice(index, event.text, None))]
        if isinstance(event, Failure):
            self._open = 0
            return [sse(error(with_client_names(event, NAMES)))]
        if not isinstance(event, Finished):
            return []
        self._total += event.usage
        self._open -= 1
        out = [self._chunk(_choice(index, "", finish_reason(event.stop_reason)), self._open == 0)]
        if self._open:
            return out
        if self._usage:
            usage = usage_object([self._total])
            out.append(sse(self._envelope.object("text_completion", choices=[], usage=usage)))
        return [*out, b"data: [DONE]\n\n"]

    def _chunk(self, choice: dict[str, Any], last: bool = False) -> bytes:
        chunk = self._envelope.object("text_completion", choices=[choice])
        if self._usage:
            chunk["usage"] = None
        elif last and self._usage is None:
            chunk["usage"] = usage_object([self._total])
        return sse(chunk)


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
