"""What the holder of a key may do: the words that follow a key in its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from attrs import frozen

from claudeproxy._values import share
from claudeproxy.engine.catalogue import Catalogue, Entry
from claudeproxy.messages import Failure, FailureError, Kind

_FACTORS = {"": 1, "k": 1000, "M": 1_000_000}


@frozen(kw_only=True)
class Rules:
    """``reserve``: the share (0 to 1) of each plan window that must be left, in place of the
    daemon's own; ``shares``: the share of each window that may be used; ``requests``, ``tokens``:
    how many in each of :data:`~claudeproxy.ledger.periods.PERIODS`; ``models``: those that may be
    asked, all if empty; ``expires``: the last day on which the key is valid."""

    reserve: Mapping[str, float] | None = None
    shares: Mapping[str, float] | None = None
    requests: Mapping[str, int] | None = None
    tokens: Mapping[str, int] | None = None
    models: tuple[str, ...] = ()
    expires: date | None = None

    @property
    def counts(self) -> bool:
        """Whether any of its limits needs counting."""
        return bool(self.requests or self.tokens or self.shares)

    def expired(self, now: float) -> bool:
        """Whether the key is no longer valid at ``now``, epoch seconds."""
        return self.expires is not None and datetime.fromtimestamp(now).date() > self.expires


def _not_for(key: str, model: str) -> Failure:
    """A 403: the holder of ``key`` may not ask ``model``."""
    return Failure(
        Kind.PERMISSION,
        f"the key {key!r} may not use the model {model[:100]!r}; GET /v1/models lists what it may",
        403,
        param="model",
        code="model_not_allowed",
    )


def usable(catalogue: Catalogue, rules: Rules) -> list[Entry]:
    """The models of ``catalogue`` that a holder of ``rules`` may ask."""
    return [
        entry
        for entry in catalogue.entries()
        if not rules.models or catalogue.is_one_of(entry.id, rules.models)
    ]


def check_model(catalogue: Catalogue, key: str | None, rules: Rules, model: str) -> None:
    """Whether the holder of ``key`` may ask ``model``.

    :raises FailureError: 404, if there is no such model; 403, if it may not.
    """
    catalogue.resolve(model)
    if rules.models and not catalogue.is_one_of(model, rules.models):
        raise FailureError(_not_for(str(key), model))


def parse(words: Iterable[str]) -> Rules:
    """The rules that ``words`` such as ``requests=60/min`` state; a word may be repeated for
    another window or period.

    :raises ValueError: its text completes "must be ...", and quotes nothing: what is written
        there may be part of a key.
    """
    told: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _WORDS:
            raise ValueError(f"one of {', '.join(example for _, _, example in _WORDS.values())}")
        field, read, example = _WORDS[name]
        try:
            key, rule = read(value)
        except ValueError:
            raise ValueError(example) from None
        if field in told and (key is None or key in told[field]):
            raise ValueError(f"{example}, and each of them once")
        told[field] = rule if key is None else {**told.get(field, {}), key: rule}
    return Rules(**told)


def _count(value: str) -> tuple[str, int]:
    found = re.fullmatch(r"([0-9]{1,9})([kM]?)/(min|day)", value)
    if found is None or int(found[1]) == 0:
        raise ValueError
    return found[3], int(found[1]) * _FACTORS[found[2]]


def _models(value: str) -> tuple[None, tuple[str, ...]]:
    names = value.split(",")
    if not all(re.fullmatch(r"[A-Za-z0-9][\w./:[\]-]*", one) for one in names):
        raise ValueError
    return None, tuple(names)


def _expires(value: str) -> tuple[None, date]:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError
    return None, date.fromisoformat(value)


_WORDS: Mapping[str, tuple[str, Callable[[str], tuple[str | None, object]], str]] = {
    "requests": ("requests", _count, "requests=60/min or requests=500/day"),
    "tokens": ("tokens", _count, "tokens=100k/min or tokens=2M/day"),
    "share": ("shares", share, "share=five_hour=30"),
    "reserve": ("reserve", share, "reserve=five_hour=20"),
    "models": ("models", _models, "models=sonnet,haiku"),
    "expires": ("expires", _expires, "expires=2027-01-31"),
}
"""For each word: its field of the rules, an example, and between them what reads its value: into a
key within the field (``None``: the whole field), and what belongs there."""
