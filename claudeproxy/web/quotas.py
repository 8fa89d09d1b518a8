"""Counts what the holders of keys use, and refuses what is beyond their rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from attrs import define, frozen

from claudeproxy.engine.engine import Engine
from claudeproxy.ledger.ledger import Ledger
from claudeproxy.ledger.record import TurnRecord, counted_tokens
from claudeproxy.ledger.shares import WINDOW_SECONDS, Shares, window_seconds
from claudeproxy.messages import Failure, FailureError, Kind

from .key_rules import DAY, PERIODS, Rules, period


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


@define
class _Count:
    begin: float
    requests: int = 0
    tokens: int = 0


class Quotas:
    """What each key has used, of the minute, the day and the plan's windows.

    A turn that has begun is never cut off: tokens and shares are known once it is over, and count
    for the next one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counts: dict[tuple[str, str], _Count] = {}
        self._shares = Shares()

    async def restore(self, ledger: Ledger) -> None:
        """Begin with what today's turns and those of the running windows have used."""
        self._counts, self._shares = {}, Shares()
        now = self._engine.now()
        begin, _ = period(DAY, now)
        spent, reports = (
            ledger.spent_by_keys(begin),
            ledger.shares(now - max(WINDOW_SECONDS.values())),
        )
        for key, (requests, tokens) in (await spent).items():
            count = self._count(key, DAY)
            count.requests += requests
            count.tokens += tokens
        resets = self._resets()
        begins = {
            name: end - seconds for name, end in resets.items() if (seconds := window_seconds(name))
        }
        for report in await reports:
            ends = {
                name: resets[name] if report.time >= begin else begin
                for name, begin in begins.items()
            }
            after = {name: used for name, used in report.after.items() if name in ends}
            self._shares.heard(report.key, report.before, after, ends)

    def check(self, key: str, rules: Rules) -> None:
        """Whether another request of ``key`` may be asked.

        :raises FailureError: 429, when a quota is used up.
        """
        full = [quota for quota in self.of(key, rules) if quota.is_full]
        if full:
            raise FailureError(_used_up(key, full, self._engine.now()))

    def asked(self, key: str) -> Callable[[], None]:
        """A request of ``key`` has been taken. What is returned takes it back, for one that is
        refused after all."""
        counts = [self._count(key, name) for name in PERIODS]
        for count in counts:
            count.requests += 1

        def undo() -> None:
            for count in counts:
                count.requests -= 1

        return undo

    def heard(self, record: TurnRecord) -> None:
        """A turn is over."""
        if not record.placement:
            return  # it was refused: what the windows report is the doing of others
        if record.key is not None:
            for name in PERIODS:
                self._count(record.key, name).tokens += counted_tokens(record.usage)
        self._shares.heard(record.key, record.windows_before, record.windows_after, self._resets())

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
        """How far the quotas of ``key`` are used up."""
        return list(self._quotas(key, rules))

    def _quotas(self, key: str, rules: Rules) -> Iterator[Quota]:
        now = self._engine.now()
        for kind in ("requests", "tokens"):
            limits: Mapping[str, int] = getattr(rules, kind) or {}
            for name, limit in limits.items():
                _, end = period(name, now)
                used = getattr(self._count(key, name), kind)
                yield Quota(f"{kind}/{name}", limit, used, end)
        for window, share in (rules.shares or {}).items():
            resets = self._resets().get(window)
            # Unknown, it has reset, or is another account's.
            used = 0.0 if resets is None else self._shares.of(key, window, now) * 100
            yield Quota(f"share of {window}", round(share * 100, 2), used, resets)

    def _count(self, key: str, name: str) -> _Count:
        begin, _ = period(name, self._engine.now())
        count = self._counts.get((key, name))
        if count is None or count.begin != begin:
            count = self._counts[key, name] = _Count(begin)
        return count

    def _resets(self) -> dict[str, float]:
        now = self._engine.now()
        return {
            name: window.resets
            for name, window in self._engine.quota.windows.known.items()
            if now < window.resets
        }


def _used_up(key: str, full: list[Quota], now: float) -> Failure:
    last = max(full, key=lambda quota: quota.resets or 0.0)
    told = " and ".join(f"{quota.name} ({quota.limit:g}{_unit(quota)})" for quota in full)
    wait = None if last.resets is None else max(1.0, last.resets - now)
    when = "" if last.resets is None else f"; it resets at {_iso(last.resets)}"
    return Failure(
        Kind.RATE_LIMIT,
        f"the key {key!r} has used up its quota of {told}{when}",
        429,
        retry_after=wait,
        code="rate_limit_exceeded",
    )


def _unit(quota: Quota) -> str:
    return " %" if quota.name.startswith("share") else ""


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
