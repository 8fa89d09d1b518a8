"""What the Messages API refuses in the messages: roles, order, tool calls and their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from claudeproxy.demo.checking.basics import fields, items, need, one_of
from claudeproxy.demo.checking.blocks import check_block

_ROLES = ("user", "assistant", "system")
"""The CLI sends `system` messages to the 5.x models (2.1.330), the user and assistant as ever."""


@frozen
class _Turn:
    """Consecutive messages of one role, which the API takes as one."""

    role: str
    index: int
    blocks: Sequence[tuple[str, Mapping[str, Any]]]


def check_messages(messages: Any) -> None:
    """Refuse a conversation the API would not take; `messages` is the field of the body."""
    need(items(messages, "messages"), "messages: at least one message is required")
    for index, message in enumerate(messages):
        _check_message(message, index, final=index == len(messages) - 1)
    turns = _turns(messages)
    user_first = turns and turns[0].role == "user"
    need(user_first, 'messages: first message must use the "user" role')
    _check_end(turns[-1])
    _check_unique_ids(turns)
    for index, turn in enumerate(turns):
        if turn.role == "user":
            _check_results(turns[index - 1] if index else None, turn)
    if turns[-1].role == "assistant":
        _check_results(turns[-1], _Turn("user", len(messages), ()))


def _check_message(message: Any, index: int, *, final: bool) -> None:
    path = f"messages.{index}"
    fields(message, path, ["role", "content"], ["output_config"])
    one_of(message["role"], f"{path}.role", _ROLES)
    content = message["content"]
    present = content or (final and message["role"] == "assistant")
    need(
        present,
        f"{path}: all messages must have non-empty content except for the optional final "
        "assistant message",
    )
    if isinstance(content, str):
        blank = content and not content.strip()
        need(not blank, "messages: text content blocks must contain non-whitespace text")
        return
    for number, block in enumerate(items(content, f"{path}.content")):
        check_block(block, message["role"], f"{path}.content.{number}")


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[_Turn]:
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "system":
            continue
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        blocks = [(f"messages.{index}.content.{n}", block) for n, block in enumerate(content)]
        if turns and turns[-1].role == role:
            turns[-1] = _Turn(role, turns[-1].index, [*turns[-1].blocks, *blocks])
        else:
            turns.append(_Turn(role, index, blocks))
    return turns


def _check_end(turn: _Turn) -> None:
    if turn.role == "assistant" and turn.blocks:
        text = turn.blocks[-1][1].get("text", "")
        trimmed = text == text.rstrip()
        need(trimmed, "messages: final assistant content cannot end with trailing whitespace")


def _check_unique_ids(turns: Iterable[_Turn]) -> None:
    ids = [use["id"] for turn in turns for _, use in _of_type(turn, "tool_use")]
    need(len(ids) == len(set(ids)), "messages: `tool_use` ids must be unique")


def _check_results(previous: _Turn | None, turn: _Turn) -> None:
    """The results of the calls of the previous turn must lead this one, each once, and no other."""
    open_ids = [use["id"] for _, use in _of_type(previous, "tool_use")] if previous else []
    answered: set[str] = set()
    leading = True
    for path, block in turn.blocks:
        if block["type"] != "tool_result":
            leading = False
            continue
        name = block["tool_use_id"]
        need(
            name in open_ids,
            f"{path}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous "
            "message.",
        )
        need(
            name not in answered,
            f"{path}: each tool_use must have a single result. Found multiple `tool_result` "
            f"blocks with id: {name}",
        )
        if leading:
            answered.add(name)
    missing = [name for name in open_ids if name not in answered]
    if previous is not None:
        need(
            not missing,
            f"messages.{previous.index}: `tool_use` ids were found without `tool_result` blocks "
            f"immediately after: {', '.join(missing)}. Each `tool_use` block must have a "
            "corresponding `tool_result` block in the next message.",
        )


def _of_type(turn: _Turn, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(path, block) for path, block in turn.blocks if block["type"] == kind]
