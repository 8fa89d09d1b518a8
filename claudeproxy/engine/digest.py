"""When is a conversation the one a process holds? When their digests agree.

Clients change what they send back: they trim an answer, drop its reasoning, strip the
punctuation from tool ids, send ``null`` for an empty text. None of that makes it another
conversation; anything else does, because a false match is a wrong answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from claudeproxy.messages import (
    Message,
    Request,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    block_to_wire,
    normalise,
    plain_id,
)


def conversation_key(request: Request, model: str, messages: Sequence[Message]) -> bytes:
    """The digest of ``messages`` as a conversation under ``request``'s system prompt and tools."""
    held = {
        "model": model,
        "system": request.system,
        "tools": [[t.name, t.description, t.parameters] for t in request.tools],
        "messages": [_message(message) for message in normalise(messages)],
    }
    text = json.dumps(held, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _message(message: Message) -> list[Any]:
    if message.role == "assistant":
        return ["assistant", *_answer(message)]
    return ["user", *(_part(block) for block in message.content)]


def _answer(message: Message) -> Iterable[Any]:
    # Dialects carry an answer's text as one string, apart from its calls.
    yield "".join(b.text for b in message.content if isinstance(b, Text)).strip()
    for block in message.content:
        if isinstance(block, ToolUse):
            yield [plain_id(block.id), block.name, dict(block.input)]


def _part(block: Any) -> Any:
    if isinstance(block, ToolResult):
        parts = [_part(part) for part in block.content]
        return ["result", plain_id(block.tool_use_id), block.is_error, parts]
    if isinstance(block, (Thinking, ToolUse)):
        raise TypeError(f"no {type(block).__name__} in a user message")
    return block_to_wire(block)
