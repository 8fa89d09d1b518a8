"""What programs ask: one interface, whatever is behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from claudeproxy.messages import Effort

from .answer import Answer, Piece
from .asking import MAX_TOKENS, AnyTool, Question, body
from .buffer import Buffer, Source


class Claude(ABC):
    """Asks Claude. Each question stands by itself: what was said before has to be in its messages,
    which a :class:`Conversation` sees to."""

    def ask(
        self,
        question: Question,
        *,
        model: str = "sonnet",
        system: str | None = None,
        tools: Iterable[AnyTool] = (),
        schema: Mapping[str, Any] | None = None,
        effort: Effort | None = None,
        max_tokens: int = MAX_TOKENS,
        **more: Any,
    ) -> Deferred[Answer]:
        """The whole answer to ``question``: a text, or the messages of a conversation, each a
        :class:`Message` or as the API has it, ``{"role": "user", "content": "Hi"}``.

        ``model``: any name that the daemon knows. ``system``: the system prompt. ``tools``: what
        the answer may call; the calls are in it, and running them is the program's part.
        ``schema``: a JSON schema that the text must satisfy; the daemon validates it, and asks once
        more if it does not. ``effort``: from ``none`` (no thinking, where the model can do without)
        to ``max``. ``max_tokens``: the answer is cut off after so many. ``more``: any other field
        of the Messages API, such as ``temperature`` or ``tool_choice``.

        Cancelling the Deferred ends the turn, wherever it is.

        :raises ClaudeError: when there is no answer. Nothing is asked a second time.
        :raises TypeError: at once, for an argument that does not exist.
        """
        asked = body(
            question,
            model=model,
            system=system,
            tools=tools,
            schema=schema,
            effort=effort,
            max_tokens=max_tokens,
            stream=False,
            more=more,
        )
        return ensureDeferred(self._last(asked))

    def stream(
        self,
        question: Question,
        *,
        model: str = "sonnet",
        system: str | None = None,
        tools: Iterable[AnyTool] = (),
        schema: Mapping[str, Any] | None = None,
        effort: Effort | None = None,
        max_tokens: int = MAX_TOKENS,
        **more: Any,
    ) -> AsyncGenerator[Piece, None]:
        """The answer as it is written, piece by piece; the last one is the :class:`Answer`.

        The arguments are those of :meth:`ask`, and so are the errors, which may come in mid-answer.
        The turn begins with the first piece that is asked for, and ends when the loop is left.
        To have it end at once, rather than when Python finds that nobody holds the generator, write
        ``async with contextlib.aclosing(claude.stream(...)) as pieces``. While the program
        does not ask for more, the CLI is paused as soon as 64 kB wait; the turn keeps its slot.
        """
        asked = body(
            question,
            model=model,
            system=system,
            tools=tools,
            schema=schema,
            effort=effort,
            max_tokens=max_tokens,
            stream=True,
            more=more,
        )
        return self._pieces(asked)

    async def _last(self, asked: Mapping[str, Any]) -> Answer:
        async with aclosing(self._pieces(asked)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    return piece
        raise AssertionError("an answer without an end")

    async def _pieces(self, asked: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        buffer = Buffer()
        buffer.source = self._begin(asked, buffer)
        try:
            piece: Piece | None = None
            while not isinstance(piece, Answer):
                piece = await buffer.take()
                yield piece
        finally:
            # Without an await, so that it also works where Python closes a generator by itself.
            buffer.source.stop()

    @abstractmethod
    def _begin(self, asked: Mapping[str, Any], buffer: Buffer) -> Source:
        """Put the body ``asked`` to Claude; what becomes of it, failures included, goes to
        ``buffer``, now or later."""
