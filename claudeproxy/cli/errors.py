"""Why a turn failed, read from what the CLI printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from claudeproxy.messages import Failure, Kind

LOGGED_OUT = "not_logged_in"
"""The code of the failure that means that nobody is logged in at all."""

LOGIN_HINT = "type `claude` in a terminal and use /login, or set CLAUDE_CODE_OAUTH_TOKEN"

_KINDS = {
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    403: Kind.PERMISSION,
    404: Kind.NOT_FOUND,
    413: Kind.TOO_LARGE,
    429: Kind.RATE_LIMIT,
    529: Kind.OVERLOADED,
}
_PREFIX = re.compile(
    r"^(Failed to authenticate\. )?API Error: (\d{3} |Request rejected \(\d+\) · )?"
)
_GATEWAY = re.compile(r" If it persists, check your inference gateway \([^)]*\)\.")


def classify(
    text: str,
    status: int | None,
    reason: str | None,
    window: Mapping[str, Any] | None,
    now: float,
) -> Failure:
    """The failure behind an error ``result``.

    ``text``: the CLI's sentence; ``status``: ``api_error_status``; ``reason``:
    ``terminal_reason``; ``window``: the ``rate_limit_info`` of a rejected plan window, if one came;
    ``now``: epoch seconds, for the distance to its ``resetsAt``.
    """
    message = _GATEWAY.sub("", _PREFIX.sub("", text)).strip() or "the upstream refused the request"
    if window is not None and window.get("rateLimitType"):
        # Without a type it is the server that is busy, not the plan that is used up.
        return plan_limit(window, now)
    if reason == "prompt_too_long" or message.startswith("Prompt is too long"):
        return Failure(
            Kind.CONTEXT_LENGTH,
            "the conversation is longer than the model's context window",
            400,
            param="messages",
            code="context_length_exceeded",
        )
    if status is None and text.startswith("Not logged in"):
        return not_logged_in()
    if status == 401:
        return Failure(
            Kind.AUTHENTICATION,
            f"the upstream refused the CLI's login ({message}): {LOGIN_HINT}",
            401,
        )
    if status == 404 and "model" in message:
        return Failure(Kind.MODEL_NOT_FOUND, message, 404, param="model", code="model_not_found")
    if status in _KINDS:
        return Failure(_KINDS[status], message, status)
    if status is not None and 400 <= status < 500:
        return Failure(Kind.INVALID, message, 400)
    return Failure(Kind.UPSTREAM, message, 502 if status is None else 500)


def used_up(window: Mapping[str, Any]) -> bool:
    """Whether a ``rate_limit_info`` says that no more turns are taken: rejected, and no extra
    usage in its place."""
    return window.get("status") == "rejected" and not window.get("isUsingOverage")


def not_logged_in() -> Failure:
    """401 with the command to type."""
    message = f"the Claude CLI is not logged in: {LOGIN_HINT}"
    return Failure(Kind.AUTHENTICATION, message, 401, code=LOGGED_OUT)


def plan_limit(window: Mapping[str, Any], now: float) -> Failure:
    """429 with the time until the window (``five_hour``, ``seven_day`` …) resets."""
    name = str(window.get("rateLimitType") or "plan").replace("_", " ")
    resets = window.get("resetsAt")
    after = max(1.0, float(resets) - now) if isinstance(resets, (int, float)) else None
    return Failure(
        Kind.PLAN_LIMIT,
        f"the subscription's {name} limit is reached",
        429,
        retry_after=after,
        code="rate_limit_exceeded",
    )
