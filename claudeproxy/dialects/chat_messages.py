"""Chat completions: turns the ``messages`` of a body into a conversation."""

from __future__ import annotations

from typing import Any

from claudeproxy.messages import (
    Block,
    Document,
    FailureError,
    Image,
    Message,
    Text,
    ToolResult,
    ToolUse,
)

from .conversation import Conversation
from .custom_tools import INPUT
from .fields import Fields, check_text
from .media import document, image
from .shared import note


def read_messages(body: Fields, ignored: list[str]) -> tuple[tuple[str, ...], tuple[Message, ...]]:
    """System prompt parts and conversation of a chat body. What is ignored of it is added to
    ``ignored``.

    :raises FailureError: 400 that names the message and the field at fault.
    """
    if not body.raw("messages"):
        raise body.refuse("messages", "must be a list of at least one message")
    said = Conversation()
    for message in body.objects("messages"):
        role = message.choice("role", tuple(_READERS))
        if role not in ("tool", "function"):
            said.settle(message.path)
        _READERS[role](said, message, ignored)
    return said.closed("messages")


def _system(said: Conversation, message: Fields, ignored: list[str]) -> None:
    _nameless(message, ignored)
    for block in _content(message, ("text",), ignored):
        if isinstance(block, Text):
            said.instruct(block.text)


def _user(said: Conversation, message: Fields, ignored: list[str]) -> None:
    content = _content(message, ("text", "image_url", "file"), ignored)
    if "name" in message and content:
        content.insert(0, Text(f"{message.text('name')}:"))
    said.say("user", content, message.path)


def _assistant(said: Conversation, message: Fields, ignored: list[str]) -> None:
    _nameless(message, ignored)
    if "audio" in message:
        note(ignored, "messages.audio")
    content: list[Block] = []
    if message.raw("content") is not None:
        content.extend(_content(message, ("text", "refusal"), ignored))
    elif "refusal" in message:
        content.append(Text(message.text("refusal")))
    for call in message.objects("tool_calls"):
        if call.choice("type", ("function", "custom"), "function") == "custom":
            tool = call.object("custom")
            text = {INPUT: tool.text("input")}
            content.append(said.call(call.text("id"), tool.text("name"), text, call.at("id")))
            continue
        function = call.object("function")
        content.append(_call(said, call.text("id"), function, call.at("id")))
    if "function_call" in message and "tool_calls" not in message:
        function = message.object("function_call")
        content.append(_call(said, function.text("name"), function, function.at("name")))
    said.say("assistant", content, message.path)


def _call(said: Conversation, given: str, function: Fields, path: str) -> ToolUse:
    arguments = said.arguments(function)
    return said.call(given, function.text("name"), arguments, path)


def _tool(said: Conversation, message: Fields, ignored: list[str]) -> None:
    _nameless(message, ignored)
    _result(said, message, "tool_call_id", ignored)


def _function(said: Conversation, message: Fields, ignored: list[str]) -> None:
    _result(said, message, "name", ignored)


def _result(said: Conversation, message: Fields, key: str, ignored: list[str]) -> None:
    call = said.answered(message.text(key), message.at(key))
    parts = tuple(
        part
        for part in _content(message, ("text", "image_url", "file"), ignored)
        if isinstance(part, (Text, Image, Document))
    )
    said.say("user", (ToolResult(call, parts),), message.path)


def _nameless(message: Fields, ignored: list[str]) -> None:
    if "name" in message:
        note(ignored, "messages.name")


def _content(message: Fields, kinds: tuple[str, ...], ignored: list[str]) -> list[Block]:
    value = message.raw("content")
    if value is None:
        return []
    if isinstance(value, str):
        check_text(value, message.at("content"))
        return [Text(value)]
    return [_part(part, kinds, ignored) for part in message.objects("content")]


def _part(part: Fields, kinds: tuple[str, ...], ignored: list[str]) -> Block:
    kind = part.raw("type")
    if kind not in kinds:
        raise FailureError.invalid(
            f"{part.path}: a part of type {kind!r} cannot be used here (only {', '.join(kinds)})",
            part.path,
        )
    if kind in ("text", "refusal"):
        return Text(part.text(kind))
    if kind == "image_url":
        value: Any = part.raw("image_url")
        if isinstance(value, str):
            return image(value, part.at("image_url"))
        link = part.object("image_url")
        if link.text("detail", "auto") != "auto":
            note(ignored, "messages.detail")
        return image(link.text("url"), link.at("url"))
    file = part.object("file")
    if "file_data" not in file:
        raise file.refuse("file_id", "there are no stored files here; send file_data instead")
    name = file.text("filename", "") or None
    return document(file.text("file_data"), name, file.at("file_data"))


_READERS = {
    "system": _system,
    "developer": _system,
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
    "function": _function,
}
