"""What the apps of the API share: routes below ``/v1`` and without it, and what becomes of errors.

Importing this module imports Klein, and with it installs the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.database import StoreLost

from .json_replies import refuse
from .storing import LOST

ROUTES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/conversations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/completions",
    "/api/chat",
    "/api/generate",
    "/api/tags",
    "/api/show",
    "/api/ps",
    "/api/pull",
    "/api/version",
    "/v1/models",
    "/v1/usage",
    "/v1/usage/turns",
    "/v1/debug/refused",
    "/health",
    "/metrics",
    "/docs/plan",
    "/docs/api",
    "/openapi.json",
)
"""The routes of this server; those below ``/v1`` also exist without it."""

_log = Logger()


def below_v1(app: Klein, path: str, *methods: str) -> Callable[[Any], Any]:
    """Make a method of an API a route of ``app`` below ``/v1``, which also exists without it."""

    def mark(handler: Any) -> Any:
        for prefix in ("/v1", ""):
            app.route(f"{prefix}{path}", methods=list(methods))(handler)
        return handler

    return mark


def make_app() -> Klein:
    """An app that replies to errors as the API does."""
    app = Klein()
    app.handle_errors(FailureError)(_failed)
    app.handle_errors(StoreLost)(lambda self, request, failure: refuse(request, LOST))
    app.handle_errors(HTTPException)(_no_route)
    app.handle_errors(Exception)(_broken)
    return app


def queried(request: Request) -> dict[str, str]:
    """The parameters of the query, each as it was last given."""
    args = request.args or {}
    return {
        name.decode("utf-8", "replace"): values[-1].decode("utf-8", "replace")
        for name, values in args.items()
    }


def _failed(self: Any, request: Any, failure: Reason) -> bytes:
    error: Any = failure.value
    return refuse(request, error.failure)


def _no_route(self: Any, request: Any, failure: Reason) -> bytes:
    error: Any = failure.value
    path, method = request.path.decode("latin-1"), request.method.decode("latin-1")
    if not isinstance(error, MethodNotAllowed):
        message = f"there is no {path} here; this server serves {', '.join(ROUTES)}"
        return refuse(request, Failure(Kind.NOT_FOUND, message, 404, code="unknown_url"))
    takes = ", ".join(sorted(error.valid_methods or ()))
    request.setHeader(b"allow", takes.encode())
    why = f"{path} does not take {method}, only {takes}"
    return refuse(request, Failure(Kind.INVALID, why, 405))


def _broken(self: Any, request: Any, failure: Reason) -> bytes:
    _log.failure("a request broke", failure=failure)
    return refuse(request, Failure(Kind.UPSTREAM, "the daemon failed; its log says why", 500))
