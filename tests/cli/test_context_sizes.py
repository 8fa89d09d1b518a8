"""What the CLI says of the models that answered."""

from __future__ import annotations

from typing import Any

import pytest
from sessions import awaiting_result

from claudeproxy.cli.outputs import ContextSizes
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.testing import transcripts as cli


@pytest.mark.parametrize(
    ("used", "sizes"),
    [
        ({"claude-x-9": {"contextWindow": 700_000, "costUSD": 1}}, {"claude-x-9": 700_000}),
        ({"a": {"contextWindow": 1}, "b": {}, "c": 5, "d": {"contextWindow": "2"}}, {"a": 1}),
        ({"a": {"contextWindow": 0}}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_sizes_of_a_result(used: Any, sizes: Any) -> None:
    outputs = awaiting_result().hear(cli.result("a", modelUsage=used))
    told = [output.tokens for output in outputs if isinstance(output, ContextSizes)]
    assert told == ([] if sizes is None else [sizes])


def test_what_the_cli_says_counts_before_what_is_known_otherwise() -> None:
    catalogue = Catalogue()
    model = catalogue.resolve("claude-opus-4-1")
    assert catalogue.context_tokens(model) == 200_000
    catalogue.context_sizes["claude-opus-4-1"] = 300_000
    assert catalogue.context_tokens(model) == 300_000
