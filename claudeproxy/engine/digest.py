"""When does a conversation begin like the one a process holds? Where their digests agree.

Clients change what they send back: they trim an answer, drop its reasoning, strip the punctuation
from tool ids, send ``null`` for empty text. That leaves it the same conversation. Any other
difference makes it another one, because a false match would be a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import (
    Message,
    Request,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    block_to_wire,
    normalise_tool_id,
)

LARGEST = 40_000
"""Characters of one message that count for its size: an image is far fewer tokens than it has
characters."""


@frozen
class Prefix:
    """The beginning of a conversation. ``digest``: of set-up and messages; ``size``: of the
    messages, in characters of JSON."""

    digest: bytes
    size: int = 0


def prefixes(request: Request, model: str, messages: Sequence[Message]) -> tuple[Prefix, ...]:
    """The first 0, 1, … of ``messages`` (normalised), under ``request``'s system prompt and
    tools."""
    # As it is written: tools whose properties come in another order have other names upstream.
    tools = [json.dumps([t.name, t.description, t.parameters]) for t in request.tools]
    text = _text({"model": model, "system": request.system, "tools": tools})
    found = [Prefix(_digest(b"", text))]
    for message in messages:
        found.append(_longer(found[-1], message))
    return tuple(found)


def extended(before: tuple[Prefix, ...], message: Message) -> tuple[Prefix, ...]:
    """``before`` with one message more."""
    return (*before, _longer(before[-1], message))


def _longer(prefix: Prefix, message: Message) -> Prefix:
    text = _text(_message(message))
    size = min(len(text), LARGEST)
    return Prefix(_digest(prefix.digest, text), prefix.size + size)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(before: bytes, text: str) -> bytes:
    return hashlib.sha256(before + text.encode(errors="surrogatepass")).digest()


def _message(message: Message) -> list[Any]:
    if message.role == "assistant":
        return ["assistant", *_answer(message)]
    return ["user", *(_part(block) for block in message.content)]


def _answer(message: Message) -> Iterable[Any]:
    # In OpenAI's dialects the text of an answer is one string, apart from its calls.
    yield "".join(b.text for b in message.content if isinstance(b, Text)).strip()
    for block in message.content:
        if isinstance(block, ToolUse):
            yield [normalise_tool_id(block.id), block.name, dict(block.input)]


def _part(block: Any) -> Any:
    if isinstance(block, ToolResult):
        parts = [_part(part) for part in block.content]
        return ["result", normalise_tool_id(block.tool_use_id), block.is_error, parts]
    if isinstance(block, (Thinking, ToolUse)):
        raise TypeError(f"no {type(block).__name__} in a user message")
    return block_to_wire(block)
