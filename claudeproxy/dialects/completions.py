"""Legacy completions: a body turned into one :class:`Request` a prompt, events into chunks.

A prompt is a conversation of one user message: the model answers it rather than continuing it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

from .chat_answer import Head, finish_reason, usage_object
from .fields import Fields, check_text
from .shapes import error, named, sse
from .shared import given, limit, model_name, usage_wanted

FIELDS: Mapping[str, str] = {
    "model": "honoured",
    "prompt": "honoured: a string or a list of strings; tokens are refused",
    "echo": "honoured",
    "n": "honoured, up to 128 answers in all",
    "max_tokens": "honoured; without it the model's own limit holds, not 16; 0 is ignored and "
    "named",
    "stop": "honoured: any number",
    "temperature": "honoured up to 1 where thinking can be switched off, else ignored and named",
    "top_p": "honoured as temperature is; beside a temperature it is ignored and named",
    "stream": "honoured",
    "stream_options": "honoured: include_usage",
    "best_of": "ignored",
    "frequency_penalty": "ignored",
    "logit_bias": "ignored",
    "logprobs": "ignored",
    "presence_penalty": "ignored",
    "seed": "ignored",
    "suffix": "refused",
    "user": "accepted silently",
}
"""What happens to each field of a body. *Ignored* fields are named in ``x-claudemax-ignored``;
fields that are not here are accepted silently."""

NAMES = {"messages": "prompt"}
"""This dialect's names for fields of a :class:`Request`, where they differ."""

MAX_ANSWERS = 128


@frozen
class Completions:
    """A completions body, read: an :class:`~.shapes.Exchange`.

    ``echoes``: what each answer's text begins with; ``usage``: see :class:`~.chat.Chat`.
    """

    requests: tuple[Request, ...]
    ignored: tuple[str, ...]
    head: Head
    echoes: tuple[str, ...]
    usage: bool | None

    def stream(self) -> CompletionStream:
        """A renderer for the streamed answers."""
        return CompletionStream(self.head, self.echoes, self.usage)

    def whole(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The body of the whole answers."""
        choices = [
            _choice(index, echo + assembly.text(), finish_reason(end.stop_reason))
            for index, (echo, (assembly, end)) in enumerate(zip(self.echoes, answers, strict=True))
        ]
        usage = usage_object([end.usage for _, end in answers])
        return self.head.object("text_completion", choices=choices, usage=usage)

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure before anything of the answers was sent."""
        return failure.status, error(named(failure, NAMES))


def read(value: Any, ident: str, now: int) -> Completions:
    """Read a body; ``ident`` and ``now`` make the answer's id and time.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    model = model_name(body)
    if body.raw("suffix"):
        raise body.refuse("suffix", "text cannot be inserted before a suffix here")
    prompts = _prompts(body)
    n = body.whole("n", 1, MAX_ANSWERS) or 1
    if n * len(prompts) > MAX_ANSWERS:
        raise body.refuse("n", f"{len(prompts)} prompts make more than {MAX_ANSWERS} answers")
    ignored = given(body, FIELDS)
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
        head=Head(f"cmpl-{ident}", now, model),
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


class CompletionStream:
    """Renders the events of all answers into one SSE body."""

    def __init__(self, head: Head, echoes: Sequence[str], usage: bool | None) -> None:
        """``usage``: see :class:`~.chat.Chat`."""
        self._head = head
        self._echoes = echoes
        self._open = len(echoes)
        self._usage = usage
        self._total = Usage()

    def render(self, index: int, events: Sequence[Event]) -> bytes:
        """The SSE bytes for a burst of events of answer ``index``; after the last one's end,
        the end of the stream."""
        return b"".join(out for event in events for out in self._event(index, event))

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self._open == 0

    def _event(self, index: int, event: Event) -> list[bytes]:
        if isinstance(event, Started) and self._echoes[index]:
            return [self._chunk(_choice(index, self._echoes[index], None))]
        if isinstance(event, TextDelta):
            return [self._chunk(_choice(index, event.text, None))]
        if isinstance(event, Failure):
            self._open = 0
            return [sse(error(named(event, NAMES)))]
        if not isinstance(event, Finished):
            return []
        self._total += event.usage
        self._open -= 1
        out = [self._chunk(_choice(index, "", finish_reason(event.stop_reason)), self._open == 0)]
        if self._open:
            return out
        if self._usage:
            usage = usage_object([self._total])
            out.append(sse(self._head.object("text_completion", choices=[], usage=usage)))
        return [*out, b"data: [DONE]\n\n"]

    def _chunk(self, choice: dict[str, Any], last: bool = False) -> bytes:
        chunk = self._head.object("text_completion", choices=[choice])
        if self._usage:
            chunk["usage"] = None
        elif last and self._usage is None:
            chunk["usage"] = usage_object([self._total])
        return sse(chunk)


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
