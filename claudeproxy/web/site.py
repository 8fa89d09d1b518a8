"""The site, which enforces the limits of connections, so that routes need not care about them.

``twisted.web`` by itself accepts any number of connections and restarts its timeout at every byte.
The bodies' limits are in :mod:`.requests`.
"""

from __future__ import annotations

import re
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure as Reason
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from claudeproxy.messages import Failure, Kind

from . import access_log
from .gate import Gate
from .json_replies import raw_refusal, request_id
from .refused import Refused
from .requests import LimitedRequest

HEADER_SECONDS = 20.0
"""For all headers of a request, from its first byte."""

BODY_SECONDS = 120.0
"""For the whole body."""

IDLE_SECONDS = 75
"""Between two requests on a connection."""

LINGER_SECONDS = 2.0
"""For a client to read why it was refused, while what it still sends is discarded."""

CONNECTIONS = 512
"""Simultaneous connections, besides those that turns may need. As many more get a 503, and any
further ones are aborted."""


class Upgraded(Protocol):
    """What a connection has become that does not speak HTTP any more."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def drain(self) -> None:
        """The site will close the connection: end it as soon as that can be done."""


class Channel(HTTPChannel):
    """A connection with one deadline for the headers and one for the body of a request."""

    site: LimitedSite
    upgraded: Upgraded | None = None
    transport: Any
    # Of the request that is being received.
    _path: bytes
    _command: bytes
    _began: float
    _receiving = False
    _refusing = False
    _served = False

    def connectionMade(self) -> None:
        super().connectionMade()
        site = self.site
        site.channels.add(self)
        self._began = site.reactor.seconds()
        if len(site.channels) > 2 * site.connections:
            self.transport.abortConnection()
        elif len(site.channels) > site.connections:
            self.refuse(
                Failure(Kind.UNAVAILABLE, "too many connections at once", 503, retry_after=1.0)
            )

    def connectionLost(self, reason: Reason = connectionDone) -> None:
        self.site.lost(self)
        if self._receiving and not self._refusing and hasattr(self, "_path"):
            self._note(None, None)
        super().connectionLost(reason)

    def upgrade(self, to: Upgraded) -> None:
        """Hand all that arrives from now on to ``to``. The request that asked for it stays open
        until the connection is lost."""
        self.upgraded = to

    def dataReceived(self, data: bytes) -> None:
        if self.upgraded is not None:
            self.upgraded.received(data)
            return
        if self._refusing:
            return
        if not self._receiving and not self.requests:
            self._receiving = True
            self._began = self.site.reactor.seconds()
            self.setTimeout(HEADER_SECONDS)
        # Not HTTPChannel's method, which restarts the timeout at every byte.
        LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        # HTTPChannel would read on after what it has refused, and serve it.
        if self._refusing:
            return
        if line[:1] in (b" ", b"\t"):  # a folded header, which servers interpret differently
            self._respondToBadRequestAndDisconnect()
            return
        super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if self.upgraded is not None:  # what came together with the request that asked for it
            self.upgraded.received(data)
        elif not self._refusing:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def headerReceived(self, line: bytes) -> bool:
        try:
            return not self._refusing and super().headerReceived(line)
        except ValueError:  # a length of more digits than Python accepts
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        codings = self.requests[-1].requestHeaders.getRawHeaders(b"transfer-encoding", [])
        if [coding.lower() for coding in codings] not in ([], [b"chunked"]):
            self._respondToBadRequestAndDisconnect()
            return
        absolute = re.match(rb"https?://([^/?]*)(.*)", self._path, re.I | re.S)
        if absolute:  # RFC 9112, 3.2.2: it must be accepted, and its host replaces the header's
            headers = self.requests[-1].requestHeaders
            if len(headers.getRawHeaders(b"host", [])) == 1:
                headers.setRawHeaders(b"host", [absolute[1]])
            self._path = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
        self.setTimeout(BODY_SECONDS)
        super().allHeadersReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        persists: bool = super().checkPersistence(request, version)
        if persists and self.site.draining:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
            return False
        return persists

    def _send100Continue(self) -> None:
        if not self._refusing:
            super()._send100Continue()

    def allContentReceived(self) -> None:
        if self._refusing:
            return
        self._receiving = False
        super().allContentReceived()

    @property
    def rests(self) -> bool:
        """Whether it is between two requests."""
        return self._served and not self._receiving and not self.requests

    def requestDone(self, request: Request) -> None:
        self._served = True
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
            self.close()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(Failure(Kind.INVALID, "this is not a valid HTTP request", 400))

    def judge(self, request: Request) -> Failure | None:
        """Why ``request``, of which only the headers have arrived, is refused; ``None`` if it is
        not."""
        gate, headers = self.site.gate, request.requestHeaders
        # The request itself does not know its path and method yet.
        path = self._path.partition(b"?")[0]
        if not path.startswith(b"/"):
            return Failure(Kind.INVALID, "the target is not a path", 400)
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            return Failure(Kind.INVALID, "the path is not UTF-8", 400)
        method, path = self._command, path.strip(b"/")
        return gate.refusal(
            headers,
            unix=isinstance(self.getHost(), UNIXAddress),
            keyless=gate.is_keyless(method, path, headers),
            form=gate.is_form(method, path),
            untyped=gate.is_untyped(path),
        )

    def refuse(self, failure: Failure) -> None:
        """Reply now, read no more, and close once the client has had time to read the reply."""
        if self._refusing:
            return
        self._refusing = True
        self.persistent = False
        self.setTimeout(None)
        path = getattr(self, "_path", b"")
        head = getattr(self, "_command", b"") == b"HEAD"
        ident = request_id(self.requests[-1] if self.requests else self)
        page = self.site.gate.for_page(self._headers)
        status, reply = raw_refusal(failure, path, ident, head, page)
        self.transport.write(reply)
        self._note(status, failure)
        self.site.reactor.callLater(LINGER_SECONDS, self.close)

    @property
    def _headers(self) -> Headers:
        return self.requests[-1].requestHeaders if self.requests else Headers()

    def _note(self, status: int | None, failure: Failure | None) -> None:
        """Log a request that reaches no route; if there is no failure, its client has left."""
        about = (
            request_id(self.requests[-1] if self.requests else self),
            getattr(self, "_command", b"-"),
            getattr(self, "_path", b"-"),
            status,
            access_log.Facts(failure),
        )
        seconds = self.site.reactor.seconds() - self._began
        key = self.site.gate.key_name(self._headers)
        access_log.write(*about, seconds, key, left=failure is None)
        self.site.refused.note(*about, self._headers, key)

    def close(self) -> None:
        """Close, even if the client never reads what was sent."""
        if self in self.site.channels:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
            self.loseConnection()


class LimitedSite(Site):
    """A site that knows its connections, and can wait until their last bytes are sent."""

    protocol = Channel  # type: ignore[assignment]

    def __init__(
        self,
        reactor: IReactorTime,
        resource: IResource,
        gate: Gate,
        refused: Refused,
        connections: int = CONNECTIONS,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=LimitedRequest,
            timeout=IDLE_SECONDS,
            reactor=reactor,
            parsePOSTFormSubmission=False,  # it would be parsed at once and without bounds
        )
        self.gate = gate
        self.refused = refused
        self.reactor = reactor
        self.connections = connections
        self.channels: set[Channel] = set()
        self.arriving = 0
        """Bytes received of all bodies that are not complete yet."""
        self.draining = False
        self._drained: Deferred[None] | None = None

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only, because our channel speaks nothing else."""
        return [b"http/1.1"]

    def log(self, request: HTTPRequest) -> None:
        """Do nothing: the resource writes its own access log."""

    def wind_down(self) -> None:
        """Close now the connections that are idle between two requests, and all others, new ones
        included, after their reply. On a new one a request may be under way, and if it were cut
        off, its sender would not know what became of it."""
        self.draining = True
        for channel in list(self.channels):
            if channel.upgraded is not None:
                channel.upgraded.drain()
            elif channel.requests:
                channel.persistent = False  # before its request, it would read none
            elif channel.rests:
                channel.loseConnection()

    def lost(self, channel: Channel) -> None:
        """A connection was lost."""
        self.channels.discard(channel)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def drain(self) -> Deferred[None]:
        """Close idle connections now and the others after their reply. Fires when none is left."""
        self.wind_down()
        for channel in list(self.channels):
            if channel.upgraded is None and not channel.requests:
                channel.loseConnection()
        done: Deferred[None] = Deferred()
        if not self.channels:
            done.callback(None)
            return done
        self._drained = done
        return done

    def abort(self) -> None:
        """Abort all connections."""
        for channel in list(self.channels):
            channel.forceAbortClient()
