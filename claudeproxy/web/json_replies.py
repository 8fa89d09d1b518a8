"""Replies that are one JSON body: complete answers and errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from claudeproxy.dialects import anthropic, ollama
from claudeproxy.dialects.shapes import error
from claudeproxy.messages import Assembly, Event, Failure, Finished, Kind

from . import access_log

PATIENCE = 120
"""Seconds. SDKs do not wait longer for a retry, so for longer waits they are told not to retry."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}

Refusal = Callable[[Failure], tuple[int, dict[str, Any]]]
"""A dialect's status and body for a failure."""


def failure_headers(failure: Failure) -> dict[str, str]:
    """The headers SDKs read: ``retry-after`` (whole seconds) and ``x-should-retry``."""
    headers: dict[str, str] = {}
    if failure.retry_after is not None:
        headers["retry-after"] = str(math.ceil(failure.retry_after))
    hopeless = failure.kind is Kind.PLAN_LIMIT or (failure.retry_after or 0) > PATIENCE
    final = failure.status < 500 and (failure.status not in (408, 409, 429) or hopeless)
    if final or failure.spent:
        headers["x-should-retry"] = "false"
    return headers


def phrase(status: int) -> bytes:
    """The reason phrase of ``status``. Twisted lacks the newer ones."""
    return _PHRASES.get(status, "Unknown").encode()


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """``value`` as a body."""
    return json.dumps(value, separators=(",", ":")).encode()


def request_id(request: Any) -> str:
    """The id of a request, created when it is first asked for."""
    known: str | None = getattr(request, "claudemax_id", None)
    if known is None:
        known = request.claudemax_id = f"req_{uuid4().hex}"
    return known


def reply(request: Request, value: Mapping[str, Any], status: int = 200) -> bytes:
    """Set status and headers of ``request`` for a JSON body, and return that body."""
    body = json_bytes(value)
    request.setResponseCode(status, phrase(status))
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    return body


def refuse(request: Request, failure: Failure, refusal: Refusal | None = None) -> bytes:
    """The reply to a request that failed before anything of an answer was sent.

    ``refusal``: of the dialect of its body; without it, the path tells the dialect.
    """
    access_log.facts(request).failure = failure
    for name, value in failure_headers(failure).items():
        request.setHeader(name.encode(), value.encode())
    status, body = (refusal or _of_path(request.path, request_id(request)))(failure)
    return reply(request, body, status)


def raw_refusal(
    failure: Failure,
    path: bytes = b"",
    ident: str | None = None,
    head: bool = False,
    more: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and bytes of a complete HTTP response, for a connection without a request to reply to.

    ``ident``: the request's id; ``head``: it was a HEAD, whose reply has no body; ``more``:
    headers.
    """
    status, value = _of_path(path, ident)(failure)
    body = json_bytes(value)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **({"x-request-id": ident, "request-id": ident} if ident else {}),
        **failure_headers(failure),
        **(more or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase(status), lines.encode())
    return status, start if head else start + body


def _of_path(path: bytes, ident: str | None = None) -> Refusal:
    # Wherever the resource is mounted.
    path = path.partition(b"?")[0]
    if re.search(rb"/messages(/|$)", re.sub(rb"/chat/completions/[^/]*/messages", b"", path)):
        return lambda failure: anthropic.refusal(failure, ident)
    if re.search(rb"(^|/)api/(?!v1)", path):
        return ollama.refusal
    return lambda failure: (failure.status, error(failure))


class Collected:
    """Collects complete answers."""

    def __init__(self, n: int) -> None:
        self._assemblies = [Assembly() for _ in range(n)]
        self._ends: dict[int, Finished] = {}
        self.failure: Failure | None = None
        self.done: Deferred[None] = Deferred()
        """Fires when all answers are complete, or one of them has failed."""

    def events(self, index: int, events: list[Event]) -> None:
        """A burst of events of answer ``index``."""
        if self.done.called:
            return
        for event in events:
            if isinstance(event, Failure):
                self.failure = event
                self.done.callback(None)
                return
            if isinstance(event, Finished):
                self._ends[index] = event
            else:
                self._assemblies[index].add(event)
        if len(self._ends) == len(self._assemblies):
            self.done.callback(None)

    def answers(self) -> list[tuple[Assembly, Finished]]:
        """The answers, in the order of their indices."""
        return [(assembly, self._ends[i]) for i, assembly in enumerate(self._assemblies)]
