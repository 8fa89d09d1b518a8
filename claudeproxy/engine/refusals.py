"""Why a turn may not use the plan now."""

from __future__ import annotations

from attrs import evolve

from claudeproxy.cli.errors import EXPLAINED, billed
from claudeproxy.messages import Failure, Kind


def kept_back(name: str, share: float, after: float) -> Failure:
    """The window ``name`` is used up to the reserve, which is ``share`` of it, for ``after``
    seconds."""
    return _limit(
        f"the last {share:.0%} of the {name.replace('_', ' ')} window is kept for the owner's own "
        "use (--reserve)",
        after,
    )


def would_be_charged(name: str, after: float) -> Failure:
    """The window ``name`` is used up for ``after`` seconds, and extra usage would pay instead."""
    return _limit(
        f"the subscription's {name.replace('_', ' ')} window is used up, and this turn would be "
        f"charged as extra usage, which is not spent without --extra-usage. {EXPLAINED}",
        after,
    )


def is_charged(room: str) -> Failure:
    """The set-up is charged for although the plan has ``room``."""
    return billed(
        "Anthropic charges extra usage for requests with this system prompt and these "
        f"tools although the plan has room ({room}). It is not spent without "
        f"--extra-usage. {EXPLAINED}"
    )


def with_room(failure: Failure, room: str) -> Failure:
    """The upstream's refusal ``failure``, and what ``room`` the plan has all the same."""
    return evolve(failure, message=f"{failure.message} The plan now: {room}.")


def _limit(message: str, after: float) -> Failure:
    return Failure(
        Kind.PLAN_LIMIT,
        message,
        429,
        retry_after=max(1.0, after),
        code="rate_limit_exceeded",
    )
