"""Hours added up: by day, model, key, client, and by sessions of five hours."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

from attrs import field, fields, frozen

from claudeproxy.messages import Usage

from .hours import HOUR, Hour

SESSION = 5 * HOUR
"""Seconds of a session: what Anthropic's shortest window lasts."""

_Group = TypeVar("_Group", bound=Hashable)


@frozen
class Totals:
    """``list_price``: US dollars, of the turns whose price is known; ``unpriced``: the others;
    ``saved``: the part that the plan has paid for; ``paid``: turns paid as extra usage."""

    turns: int = 0
    failed: int = 0
    paid: int = 0
    unpriced: int = 0
    list_price: float = 0.0
    saved: float = 0.0
    usage: Usage = field(factory=Usage)

    @classmethod
    def of(cls, hours: Iterable[Hour]) -> Totals:
        """The sum of ``hours``."""
        rows = list(hours)
        # Column by column: years have some ten thousand rows, and the reactor waits.
        usage = Usage(**_sums([row.usage for row in rows], _USAGE))
        return cls(**_sums(rows, _SUMMED), usage=usage)

    @property
    def cache_share(self) -> float | None:
        """The share of the input that came from the cache, 0 to 1; ``None`` without input."""
        prompt = self.usage.prompt_tokens
        return self.usage.cache_read_tokens / prompt if prompt else None

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        usage, share = self.usage, self.cache_share
        return {
            "turns": self.turns,
            "failed": self.failed,
            "paid_turns": self.paid,
            "input_tokens": usage.input_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_5m_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cache_share": None if share is None else round(share, 4),
            "list_price_usd": round(self.list_price, 6),
            "saved_usd": round(self.saved, 6),
            "unpriced_turns": self.unpriced,
        }


_SUMMED = [each.name for each in fields(Totals) if each.name != "usage"]
_USAGE = [each.name for each in fields(Usage)]


def _sums(rows: Sequence[object], names: Iterable[str]) -> dict[str, Any]:
    return {name: sum(map(attrgetter(name), rows)) for name in names}


def by(hours: Iterable[Hour], group: Callable[[Hour], _Group]) -> dict[_Group, Totals]:
    """The totals of each group, in the order in which the groups first occur."""
    groups: dict[_Group, list[Hour]] = {}
    for row in hours:
        groups.setdefault(group(row), []).append(row)
    return {name: Totals.of(rows) for name, rows in groups.items()}


def day(row: Hour) -> str:
    """The local day in which an hour begins, ``2026-11-29``."""
    return datetime.fromtimestamp(row.hour).date().isoformat()


def by_session(hours: Sequence[Hour]) -> dict[int, Totals]:
    """The totals of each session by its start, epoch seconds: a session begins with the hour of the
    first turn after the session before it. ``hours``: the oldest first."""
    starts: list[int] = []
    for row in hours:
        if not starts or row.hour >= starts[-1] + SESSION:
            starts.append(row.hour)
    return by(hours, lambda row: starts[bisect(starts, row.hour) - 1])
