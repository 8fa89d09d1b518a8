"""Whole JSON replies, errors among them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from claudeproxy.dialects import anthropic
from claudeproxy.dialects.shapes import error
from claudeproxy.messages import Failure, Kind

PATIENCE = 120
"""Seconds beyond which SDKs do not retry by themselves; so they are told not to try at all."""

_PHRASED = frozenset(status.value for status in HTTPStatus)

Refusal = Callable[[Failure], tuple[int, dict[str, Any]]]
"""How a dialect words a failure: status and body."""


def failure_headers(failure: Failure) -> dict[str, str]:
    """The headers SDKs read: ``retry-after`` (whole seconds) and ``x-should-retry``."""
    headers: dict[str, str] = {}
    if failure.retry_after is not None:
        headers["retry-after"] = str(math.ceil(failure.retry_after))
    hopeless = failure.kind is Kind.PLAN_LIMIT or (failure.retry_after or 0) > PATIENCE
    if failure.status < 500 and (failure.status not in (408, 409, 429) or hopeless):
        headers["x-should-retry"] = "false"
    return headers


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """``value`` as a body."""
    return json.dumps(value, separators=(",", ":")).encode()


def request_id(request: Any) -> str:
    """The id of a request, minted when it is first asked for."""
    known: str | None = getattr(request, "claudemax_id", None)
    if known is None:
        known = request.claudemax_id = f"req_{uuid4().hex}"
    return known


def reply(request: Any, value: Mapping[str, Any], status: int = 200) -> bytes:
    """Set status and headers of ``request`` for a JSON body, and return that body."""
    body = json_bytes(value)
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    return body


def refuse(request: Any, failure: Failure, refusal: Refusal | None = None) -> bytes:
    """The reply to a request that failed before anything of an answer was sent.

    Without the ``refusal`` of the dialect its body was read in, its path tells the dialect.
    """
    for name, value in failure_headers(failure).items():
        request.setHeader(name.encode(), value.encode())
    status, body = (refusal or _of_path(request.path, request_id(request)))(failure)
    return reply(request, body, status)


def raw_refusal(
    failure: Failure, path: bytes = b"", more: Mapping[str, str] | None = None
) -> bytes:
    """A whole HTTP response, for a connection that has no request to reply to (yet).

    ``more``: headers.
    """
    status, value = _of_path(path)(failure)
    body = json_bytes(value)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **failure_headers(failure),
        **(more or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    phrase = HTTPStatus(status).phrase if status in _PHRASED else "Overloaded"
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode() + body


def _of_path(path: bytes, ident: str | None = None) -> Refusal:
    # Wherever the resource is mounted.
    if re.search(rb"/messages(/|$)", path.partition(b"?")[0]):
        return lambda failure: anthropic.refusal(failure, ident)
    return lambda failure: (failure.status, error(failure))
