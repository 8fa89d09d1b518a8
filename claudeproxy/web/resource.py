"""The API as a resource, for whatever site mounts it: each request is checked here before it
reaches a route, and gets its line in the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from claudeproxy.messages import Failure, Kind

from . import access_log
from .gate import Gate
from .journal import Journal
from .json_replies import phrase, refuse, request_id
from .recorder import Recorder
from .refused import Refused
from .websocket import wanted


class APIResource(Resource):
    """Checks requests, and passes them on: to that of ``pages`` which has the first segment of the
    path, to that of ``branches`` which has its beginning (the first segment; ``v1`` and the next),
    else to ``routes``. Pages are for browsers: their forms hold keys, and are never recorded."""

    isLeaf = True

    def __init__(
        self,
        reactor: IReactorTime,
        gate: Gate,
        journal: Journal,
        refused: Refused,
        recorder: Recorder | None,
        routes: IResource,
        branches: Mapping[bytes, IResource],
        pages: Mapping[bytes, IResource],
        sockets: Mapping[bytes, Callable[[Request], object]],
    ) -> None:
        """``sockets``: who serves a request for a WebSocket, by its path."""
        super().__init__()
        self._reactor = reactor
        self._gate = gate
        self._journal = journal
        self._refused = refused
        self._recorder = recorder
        self._routes = routes
        self._branches = branches
        self._pages = pages
        self._sockets = sockets

    def render(self, request: Request) -> int:
        """Reply to ``request``, now or later."""
        found = access_log.facts(request)
        began = found.began = self._reactor.seconds()
        found.key = self._gate.key_name(request.requestHeaders)
        self._serve(request)
        if request.finished:
            self._note(request, began)
        else:
            # After Klein's own callback, which ends the turn: only then everything is known.
            done = request.notifyFinish()
            done.addCallbacks(
                lambda _: self._note(request, began),
                # A WebSocket ends like this, whoever has closed it.
                lambda _: self._note(request, began, left=request.code != 101),
            )
        return NOT_DONE_YET

    def _note(self, request: Request, began: float, left: bool = False) -> None:
        seconds = self._reactor.seconds() - began
        status = request.code if request.startedWriting else None
        found = access_log.facts(request)
        about = request_id(request), request.method, request.path, status, found
        access_log.write(*about, seconds, found.key, left)
        self._refused.note(*about, request.requestHeaders, found.key)
        if not found.outlived:
            self._journal.ended(request_id(request), seconds, status, request.sentLength, left)

    def _serve(self, request: Request) -> None:
        assert request.postpath is not None
        headers = request.requestHeaders
        ident = request_id(request).encode()
        request.setHeader(b"x-request-id", ident)
        request.setHeader(b"request-id", ident)
        for name, value in self._gate.for_page(headers).items():
            request.setHeader(name.encode(), value.encode())
        # A superfluous slash, at the end or where a base URL ends, makes no difference.
        request.postpath = [part for part in request.postpath if part] or [b""]
        preflight = self._gate.preflight(request.method, headers)
        failure = self._failure(request)
        if failure is not None:
            self._end(request, refuse(request, failure))
        elif preflight is not None:
            for name, value in preflight.items():
                request.setHeader(name.encode(), value.encode())
            request.setResponseCode(204, phrase(204))
            self._end(request, b"")
        else:
            socket = self._socket(request)
            if socket is not None:
                socket(request)
                return
            # Klein builds URLs from it, which nobody uses. A Host that is not a name would break
            # it, and so would a unix socket without a Host.
            request.getRequestHostname = lambda: b"localhost"  # type: ignore[method-assign]
            first = request.postpath[0]
            page = self._pages.get(first)
            if page is None and self._recorder is not None:
                self._recorder.record(request)
            beginning = b"/".join(request.postpath[: 2 if first == b"v1" else 1])
            (page or self._branches.get(beginning, self._routes)).render(request)

    def _failure(self, request: Request) -> Failure | None:
        headers = request.requestHeaders
        assert request.postpath is not None and request.prepath is not None
        assert request.content is not None
        if not isinstance(request.content, BytesIO):
            request.content.close()
            request.content = BytesIO()
            return Failure(
                Kind.TOO_LARGE,
                "this site writes bodies of this size to disk, where no conversation belongs; "
                "create it with requestFactory=claudeproxy.web.requests.InMemoryRequest",
                413,
            )
        path = b"/".join(request.postpath)
        refusal = self._gate.refusal(
            headers,
            unix=isinstance(request.getHost(), UNIXAddress),
            keyless=self._gate.is_keyless(request.method, path, headers),
            form=self._gate.is_form(request.method, path),
            untyped=self._gate.is_untyped(path),
        )
        if refusal is not None:
            return refusal
        try:
            b"/".join(request.postpath + request.prepath).decode()
        except UnicodeDecodeError:
            return Failure(Kind.INVALID, "the path is not UTF-8", 400)
        if _upgrades(request) and self._socket(request) is None:
            # The only status after which Codex silently continues over HTTP at once.
            request.setHeader(b"upgrade", b"HTTP/1.1")
            request.setHeader(b"connection", b"upgrade")
            return Failure(
                Kind.INVALID, "WebSockets are for GET /v1/responses only; use HTTP here", 426
            )
        return None

    def _socket(self, request: Request) -> Callable[[Request], object] | None:
        if not _upgrades(request) or not wanted(request):
            return None
        assert request.postpath is not None
        return self._sockets.get(b"/".join(request.postpath))

    def _end(self, request: Request, body: bytes) -> None:
        if body:
            request.write(body)
        request.finish()


def _upgrades(request: Request) -> bool:
    return (request.getHeader(b"upgrade") or b"").lower() == b"websocket"
