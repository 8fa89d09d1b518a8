"""Refuses what is beyond the rules of a key, and tells how far they are used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.counts import Counts, Taken, Used
from claudeproxy.ledger.periods import period
from claudeproxy.ledger.shares import Plan
from claudeproxy.messages import Failure, FailureError, Kind
from claudeproxy.store.database import StoreLost

from .key_rules import Rules

RETRY = 5.0
"""Seconds after which a client should come back whose request cannot be counted."""


@frozen
class Quota:
    """``name``: ``requests/min``, ``tokens/day`` or ``share of five_hour``; ``limit`` and ``used``:
    a number, of a share percent; ``resets``: epoch seconds, ``None`` while that is not known."""

    name: str
    limit: float
    used: float
    resets: float | None

    @property
    def is_full(self) -> bool:
        """Whether nothing is left. Shares are sums of floats."""
        return round(self.used, 6) >= self.limit

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        resets = None if self.resets is None else round(self.resets)
        return {
            "quota": self.name,
            "limit": self.limit,
            "used": round(self.used, 2),
            "resets_at": resets,
        }


class Quotas:
    """What each key has left, of the minute, the day and the plan's windows.

    A turn that has begun is never cut off: tokens and shares are known once it is over, and count
    for the next one.
    """

    log = Logger()

    def __init__(self, engine: Engine, counts: Counts) -> None:
        self._engine = engine
        self._counts = counts

    def plan(self) -> Plan:
        """What is known of the plan now."""
        now, quota = self._engine.now(), self._engine.quota
        known = quota.windows.known.items()
        resets = {name: window.resets for name, window in known if now < window.resets}
        return Plan(now, quota.login.account or "", resets)

    async def take(self, key: str, rules: Rules) -> Callable[[], None]:
        """Count a request of ``key``. What is returned takes it back, for one that is refused after
        all or never begins. A caller that is cancelled meanwhile has taken nothing.

        :raises FailureError: 429, when a quota is used up; 503, when it cannot be counted.
        """
        plan = self.plan()

        def full(used: Used) -> list[Quota]:
            return [quota for quota in _quotas(used, rules, plan) if quota.is_full]

        try:
            taken = await self._taken(key, plan.account, lambda used: not full(used))
        except CancelledError:
            raise
        except Exception as error:
            if not isinstance(error, StoreLost):
                self.log.failure("a request cannot be counted")
            raise FailureError(_uncounted(key)) from None
        if not taken.counted:
            raise FailureError(_used_up(key, full(taken.used), plan.at))
        return lambda: self._give_back(key, taken)

    def _taken(self, key: str, account: str, has_room: Callable[[Used], bool]) -> Deferred[Taken]:
        told: Deferred[Taken] = Deferred()

        def heard(taken: Taken) -> None:
            if not told.called:
                told.callback(taken)
            elif taken.counted:  # nobody waits for it any more
                self._give_back(key, taken)

        def failed(why: Reason) -> None:
            if not told.called:
                told.errback(why)

        # Not to be cancelled: only once it is over, it is known what to give back.
        self._counts.take(key, account, has_room).addCallbacks(heard, failed)
        return told

    def _give_back(self, key: str, taken: Taken) -> None:
        self._counts.give_back(key, taken)

    async def refresh(self) -> None:
        """Hear anew what keys have used; while the database does not answer, it is what was known
        last."""
        with suppress(StoreLost):
            await self._counts.read(self.plan().account)

    def told(self, rules: Mapping[str, Rules]) -> list[dict[str, Any]]:
        """All keys with their rules and quotas, as JSON."""
        now = self._engine.now()
        return [
            {
                "name": key,
                "models": list(of.models) or None,
                "expires": of.expires and of.expires.isoformat(),
                "expired": of.expired(now),
                "quotas": [quota.as_dict() for quota in self.of(key, of)],
            }
            for key, of in rules.items()
        ]

    def of(self, key: str, rules: Rules) -> list[Quota]:
        """How far the quotas of ``key`` are used up, as last known."""
        return list(_quotas(self._counts.known.get(key, Used()), rules, self.plan()))


def _quotas(used: Used, rules: Rules, plan: Plan) -> Iterator[Quota]:
    for kind in ("requests", "tokens"):
        limits: Mapping[str, int] = getattr(rules, kind) or {}
        for name, limit in limits.items():
            _, end = period(name, plan.at)
            yield Quota(f"{kind}/{name}", limit, getattr(used.count(name, plan.at), kind), end)
    for window, share in (rules.shares or {}).items():
        # Of a window that is not known: it has reset, or is another account's.
        known = window in plan.resets
        spent = used.share(plan.account, window, plan.at) * 100 if known else 0.0
        yield Quota(f"share of {window}", round(share * 100, 2), spent, plan.resets.get(window))


def _uncounted(key: str) -> Failure:
    return Failure(
        Kind.UNAVAILABLE,
        f"requests of the key {key!r} have to be counted, and the store does not answer at present",
        503,
        retry_after=RETRY,
        code="store_lost",
    )


def _used_up(key: str, full: list[Quota], now: float) -> Failure:
    last = max(full, key=lambda quota: quota.resets or 0.0)
    told = " and ".join(map(_bound, full))
    wait = None if last.resets is None else max(1.0, last.resets - now)
    when = "" if last.resets is None else f"; it resets at {_iso(last.resets)}"
    return Failure(
        Kind.RATE_LIMIT,
        f"the key {key!r} has used up its quota of {told}{when}",
        429,
        retry_after=wait,
        code="rate_limit_exceeded",
    )


def _bound(quota: Quota) -> str:
    kind, _, window = quota.name.partition(" of ")
    if kind == "share":
        return f"{quota.limit:g} % of {window}"
    return f"{quota.name} ({quota.limit:,.0f})"


def headers(quotas: list[Quota], dialect: str, now: float) -> dict[str, str]:
    """How far quotas are used up, in the headers of ``dialect``: of those that count requests, and
    of those that count tokens, the one with the least left."""
    found: dict[str, str] = {}
    for kind in ("requests", "tokens"):
        of_kind = [quota for quota in quotas if quota.name.startswith(kind)]
        if not of_kind:
            continue
        tightest = min(of_kind, key=lambda quota: (quota.limit - quota.used, -(quota.resets or 0)))
        left, resets = max(0, tightest.limit - tightest.used), tightest.resets or now
        if dialect == "messages":
            about = {
                "limit": f"{tightest.limit:.0f}",
                "remaining": f"{left:.0f}",
                "reset": _iso(resets),
            }
            found |= {f"anthropic-ratelimit-{kind}-{name}": text for name, text in about.items()}
        else:
            about = {
                "limit": f"{tightest.limit:.0f}",
                "remaining": f"{left:.0f}",
                "reset": f"{max(0, round(resets - now))}s",
            }
            found |= {f"x-ratelimit-{name}-{kind}": text for name, text in about.items()}
    return found


def _iso(when: float) -> str:
    return datetime.fromtimestamp(round(when), timezone.utc).isoformat().replace("+00:00", "Z")
