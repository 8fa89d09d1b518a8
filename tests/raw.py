"""A client that writes bytes as it likes."""

from __future__ import annotations

from typing import Any

from harness import until
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure


class Raw(Protocol):
    """``got``: everything received; ``lost``: the connection is gone."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    @property
    def statuses(self) -> list[int]:
        """The status of each reply that has begun."""
        return [int(part[:3]) for part in self.got.split(b"HTTP/1.1 ")[1:]]

    async def closed(self, seconds: float = 10.0) -> bytes:
        """Everything received, once the daemon has closed the connection."""
        await until(lambda: self.lost, seconds)
        return self.got

    async def replied(self, replies: int = 1) -> bytes:
        """Everything received, once so many replies have begun."""
        await until(lambda: len(self.statuses) >= replies)
        return self.got


async def connect(port: IListeningPort, data: bytes = b"") -> Raw:
    """A connection to ``port``, on which ``data`` is sent."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    client: Raw = await connectProtocol(endpoint, Raw())
    client.write(data)
    return client


BODY = b'{"model":"sonnet","messages":[{"role":"user","content":"x"}]}'
"""A good body."""


def head(*lines: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """The head of a request, without a length; ``lines`` are further headers."""
    common = (b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json")
    return b"\r\n".join((*common, *lines)) + b"\r\n\r\n"


def sized(body: bytes = BODY) -> bytes:
    """The header that tells the length of ``body``."""
    return b"Content-Length: %d" % len(body)


def post(body: bytes = BODY, *lines: bytes) -> bytes:
    """A whole request."""
    return head(sized(body), *lines) + body
