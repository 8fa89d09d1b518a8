"""Model names, by values."""

from __future__ import annotations

import pytest

from claudeproxy.cli.models import parse_models
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.messages import FailureError
from claudeproxy.testing import MODELS


def catalogue(**aliases: str) -> Catalogue:
    made = Catalogue(aliases)
    made.learn(parse_models(MODELS))
    return made


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("claude-opus-4", "opus"),
        ("claude-sonnet-4", "sonnet"),
        ("openai/claude-haiku-4", "haiku"),
        ("claude-code-cli/opus", "opus"),
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-opus-4-1-20250805", "claude-opus-4-1-20250805"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]"),
        ("gpt-4", "opus"),
        ("openai/gpt-4", "opus"),
        ("mine", "claude-opus-4-1"),
    ],
)
def test_names(asked: str, told: str) -> None:
    names = catalogue(**{"gpt-4": "claude-opus-4", "mine": "claude-opus-4-1"})
    assert names.resolve(asked).name == told


@pytest.mark.parametrize("asked", ["gpt-4", "", "claude", "claude-", "../opus", "Opus", "x" * 9999])
def test_names_of_nothing(asked: str) -> None:
    with pytest.raises(FailureError) as refused:
        catalogue().resolve(asked)
    assert refused.value.failure.code == "model_not_found"
    assert len(refused.value.failure.message) < 300


def test_the_list() -> None:
    ids = [entry.id for entry in catalogue(mine="opus").entries()]
    assert ids[:3] == ["claude-opus-4", "claude-sonnet-4", "claude-haiku-4"]
    assert {"opus", "claude-opus-5-5", "mine"} <= set(ids)
    assert "default" not in ids
    assert len(ids) == len(set(ids))
