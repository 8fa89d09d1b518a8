"""The prices that the CLI reports, against our table."""

import pytest
from driver import RESULT

from claudeproxy.ledger.prices import PRICES
from claudeproxy.messages import Usage

SPENT = {
    "input": Usage(input_tokens=50_000),
    "output": Usage(output_tokens=50_000),
    "read": Usage(cache_read_tokens=50_000),
    "written": Usage(cache_write_tokens=50_000),
    "written for an hour": Usage(cache_write_tokens=50_000, cache_write_1h_tokens=50_000),
    "long": Usage(input_tokens=60_000, cache_read_tokens=50_000, output_tokens=10_000),
}


def order(usage: Usage) -> str:
    lasting = usage.cache_write_1h_tokens
    return (
        f"[[usage input_tokens={usage.input_tokens} output_tokens={usage.output_tokens}"
        f" cache_read_input_tokens={usage.cache_read_tokens}"
        f" cache_creation_input_tokens={usage.cache_write_tokens}"
        f" cache_creation.ephemeral_1h_input_tokens={lasting}"
        f" cache_creation.ephemeral_5m_input_tokens={usage.cache_write_tokens - lasting}]]"
    )


@pytest.mark.only("key")
@pytest.mark.parametrize("model", PRICES)
async def test_list_prices_are_those_of_the_cli(stage, newest, model):
    if not newest:
        pytest.skip("prices change: the table holds those of the newest CLI")
    made = await stage()
    await made.begin(model=model)
    before = 0.0
    for usage in SPENT.values():
        turn = await made.turn(f"{order(usage)} [[say x]]")
        total = next(filter(RESULT, turn.lines))["total_cost_usd"]
        assert total - before == pytest.approx(PRICES[model].of(usage)), usage
        before = total
