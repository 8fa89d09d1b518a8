"""The account behind the login: its tokens, its plan windows, and what it is charged for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import define, evolve, field, frozen

from claudeproxy.demo.steps import ApiError, Header

EMAIL = "nobody@example.invalid"
"""The address of the made-up account."""

UNIFIED = "anthropic-ratelimit-unified"

SHORT: Mapping[str, str] = {
    "five_hour": "5h",
    "seven_day": "7d",
    "seven_day_overage_included": "7d_oi",
}
"""A plan window as the CLI names it, to its name in Anthropic's headers."""

_IDENTITIES = (
    "You are Claude Code, Anthropic's official CLI for Claude",
    "You are a Claude agent, built on Anthropic's Claude Agent SDK.",
)

THIRD_PARTY = (
    "Third-party apps now draw from your extra usage, not your plan limits. "
    "Add more at claude.ai/settings/usage and keep going."
)


EXPIRED = "OAuth token has expired. Please obtain a new token or refresh your existing token."


@frozen
class PlanWindow:
    """``used``: 0 to 1; ``resets``: epoch seconds; full windows are rejected."""

    used: float
    resets: int
    status: str = "allowed"


@frozen
class Login:
    """One login as the CLI keeps it; ``until``: epoch seconds. Without ``refresh`` it is one of
    ``claude setup-token``."""

    access: str
    refresh: str | None
    until: float


@define
class Account:
    """Everything about it can be changed at any time, by order of a test.

    ``extra_usage``: whether the owner has switched it on. ``judged``: a pattern; a request whose
    system prompt or tool names match it counts as a third-party app's. ``paid``: requests that
    were charged as extra usage.
    """

    now: Callable[[], float]
    lifetime: float = 28_800.0
    renewal_seconds: float = 0.0
    renewal_failure: int | None = None
    windows: dict[str, PlanWindow] = field(factory=dict)
    extra_usage: bool = False
    judged: str | None = None
    email: str = EMAIL
    paid: int = 0
    refused: dict[str, ApiError] = field(factory=dict)
    _tokens: dict[str, float] = field(factory=dict, init=False)
    _refresh: dict[str, str] = field(factory=dict, init=False)
    _numbers: Any = field(factory=lambda: count(1), init=False)

    def log_in(self, seconds: float = 28_800.0, *, refreshable: bool = True) -> Login:
        """A new login, good for ``seconds``."""
        number = next(self._numbers)
        access = f"sk-ant-oat01-made-up-access-{number}"
        self._tokens[access] = self.now() + seconds
        refresh = f"sk-ant-ort01-made-up-refresh-{number}" if refreshable else None
        if refresh is not None:
            self._refresh[refresh] = access
        return Login(access, refresh, self._tokens[access])

    def renew(self, refresh: object) -> Login | None:
        """The new login for a refresh token, which is good for once; ``None`` if it is not."""
        access = self._refresh.pop(refresh, None) if isinstance(refresh, str) else None
        if access is None:
            return None
        self._tokens.pop(access, None)
        return self.log_in(self.lifetime)

    def revoke(self) -> None:
        """Every login there is ends; none can be renewed."""
        self.refused.update(
            {access: ApiError(403, "OAuth token has been revoked.") for access in self._tokens}
        )
        self._refresh.clear()

    def expire(self, access: str) -> None:
        """The time of an access token is over."""
        self._tokens[access] = self.now()

    def knows(self, refresh: str) -> bool:
        """Whether a refresh token is still good."""
        return refresh in self._refresh

    def bearer(self, headers: Mapping[str, str]) -> ApiError | None:
        """Why the token of a request is refused."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            return ApiError(401, "x-api-key header is required")
        if token in self.refused:
            return self.refused[token]
        if token not in self._tokens:
            return ApiError(401, "Invalid bearer token")
        if self.now() >= self._tokens[token]:
            return ApiError(401, EXPIRED)
        return None

    def judge(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> ApiError | list[Header]:
        """Refuses a request for messages, or says which headers its reply carries."""
        refusal = self.bearer(headers) or _stranger(headers, body)
        if refusal is not None:
            return refusal
        if self.judged is not None and re.search(self.judged, _content(body)):
            if not self.extra_usage:
                return evolve(ApiError(400, THIRD_PARTY), headers=self.limits(None))
            self.paid += 1
            return [Header(*header) for header in self.limits(None, paid=True)]
        full = next((name for name in self.windows if self._bounds(name, body)), None)
        if full is not None and not self.extra_usage:
            refusal = ApiError(429, "This request would exceed your account's rate limit.")
            return evolve(refusal, headers=self.limits(full))
        self.paid += full is not None
        return [Header(*header) for header in self.limits(full, paid=full is not None)]

    def _bounds(self, name: str, body: Mapping[str, Any]) -> bool:
        concerns = name != "seven_day_overage_included" or "fable" in body["model"]
        return concerns and self.windows[name].used >= 1

    def limits(self, full: str | None, *, paid: bool = False) -> tuple[tuple[str, str], ...]:
        """The unified rate limit headers; ``full``: the window that is in the way. An account
        without windows sends none."""
        if not self.windows:
            return ()
        headers = {f"{UNIFIED}-status": "allowed" if full is None else "rejected"}
        claim = full or next(iter(self.windows), None)
        if claim is not None:
            headers[f"{UNIFIED}-representative-claim"] = claim
            headers[f"{UNIFIED}-reset"] = str(self.windows[claim].resets)
        for name, window in self.windows.items():
            of = f"{UNIFIED}-{SHORT.get(name, name)}"
            headers[f"{of}-status"] = "rejected" if window.used >= 1 else window.status
            headers[f"{of}-reset"] = str(window.resets)
            headers[f"{of}-utilization"] = str(window.used)
        headers[f"{UNIFIED}-overage-status"] = "allowed" if self.extra_usage else "rejected"
        if not self.extra_usage:
            headers[f"{UNIFIED}-overage-disabled-reason"] = "org_level_disabled"
        if paid:
            headers[f"{UNIFIED}-overage-in-use"] = "true"
        return tuple(headers.items())


def _stranger(headers: Mapping[str, str], body: Mapping[str, Any]) -> ApiError | None:
    """What is refused of anybody but Claude Code."""
    betas = headers.get("anthropic-beta", "").split(",")
    if "oauth-2025-04-20" not in map(str.strip, betas):
        return ApiError(401, "OAuth authentication is currently not supported.")
    said = [text for text in _system(body) if not text.startswith("x-anthropic-billing-header:")]
    if "haiku" not in body["model"] and not (said and said[0].startswith(_IDENTITIES)):
        return ApiError(
            400,
            "This credential is only authorized for use with Claude Code and cannot be used for "
            "other API requests.",
        )
    return None


def _system(body: Mapping[str, Any]) -> list[str]:
    system = body.get("system") or []
    return [system] if isinstance(system, str) else [block["text"] for block in system]


def _content(body: Mapping[str, Any]) -> str:
    return "\n".join([*_system(body), *(tool["name"] for tool in body.get("tools") or ())])
