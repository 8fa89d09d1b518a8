"""Builds a conversation for any dialect: matches calls and results, keeps ids unique."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import define, field

from claudeproxy.messages import (
    MAX_VALUES,
    Block,
    FailureError,
    Message,
    Text,
    ToolUse,
    normalise_tool_id,
    parse_arguments,
    upstream_id,
    values,
)

from .fields import Fields

REMINDER = "<system-reminder>\n{}\n</system-reminder>"
"""A system message within the conversation, as text in the user's turn. The CLI itself does this
for models that accept none; it takes no system messages as such."""

OPENING = "(The assistant speaks first.)"
"""Precedes a conversation that begins with an assistant message: the API wants a user's first."""


@define
class Conversation:
    """What has been read so far."""

    system: list[str] = field(factory=list)
    messages: list[Message] = field(factory=list)
    open_calls: dict[str, str] = field(factory=dict)
    """The unanswered calls of the last assistant message: normalised id to upstream id."""
    used_ids: dict[str, int] = field(factory=dict)
    """The ids that go upstream, and how often each has been used."""
    argument_values: int = 0
    """How many JSON values are in the arguments of all calls that came as text."""
    last: str = ""
    """The path of the last message that is not blank."""
    end: str = ""
    """The path of the last message."""

    def say(self, role: Literal["user", "assistant"], content: Iterable[Block], path: str) -> None:
        """The message at ``path``."""
        message = Message(role, tuple(content))
        self.messages.append(message)
        self.end = path
        if _speaks(message):
            self.last = path

    def instruct(self, text: str) -> None:
        """Add a system message, unless it is blank.

        Before the first message it becomes part of the system prompt. Later it keeps its place: in
        the system prompt it would precede what it follows, and a changed system prompt costs the
        cached prefix of the whole conversation.
        """
        if not text.strip():
            return
        if self.messages:
            self.messages.append(Message("user", (Text(REMINDER.format(text)),)))
        else:
            self.system.append(text)

    def arguments(self, function: Fields) -> Mapping[str, Any]:
        """The ``arguments`` of a call, which are JSON in a string.

        :raises FailureError: when those of all calls together hold too many values.
        """
        text = function.text("arguments", "")
        self.argument_values += values(text.encode(errors="surrogatepass"))
        if self.argument_values > MAX_VALUES:
            path = function.at("arguments")
            raise FailureError.invalid(
                f"{path}: the arguments of all calls hold more than {MAX_VALUES:,} JSON values",
                path,
            )
        return parse_arguments(text)

    def call(self, given: str, name: str, arguments: Mapping[str, Any], path: str) -> ToolUse:
        """The upstream id for a call with the client's id ``given``, which stands at ``path``."""
        plain = normalise_tool_id(given) or "call"
        if plain in self.open_calls:
            raise FailureError.invalid(f"{path}: {given!r} is used twice", path)
        # Some clients number the calls of each message from the start; the upstream wants each id
        # once in a conversation.
        first = own = upstream_id(plain)
        while own in self.used_ids:
            self.used_ids[first] += 1
            own = f"{first}x{self.used_ids[first]}"
        self.used_ids[own] = 1
        self.open_calls[plain] = own
        return ToolUse(own, name, arguments)

    def answered(self, given: str, path: str) -> str:
        """The upstream id of the open call with the client's id ``given``, which is answered
        now."""
        call = self.open_calls.pop(normalise_tool_id(given) or "call", None)
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

    def answer(self, path: str) -> None:
        """The assistant begins or goes on at ``path``: it may say something behind its calls.

        :raises FailureError: when it begins, and calls before it are still unanswered.
        """
        if self.messages and self.messages[-1].role == "user":
            self.settle(path)

    def closed(self, field: str) -> tuple[tuple[str, ...], tuple[Message, ...]]:
        """The parts of the system prompt, and the messages; ``field`` of the body held them.

        :raises FailureError: when there is nothing to answer.
        """
        self.settle(self.last or field)
        system, messages = tuple(self.system), self.messages
        if not messages:
            # There are only instructions, so the model has to answer these.
            messages = [Message("user", tuple(Text(instruction) for instruction in system))]
            system = ()
        messages = [message for message in messages if _speaks(message)]
        if not messages:
            raise FailureError.invalid(f"{field}: there is nothing in it to answer", field)
        if messages[-1].role == "assistant" and self.messages[-1].role == "user":
            why = "the last message is empty: there is nothing in it to answer"
            raise FailureError.invalid(f"{self.end}: {why}", self.end)
        if messages[0].role == "assistant":
            messages.insert(0, Message("user", (Text(OPENING),)))
        if messages[-1].role == "assistant":
            raise FailureError.invalid(
                f"{self.last}: the last message is the assistant's: the Claude CLI cannot have an "
                "answer begun for it (prefill), and models since 4.6 refuse that; end with a "
                "user message",
                self.last,
            )
        return system, tuple(messages)


def _speaks(message: Message) -> bool:
    return any(not isinstance(b, Text) or b.text.strip() for b in message.content)
