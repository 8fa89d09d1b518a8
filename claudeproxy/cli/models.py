"""What the CLI says of the models it offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

EFFORTS = ("low", "medium", "high", "xhigh", "max")
_ID = re.compile(r"claude-(?:opus|sonnet|haiku|[a-z]+)-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")


@frozen
class ModelInfo:
    """One model of the CLI's list (``list_models``, or the answer to ``initialize``).

    ``name`` is what the CLI is told (``opus``, or a full id), ``resolved`` the id that goes
    upstream. ``efforts``: the levels it takes; empty where effort is ignored. ``adaptive``: it
    thinks as it sees fit rather than within a budget. ``thinking_off``: thinking can be switched
    off.
    """

    name: str
    resolved: str
    title: str = ""
    efforts: tuple[str, ...] = ()
    adaptive: bool = False
    thinking_off: bool = True


def parse_models(entries: Iterable[Mapping[str, Any]]) -> tuple[ModelInfo, ...]:
    """The models of a control response; entries without a name are passed over."""
    models = []
    for entry in entries:
        name = entry.get("value")
        if not isinstance(name, str):
            continue
        resolved = str(entry.get("resolvedModel") or name)
        guess = guess_model(resolved)  # 2.1.290 does not tell about thinking
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


def guess_model(name: str) -> ModelInfo:
    """What is likely of a model that the CLI does not list, from the version in its full id.

    From 4.7 on a model thinks as it sees fit and takes no sampling parameters; an alias without
    a version means a current model. Below 4.6 effort is ignored.
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
