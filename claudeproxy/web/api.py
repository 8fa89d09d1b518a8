"""The routes. Importing this module imports Klein, and with it installs the reactor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from claudeproxy.dialects import anthropic, chat_route, completions, responses
from claudeproxy.dialects.responses_input import Past
from claudeproxy.dialects.shapes import Exchange
from claudeproxy.engine.engine import Engine
from claudeproxy.messages import Failure, FailureError, Kind

from .bodies import read_json
from .gate import Gate
from .pages import Status, health, model_list, model_object
from .replies import refuse, reply, request_id
from .store import Store, Stored
from .turns import Turns

ROUTES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/completions",
    "/v1/models",
    "/health",
)
"""What this server has; each below ``/v1`` also without it."""

Read = Callable[[Any, str, int], Exchange]
"""A dialect's way in; see :class:`~claudeproxy.dialects.shapes.Exchange`."""

_app = Klein()


def _route(path: str, method: str) -> Callable[[Any], Any]:
    """A route below ``/v1``, and without it."""

    def mark(handler: Any) -> Any:
        for prefix in ("/v1", ""):
            _app.route(f"{prefix}{path}", methods=[method])(handler)
        return handler

    return mark


class API:
    """All endpoints over one engine."""

    app = _app
    log = Logger()

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        gate: Gate,
        status: Callable[[], Status],
        store: Store | None = None,
    ) -> None:
        """``store``: where responses are kept; without one they are not."""
        self._engine = engine
        self._gate = gate
        self._status = status
        self._store = store
        self._turns = Turns(reactor, engine, gate)

    def resource(self) -> IResource:
        """The resource tree, to be mounted in any site."""
        return self.app.resource()

    # -- turns --

    @_route("/chat/completions", "POST")
    async def create_chat_completion(self, request: Request) -> bytes:
        """One turn of chat, streamed or whole."""
        return await self._answer(request, chat_route.read)

    @_route("/completions", "POST")
    async def create_completion(self, request: Request) -> bytes:
        """Legacy completions, streamed or whole."""
        return await self._answer(request, completions.read)

    @_route("/messages", "POST")
    async def create_message(self, request: Request) -> bytes:
        """One turn in Anthropic's own format, streamed or whole."""
        return await self._answer(request, anthropic.read)

    @_route("/messages/count_tokens", "POST")
    def count_tokens(self, request: Request) -> bytes:
        """An estimate: see :func:`~claudeproxy.dialects.anthropic.count`."""
        asked, tokens = anthropic.count(self._body(request))
        self._engine.catalogue.resolve(asked.model)
        request.setHeader(b"x-claudemax-estimate", b"true")
        return reply(request, {"input_tokens": tokens})

    @_route("/responses", "POST")
    async def create_response(self, request: Request) -> bytes:
        """A response, streamed or whole, and kept if there is a store and nothing against it."""
        body = self._body(request)
        past = await self._past(responses.references(body))
        exchange = responses.read(body, _ident(request), int(time.time()), past)
        store = self._store

        def keep(response: dict[str, Any]) -> None:
            assert store is not None
            store.put(Stored(response, exchange.items, exchange.previous))

        return await self._turns.serve(request, exchange, keep if exchange.keep else None)

    async def _past(self, wanted: responses.References) -> Past | None:
        if self._store is None:
            return None
        items = {}
        for ident in wanted.responses:
            found = await self._store.get(ident)
            items.update({item["id"]: item for item in found.output} if found else {})
        if wanted.previous is None:
            return Past(items=items)
        chain = await self._store.chain(wanted.previous)
        if chain is None:
            return Past(None, items)
        history = [item for stored in chain for item in (*stored.items, *stored.output)]
        return Past(history, items)

    async def _answer(self, request: Request, read: Read) -> bytes:
        exchange = read(self._body(request), _ident(request), int(time.time()))
        return await self._turns.serve(request, exchange)

    # -- stored responses --

    @_route("/responses/<ident>", "GET")
    async def response(self, request: Request, ident: str) -> bytes:
        """A stored response."""
        self._enter(request)
        if b"true" in request.args.get(b"stream", ()):
            raise FailureError.invalid("stored responses are not streamed", "stream")
        found = await self._store.get(ident) if self._store else None
        if found is None:
            raise self._no_response(ident)
        return reply(request, found.response)

    @_route("/responses/<ident>", "DELETE")
    async def delete_response(self, request: Request, ident: str) -> bytes:
        """Forget a stored response."""
        self._enter(request)
        if self._store is None or not await self._store.delete(ident):
            raise self._no_response(ident)
        return reply(request, {"id": ident, "object": "response", "deleted": True})

    @_route("/responses/compact", "POST")
    def no_compaction(self, request: Request) -> bytes:
        """Not here. Of its own, as it would be the wrong method of a response of that name."""
        self._enter(request)
        raise FailureError(_no_route(request))

    def _no_response(self, ident: str) -> FailureError:
        why = "" if self._store else " This server runs with --no-store."
        message = f"Response with id {ident!r} not found.{why}"
        return FailureError(Failure(Kind.NOT_FOUND, message, 404))

    # -- models and health --

    @_route("/models", "GET")
    def models(self, request: Request) -> bytes:
        """What the catalogue knows now."""
        self._enter(request)
        return reply(request, model_list(self._engine.catalogue.entries()))

    @_route("/models/<path:name>", "GET")
    def model(self, request: Request, name: str) -> bytes:
        """One model, under any name a request could use for it."""
        self._enter(request)
        return reply(request, model_object(self._engine.catalogue.entry(name)))

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """Whether turns can be served; spends no quota and starts no process."""
        self._enter(request, keyless=True)
        found = health(self._engine, self._status())
        if not self._gate.shows_all(request.requestHeaders):
            found = {"status": found["status"]}
        return reply(request, found)

    # -- what every route needs --

    def _enter(self, request: Request, keyless: bool = False) -> None:
        ident = request_id(request).encode()
        request.setHeader(b"x-request-id", ident)
        request.setHeader(b"request-id", ident)
        for name, value in self._gate.for_page(request.requestHeaders).items():
            request.setHeader(name.encode(), value.encode())
        unix = isinstance(request.getHost(), UNIXAddress)
        failure = self._gate.refusal(request.requestHeaders, unix=unix, keyless=keyless)
        if failure is not None:
            raise FailureError(failure)

    def _body(self, request: Request) -> Any:
        self._enter(request)
        return read_json(request)

    @app.handle_errors(FailureError)
    def _failed(self, request: Any, failure: Any) -> bytes:
        return refuse(request, failure.value.failure)

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Any, failure: Any) -> bytes:
        preflight = self._gate.preflight(request.method, request.requestHeaders)
        try:
            self._enter(request, keyless=preflight is not None)
        except FailureError as error:  # no handler would be asked again
            return refuse(request, error.failure)
        if preflight is not None:
            for name, value in preflight.items():
                request.setHeader(name.encode(), value.encode())
            request.setResponseCode(204)
            return b""
        path = request.path.decode("latin-1")
        method = request.method.decode("latin-1")
        if failure.value.code == 405:
            why = Failure(Kind.INVALID, f"{path} does not take {method}", 405)
        else:
            why = _no_route(request)
        return refuse(request, why)

    @app.handle_errors(Exception)
    def _broken(self, request: Any, failure: Any) -> bytes:
        self.log.failure("a request broke", failure=failure)
        return refuse(request, Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500))


def _no_route(request: Any) -> Failure:
    path = request.path.decode("latin-1")
    message = f"there is no {path} here; this server has {', '.join(ROUTES)}"
    return Failure(Kind.NOT_FOUND, message, 404, code="unknown_url")


def _ident(request: Any) -> str:
    """What the ids of a reply are made of: the request's own."""
    return request_id(request).removeprefix("req_")
