"""What clients have asked and what they got: the one account of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Condition

from attrs import define, field


@define(eq=False)
class Turn:
    """``cause``: why it failed, or empty; ``request_id``: as soon as it is told; ``where``: which
    node was asked, or the balancer; ``key``: its name; ``named``: whether its conversation has a
    name for the balancer. Times are those of the monotonic clock."""

    question: str
    kind: str
    key: str
    where: str
    named: bool = False
    request_id: str = ""
    ignored: str = ""
    cause: str | None = None
    begun: float = field(factory=time.monotonic)
    ended: float = 0.0

    @property
    def answered(self) -> bool:
        return self.cause == ""

    @property
    def conversation(self) -> str:
        return self.question.rpartition("-")[0]

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it was under way at any moment of a time."""
        return self.begun <= end and self.ended >= begin

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class Turns:
    """All of them, in the order in which they began. ``wrong``: what no client may ever see;
    ``unkept``: questions that were answered, and are not in their conversation."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._all: list[Turn] = []
        self._done = 0
        self.wrong: list[str] = []
        self.unkept: list[str] = []

    def __iter__(self) -> Iterator[Turn]:
        return iter(list(self._all))

    def begin(self, turn: Turn) -> None:
        with self._changed:
            self._all.append(turn)

    def end(self, turn: Turn, cause: str) -> None:
        with self._changed:
            turn.cause, turn.ended = cause, time.monotonic()
            self._done += 1
            self._changed.notify_all()

    @property
    def done(self) -> int:
        return self._done

    @property
    def running(self) -> list[Turn]:
        with self._changed:
            return [turn for turn in self._all if turn.cause is None]

    def reach(self, number: int, seconds: float = 300) -> None:
        """Wait until so many are over."""
        with self._changed:
            reached = self._changed.wait_for(lambda: self._done >= number, seconds)
        assert reached, f"the clients do not get on: {self._done} turns, and not {number}"
