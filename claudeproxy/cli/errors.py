"""Why a turn failed, as read from what the CLI printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from claudeproxy.messages import Failure, Kind

LOGGED_OUT = "not_logged_in"
"""The code of a failure that means that no login works."""

NOT_RENEWED = "login_not_renewed"
"""The code of a failure that means that the login could not be renewed just now."""

RENEWAL_RETRY = 30.0
"""Seconds after which a login that could not be renewed is worth another try."""

PAID_FOR = "insufficient_quota"
"""The code of a turn that would be charged for, or that Anthropic wants to charge for."""

EXPLAINED = "GET /docs/plan on this server explains what happens and what can be done."


@frozen
class LoginAdvice:
    """``remedy``: what to do about a login that has ended. ``renewable``: whether the CLI can renew
    it by itself, which it cannot for a token of ``claude setup-token``."""

    remedy: str = "log in with `claude auth login`"
    renewable: bool = True


_KINDS = {
    400: Kind.INVALID,
    401: Kind.AUTHENTICATION,
    402: Kind.BILLING,
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

_LOGGED_OUT = re.compile(
    r"Not logged in|session expired and could not be refreshed|OAuth token has been revoked"
    r"|OAuth authentication is currently not supported|Invalid bearer token",
    re.I,
)
_EXPIRED = re.compile(r"OAuth token has expired", re.I)
_RENEWING = re.compile(r"Failed to refresh OAuth token|could not be refreshed: another", re.I)
_EXTRA_USAGE = re.compile(
    r"draw from your extra usage|out of (extra usage|usage credits)|requires usage credits", re.I
)
_LONG_CONTEXT = re.compile(
    r"long[ _-]context.{0,40}(credits|extra usage|required)"
    r"|(extra usage is|usage credits) required for (long|\S+) context",
    re.I,
)


def classify(
    text: str,
    status: int | None,
    reason: str | None,
    limits: Mapping[str, Any] | None,
    now: float,
    advice: LoginAdvice,
) -> Failure:
    """The failure behind an error ``result``.

    ``text``: the CLI's sentence; ``status``: ``api_error_status``; ``reason``:
    ``terminal_reason``; ``limits``: the last ``rate_limit_info`` of the process;
    ``now``: epoch seconds, to tell how far away its ``resetsAt`` is.
    """
    message = _GATEWAY.sub("", _PREFIX.sub("", text)).strip() or "the upstream refused the request"
    if status == 429 and limits is not None and _is_used_up(limits):
        return plan_limit(limits, now)
    if _LONG_CONTEXT.search(message):
        return _too_long(f"the plan does not pay for so long a conversation: {message}")
    if reason == "prompt_too_long" or message.startswith("Prompt is too long"):
        return _too_long("the conversation is longer than the model's context window")
    if _EXTRA_USAGE.search(message):
        return billed(f"Anthropic refused this request: {message} {EXPLAINED}")
    if status in (None, 401, 403):
        failure = _of_the_login(message, status, advice)
        if failure is not None:
            return failure
    if status == 404 and "model" in message:
        return Failure(Kind.MODEL_NOT_FOUND, message, 404, param="model", code="model_not_found")
    if status in _KINDS:
        return Failure(_KINDS[status], message, status, cause=_cause(status))
    if status is not None and 400 <= status < 500:
        return Failure(Kind.INVALID, message, 400)
    return Failure(Kind.UPSTREAM, message, 502 if status is None else 500, cause=_cause(status))


def _cause(status: int | None) -> str:
    return f"the upstream answered {status}" if status else "the CLI gave up the turn"


def _of_the_login(message: str, status: int | None, advice: LoginAdvice) -> Failure | None:
    if _RENEWING.search(message) or (advice.renewable and _EXPIRED.search(message)):
        # The upstream said so: the CLI tried to renew the login and was refused.
        return Failure(
            Kind.UNAVAILABLE,
            f"the login has expired and could not be renewed just now ({message}); "
            f"if this goes on, {advice.remedy}",
            503,
            retry_after=RENEWAL_RETRY,
            code=NOT_RENEWED,
            cause="the login could not be renewed",
        )
    if _LOGGED_OUT.search(message) or _EXPIRED.search(message):
        return not_logged_in(advice)
    if status == 401:
        return Failure(
            Kind.AUTHENTICATION,
            f"the upstream refused the CLI's login ({message}): {advice.remedy}",
            401,
        )
    return None


def _too_long(message: str) -> Failure:
    return Failure(
        Kind.CONTEXT_LENGTH, message, 400, param="messages", code="context_length_exceeded"
    )


def _is_used_up(limits: Mapping[str, Any]) -> bool:
    """Whether a plan window is used up. Without a type, it is the server that is busy."""
    return limits.get("status") == "rejected" and isinstance(limits.get("rateLimitType"), str)


def not_logged_in(advice: LoginAdvice) -> Failure:
    """A 401 that names the command to run."""
    message = f"the Claude CLI is not logged in: {advice.remedy}"
    return Failure(Kind.AUTHENTICATION, message, 401, code=LOGGED_OUT)


def billed(message: str) -> Failure:
    """A 402, not to be retried: the plan does not pay for the turn."""
    return Failure(Kind.BILLING, message, 402, code=PAID_FOR)


def plan_limit(limits: Mapping[str, Any], now: float) -> Failure:
    """A 429 with the time until the window (``five_hour``, ``seven_day`` …) resets."""
    name = str(limits.get("rateLimitType") or "plan").replace("_", " ")
    resets = limits.get("resetsAt")
    after = max(1.0, float(resets) - now) if isinstance(resets, (int, float)) else None
    return Failure(
        Kind.PLAN_LIMIT,
        f"the subscription's {name} limit is reached",
        429,
        retry_after=after,
        code="rate_limit_exceeded",
        window=limits.get("rateLimitType"),
    )
