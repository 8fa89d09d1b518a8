"""What a client asks for, in whatever dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from ._blocks import Message, normalise
from ._efforts import Effort

Tier = Literal["flex", "default", "priority"]


@frozen
class Tool:
    """A client's tool: ``parameters`` is its JSON schema, an object at its root."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@frozen
class ToolChoice:
    """``auto``, ``none``, ``any`` (some tool must be called) or ``tool`` (``name`` must be).

    ``parallel`` false: at most one call in the answer.
    """

    mode: Literal["auto", "none", "any", "tool"] = "auto"
    name: str | None = None
    parallel: bool = True

    @property
    def forced(self) -> bool:
        """Whether the model must call a tool."""
        return self.mode in ("any", "tool")


@frozen
class Request:
    """A turn to be answered. ``messages`` is normalised and ends with a user message.

    ``system``: the parts of the system prompt, in order. ``schema``: the JSON schema that the text
    of the answer must satisfy, ``{}`` for "any JSON object". ``stop``: the answer ends before the
    first of these. ``n``: how many answers. ``stream``: the answer is passed on while it is
    written, so nothing of it can be taken back. ``tier``: who goes first where not all turns can
    run: ``priority`` before all others, ``flex`` after them.
    """

    model: str
    messages: tuple[Message, ...] = field(converter=normalise)
    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    effort: Effort | None = None
    schema: Mapping[str, Any] | None = None
    n: int = 1
    stream: bool = False
    tier: Tier = "default"
