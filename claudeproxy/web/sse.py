"""An answer as a stream, at the pace at which its client reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

from claudeproxy.dialects.shapes import Stream
from claudeproxy.engine.engine import TurnGroup
from claudeproxy.engine.flow import Source
from claudeproxy.messages import Event, Failure

from .json_replies import Refusal, refuse

KEEP_ALIVE = 15.0
"""Seconds of silence after which something empty is sent, and before it the headers if need be."""

STALL = 60.0
"""Seconds a client may leave its full socket unread."""


@implementer(IPushProducer)
class PacedReply:
    """The body of a reply that is sent piece by piece. ``source`` is paused while the client's
    socket is full."""

    def __init__(
        self,
        reactor: IReactorTime,
        request: Request,
        content_type: bytes,
        keep_alive: Callable[[], bytes],
    ) -> None:
        """``keep_alive``: returns what is sent where there is nothing to say."""
        self._reactor = reactor
        self._request = request
        self._content_type = content_type
        self._keep_alive = keep_alive
        self._headers: Callable[[], Mapping[str, str]] = dict
        self._source: Source | None = None
        self._stall: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self.committed = False
        """Whether the headers are sent."""

    def follow(self, source: Source, headers: Callable[[], Mapping[str, str]]) -> None:
        """Pause and resume ``source`` with the client. ``headers`` is called when they are sent."""
        self._source = source
        self._headers = headers
        self._silence = self._reactor.callLater(KEEP_ALIVE, self._silent)

    def write(self, data: bytes) -> None:
        """Send a piece."""
        self._commit()
        self._request.write(data)
        if self._silence is not None:
            self._silence.reset(KEEP_ALIVE)

    def close(self) -> None:
        """Send nothing more: that was all, or the client has left."""
        _cancel(self._silence, self._stall)
        self._silence = self._stall = None

    def end(self) -> None:
        """That was all."""
        self.close()
        if self.committed:
            self._request.unregisterProducer()

    def _commit(self) -> None:
        if self.committed:
            return
        self.committed = True
        request = self._request
        request.setHeader(b"content-type", self._content_type)
        request.setHeader(b"cache-control", b"no-cache, no-transform")
        request.setHeader(b"x-accel-buffering", b"no")
        for name, value in self._headers().items():
            request.setHeader(name.encode(), value.encode())
        request.registerProducer(self, True)

    def _silent(self) -> None:
        self._silence = None
        self.write(self._keep_alive())
        self._silence = self._reactor.callLater(KEEP_ALIVE, self._silent)

    # -- IPushProducer --

    def pauseProducing(self) -> None:
        """The socket is full."""
        if self._stall is None:
            self._stall = self._reactor.callLater(STALL, self._stalled)
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        _cancel(self._stall)
        self._stall = None
        if self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        """The connection is lost. Klein cancels the handler for that, which ends the turns."""

    def _stalled(self) -> None:
        self._stall = None
        transport: Any = self._request.transport
        transport.abortConnection()


class Streamed:
    """Writes events to a client as they come. While the client's socket is full, the process is
    paused.

    The headers are held back until the first event, so that an early failure has its own status.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        request: Request,
        renderer: Stream,
        refusal: Refusal | None = None,
    ) -> None:
        """``refusal``: of the dialect, for an early failure."""
        self._request = request
        self._renderer = renderer
        self._refusal = refusal
        self._reply = PacedReply(reactor, request, renderer.content_type, renderer.keep_alive)
        self.failure: Failure | None = None
        self.done: Deferred[None] = Deferred()
        """Fires when the last byte is written."""

    def follow(self, group: TurnGroup, headers: Callable[[], Mapping[str, str]]) -> None:
        """Pause and resume ``group`` with the client. ``headers`` is called when they are sent."""
        if not self.done.called:
            self._reply.follow(group, headers)

    def events(self, index: int, events: list[Event]) -> None:
        """A burst of events of answer ``index``."""
        if self.done.called or not events:
            return
        if isinstance(events[-1], Failure):
            self.failure = events[-1]
        if not self._reply.committed and self.failure is not None:
            self._request.write(refuse(self._request, self.failure, self._refusal))
            self._end()
            return
        data = self._renderer.render(index, events)
        if data:
            self._reply.write(data)
        if self._renderer.ended:
            self._end()

    def close(self) -> None:
        """Send nothing more: the answer has ended, or the client has left."""
        self._reply.close()

    def _end(self) -> None:
        self._reply.end()
        self.done.callback(None)


def _cancel(*timers: IDelayedCall | None) -> None:
    for timer in timers:
        if timer is not None and timer.active():
            timer.cancel()
