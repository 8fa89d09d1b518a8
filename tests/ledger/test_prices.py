"""List prices."""

from __future__ import annotations

import pytest

from claudeproxy.ledger.prices import PRICES, list_price, price_of
from claudeproxy.messages import Usage

MILLION = 1_000_000


def test_each_kind_of_token_has_its_price() -> None:
    opus = "claude-opus-4-5-20251101"
    assert list_price(opus, Usage(input_tokens=MILLION)) == pytest.approx(5)
    assert list_price(opus, Usage(output_tokens=MILLION)) == pytest.approx(25)
    assert list_price(opus, Usage(cache_read_tokens=MILLION)) == pytest.approx(0.5)
    assert list_price(opus, Usage(cache_write_tokens=MILLION)) == pytest.approx(6.25)
    hour = Usage(cache_write_tokens=MILLION, cache_write_1h_tokens=MILLION)
    assert list_price(opus, hour) == pytest.approx(10)
    half = Usage(cache_write_tokens=MILLION, cache_write_1h_tokens=MILLION // 2)
    assert list_price(opus, half) == pytest.approx(8.125)


def test_a_long_prompt_costs_more_where_the_model_says_so() -> None:
    at, over = Usage(input_tokens=100_000), Usage(input_tokens=60_000, cache_read_tokens=40_001)
    assert list_price("claude-haiku-5-5", at) == pytest.approx(0.01)
    assert list_price("claude-haiku-5-5", over) == pytest.approx(0.032, abs=1e-6)


def test_prompts_are_long_one_by_one() -> None:
    model, half = "claude-haiku-5-5", Usage(input_tokens=60_000)
    assert list_price(model, half, half) == pytest.approx(0.012)
    assert list_price(model, half, half + half) == pytest.approx(0.006 + 0.06)
    assert list_price(model) == list_price("gpt-5", Usage(), Usage()) == 0
    assert list_price("gpt-5", Usage(), half) is None


@pytest.mark.parametrize("model", [None, "", "gpt-5", "claude-opus", "claude-opus-9-20301231"])
def test_what_is_not_in_the_table_has_no_price(model: str | None) -> None:
    assert price_of(model) is None and list_price(model, Usage(1, 1)) is None


def test_a_date_or_a_context_size_makes_no_other_model() -> None:
    for name, price in PRICES.items():
        for variant in ("", "-20260102", "[1m]", "-20260102[1m]"):
            assert price_of(name + variant) is price
