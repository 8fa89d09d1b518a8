"""The two ways an answer leaves: as a stream of events, or whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from claudeproxy.dialects.shapes import Stream
from claudeproxy.engine.engine import Answers
from claudeproxy.messages import Assembly, Event, Failure, Finished

from .replies import Refusal, refuse

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, and the headers if they are still held."""

STALL = 60.0
"""Seconds a client may leave its full socket unread."""


@implementer(IPushProducer)
class Streamed:
    """Writes events to a client as they come; the client's full socket stops the process.

    The headers are held until the first event, so that an early failure has its own status.
    """

    def __init__(
        self, reactor: Any, request: Any, renderer: Stream, refusal: Refusal | None = None
    ) -> None:
        """``refusal``: how an early failure is worded."""
        self._reactor = reactor
        self._request = request
        self._renderer = renderer
        self._refusal = refusal
        self._headers: Callable[[], Mapping[str, str]] = dict
        self._answers: Answers | None = None
        self._stall: Any = None
        self._silence: Any = None
        self._committed = False
        self.failure: Failure | None = None
        self.done: Deferred[None] = Deferred()
        """Fires when the last byte is written."""

    def follow(self, answers: Answers, headers: Callable[[], Mapping[str, str]]) -> None:
        """Pass the client's pace on to ``answers``; ``headers`` are read when they are sent."""
        self._answers = answers
        self._headers = headers
        if not self.done.called:
            self._silence = self._reactor.callLater(KEEP_ALIVE, self._keep_alive)

    def events(self, index: int, events: list[Event]) -> None:
        """A burst of events of answer ``index``."""
        if self.done.called:
            return
        if isinstance(events[-1], Failure):
            self.failure = events[-1]
        if not self._committed and self.failure is not None:
            self._request.write(refuse(self._request, self.failure, self._refusal))
            self._end()
            return
        data = self._renderer.render(index, events)
        if data:
            self._commit()
            self._request.write(data)
            if self._silence is not None:
                self._silence.reset(KEEP_ALIVE)
        if self._renderer.ended:
            self._end()

    def close(self) -> None:
        """Nobody waits for more: the answer has ended, or the client is gone."""
        self._stop_timers()
        if self._answers is not None:
            self._answers.cancel()

    def _commit(self) -> None:
        if self._committed:
            return
        self._committed = True
        request = self._request
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"cache-control", b"no-cache, no-transform")
        request.setHeader(b"x-accel-buffering", b"no")
        for name, value in self._headers().items():
            request.setHeader(name.encode(), value.encode())
        request.registerProducer(self, True)

    def _keep_alive(self) -> None:
        self._commit()
        self._request.write(b": keep-alive\n\n")
        self._silence = self._reactor.callLater(KEEP_ALIVE, self._keep_alive)

    def _end(self) -> None:
        self._stop_timers()
        if self._committed:
            self._request.unregisterProducer()
        if self.failure is not None and self._answers is not None:
            self._answers.cancel()
        self.done.callback(None)

    def _stop_timers(self) -> None:
        _cancel(self._silence, self._stall)
        self._silence = self._stall = None

    # -- IPushProducer --

    def pauseProducing(self) -> None:
        """The socket is full."""
        if self._stall is None:
            self._stall = self._reactor.callLater(STALL, self._stalled)
        if self._answers is not None:
            self._answers.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        _cancel(self._stall)
        self._stall = None
        if self._answers is not None:
            self._answers.resume()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.close()

    def _stalled(self) -> None:
        self._stall = None
        self._request.transport.abortConnection()


def _cancel(*timers: Any) -> None:
    for timer in timers:
        if timer is not None and timer.active():
            timer.cancel()


class Collected:
    """Gathers whole answers."""

    def __init__(self, n: int) -> None:
        self._assemblies = [Assembly() for _ in range(n)]
        self._ends: dict[int, Finished] = {}
        self.failure: Failure | None = None
        self.done: Deferred[None] = Deferred()
        """Fires when all answers are in, or one of them has failed."""

    def events(self, index: int, events: list[Event]) -> None:
        """A burst of events of answer ``index``."""
        if self.done.called:
            return
        for event in events:
            if isinstance(event, Failure):
                self.failure = event
                self.done.callback(None)
                return
            if isinstance(event, Finished):
                self._ends[index] = event
            else:
                self._assemblies[index].add(event)
        if len(self._ends) == len(self._assemblies):
            self.done.callback(None)

    def answers(self) -> list[tuple[Assembly, Finished]]:
        """The answers, in order of their index."""
        return [(assembly, self._ends[i]) for i, assembly in enumerate(self._assemblies)]
