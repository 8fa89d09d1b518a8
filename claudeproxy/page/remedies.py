"""What to do about a turn that has failed, by what went wrong."""

from __future__ import annotations

from claudeproxy.messages import Kind

_REMEDIES = {
    Kind.INVALID: "The request is none that the API takes; its client was told which field.",
    Kind.CONTEXT_LENGTH: "The conversation is longer than the model takes: shorten it.",
    Kind.AUTHENTICATION: "The CLI's login does not work: claudemax login.",
    Kind.BILLING: "It would have been paid as extra usage: see /docs/plan and --extra-usage.",
    Kind.PERMISSION: "The account, or the client's key, may not do this.",
    Kind.NOT_FOUND: "There is nothing of that name.",
    Kind.MODEL_NOT_FOUND: "There is no such model: /v1/models lists them.",
    Kind.TOO_LARGE: "The request is larger than it may be (--max-body).",
    Kind.RATE_LIMIT: "Too many turns at once (--concurrency, --queue), or a key's quota is full.",
    Kind.PLAN_LIMIT: "A window of the plan is used up, or what is left is kept back (--reserve).",
    Kind.OVERLOADED: "The upstream is overloaded: it passes.",
    Kind.UPSTREAM: "The upstream or the CLI failed: the log has more, claudemax doctor looks.",
    Kind.TIMEOUT: "It took longer than --first-token-timeout, --idle-timeout or --turn-timeout.",
    Kind.UNAVAILABLE: "No CLI could serve it: claudemax doctor tells why.",
}


def remedy(outcome: str) -> str:
    """``outcome``: of a turn's record; empty if it is no kind of failure."""
    try:
        return _REMEDIES[Kind(outcome)]
    except ValueError:
        return ""
