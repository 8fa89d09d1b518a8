"""The routes. Importing this module imports Klein, and with it installs the reactor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Request

from claudeproxy.dialects import anthropic, completions
from claudeproxy.dialects.shapes import ParsedBody
from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.counts import Counts, Turns
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.store import Store

from . import openapi, openapi_page, usage
from .bodies import read_json
from .chat import ChatAPI
from .conversations import ConversationsAPI
from .fairness import TimeSlice, no_collector
from .gate import Gate
from .handler import TurnHandler
from .journal import Journal
from .json_replies import reply, request_id
from .key_rules import check_model, usable
from .models import model_list, model_object
from .ollama import OllamaAPI
from .pages import Status, health, serves
from .quotas import Quotas
from .recorder import Recorder
from .refused import Refused
from .resource import APIResource
from .responses import ResponsesAPI
from .routing import below_v1, make_app

if TYPE_CHECKING:  # PostgreSQL is an extra
    from claudeproxy.store.shared import Shared

Read = Callable[[Any, str, int], ParsedBody]
"""A dialect's function to read a body; see :class:`~claudeproxy.dialects.shapes.ParsedBody`."""

Metrics = Callable[[str], tuple[str, bytes]]
"""From an ``Accept`` header to content type and body."""

_app = make_app()


def _route(path: str, method: str) -> Callable[[Any], Any]:
    return below_v1(_app, path, method)


class API:
    """All endpoints over one engine."""

    app = _app

    def __init__(
        self,
        reactor: IReactorTime,
        engine: Engine,
        gate: Gate,
        status: Callable[[], Status],
        metrics: Metrics,
        *,
        store: Store | None = None,
        shared: Shared | None = None,
        ledger: Ledger | None = None,
        counts: Counts,
        turns: Turns,
        recorder: Recorder | None = None,
    ) -> None:
        """``metrics``: what ``/metrics`` says. Responses are kept in ``store``, turns in
        ``ledger``, whole exchanges by ``recorder``; nowhere where that is ``None``. ``counts``:
        what keys have used; ``turns``: takes each turn that is over; ``shared``: how this node and
        others that use the same store talk to each other."""
        self._reactor = reactor
        self._engine = engine
        self._gate = gate
        self._status = status
        self._ledger = ledger
        self._recorder = recorder
        self._metrics = metrics
        self.journal = Journal(engine)
        self.refused = Refused()
        self.quotas = Quotas(engine, counts)
        self.journal.observers.append(lambda record: turns(record, self.quotas.plan()))
        self._handler = TurnHandler(reactor, engine, gate, self.journal, self.quotas, self.refused)
        self._ollama = OllamaAPI(reactor, engine, gate, self._handler)
        self._responses = ResponsesAPI(reactor, engine, self._handler, store, shared)
        self._conversations = ConversationsAPI(store)
        self._chat = ChatAPI(reactor, self._handler, store)

    def resource(self, pages: Mapping[bytes, IResource] | None = None) -> IResource:
        """The resource of the API, to be mounted in any site. ``pages``: what else is served, by
        the first segment of its path."""
        branches = {b"api": self._ollama.app.resource()}
        for name, api in (
            (b"chat", self._chat),
            (b"responses", self._responses),
            (b"conversations", self._conversations),
        ):
            branches[name] = branches[b"v1/" + name] = api.app.resource()
        return APIResource(
            self._reactor,
            self._gate,
            self.journal,
            self.refused,
            self._recorder,
            routes=self.app.resource(),
            branches=branches,
            pages=pages or {},
            sockets=dict.fromkeys((b"responses", b"v1/responses"), self._responses.socket),
        )

    async def settled(self) -> None:
        """Wait until all that has ended is stored, or cannot be."""
        await self._responses.settled()

    async def told_keys(self) -> list[dict[str, Any]]:
        """The keys with their quotas, as ``/v1/usage`` tells them; none where none is needed."""
        keys = self._gate.keys
        if keys is None:
            return []
        await self.quotas.refresh()
        return self.quotas.told(keys.rules)

    # -- turns --

    @_route("/completions", "POST")
    async def create_completion(self, request: Request) -> bytes:
        """A legacy completion, streamed or complete."""
        return await self._answer(request, "completions", completions.read)

    @_route("/messages", "POST")
    async def create_message(self, request: Request) -> bytes:
        """A message in Anthropic's own format, streamed or complete."""
        return await self._answer(request, "messages", anthropic.read)

    @_route("/messages/count_tokens", "POST")
    def count_tokens(self, request: Request) -> bytes:
        """An estimate: see :func:`~claudeproxy.dialects.anthropic.count`."""
        asked, tokens = anthropic.count(read_json(request))
        self._engine.catalogue.resolve(asked.model)
        request.setHeader(b"x-claudemax-estimate", b"true")
        return reply(request, {"input_tokens": tokens})

    async def _answer(self, request: Request, dialect: str, read: Read) -> bytes:
        time_slice = TimeSlice(self._reactor)
        body = read_json(request)
        await time_slice.give_way()
        with no_collector():
            parsed = read(body, _ident(request), _now())
        await time_slice.give_way()
        return await self._handler.serve(request, dialect, parsed)

    # -- models and health --

    @_route("/models", "GET")
    def models(self, request: Request) -> bytes:
        """The models that are known now, and that the sender may use."""
        _, rules = self._gate.sender(request.requestHeaders)
        known = self._engine.catalogue
        return reply(request, model_list(known, usable(known, rules)))

    @_route("/models/<path:name>", "GET")
    def model(self, request: Request, name: str) -> bytes:
        """One model, by any name that a request may use for it."""
        known = self._engine.catalogue
        check_model(known, *self._gate.sender(request.requestHeaders), name)
        return reply(request, model_object(known, known.entry(name)))

    @_route("/usage", "GET")
    async def usage(self, request: Request) -> bytes:
        """What is known about the plan, and what was used of it; spends no quota."""
        days = _number(request, b"days", usage.DAYS, usage.MAX_DAYS)
        keys = await self.told_keys()
        told = await usage.usage(self._engine, self._ledger, keys, days)
        return reply(request, told)

    @_route("/usage/turns", "GET")
    async def turns(self, request: Request) -> bytes:
        """The latest turns, the newest first; ``before`` pages on."""
        limit = _number(request, b"limit", usage.TURNS, usage.MAX_TURNS)
        return reply(request, await usage.turns(self._kept_turns(), limit, _before(request)))

    @_route("/usage/turns/<ident>", "GET")
    async def turn(self, request: Request, ident: str) -> bytes:
        """The receipt of a turn, by the id of its request."""
        found = await self._kept_turns().turn(ident)
        if found is None:
            message = f"there is no turn of the request {ident!r} in the ledger"
            raise FailureError(Failure(Kind.NOT_FOUND, message, 404))
        return reply(request, usage.receipt(found))

    def _kept_turns(self) -> Ledger:
        if self._ledger is None:
            message = "this server keeps no turns: it runs with --no-ledger"
            raise FailureError(Failure(Kind.NOT_FOUND, message, 404))
        return self._ledger

    @_route("/debug/refused", "GET")
    def latest_refused(self, request: Request) -> bytes:
        """The last requests that were answered with an error, the newest first."""
        return reply(request, {"object": "list", "data": self.refused.latest()})

    @app.route("/docs/plan", methods=["GET"])
    def plan(self, request: Request) -> bytes:
        """What the plan pays for and what it does not, in words; errors refer to this page."""
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return Path(__file__).with_name("plan.rst").read_bytes()

    @app.route("/openapi.json", methods=["GET"])
    def description(self, request: Request) -> bytes:
        """The API, described for programs."""
        return reply(request, openapi.describe())

    @app.route("/docs/api", methods=["GET"])
    def description_page(self, request: Request) -> bytes:
        """The API, described for people."""
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return openapi_page.page().encode()

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """Whether turns can be served, also by the status: 200 or 503. Spends no quota and starts
        no process."""
        status = self._status()
        found = health(self._engine, status)
        if not self._gate.shows_all(request.requestHeaders):
            found = {"status": found["status"]}
        return reply(request, found, 200 if serves(self._engine, status) else 503)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> bytes:
        """The metrics, in the format that Prometheus asks for."""
        content_type, body = self._metrics(request.getHeader("accept") or "")
        request.setHeader(b"content-type", content_type.encode())
        return body


def _number(request: Request, name: bytes, default: int, most: int) -> int:
    text = request.args.get(name, [b"%d" % default])[-1]
    if not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        field = name.decode()
        raise FailureError.invalid(f"{field} must be an integer from 1 to {most}", field)
    return int(text)


def _before(request: Request) -> float | None:
    text = request.args.get(b"before", [None])[-1]
    try:
        before = None if text is None else float(text)
    except ValueError:
        before = math.nan
    if before is not None and not math.isfinite(before):
        raise FailureError.invalid("before must be a time in epoch seconds", "before")
    return before


def _now() -> int:
    return int(time.time())


def _ident(request: Request) -> str:
    """The part of the request's id that the ids of its reply share."""
    return request_id(request).removeprefix("req_")
