"""A conversation that remembers what was said."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred

from claudeproxy.messages import Block, Message, Text, ToolResult

from .answer import Answer, Piece
from .claude import Claude

Said: TypeAlias = str | Iterable[Block]
"""What the user says: a text, or the blocks of a message, such as the results of calls."""


class Conversation:
    """Sends what was said before along with each question, so that the daemon can go on with the
    process that holds it, and the upstream reads it from its cache.

    Questions are asked one after the other: one that comes while another is being answered waits.
    Those without an answer, failed or given up, are not remembered.
    """

    def __init__(self, claude: Claude, *, most: int = 40, **settings: Any) -> None:
        """``most``: how many messages it may grow to, then the older half is forgotten (not one
        each time: every cut costs the cache). ``settings``: the arguments of :meth:`Claude.ask`."""
        self._claude = claude
        self._most = most
        self._settings = settings
        self._lock = DeferredLock()
        self.messages: tuple[Message, ...] = ()
        """What was said so far."""

    def ask(self, said: Said) -> Deferred[Answer]:
        """The answer to the next message; see :meth:`Claude.ask`."""
        return ensureDeferred(self._ask(said))

    async def _ask(self, said: Said) -> Answer:
        async with self._lock:
            asked = (*self.messages, _message(said))
            answer = await self._claude.ask(asked, **self._settings)
            self._remember(*asked, answer.message)
        return answer

    async def stream(self, said: Said) -> AsyncGenerator[Piece, None]:
        """The answer to the next message as it is written; see :meth:`Claude.stream`."""
        async with self._lock:
            asked = (*self.messages, _message(said))
            async with aclosing(self._claude.stream(asked, **self._settings)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        self._remember(*asked, piece.message)
                    yield piece

    def _remember(self, *messages: Message) -> None:
        self.messages = messages
        if len(messages) > self._most:
            kept = messages[-(self._most // 2) :]
            # It has to begin with something that the user says, not with the result of a call.
            begin = next((at for at, one in enumerate(kept) if _opens(one)), len(kept))
            self.messages = kept[begin:]


def _message(said: Said) -> Message:
    return Message("user", (Text(said),) if isinstance(said, str) else tuple(said))


def _opens(message: Message) -> bool:
    return message.role == "user" and not any(isinstance(b, ToolResult) for b in message.content)
