"""The site: where a connection's limits live, so that no route has to think of them.

``twisted.web`` by itself reads bodies of any size, puts the larger ones into a temporary file,
and restarts its time-out at every byte.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure as Reason
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from claudeproxy.messages import Failure, Kind

from .gate import Gate
from .replies import raw_refusal

HEADER_SECONDS = 20.0
"""For the whole head of a request, from its first byte."""

BODY_SECONDS = 120.0
"""For the whole body."""

IDLE_SECONDS = 75
"""Between two requests of a connection."""

LINGER_SECONDS = 2.0
"""For the client to read why it was refused, while what it still sends is thrown away."""


class LimitedRequest(Request):
    """Asks the gate before the body, and bounds the body in memory."""

    channel: Channel
    content: BytesIO
    _refused = False

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()  # never a temporary file: prompts stay off the disk
        failure = self.channel.judge(self)
        if failure is not None:
            self._refuse(failure)

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        if self.content.tell() + len(data) > self.channel.site.gate.max_body:
            self._refuse(self.channel.site.gate.too_large())
            return
        super().handleContentChunk(data)

    def process(self) -> None:
        if not self._refused:
            super().process()

    def _refuse(self, failure: Failure) -> None:
        self._refused = True
        self.channel.refuse(failure)


class Channel(HTTPChannel):
    """One connection, with a total deadline for the head and one for the body of a request."""

    site: LimitedSite
    transport: Any
    _path: bytes
    _command: bytes
    _receiving = False
    _refusing = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.channels.add(self)

    def connectionLost(self, reason: Reason = connectionDone) -> None:
        self.site.lost(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if self._refusing:
            return
        if not self._receiving and not self.requests:
            self._receiving = True
            self.setTimeout(HEADER_SECONDS)
        # Not HTTPChannel's own, which restarts the time-out at every byte.
        LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        # HTTPChannel would read on behind what it has refused, and serve it.
        if self._refusing:
            return
        if line[:1] in (b" ", b"\t"):  # a folded header: not everybody reads it alike
            self._respondToBadRequestAndDisconnect()
            return
        super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refusing:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:
        try:
            return not self._refusing and super().headerReceived(line)
        except ValueError:  # a length of more digits than Python takes
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"transfer-encoding", [])
        if [coding.lower() for coding in codings] not in ([], [b"chunked"]):
            self._respondToBadRequestAndDisconnect()
            return
        absolute = re.match(rb"https?://([^/?]*)(.*)", self._path, re.I | re.S)
        if absolute:  # RFC 9112, 3.2.2: to be taken, and its host counts instead of the header's
            headers = self.requests[-1].requestHeaders
            if len(headers.getRawHeaders(b"host", [])) == 1:
                headers.setRawHeaders(b"host", [absolute[1]])
            self._path = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
        self.setTimeout(BODY_SECONDS)
        super().allHeadersReceived()

    def _send100Continue(self) -> None:
        if not self._refusing:
            super()._send100Continue()

    def allContentReceived(self) -> None:
        if self._refusing:
            return
        self._receiving = False
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        super().requestDone(request)
        if not self.requests:
            self.setTimeout(IDLE_SECONDS)
        if self.site.draining and not self.requests:
            self.loseConnection()

    def timeoutConnection(self) -> None:
        if self._receiving and not self._refusing:
            late = Failure(Kind.TIMEOUT, "the request took too long to arrive", 408)
            self.refuse(late)
        else:
            self._close()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(Failure(Kind.INVALID, "this is no HTTP request that can be understood", 400))

    def judge(self, request: Request) -> Failure | None:
        """Why ``request``, of which only the head is here, is not let in."""
        gate, headers = self.site.gate, request.requestHeaders
        # Neither the path nor the method are known to the request yet.
        path = self._path.partition(b"?")[0]
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            return Failure(Kind.INVALID, "the path is not UTF-8", 400)
        keyless = path == b"/health" or gate.preflight(self._command, headers) is not None
        unix = isinstance(self.getHost(), UNIXAddress)
        return gate.refusal(headers, unix=unix, keyless=keyless)

    def refuse(self, failure: Failure) -> None:
        """Reply now, read no further, and close once the client has had time to read why."""
        if self._refusing:
            return
        self._refusing = True
        self.persistent = False
        self.setTimeout(None)
        page = self.site.gate.for_page(self.requests[-1].requestHeaders) if self.requests else {}
        self.transport.write(raw_refusal(failure, getattr(self, "_path", b""), page))
        self.site.reactor.callLater(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        """Close, even if the client never reads what was sent."""
        if self in self.site.channels:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
            self.loseConnection()


class LimitedSite(Site):
    """A site that knows its connections, and can wait until their last byte is out."""

    protocol = Channel  # type: ignore[assignment]

    def __init__(self, reactor: Any, resource: Any, gate: Gate) -> None:
        super().__init__(
            resource, requestFactory=LimitedRequest, timeout=IDLE_SECONDS, reactor=reactor
        )
        self.gate = gate
        self.reactor = reactor
        self.channels: set[Channel] = set()
        self.draining = False
        self._drained: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only: our channel speaks nothing else."""
        return [b"http/1.1"]

    def log(self, request: Any) -> None:
        """No access log: each turn writes a line of its own."""

    def lost(self, channel: Channel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def drain(self) -> Deferred[None]:
        """Close idle connections now and the others after their reply; fires when none is left."""
        self.draining = True
        done: Deferred[None] = Deferred()
        if not self.channels:
            done.callback(None)
            return done
        self._drained = done
        for channel in list(self.channels):
            channel.persistent = False
            if not channel.requests:
                channel.loseConnection()
        return done

    def abort(self) -> None:
        """Cut what is still connected."""
        for channel in list(self.channels):
            channel.forceAbortClient()
