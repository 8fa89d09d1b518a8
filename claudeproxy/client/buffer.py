"""Between what produces an answer at its own pace and the program that takes it at its."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from claudeproxy.messages import Event, Failure, Finished, Text, Thinking

from .answer import ClaudeError, Piece, PieceReader

FULL = 64 * 1024
"""Characters that may wait to be taken; beyond that the source is paused until all are."""


class Source(Protocol):
    """What produces an answer."""

    def pause(self) -> None:
        """Produce no more for now."""

    def resume(self) -> None:
        """Go on."""

    def stop(self) -> None:
        """Nobody wants the answer any more, or it is complete."""


class Buffer:
    """Takes events in, and gives pieces out."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self._reader = PieceReader()
        self._pieces: deque[Piece | ClaudeError] = deque()
        self._size = 0
        self._paused = False
        self._taker: Deferred[None] | None = None
        self.ended = False
        """Whether the end has come in, good or bad."""

    def events(self, events: Iterable[Event]) -> None:
        """The next events; what comes after the end is dropped."""
        for event in events:
            if self.ended:
                break
            self.ended = isinstance(event, (Finished, Failure))
            if isinstance(event, Failure):
                self._pieces.append(ClaudeError(event))
                break
            for piece in self._reader.pieces(event):
                self._pieces.append(piece)
                self._size += _size(piece)
        if self._taker is not None and self._pieces:
            taker, self._taker = self._taker, None
            taker.callback(None)
        if self._size > FULL and not self._paused and self.source is not None:
            self._paused = True
            self.source.pause()

    async def take(self) -> Piece:
        """The next piece, once it is there. To be called by one at a time.

        :raises ClaudeError: in place of a piece, at the end.
        """
        if not self._pieces:
            if self._paused and self.source is not None:
                self._paused = False
                self.source.resume()
            if not self._pieces:
                self._taker = Deferred(self._left)
                await self._taker
        piece = self._pieces.popleft()
        if isinstance(piece, ClaudeError):
            raise piece
        self._size -= _size(piece)
        return piece

    def _left(self, taker: Deferred[None]) -> None:
        self._taker = None


def _size(piece: Piece) -> int:
    if isinstance(piece, Text):
        return len(piece.text)
    return len(piece.thinking) if isinstance(piece, Thinking) else 0
