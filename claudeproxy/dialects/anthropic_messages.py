"""Anthropic Messages: turns ``system`` and ``messages`` of a body into a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from claudeproxy.messages import (
    Block,
    Document,
    FailureError,
    Image,
    Message,
    SearchResult,
    Text,
    ToolResult,
)

from .conversation import Conversation
from .fields import Fields, check_text
from .media import IMAGE_TYPES, check_base64
from .shared import note

_LEFT_OUT = ("thinking", "redacted_thinking")
"""Blocks of earlier answers that are not replayed; a kept process still holds its own."""

_TOOL_CHANGES = ("tool_addition", "tool_removal")
"""Blocks of system messages (beta): the tools are those of the body, without them."""

_FOUND = ("text", "image", "document", "search_result")
_USER = (*_FOUND, "tool_result")
_RESULT = (*_FOUND, "tool_reference")


def read_messages(body: Fields, ignored: list[str]) -> tuple[tuple[str, ...], tuple[Message, ...]]:
    """System prompt parts and conversation of a body. Neighbouring messages of one role are one
    turn, as at the API: the results of an answer's calls may come in several.

    :raises FailureError: 400 that names the message and the field at fault.
    """
    if not body.raw("messages"):
        raise body.refuse("messages", "must be a list of at least one message")
    said = Conversation()
    if isinstance(body.raw("system"), str):
        said.instruct(body.text("system"))
    else:
        for block in body.objects("system"):
            block.choice("type", ("text",))
            said.instruct(block.text("text"))
    for message in body.objects("messages"):
        role = message.choice("role", ("user", "assistant", "system"))
        if role == "assistant":
            said.answer(message.path)
            content = _content(said, message, ("text", *_LEFT_OUT, "tool_use"), ignored)
            said.say("assistant", content, message.path)
        elif role == "user":
            said.say("user", _content(said, message, _USER, ignored), message.path)
        else:
            _system(said, message, ignored)
    return said.closed("messages")


def _system(said: Conversation, message: Fields, ignored: list[str]) -> None:
    """A system message; Claude Code sends some between calls and results, too."""
    for name in ("output_config", "clear_at"):
        if name in message:
            note(ignored, f"messages.{name}")
    for block in _content(said, message, ("text", *_TOOL_CHANGES), ignored):
        if isinstance(block, Text):
            said.instruct(block.text)


def _content(
    said: Conversation, holder: Fields, kinds: Sequence[str], ignored: list[str]
) -> list[Block]:
    value = holder.raw("content")
    if isinstance(value, str):
        check_text(value, holder.at("content"))
        return [Text(value)]
    if value is None:
        raise holder.refuse("content", "is required")
    blocks = (_block(said, block, kinds, ignored) for block in holder.objects("content"))
    return [block for block in blocks if block is not None]


def _block(
    said: Conversation, block: Fields, kinds: Sequence[str], ignored: list[str]
) -> Block | None:
    kind = block.raw("type")
    if kind not in kinds:
        raise FailureError.invalid(
            f"{block.path}: a block of type {kind!r} cannot be used here (only {', '.join(kinds)})",
            block.path,
        )
    if kind == "text":
        return Text(block.text("text"))
    if kind == "image":
        if block.raw("transformations"):
            note(ignored, "messages.transformations")
        return _image(block.object("source"))
    if kind == "document":
        return _document(block, ignored)
    if kind == "search_result":
        return _search_result(block, ignored)
    if kind == "tool_reference":
        # The result of a client's tool search. The request has these tools, so the model has them.
        return Text(f"Tool loaded: {block.text('tool_name')}")
    if kind == "tool_use":
        arguments = block.object("input").value
        return said.call(block.text("id"), block.text("name"), arguments, block.at("id"))
    if kind == "tool_result":
        call = said.answered(block.text("tool_use_id"), block.at("tool_use_id"))
        parts: list[Block] = []
        if block.raw("content") is not None:
            parts = _content(said, block, _RESULT, ignored)
        kept = (Text, Image, Document, SearchResult)
        results = tuple(part for part in parts if isinstance(part, kept))
        return ToolResult(call, results, block.flag("is_error"))
    if kind in _TOOL_CHANGES:
        note(ignored, f"messages.{kind}")
    return None


def _image(source: Fields) -> Image:
    if _source_kind(source, ("base64", "url")) == "url":
        return Image({"type": "url", "url": source.text("url")})
    kind = source.choice("media_type", IMAGE_TYPES)
    return Image({"type": "base64", "media_type": kind, "data": _data(source)})


def _document(block: Fields, ignored: list[str]) -> Document:
    source = block.object("source")
    if block.raw("citations"):
        note(ignored, "citations")
    kind = _source_kind(source, ("base64", "text", "url"))
    if kind == "url":
        wire = {"type": "url", "url": source.text("url")}
    elif kind == "text":
        media = source.choice("media_type", ("text/plain",), "text/plain")
        wire = {"type": "text", "media_type": media, "data": source.text("data")}
    else:
        media = source.choice("media_type", ("application/pdf",))
        wire = {"type": "base64", "media_type": media, "data": _data(source)}
    title, context = block.text("title", "") or None, block.text("context", "") or None
    return Document(wire, title, context)


def _search_result(block: Fields, ignored: list[str]) -> SearchResult:
    if block.raw("citations"):
        note(ignored, "citations")
    for part in block.objects("content"):
        part.choice("type", ("text",))
    texts = (part.text("text") for part in block.objects("content"))
    kept = tuple(text for text in texts if text.strip())
    if not kept:
        raise block.refuse("content", "must hold a text that is not blank")
    return SearchResult(block.text("source"), block.text("title"), kept)


def _source_kind(source: Fields, kinds: Sequence[str]) -> str:
    if source.raw("type") == "file":
        raise source.refuse("type", "there is no Files API here; send the data itself")
    return source.choice("type", kinds)


def _data(source: Fields) -> str:
    data = source.text("data")
    check_base64(data, source.at("data"))
    return data
