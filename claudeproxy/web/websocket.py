"""WebSockets (RFC 6455): text messages of bounded size over a connection that has asked for it.

The frames are wsproto's. What is added here is what a server on a network needs: bounds of size and
time, pings, and the pace of the client.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.web.server import Request
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import generate_accept_token
from zope.interface import implementer

from .requests import BODIES
from .site import BODY_SECONDS, LINGER_SECONDS, Channel
from .sse import STALL

PING = 30.0
"""Seconds between two pings."""

SILENCE = 300.0
"""Seconds after which a client is gone that has sent nothing, and answered no ping either: some do
that only while they wait for a message."""

NORMAL, AWAY, UNSUPPORTED, POLICY, TOO_BIG, CROWDED = 1000, 1001, 1003, 1008, 1009, 1013
"""Why a connection is closed, in the protocol's numbers."""


_TOLD = (b"X-Request-Id", b"X-Claudemax-Conversation", b"X-Claudemax-Ignored")
"""Headers of the reply to a handshake."""


class Listener(Protocol):
    """Whoever talks over a socket."""

    def heard(self, text: str) -> None:
        """A message."""

    def pause(self) -> None:
        """The client does not read."""

    def resume(self) -> None:
        """The client reads again."""

    def drain(self) -> None:
        """The daemon stops."""

    def lost(self) -> None:
        """The connection is closed."""


def wanted(request: Request) -> bool:
    """Whether ``request`` asks for a WebSocket, on a connection that can become one."""
    key = request.getHeader(b"sec-websocket-key") or b""
    tokens = (request.getHeader(b"connection") or b"").lower().split(b",")
    return (
        request.method == b"GET"
        and b"upgrade" in [token.strip() for token in tokens]
        and request.getHeader(b"sec-websocket-version") == b"13"
        and re.fullmatch(rb"[A-Za-z0-9+/]{22}==", key) is not None
        and isinstance(request.channel, Channel)
    )


@implementer(IPushProducer)
class WebSocket:
    """A connection. ``request`` is the one that asked for it, and open as long as it is."""

    def __init__(self, reactor: IReactorTime, request: Request) -> None:
        self._reactor = reactor
        self._request = request
        self._channel: Any = request.channel
        self._frames = Connection(ConnectionType.SERVER)
        self._listener: Listener
        self._parts: list[str] = []
        self._size = 0
        self._since = 0.0
        self._heard = 0.0
        self._stall: IDelayedCall | None = None
        self._tending = LoopingCall(self._tend)
        self._tending.clock = reactor
        self.sent = 0
        """Bytes."""

    def open(self, listener: Listener) -> None:
        """Accept."""
        self._listener = listener
        self._heard = self._reactor.seconds()
        request = self._request
        key = request.getHeader(b"sec-websocket-key") or b""
        request.setResponseCode(101)
        request.startedWriting = 1  # what follows is not HTTP
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + generate_accept_token(key),
        ]
        for name in _TOLD:
            lines += [
                name + b": " + value for value in request.responseHeaders.getRawHeaders(name, [])
            ]
        self._channel.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        request.notifyFinish().addBoth(lambda _: self._lost())
        request.registerProducer(self, True)
        self._tending.start(PING, now=False)
        self._channel.upgrade(self)

    def send(self, text: str) -> None:
        """Send a message, unless the connection is closing."""
        if self._frames.state is ConnectionState.OPEN:
            self._write(TextMessage(text))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close, once the client has agreed or had the time to."""
        if self._frames.state is ConnectionState.OPEN:
            self._write(CloseConnection(code, reason))
            self._reactor.callLater(LINGER_SECONDS, self._channel.close)

    # -- Upgraded --

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._frames.state not in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
            return  # the client has said that it sends no more
        self._heard = self._reactor.seconds()
        self._frames.receive_data(data)
        for event in self._frames.events():
            self._event(event)

    def drain(self) -> None:
        """The daemon stops."""
        self._listener.drain()

    def _event(self, event: Event) -> None:
        if isinstance(event, Ping):
            if self._frames.state is ConnectionState.OPEN:
                self._write(event.response())
        elif isinstance(event, CloseConnection):
            if self._frames.state is ConnectionState.OPEN:  # it breaks the protocol
                self.close(event.code, (event.reason or "")[:100])
                return
            if self._frames.state is ConnectionState.REMOTE_CLOSING:
                self._write(event.response())
            self._channel.close()
        elif isinstance(event, BytesMessage):
            self.close(UNSUPPORTED, "text only")
        elif isinstance(event, TextMessage):
            self._text(event)

    def _text(self, event: TextMessage) -> None:
        if self._frames.state is not ConnectionState.OPEN:
            return
        site, size = self._channel.site, len(event.data.encode())
        if not self._parts:
            self._since = self._reactor.seconds()
        self._size += size
        site.arriving += size
        self._parts.append(event.data)
        if self._size > site.gate.max_body:
            self._forget()
            self.close(TOO_BIG, f"a message is larger than {site.gate.max_body} bytes")
        elif site.arriving > BODIES * site.gate.max_body:
            self._forget()
            self.close(CROWDED, "too many large requests are arriving; come back later")
        elif event.message_finished:
            self._listener.heard(self._forget())

    def _forget(self) -> str:
        """The message so far, which is no longer arriving."""
        text, self._parts = "".join(self._parts), []
        self._channel.site.arriving -= self._size
        self._size = 0
        return text

    def _tend(self) -> None:
        now = self._reactor.seconds()
        if now - self._heard > SILENCE:
            self._abort()
        elif self._parts and now - self._since > BODY_SECONDS:
            self.close(POLICY, "a message took too long to arrive")
        elif self._frames.state is ConnectionState.OPEN:
            self._write(Ping())

    def _write(self, event: Event) -> None:
        data = self._frames.send(event)
        self.sent += len(data)
        self._channel.transport.write(data)

    def _lost(self) -> None:
        self._frames.receive_data(None)
        self._forget()
        if self._tending.running:
            self._tending.stop()
        if self._stall is not None:
            if self._stall.active():
                self._stall.cancel()
            self._stall = None
        self._listener.lost()

    # -- IPushProducer --

    def pauseProducing(self) -> None:
        """The socket is full."""
        if self._stall is None:
            self._stall = self._reactor.callLater(STALL, self._abort)
        self._listener.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        if self._stall is not None:
            if self._stall.active():
                self._stall.cancel()
            self._stall = None
        self._listener.resume()

    def stopProducing(self) -> None:
        """The connection is lost, which its request tells."""

    def _abort(self) -> None:
        self._channel.forceAbortClient()
