"""Content blocks and messages, and the normalisation that every conversation gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from attrs import evolve, frozen


@frozen
class Text:
    """A text block; never blank in a normalised conversation."""

    text: str


@frozen
class Image:
    """An image. ``source`` is the object of the API: ``{"type": "base64", "media_type", "data"}``
    or ``{"type": "url", "url"}``; the daemon never fetches the latter."""

    source: Mapping[str, str]


@frozen
class Document:
    """A PDF or a text file; ``source`` is the object of the API (``base64``, ``text`` or
    ``url``)."""

    source: Mapping[str, Any]
    title: str | None = None
    context: str | None = None


@frozen
class SearchResult:
    """A result of a client's own search: ``source`` is an address or a name, ``content`` its
    texts."""

    source: str
    title: str
    content: tuple[str, ...]


@frozen
class Thinking:
    """The model's reasoning. It is no part of the history that a process is given."""

    thinking: str
    signature: str = ""


@frozen
class ToolUse:
    """A call of a client's tool; ``input`` is the parsed arguments object."""

    id: str
    name: str
    input: Mapping[str, Any]


@frozen
class ToolResult:
    """The result of the call ``tool_use_id``."""

    tool_use_id: str
    content: tuple[Text | Image | Document | SearchResult, ...]
    is_error: bool = False


Block: TypeAlias = Text | Image | Document | SearchResult | Thinking | ToolUse | ToolResult


@frozen
class Message:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: tuple[Block, ...]


def normalise(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Merge neighbours of one role, drop blank text, put tool results in the order of their calls.

    None of this is a choice. The CLI drops blank blocks, joins neighbouring user lines with a
    newline of its own, and returns results in the order of the calls; the API refuses blank text
    and requires the results to come first. Everything else stays word for word.
    """
    said: list[tuple[Literal["user", "assistant"], list[Block]]] = []
    for message in messages:
        content = list(_without_blanks(message.content))
        if not content:
            continue
        if said and said[-1][0] == message.role:
            said[-1][1].extend(content)
        else:
            said.append((message.role, content))
    merged = [Message(role, tuple(content)) for role, content in said]
    calls: tuple[str, ...] = ()
    for index, message in enumerate(merged):
        if message.role == "user":
            merged[index] = Message("user", _results_first(message.content, calls))
        calls = tuple(block.id for block in message.content if isinstance(block, ToolUse))
    return tuple(merged)


def _without_blanks(content: Iterable[Block]) -> Iterable[Block]:
    for block in content:
        if isinstance(block, Text) and not block.text.strip():
            continue
        if isinstance(block, ToolResult):
            kept = tuple(
                part for part in block.content if not isinstance(part, Text) or part.text.strip()
            )
            yield evolve(block, content=kept)
        else:
            yield block


def _results_first(content: tuple[Block, ...], calls: tuple[str, ...]) -> tuple[Block, ...]:
    results = [block for block in content if isinstance(block, ToolResult)]
    if not results:
        return content
    place = {call: index for index, call in enumerate(calls)}
    results.sort(key=lambda result: place.get(result.tool_use_id, len(place)))
    return (*results, *(block for block in content if not isinstance(block, ToolResult)))


def block_to_wire(block: Block) -> dict[str, Any]:
    """The Messages API's JSON object for ``block``."""
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if isinstance(block, Image):
        return {"type": "image", "source": dict(block.source)}
    if isinstance(block, Document):
        wire: dict[str, Any] = {"type": "document", "source": dict(block.source)}
        if block.title:
            wire["title"] = block.title
        if block.context:
            wire["context"] = block.context
        return wire
    if isinstance(block, SearchResult):
        texts = [{"type": "text", "text": text} for text in block.content]
        found = {"source": block.source, "title": block.title, "content": texts}
        return {"type": "search_result", **found}
    if isinstance(block, Thinking):
        return {"type": "thinking", "thinking": block.thinking, "signature": block.signature}
    if isinstance(block, ToolUse):
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": dict(block.input)}
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": block.tool_use_id,
        "content": [block_to_wire(part) for part in block.content],
    }
    if block.is_error:
        result["is_error"] = True
    return result


def message_to_wire(message: Message) -> dict[str, Any]:
    """``{"role": …, "content": [block, …]}``."""
    return {"role": message.role, "content": [block_to_wire(b) for b in message.content]}
