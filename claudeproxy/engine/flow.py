"""Backpressure: while a request's client is not reading, nothing is read for it."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """Whatever produces for a client, or waits for what is produced."""

    def pause(self) -> None:
        """Stop."""

    def resume(self) -> None:
        """Go on."""


class Flow:
    """The one place that knows whether a request's client is reading.

    The processes that work for the request, and the watches on their deadlines, are attached to it
    for as long as they do, so that latecomers are paused along with the rest.
    """

    def __init__(self) -> None:
        self._paused = False
        self._sources: list[Source] = []

    def attach(self, source: Source) -> None:
        """Pause and resume ``source`` with the others from now on."""
        self._sources.append(source)
        if self._paused:
            source.pause()

    def detach(self, source: Source) -> None:
        """Leave ``source`` alone from now on, and let it run."""
        self._sources.remove(source)
        if self._paused:
            source.resume()

    def pause(self) -> None:
        """The client has stopped reading."""
        self._paused = True
        for source in self._sources:
            source.pause()

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        for source in self._sources:
            source.resume()
