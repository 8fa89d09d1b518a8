"""The context sizes of models that the CLI reports, against our table."""

import pytest
from driver import RESULT

from claudeproxy.cli.models import context_tokens
from claudeproxy.ledger.prices import PRICES

LONG = [f"{model}[1m]" for model in ("claude-opus-4-6", "claude-sonnet-4-6", "claude-sonnet-4-5")]


@pytest.mark.only("key")
@pytest.mark.parametrize("model", [*PRICES, *LONG, "opus", "sonnet", "haiku"])
async def test_context_sizes_are_those_of_the_cli(stage, newest, model):
    if not newest:
        pytest.skip("sizes change: the table holds those of the newest CLI")
    made = await stage()
    await made.begin(model=model)
    turn = await made.turn("[[say x]]")
    [(name, used)] = next(filter(RESULT, turn.lines))["modelUsage"].items()
    assert context_tokens(name) == used["contextWindow"]
    assert context_tokens(model) == used["contextWindow"]
