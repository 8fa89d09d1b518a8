"""A conversation as every dialect reads it: calls matched with results, ids kept unique."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from claudeproxy.messages import FailureError, Message, Text, ToolUse, plain_id, upstream_id

OPENING = "(The assistant speaks first.)"
"""Stands before a conversation that begins with an assistant message: the API wants a user's."""


@define
class Conversation:
    """What has been read so far."""

    system: list[str] = field(factory=list)
    messages: list[Message] = field(factory=list)
    open_calls: dict[str, str] = field(factory=dict)
    """Unanswered calls of the last assistant message: plain id to the id upstream gets."""
    used_ids: dict[str, int] = field(factory=dict)
    """Ids upstream gets, and how often each was asked for."""

    def instruct(self, text: str) -> None:
        """A part of the system prompt; blank ones count for nothing."""
        if text.strip():
            self.system.append(text)

    def call(self, given: str, name: str, arguments: Mapping[str, Any], path: str) -> ToolUse:
        """An assistant's call under the client's id ``given``, which stands at ``path``."""
        plain = plain_id(given) or "call"
        if plain in self.open_calls:
            raise FailureError.invalid(f"{path}: {given!r} is used twice", path)
        # Some clients count anew in every message; upstream wants each id once in a conversation.
        first = own = upstream_id(plain)
        while own in self.used_ids:
            self.used_ids[first] += 1
            own = f"{first}x{self.used_ids[first]}"
        self.used_ids[own] = 1
        self.open_calls[plain] = own
        return ToolUse(own, name, arguments)

    def answered(self, given: str, path: str) -> str:
        """The id upstream knows of the open call that the client's id ``given`` answers."""
        call = self.open_calls.pop(plain_id(given) or "call", None)
        if call is None:
            raise FailureError.invalid(f"{path}: answers no open tool call ({given!r})", path)
        return call

    def settle(self, path: str) -> None:
        """:raises FailureError: when calls are still unanswered before the message at ``path``."""
        if self.open_calls:
            missing = ", ".join(self.open_calls)
            raise FailureError.invalid(
                f"{path}: the tool calls of an assistant message must each be answered right "
                f"after it; unanswered: {missing}",
                path,
            )

    def closed(self, field: str) -> tuple[tuple[str, ...], tuple[Message, ...]]:
        """System prompt parts and messages, fit to be answered; ``field`` of the body held them.

        :raises FailureError: when there is nothing to answer.
        """
        self.settle(field)
        system, messages = tuple(self.system), self.messages
        if not messages:
            # Instructions alone: they are all the model has to answer.
            messages = [Message("user", tuple(Text(instruction) for instruction in system))]
            system = ()
        messages = [message for message in messages if _speaks(message)]
        if not messages:
            raise FailureError.invalid(f"{field}: there is nothing in it to answer", field)
        if messages[0].role == "assistant":
            messages.insert(0, Message("user", (Text(OPENING),)))
        if messages[-1].role == "assistant":
            raise FailureError.invalid(
                f"{field}: the last message must not be the assistant's", field
            )
        return system, tuple(messages)


def _speaks(message: Message) -> bool:
    return any(not isinstance(b, Text) or b.text.strip() for b in message.content)
