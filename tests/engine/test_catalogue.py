"""Model names, by values."""

from __future__ import annotations

import pytest
from attrs import evolve

from claudeproxy.cli.models import ModelInfo, guess_model, parse_models
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.messages import FailureError, Kind
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
        ("claude-opus-4:latest", "opus"),  # Ollama's clients ask /v1 by its names, too
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-opus-4-1-20250805", "claude-opus-4-1-20250805"),
        ("claude-sonnet-4-5[1m]", "claude-sonnet-4-5[1m]"),
        ("gpt-4", "opus"),
        ("openai/gpt-4", "opus"),
        ("mine", "claude-opus-4-1"),
        ("openai/mine", "claude-opus-4-1"),
        ("mine:latest", "claude-opus-4-1"),
    ],
)
def test_names(asked: str, told: str) -> None:
    names = catalogue(**{"gpt-4": "claude-opus-4", "mine": "claude-opus-4-1"})
    assert names.resolve(asked).name == told


def test_a_family_of_newer_clis_until_this_one_has_told() -> None:
    names = Catalogue()
    assert names.resolve("fable").name == "fable"
    assert "fable" not in [entry.id for entry in names.entries()]
    names.learn([ModelInfo("opus", "claude-opus-4-6")])
    with pytest.raises(FailureError):
        names.resolve("fable")


@pytest.mark.parametrize(
    "asked",
    [
        "gpt-4",
        "",
        "claude",
        "claude-",
        "../opus",
        "Opus",
        "x" * 9999,
        "claude-" + "x" * 999,
        "claude-opus-4-1\n",
    ],
)
def test_names_of_nothing(asked: str) -> None:
    with pytest.raises(FailureError) as refused:
        catalogue().resolve(asked)
    failure = refused.value.failure
    assert (failure.kind, failure.status) == (Kind.MODEL_NOT_FOUND, 404)
    assert (failure.param, failure.code) == ("model", "model_not_found")
    assert len(refused.value.failure.message) < 300


def test_the_list() -> None:
    ids = [entry.id for entry in catalogue(mine="opus").entries()]
    assert ids[:3] == ["claude-opus-4", "claude-sonnet-4", "claude-haiku-4"]
    assert {"opus", "claude-opus-5-5", "mine"} <= set(ids)
    assert "default" not in ids
    assert len(ids) == len(set(ids))


def test_the_titles_of_the_list() -> None:
    titles = {entry.id: entry.title for entry in catalogue(mine="opus", haiku="opus").entries()}
    assert titles["claude-opus-4"] == "Claude Opus"
    assert (titles["opus"], titles["claude-opus-5-5"]) == ("Opus", "Opus")
    assert (titles["mine"], titles["haiku"]) == ("opus", "Haiku")
    nothing = {entry.id: entry.title for entry in Catalogue({"mine": "opus"}).entries()}
    assert (nothing["haiku"], nothing["mine"], len(nothing)) == ("Haiku", "opus", 7)


def test_a_full_id_has_what_the_cli_tells_of_its_model() -> None:
    names = Catalogue({"mine": "claude-new-9"})
    told = ModelInfo("new", "claude-new-9", "New", ("low",), True, False)
    names.learn([told])
    for asked in ("claude-new-9", "mine"):
        assert names.resolve(asked) == evolve(told, name="claude-new-9")
    assert Catalogue().resolve("claude-opus-5-5") == guess_model("claude-opus-5-5")


def test_aliases_that_lead_nowhere_are_told_with_what_was_meant() -> None:
    names = catalogue(a="opsu", b="opus", c="claude-opus-4-1", d="xyzzy", e="a")
    assert names.dangling() == ["a=opsu (did you mean opus?)", "d=xyzzy", "e=a"]


def test_a_list_that_is_the_same_is_not_news() -> None:
    names = Catalogue()
    assert names.learn(parse_models(MODELS))
    assert not names.learn(parse_models(MODELS))
    assert names.learn(parse_models(MODELS[:1]))


@pytest.mark.parametrize(
    ("asked", "name", "is_it"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5", True),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("haiku", "claude-haiku-5-5-20260102", True),
        ("claude-haiku-4-5[1m]", "claude-haiku-4-5", False),
        ("claude-haiku-4-5-20251001[1m]", "claude-haiku-4-5[1m]", True),
        ("claude-haiku-4-5", "haiku", True),
        ("claude-3-5-haiku-20241022", "haiku", True),
        ("claude-fable-5-2", "fable", True),
        ("claude-fable-5-2", "opus", False),
        ("claude-opus-4", "opus", True),
        ("claude-opus-5-5", "claude-opus-4", True),
        ("mine", "haiku", False),
        ("mine", "mine", True),
        ("opus", "mine", True),
        ("opus", "nothing", False),
        ("opus", "claude", False),
        ("claude-opus-4-1", "mine", False),
    ],
)
def test_whether_a_model_is_one_of_a_list(asked: str, name: str, is_it: bool) -> None:
    assert catalogue(mine="opus").is_one_of(asked, ["no-such", name]) is is_it
