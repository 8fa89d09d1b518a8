"""The events of a stream that is kept, and clients that follow it from any of them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.dialects.shapes import ServerSentEvents

from .sse import PacedReply

_END = b"\n\n"


class EventLog:
    """Server-sent events, each at the place that its sequence number tells."""

    def __init__(self, data: bytes = b"", ended: bool = False) -> None:
        """``data``: the first of them; ``ended``: there will be no more."""
        self.events: list[bytes] = []
        self.ended = ended
        self.heard: set[Callable[[], None]] = set()
        """Called when there are more, or no more."""
        self.add(data)

    def add(self, data: bytes) -> None:
        """More events, whole ones."""
        self.events += [event + _END for event in data.split(_END) if event]
        self._tell()

    def end(self) -> None:
        """There will be no more."""
        self.ended = True
        self._tell()

    async def whole(self) -> None:
        """Wait until there are no more."""
        ended: Deferred[None] = Deferred()

        def heard() -> None:
            if self.ended and not ended.called:
                ended.callback(None)

        self.heard.add(heard)
        try:
            heard()
            await ended
        finally:
            self.heard.discard(heard)

    def _tell(self) -> None:
        for heard in list(self.heard):
            heard()


class Follower:
    """Sends the events of a log to a client, from number ``first`` on, at the client's pace."""

    def __init__(self, reactor: IReactorTime, request: Request, log: EventLog, first: int) -> None:
        shape = ServerSentEvents()
        self._reply = PacedReply(reactor, request, shape.content_type, shape.keep_alive)
        self._log = log
        self._next = first
        self._paused = False
        self._done: Deferred[None] = Deferred()

    async def serve(self) -> bytes:
        """Until all is sent, or the client has left."""
        self._reply.follow(self, dict)
        self._log.heard.add(self._heard)
        try:
            self._heard()
            await self._done
        finally:
            self._log.heard.discard(self._heard)
            self._reply.close()
        return b""

    def pause(self) -> None:
        """The client's socket is full."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        self._heard()

    def _heard(self) -> None:
        while not self._paused and self._next < len(self._log.events):
            self._next += 1
            self._reply.write(self._log.events[self._next - 1])
        if self._log.ended and self._next >= len(self._log.events) and not self._done.called:
            if not self._reply.committed:
                self._reply.write(b"")
            self._reply.end()
            self._done.callback(None)
