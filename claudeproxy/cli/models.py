"""What the CLI says of the models it offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen


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
        models.append(
            ModelInfo(
                name=name,
                resolved=str(entry.get("resolvedModel") or name),
                title=str(entry.get("displayName") or name),
                efforts=tuple(entry.get("supportedEffortLevels") or ()),
                adaptive=bool(entry.get("supportsAdaptiveThinking")),
                thinking_off=entry.get("supportsThinkingOff") is not False,
            )
        )
    return tuple(models)
