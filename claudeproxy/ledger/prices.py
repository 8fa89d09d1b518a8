"""Anthropic's list prices, to tell what a turn would have cost with an API key.

This is the only place with prices. They are those of CLI 2.1.332 (seen 2026-11-29), which reports
``costUSD`` for each model: ``tests/contract/test_contract_prices.py`` holds the table against it.
A model that is not in the table has no price here, though the CLI assumes one.
"""

from __future__ import annotations

import re

from attrs import frozen

from claudeproxy.messages import Usage

AS_OF = "2026-11-29"
"""When the prices were last compared with the CLI's."""

CACHE_WRITE_5M = 1.25
CACHE_WRITE_1H = 2.0
"""A token written to the cache costs this many times an input token."""


@frozen
class Price:
    """US dollars per million tokens. Prompts of more than ``long_from`` tokens cost
    ``long_factor`` times as much, their answers included."""

    input: float
    output: float
    cache_read: float
    long_from: int | None = None
    long_factor: float = 1.0

    def of(self, usage: Usage) -> float:
        """What one answer costs, in US dollars."""
        written_1h = usage.cache_write_1h_tokens
        dollars = (
            usage.input_tokens * self.input
            + usage.cache_read_tokens * self.cache_read
            + (usage.cache_write_tokens - written_1h) * self.input * CACHE_WRITE_5M
            + written_1h * self.input * CACHE_WRITE_1H
            + usage.output_tokens * self.output
        ) / 1e6
        long = self.long_from is not None and usage.prompt_tokens > self.long_from
        return dollars * self.long_factor if long else dollars


PRICES = {
    "claude-fable-5-2": Price(8.0, 40.0, 0.2),
    "claude-fable-5-1": Price(10.0, 50.0, 0.25),
    "claude-fable-5": Price(10.0, 50.0, 1.0),
    "claude-opus-5-5": Price(4.0, 20.0, 0.2),
    "claude-opus-5": Price(5.0, 25.0, 0.5),
    "claude-opus-4-8": Price(5.0, 25.0, 0.5),
    "claude-opus-4-7": Price(5.0, 25.0, 0.5),
    "claude-opus-4-6": Price(5.0, 25.0, 0.5),
    "claude-opus-4-5": Price(5.0, 25.0, 0.5),
    "claude-opus-4-1": Price(15.0, 75.0, 1.5),
    "claude-opus-4": Price(15.0, 75.0, 1.5),
    "claude-sonnet-5-5": Price(2.0, 10.0, 0.1),
    "claude-sonnet-5": Price(2.0, 10.0, 0.2),
    "claude-sonnet-4-6": Price(3.0, 15.0, 0.3),
    "claude-sonnet-4-5": Price(3.0, 15.0, 0.3),
    "claude-sonnet-4": Price(3.0, 15.0, 0.3),
    "claude-haiku-5-5": Price(0.1, 0.5, 0.01, long_from=100_000, long_factor=5.0),
    "claude-haiku-4-5": Price(1.0, 5.0, 0.1),
}


def price_of(model: str | None) -> Price | None:
    """The price of the model that answered, by its full id; ``None`` if it is not known."""
    return PRICES.get(re.sub(r"(-20\d{6})?(\[1m\])?$", "", model or ""))


def list_price(model: str | None, *answers: Usage) -> float | None:
    """What these answers would have cost at list price, in US dollars; ``None`` if their model's
    price is not known. Each is priced by itself, because a long prompt costs more."""
    price = price_of(model)
    if answers.count(Usage()) == len(answers):
        return 0.0
    return None if price is None else sum(map(price.of, answers))
