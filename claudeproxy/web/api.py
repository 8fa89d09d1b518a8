"""The routes. Importing this module imports Klein, and with it installs the reactor."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from attrs import frozen
from klein import Klein
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from claudeproxy.dialects import chat
from claudeproxy.dialects.shapes import Exchange
from claudeproxy.engine.catalogue import Entry
from claudeproxy.engine.engine import Answers, Engine
from claudeproxy.messages import Failure, FailureError, Kind

from .answers import Collected, Streamed
from .gate import Gate, is_json
from .replies import refuse, reply

MAX_DEPTH = 100
"""Levels of a JSON body."""

_LISTED_SINCE = 1_700_000_000
"""``created`` of every model: the CLI does not tell."""


@frozen
class Status:
    """What ``GET /health`` says. ``logged_in`` is as last known, ``None`` while unknown."""

    cli_version: str
    upstream: str
    logged_in: bool | None


class API:
    """All endpoints over one engine."""

    app = Klein()
    log = Logger()

    def __init__(
        self, reactor: Any, engine: Engine, gate: Gate, status: Callable[[], Status]
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._gate = gate
        self._status = status

    def resource(self) -> IResource:
        """The resource tree, to be mounted in any site."""
        return self.app.resource()

    # -- chat --

    @app.route("/v1/chat/completions", methods=["POST"])
    async def chat_completions(self, request: Request) -> bytes:
        """One turn, streamed or whole."""
        return await self._answer(request, chat.read)

    async def _answer(self, request: Request, read: Read) -> bytes:
        """Serve the turn that the body asks for in the dialect of ``read``."""
        exchange = read(self._body(request), uuid4().hex, int(time.time()))
        began = self._reactor.seconds()
        sink: Streamed | Collected
        if exchange.request.stream:
            sink = Streamed(self._reactor, request, exchange.stream())
        else:
            sink = Collected(exchange.request.n)
        answers = self._engine.ask(exchange.request, sink.events)

        def headers() -> dict[str, str]:
            return _about(answers, exchange.ignored)

        try:
            if isinstance(sink, Streamed):
                sink.follow(answers, headers)
            await sink.done
        finally:
            answers.cancel()
            if isinstance(sink, Streamed):
                sink.close()
            self._report(request, exchange.request.model, answers.way, began, sink.failure)
        if isinstance(sink, Streamed):
            return b""
        if sink.failure is not None:
            raise FailureError(sink.failure)
        for name, value in headers().items():
            request.setHeader(name.encode(), value.encode())
        return reply(request, exchange.whole(sink.answers()))

    def _report(
        self, request: Request, model: str, way: str, began: float, failure: Failure | None
    ) -> None:
        self.log.info(
            "{request_id} {model} {way} {outcome} {seconds:.2f}s",
            request_id=_request_id(request),
            model=model,
            way=way or "-",
            outcome=f"{failure.status} {failure.kind.value}" if failure else "ok",
            seconds=self._reactor.seconds() - began,
        )

    # -- models and health --

    @app.route("/v1/models", methods=["GET"])
    def models(self, request: Request) -> bytes:
        """What the catalogue knows now."""
        self._enter(request)
        data = [_model_object(entry) for entry in self._engine.catalogue.entries()]
        listing = {
            "object": "list",
            "data": data,
            "has_more": False,
            "first_id": data[0]["id"],
            "last_id": data[-1]["id"],
        }
        return reply(request, listing)

    @app.route("/v1/models/<path:name>", methods=["GET"])
    def model(self, request: Request, name: str) -> bytes:
        """One model, under any name a request could use for it."""
        self._enter(request)
        return reply(request, _model_object(self._engine.catalogue.entry(name)))

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> bytes:
        """Whether turns can be served; spends no quota and starts no process."""
        self._enter(request)
        status = self._status()
        pool, admission = self._engine.pool, self._engine.admission
        return reply(
            request,
            {
                "status": "ok" if pool.failures == 0 else "degraded",
                "provider": "claude-code-cli",
                "timestamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
                "cli_version": status.cli_version,
                "upstream": status.upstream,
                "logged_in": status.logged_in,
                "processes": {
                    "warm": pool.warm,
                    "starting": pool.starting,
                    "kept": len(self._engine.conversations),
                    "failed_starts": pool.failures,
                },
                "turns": {"running": admission.running, "waiting": admission.waiting},
            },
        )

    # -- what every route needs --

    def _enter(self, request: Request) -> None:
        request.setHeader(b"x-request-id", _request_id(request).encode())
        failure = self._gate.refusal(request.requestHeaders)
        if failure is not None:
            raise FailureError(failure)

    def _body(self, request: Request) -> Any:
        self._enter(request)
        if not is_json(request.requestHeaders):
            raise FailureError(Failure(Kind.INVALID, "content-type must be application/json", 415))
        raw = request.content.read() if request.content is not None else b""
        try:
            value = json.loads(raw, parse_constant=_no_constant)
        except RecursionError:
            raise FailureError.invalid("the body is nested too deeply") from None
        except ValueError as error:
            raise FailureError.invalid(f"the body is not valid JSON: {error}") from None
        if _deeper_than(value, MAX_DEPTH):
            raise FailureError.invalid(f"the body is nested deeper than {MAX_DEPTH} levels")
        return value

    @app.handle_errors(FailureError)
    def _failed(self, request: Any, reason: Any) -> bytes:
        return refuse(request, reason.value.failure)

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Request, reason: Any) -> bytes:
        self._enter(request)
        path = request.path.decode("latin-1")
        method = request.method.decode("latin-1")
        if reason.value.code == 405:
            failure = Failure(Kind.INVALID, f"{path} does not take {method}", 405)
        else:
            failure = Failure(
                Kind.NOT_FOUND,
                f"there is no {path} here; this server has {', '.join(_ROUTES)}",
                404,
                code="unknown_url",
            )
        return refuse(request, failure)

    @app.handle_errors(Exception)
    def _broken(self, request: Request, reason: Any) -> bytes:
        self.log.failure("a request broke", failure=reason)
        return refuse(request, Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500))


_ROUTES = ("/v1/chat/completions", "/v1/models", "/health")


Read = Callable[[Any, str, int], Exchange]
"""A dialect's way in; see :class:`~claudeproxy.dialects.shapes.Exchange`."""


def _about(answers: Answers, ignored: tuple[str, ...]) -> dict[str, str]:
    """What the reply's headers tell of how it was served."""
    about = {
        "x-claudemax-process": answers.way,
        "x-claudemax-queue-ms": str(round(answers.queued * 1000)),
    }
    ignored += answers.ignored
    if ignored:
        about["x-claudemax-ignored"] = ", ".join(ignored)
    return about


def _request_id(request: Any) -> str:
    known: str | None = getattr(request, "claudemax_id", None)
    if known is None:
        known = request.claudemax_id = f"req_{uuid4().hex}"
    return known


def _model_object(entry: Entry) -> Mapping[str, Any]:
    """One object for both families: OpenAI's fields and Anthropic's."""
    return {
        "id": entry.id,
        "object": "model",
        "created": _LISTED_SINCE,
        "owned_by": "anthropic",
        "type": "model",
        "display_name": entry.title,
        "created_at": datetime.fromtimestamp(_LISTED_SINCE, timezone.utc).isoformat(),
    }


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
