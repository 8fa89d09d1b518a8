"""From replies and lost connections back to failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from claudeproxy.messages import Failure, Kind

STATUSES: Mapping[Kind, int] = {
    Kind.INVALID: 400,
    Kind.CONTEXT_LENGTH: 400,
    Kind.AUTHENTICATION: 401,
    Kind.BILLING: 402,
    Kind.PERMISSION: 403,
    Kind.NOT_FOUND: 404,
    Kind.MODEL_NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.RATE_LIMIT: 429,
    Kind.PLAN_LIMIT: 429,
    Kind.UPSTREAM: 502,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.OVERLOADED: 529,
}
"""The status of each kind, which the Messages API does not tell apart as the daemon does."""

_KINDS = {status: kind for kind, status in reversed(list(STATUSES.items()))}

Header = Callable[[str], str | None]
"""The value of a header of the reply."""


def unreachable(url: str, why: BaseException) -> Failure:
    """There is no connection to the daemon."""
    message = f"no daemon can be reached at {url} ({_said(why)}): start one with `claudemax`"
    return Failure(Kind.UNAVAILABLE, message, STATUSES[Kind.UNAVAILABLE])


def broken_off(url: str, why: BaseException | None = None) -> Failure:
    """The connection was lost after the question was sent; it is not known what became of it."""
    because = "" if why is None else f" ({_said(why)})"
    message = f"the connection to {url} was lost before the end of the answer{because}"
    return Failure(Kind.UNAVAILABLE, message, STATUSES[Kind.UNAVAILABLE], spent=True)


def no_daemon(url: str) -> Failure:
    """Something answers that does not speak the Messages API."""
    message = f"what answers at {url} is not a claudemax daemon, or a proxy alters its replies"
    return Failure(Kind.UPSTREAM, message, STATUSES[Kind.UPSTREAM], spent=True)


def refusal(url: str, status: int, body: bytes, header: Header) -> Failure:
    """The failure behind a reply with an error."""
    try:
        error = json.loads(body)["error"]
        message, kind = str(error["message"]), _kind(error, status)
    except (ValueError, LookupError, TypeError):
        message, kind = f"{url} answered {status}", _of_status(status)
    after = header("retry-after") or ""
    return Failure(
        kind,
        message,
        STATUSES[kind],
        retry_after=float(after) if after.isdigit() else None,
        # Its status invites another try; the header says that tokens were spent on this one.
        spent=status >= 500 and header("x-should-retry") == "false",
    )


def in_mid_stream(error: Mapping[str, Any]) -> Failure:
    """The failure behind an ``error`` event.

    :raises LookupError, TypeError: when it has another shape.
    """
    kind = _kind(error, 500)
    return Failure(kind, str(error["message"]), STATUSES[kind], spent=True)


def _kind(error: Mapping[str, Any], status: int) -> Kind:
    try:
        kind: Kind = Kind(error["details"]["kind"])
    except (ValueError, LookupError, TypeError):  # it is not the daemon that speaks
        return _of_status(status)
    return kind


def _of_status(status: int) -> Kind:
    return _KINDS.get(status, Kind.UPSTREAM if status >= 500 else Kind.INVALID)


def _said(why: BaseException) -> str:
    return str(why).strip().rstrip(".") or type(why).__name__
