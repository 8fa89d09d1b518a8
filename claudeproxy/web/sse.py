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
from claudeproxy.messages import Event, Failure

from .json_replies import Refusal, refuse

KEEP_ALIVE = 15.0
"""Seconds of silence after which something empty is sent, and before it the headers if need be."""

STALL = 60.0
"""Seconds a client may leave its full socket unread."""


@implementer(IPushProducer)
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
        self._reactor = reactor
        self._request = request
        self._renderer = renderer
        self._refusal = refusal
        self._headers: Callable[[], Mapping[str, str]] = dict
        self._group: TurnGroup | None = None
        self._stall: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._committed = False
        self.failure: Failure | None = None
        self.done: Deferred[None] = Deferred()
        """Fires when the last byte is written."""

    def follow(self, group: TurnGroup, headers: Callable[[], Mapping[str, str]]) -> None:
        """Pause and resume ``group`` with the client. ``headers`` is called when they are sent."""
        self._group = group
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
        """Send nothing more: the answer has ended, or the client has left."""
        self._stop_timers()

    def _commit(self) -> None:
        if self._committed:
            return
        self._committed = True
        request = self._request
        request.setHeader(b"content-type", self._renderer.content_type)
        request.setHeader(b"cache-control", b"no-cache, no-transform")
        request.setHeader(b"x-accel-buffering", b"no")
        for name, value in self._headers().items():
            request.setHeader(name.encode(), value.encode())
        request.registerProducer(self, True)

    def _keep_alive(self) -> None:
        self._commit()
        self._request.write(self._renderer.keep_alive())
        self._silence = self._reactor.callLater(KEEP_ALIVE, self._keep_alive)

    def _end(self) -> None:
        self._stop_timers()
        if self._committed:
            self._request.unregisterProducer()
        self.done.callback(None)

    def _stop_timers(self) -> None:
        _cancel(self._silence, self._stall)
        self._silence = self._stall = None

    # -- IPushProducer --

    def pauseProducing(self) -> None:
        """The socket is full."""
        if self._stall is None:
            self._stall = self._reactor.callLater(STALL, self._stalled)
        if self._group is not None:
            self._group.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        _cancel(self._stall)
        self._stall = None
        if self._group is not None:
            self._group.resume()

    def stopProducing(self) -> None:
        """The connection is lost. Klein cancels the handler for that, which ends the turns."""

    def _stalled(self) -> None:
        self._stall = None
        transport: Any = self._request.transport
        transport.abortConnection()


def _cancel(*timers: IDelayedCall | None) -> None:
    for timer in timers:
        if timer is not None and timer.active():
            timer.cancel()
