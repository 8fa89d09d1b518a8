"""Whole JSON replies, errors among them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from claudeproxy.dialects.shapes import error
from claudeproxy.messages import Failure, Kind

PATIENCE = 120
"""Seconds beyond which SDKs do not retry by themselves; so they are told not to try at all."""


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


def reply(request: Any, value: Mapping[str, Any], status: int = 200) -> bytes:
    """Set status and headers of ``request`` for a JSON body, and return that body."""
    body = json_bytes(value)
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"application/json")
    request.setHeader(b"content-length", str(len(body)).encode())
    return body


def refuse(request: Any, failure: Failure) -> bytes:
    """The reply to a request that failed before anything of an answer was sent."""
    for name, value in failure_headers(failure).items():
        request.setHeader(name.encode(), value.encode())
    return reply(request, error(failure), failure.status)


def raw_refusal(failure: Failure) -> bytes:
    """A whole HTTP response, for a connection that has no request to reply to (yet)."""
    body = json_bytes(error(failure))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **failure_headers(failure),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    phrase = HTTPStatus(failure.status).phrase
    return f"HTTP/1.1 {failure.status} {phrase}\r\n{lines}\r\n".encode() + body
