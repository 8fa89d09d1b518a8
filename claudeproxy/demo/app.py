"""The stand-in as a web application: `DemoUpstream`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from attrs import evolve, frozen
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IReactorTCP, IReactorTime
from twisted.python.failure import Failure as Reason
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from claudeproxy.demo.answering.answer import answer, orders_of
from claudeproxy.demo.checking.rules import refusal
from claudeproxy.demo.play import play_complete, respond, respond_error, stream
from claudeproxy.demo.steps import ApiError, Header, Step
from claudeproxy.demo.tokens import input_tokens


@frozen
class Received:
    """A request that reached the stand-in, accepted or `refused`.

    `headers` have lower-case names; `body` is the JSON body ({} when it is not an object), `size`
    its length in bytes, `at` when it came in the reactor's seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    size: int
    at: float
    refused: ApiError | None


Script = Callable[[Received], Iterable[Step] | ApiError | None]
"""A scripted answer; None leaves the request to the built-in answer."""

Admit = Callable[[Mapping[str, str], Mapping[str, Any]], ApiError | list[Header]]
"""From headers and body: a refusal, or the headers of a good reply."""


def _anybody(headers: Mapping[str, str], body: Mapping[str, Any]) -> ApiError | list[Header]:
    return []


class DemoUpstream:
    """The Messages API on loopback, strict and without a model.

    `requests` holds the last `keep` requests, probes of `/` left out. Every request passes the
    `rules` first, then `admit`; only an accepted one reaches the scripted `answer`.
    """

    _app = Klein()

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        answer: Script | None = None,
        admit: Admit = _anybody,
        context_window: int = 200_000,
        keep: int = 1000,
    ) -> None:
        self.answer = answer
        self._admit = admit
        self.requests: deque[Received] = deque(maxlen=keep)
        self._reactor = reactor
        self._context_window = context_window

    def resource(self) -> Resource:
        """The resource to put at the root of a site."""
        return self._app.resource()

    @_app.route("/", methods=["GET"])
    def _root(self, request: Request) -> bytes:
        return b""

    @_app.route("/v1/messages", methods=["POST"])
    async def _messages(self, request: Request) -> None:
        received = self._receive(request, {})
        admitted = [] if received.refused else self._admit(received.headers, received.body)
        if isinstance(admitted, ApiError):
            self.requests[-1] = evolve(received, refused=admitted)
            respond_error(request, admitted)
            return
        play = stream if received.body.get("stream") is True else play_complete
        await play(self._reactor, request, self._steps(received), admitted)

    @_app.route("/v1/messages/count_tokens", methods=["POST"])
    def _count_tokens(self, request: Request) -> None:
        received = self._receive(request, {"max_tokens": 1 << 30})
        if received.refused:
            respond_error(request, received.refused)
        else:
            respond(request, 200, {"input_tokens": input_tokens(received.body)})

    @_app.handle_errors(HTTPException)
    def _not_found(self, request: Any, failure: Reason) -> None:
        error = ApiError(404, "Not found")
        self._remember(request, {}, 0, error)
        respond_error(request, error)

    def _receive(self, request: Request, implied: Mapping[str, Any]) -> Received:
        """Judge and keep a request, whose body is taken to have the `implied` fields as well."""
        assert request.content is not None
        data = request.content.read()
        try:
            body = json.loads(data)
        except ValueError as error:
            refused = ApiError(400, f"The request body is not valid JSON: {error}")
            return self._remember(request, {}, len(data), refused)
        if not isinstance(body, dict):
            refused = ApiError(400, "Input should be an object")
            return self._remember(request, {}, len(data), refused)
        verdict = refusal(
            {**implied, **body},
            _headers(request),
            size=len(data),
            context_window=self._context_window,
        )
        return self._remember(request, body, len(data), verdict)

    def _remember(
        self, request: Request, body: Mapping[str, Any], size: int, refused: ApiError | None
    ) -> Received:
        received = Received(
            method=request.method.decode("ascii"),
            path=request.uri.decode("ascii"),
            headers=_headers(request),
            body=body,
            size=size,
            at=self._reactor.seconds(),
            refused=refused,
        )
        self.requests.append(received)
        return received

    def _steps(self, received: Received) -> Iterable[Step]:
        if received.refused is not None:
            return [received.refused]
        scripted = self.answer(received) if self.answer is not None else None
        if isinstance(scripted, ApiError):
            return [scripted]
        if scripted is not None:
            return scripted
        try:
            orders = orders_of(received.body)
        except ValueError as error:
            return [ApiError(400, str(error))]
        return answer(received.body, orders, message_id=f"msg_{uuid4().hex}")


def _headers(request: Request) -> dict[str, str]:
    raw = request.requestHeaders.getAllRawHeaders()
    return {name.decode("latin-1").lower(): b", ".join(v).decode("latin-1") for name, v in raw}


def listen(reactor: IReactorTCP, demo: DemoUpstream) -> Deferred[tuple[IListeningPort, str]]:
    """Serve a stand-in on a free loopback port: the port, and the URL for `ANTHROPIC_BASE_URL`."""

    def located(port: Any) -> tuple[IListeningPort, str]:
        return port, f"http://127.0.0.1:{port.getHost().port}"

    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    listening: Deferred[IListeningPort] = endpoint.listen(Site(demo.resource()))
    return listening.addCallback(located)
