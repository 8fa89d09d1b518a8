"""What the CLI reports about the models that it offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from claudeproxy.messages import EFFORTS

_OLD_LIMITS = {
    "claude-3-7-sonnet": 64_000,
    "claude-3-5-sonnet": 8_192,
    "claude-3-5-haiku": 8_192,
    "claude-3-opus-20240229": 4_096,
    "claude-3-haiku-20240307": 4_096,
}
_ID = re.compile(r"claude-(?:opus|sonnet|haiku|[a-z]+)-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")


@frozen
class ModelInfo:
    """One model of the CLI's list (``list_models``, or the answer to ``initialize``).

    ``name`` is what the CLI is given (``opus``, or a full id), ``resolved`` the id that goes
    upstream. ``efforts``: the levels it accepts; empty where effort is ignored. ``adaptive``: it
    decides itself how much to think, rather than within a budget. ``thinking_off``: thinking can
    be switched off.
    """

    name: str
    resolved: str
    title: str = ""
    efforts: tuple[str, ...] = ()
    adaptive: bool = False
    thinking_off: bool = True


def parse_models(entries: Iterable[Mapping[str, Any]]) -> tuple[ModelInfo, ...]:
    """The models of a control response; entries without a name are skipped."""
    models = []
    for entry in entries:
        name = entry.get("value")
        if not isinstance(name, str):
            continue
        resolved = str(entry.get("resolvedModel") or name)
        guess = guess_model(resolved)  # 2.1.290 does not report thinking
        models.append(
            ModelInfo(
                name=name,
                resolved=resolved,
                title=str(entry.get("displayName") or name),
                efforts=tuple(entry.get("supportedEffortLevels") or ()),
                adaptive=bool(entry.get("supportsAdaptiveThinking")),
                thinking_off=bool(entry.get("supportsThinkingOff", guess.thinking_off)),
            )
        )
    return tuple(models)


def most_tokens(name: str) -> int:
    """The most tokens that the CLI lets the model with this full id write; it lowers larger limits
    silently."""
    match = _ID.match(name)
    if match is None:
        return _OLD_LIMITS.get("-".join(name.split("-")[:4]), 128_000)
    version = (int(match.group(1)), int(match.group(2) or 0))
    if version >= (4, 6):
        return 128_000
    return 32_000 if version < (4, 5) and name.startswith("claude-opus") else 64_000


def context_tokens(name: str) -> int:
    """The most tokens that a model reads. ``name``: its full id, or its family for the current one.

    As CLI 2.1.332 reports them (``contextWindow`` of a result, seen 2026-11-29):
    ``tests/contract/test_contract_sizes.py`` holds this rule against it.
    """
    match = _ID.match(name)
    if name.endswith("[1m]") or (match is None and not name.startswith("claude-")):
        return 1_000_000
    version = (int(match.group(1)), int(match.group(2) or 0)) if match else (3, 0)
    return 1_000_000 if version >= (4, 7) else 200_000


def guess_model(name: str) -> ModelInfo:
    """What can be guessed of a model that the CLI does not list, from the version in its full id.

    From 4.7 on, models decide themselves how much to think and accept no sampling parameters; an
    alias without a version stands for a current model. Below 4.6, effort is ignored.
    """
    match = _ID.match(name)
    if match is None and name.startswith("claude-"):
        return ModelInfo(name, name, name)  # claude-3-5-haiku and its like
    version = (int(match.group(1)), int(match.group(2) or 0)) if match else (99, 0)
    modern = version >= (4, 7)
    return ModelInfo(
        name,
        name,
        name,
        efforts=EFFORTS if version >= (4, 6) else (),
        adaptive=version >= (4, 6),
        thinking_off=not modern,
    )
