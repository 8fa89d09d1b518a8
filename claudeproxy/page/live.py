"""Tells the pages that are open when there is something new to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.server import Request
from zope.interface import implementer

WATCHERS = 32
"""Pages that may watch at once."""

PAUSE = 0.5
"""Seconds between two events, however much happens."""

RUNNING = 1.0
"""Seconds after which there is something new of a running turn."""

SILENCE = 20.0
"""Seconds after which a page is told all the same: its times have grown old, and a connection that
carries nothing is cut somewhere."""


class Live:
    """The streams of server-sent events of open pages. An event says nothing but that the page has
    changed, and the page then asks for what it shows."""

    def __init__(self, reactor: IReactorTime, running: Callable[[], Any]) -> None:
        """``running``: true while turns run."""
        self._reactor = reactor
        self._running = running
        self._watchers: dict[Request, Deferred[None]] = {}
        self._next: IDelayedCall | None = None
        self._last = reactor.seconds() - PAUSE

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def is_full(self) -> bool:
        """Whether no more pages may watch."""
        return len(self._watchers) >= WATCHERS

    async def watch(self, request: Request) -> None:
        """Stream events to ``request`` until that is cancelled, because its client has left, or
        all streams are closed."""
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"x-accel-buffering", b"no")
        request.registerProducer(_Unread(request), True)
        request.write(b"retry: 3000\n\n")
        done = self._watchers[request] = Deferred()
        self._plan()
        try:
            await done
            request.unregisterProducer()
        finally:
            del self._watchers[request]
            if not self._watchers and self._next is not None:
                self._next.cancel()
                self._next = None

    def changed(self, *_: Any) -> None:
        """A turn has begun or is over."""
        if self._watchers:
            self._tell_at(max(self._last + PAUSE, self._reactor.seconds()))

    def close(self) -> None:
        """End all streams: the daemon stops."""
        for done in list(self._watchers.values()):
            done.callback(None)

    def _tell_at(self, when: float) -> None:
        delay = when - self._reactor.seconds()
        if self._next is None:
            self._next = self._reactor.callLater(delay, self._tell)
        elif self._next.getTime() > when:
            self._next.reset(delay)

    def _plan(self) -> None:
        pause = RUNNING if self._running() else SILENCE
        self._tell_at(self._reactor.seconds() + pause)

    def _tell(self) -> None:
        self._next = None
        self._last = self._reactor.seconds()
        for request in self._watchers:
            request.write(b"event: changed\ndata: 1\n\n")
        self._plan()


@implementer(IPushProducer)
@frozen
class _Unread:
    """Cuts the connection of a client that does not read: an open page does."""

    request: Request

    def pauseProducing(self) -> None:
        transport: Any = self.request.transport
        transport.abortConnection()

    def resumeProducing(self) -> None:
        """It is cut."""

    def stopProducing(self) -> None:
        """The connection is lost, of which Klein tells the route."""
