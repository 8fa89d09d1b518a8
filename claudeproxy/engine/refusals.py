"""Why a turn may not use the plan now."""

from __future__ import annotations

from attrs import evolve

from claudeproxy.cli.errors import EXPLAINED, billed
from claudeproxy.messages import Failure, Kind


def kept_back(
    name: str, reserve: float, after: float, *, of_key: bool = False, flex: bool = False
) -> Failure:
    """The window ``name`` is used up to the reserve, which is that share of it, for ``after``
    seconds. ``of_key``: it is not the policy's; ``flex``: for this tier it is twice as large."""
    whose = "reserve= of this key" if of_key else "--reserve"
    message = (
        f"the last {reserve:.0%} of the {name.replace('_', ' ')} window is kept for the owner's "
        f"own use ({whose})"
    )
    if flex:
        message += f", of which service_tier flex leaves twice as much: {min(2 * reserve, 1.0):.0%}"
    return _limit(message, after)


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
