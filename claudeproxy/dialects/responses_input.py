"""Responses: turns ``instructions`` and ``input`` into a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from claudeproxy.messages import (
    Block,
    Document,
    Failure,
    FailureError,
    Image,
    Kind,
    Message,
    Text,
    ToolResult,
)

from .conversation import Conversation
from .custom_tools import INPUT
from .estimate import tokens
from .fields import Fields, check_text
from .media import document, image
from .shared import note
from .summaries import READ, summary_of
from .truncation import truncated

Item = Mapping[str, Any]

ELSEWHERE = frozenset(
    f"{tool}{end}"
    for tool in (
        "web_search_call file_search_call computer_call code_interpreter_call local_shell_call "
        "shell_call apply_patch_call image_generation_call tool_search tool_search_call "
        "mcp_call mcp_list_tools mcp_approval_request mcp_approval_response"
    ).split()
    for end in ("", "_output")
)
"""Items of tools that cannot run here: they are left out, and named as ignored."""

_RESULT = ("input_text", "input_image", "input_file")
_USER = (*_RESULT, "output_text", "text")
_ANSWER = ("output_text", "input_text", "text", "refusal")


@frozen
class Past:
    """What is stored of the responses, or of the conversation, that a body refers to.

    ``history``: all items before this body's input, ``None`` when what it goes on from is unknown.
    ``items``: items by their id, for ``item_reference``. ``source``: the field that tells what it
    goes on from. ``stores``: whether more can be stored.
    """

    history: Sequence[Item] | None = ()
    items: Mapping[str, Item] = field(factory=dict)
    source: str = "previous_response_id"
    stores: bool = True


@frozen
class Input:
    """``items``: the body's own items as they are stored, references resolved; ``dropped``: how
    many turns were left out, the oldest first."""

    system: tuple[str, ...]
    messages: tuple[Message, ...]
    items: tuple[Item, ...]
    dropped: int = 0


def read_input(body: Fields, past: Past, ignored: list[str], context: int | None = None) -> Input:
    """The conversation of a body. ``context``: the tokens that it has to fit, by leaving out whole
    turns; ``None`` to leave out nothing.

    :raises FailureError: 400 that names the item and the field at fault, 404 for an unknown
        reference.
    """
    said = Conversation()
    said.instruct(body.text("instructions", ""))
    if past.history is None:
        raise _unknown(body, past.source)
    before = [
        Fields(dict(item), f"{past.source}[{place}]") for place, item in enumerate(past.history)
    ]
    own = [_resolved(item, past) for item in _items(body)]
    entries, dropped = [*before, *own], 0
    if context is not None:
        rest = {name: body.raw(name) for name in ("instructions", "tools")}
        entries, dropped = truncated(entries, tokens(rest), context)
    mine = frozenset(map(id, own))
    for entry in entries:
        _item(said, entry, ignored if id(entry) in mine else [])
    system, messages = said.closed("input")
    return Input(system, messages, tuple(entry.value for entry in own), dropped)


def check_item(item: Fields) -> None:
    """:raises FailureError: for an item that no input may have, whatever else is in it."""
    kind = item.raw("type")
    if kind in ("function_call_output", "custom_tool_call_output"):
        item.text("call_id")
        _content(item, "output", _RESULT, [])
    elif kind == "item_reference":
        raise item.refuse("type", "an item can only be referred to in the input of a response")
    else:
        _item(Conversation(), item, [])


def _unknown(body: Fields, source: str) -> FailureError:
    if source == "conversation":
        given = str(conversation_id(body))[:100]
        why = f"Conversation with id {given!r} not found."
        return FailureError(Failure(Kind.NOT_FOUND, why, 404, param=source))
    why = f"Previous response with id {body.text(source)[:100]!r} not found."
    return FailureError.invalid(why, source, "previous_response_not_found")


def conversation_id(body: Fields) -> str | None:
    """The id of the ``conversation`` of a body, which is a string or an object.

    :raises FailureError: when it is neither, or comes with a ``previous_response_id``.
    """
    if "conversation" not in body:
        return None
    given = body.raw("conversation")
    ident = body.object("conversation").text("id") if isinstance(given, dict) else None
    ident = body.text("conversation") if ident is None else ident
    if "previous_response_id" in body:
        raise body.refuse("conversation", "cannot be used together with previous_response_id")
    return ident


def _items(body: Fields) -> list[Fields]:
    value = body.raw("input")
    if isinstance(value, str):
        check_text(value, "input")
        return [Fields({"type": "message", "role": "user", "content": value}, "input")]
    if value is not None and not isinstance(value, list):
        raise body.refuse("input", "must be a string or a list of items")
    if not value:
        raise body.refuse("input", "is required: a string or a list of at least one item")
    return list(body.objects("input"))


def _resolved(item: Fields, past: Past) -> Fields:
    if item.raw("type") != "item_reference":
        return item
    wanted = item.text("id")
    found = past.items.get(wanted)
    if found is None:
        path = item.at("id")
        why = "only items of stored responses can be referred to"
        raise FailureError(
            Failure(Kind.NOT_FOUND, f"{path}: item {wanted!r} not found: {why}", 404, param=path)
        )
    return Fields(dict(found), item.path)


def _item(said: Conversation, item: Fields, ignored: list[str]) -> None:
    kind = item.text("type", "message" if "role" in item else "")
    if kind == "message":
        _message(said, item, ignored)
    elif kind in ("function_call", "custom_tool_call"):
        said.answer(item.path)
        custom = kind == "custom_tool_call"
        arguments = {INPUT: item.text("input")} if custom else said.arguments(item)
        call = said.call(item.text("call_id"), item.text("name"), arguments, item.at("call_id"))
        said.say("assistant", (call,), item.path)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        call_id = said.answered(item.text("call_id"), item.at("call_id"))
        parts = tuple(
            part
            for part in _content(item, "output", _RESULT, ignored)
            if isinstance(part, (Text, Image, Document))
        )
        said.say("user", (ToolResult(call_id, parts),), item.path)
    elif kind == "compaction" and (summary := summary_of(item)) is not None:
        said.settle(item.path)
        said.say("user", (Text(READ.format(summary)),), item.path)
    elif kind in ELSEWHERE or kind == "compaction":  # of another server
        note(ignored, f"input.{kind}")
    elif kind != "reasoning":
        raise item.refuse("type", f"an item of type {kind!r} cannot be used here")


def _message(said: Conversation, item: Fields, ignored: list[str]) -> None:
    role = item.choice("role", ("user", "assistant", "system", "developer"))
    if role == "assistant":
        said.answer(item.path)
        said.say("assistant", _content(item, "content", _ANSWER, ignored), item.path)
        return
    said.settle(item.path)
    if role == "user":
        said.say("user", _content(item, "content", _USER, ignored), item.path)
    else:
        for block in _content(item, "content", ("input_text", "text"), ignored):
            if isinstance(block, Text):
                said.instruct(block.text)


def _content(item: Fields, name: str, kinds: tuple[str, ...], ignored: list[str]) -> list[Block]:
    value = item.raw(name)
    if value is None:
        return []
    if isinstance(value, str):
        check_text(value, item.at(name))
        return [Text(value)]
    return [_part(part, kinds, ignored) for part in item.objects(name)]


def _part(part: Fields, kinds: tuple[str, ...], ignored: list[str]) -> Block:
    kind = part.raw("type")
    if kind not in kinds:
        raise FailureError.invalid(
            f"{part.path}: a part of type {kind!r} cannot be used here (only {', '.join(kinds)})",
            part.path,
        )
    if kind in ("input_image", "input_file") and part.text("detail", "auto") != "auto":
        note(ignored, "input.detail")
    if kind == "refusal":
        return Text(part.text("refusal"))
    if kind == "input_image":
        _no_file_id(part, "image_url")
        return image(part.text("image_url"), part.at("image_url"))
    if kind == "input_file":
        return _file(part)
    return Text(part.text("text"))


def _file(part: Fields) -> Block:
    if "file_url" in part:
        url = part.text("file_url")
        if not url.startswith(("http://", "https://")):
            raise part.refuse("file_url", "must be an http(s) URL")
        return Document({"type": "url", "url": url}, title=part.text("filename", "") or None)
    _no_file_id(part, "file_data")
    name = part.text("filename", "") or None
    return document(part.text("file_data"), name, part.at("file_data"))


def _no_file_id(part: Fields, instead: str) -> None:
    if "file_id" in part and instead not in part:
        raise part.refuse("file_id", f"there are no stored files here; send {instead} instead")
