"""From the arguments of a question to the body of a request to the Messages API. The daemon reads
it in one place, whichever way it comes: so both ways take, and refuse, the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from claudeproxy.dialects import anthropic
from claudeproxy.messages import Effort, Message, Tool, message_to_wire

Question: TypeAlias = str | Iterable[Message | Mapping[str, Any]]
"""One question, or the messages of a conversation, whose last one is the user's: each a
:class:`Message`, or as the API has it, ``{"role": "user", "content": "Hi"}``."""

AnyTool: TypeAlias = Tool | Mapping[str, Any]
"""A tool, or as the API has it: ``{"name", "description", "input_schema"}``."""

MAX_TOKENS = 32_000
"""Tokens that an answer may take by default: about 24,000 words, thinking included."""


def body(
    question: Question,
    *,
    model: str,
    system: str | None,
    tools: Iterable[AnyTool],
    schema: Mapping[str, Any] | None,
    effort: Effort | None,
    max_tokens: int,
    stream: bool,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """``more``: further fields of the API, which replace those made of the other arguments.

    :raises TypeError: for one that the API does not have: the daemon would ignore it silently.
    """
    for name in more:
        if name not in anthropic.FIELDS:
            raise TypeError(f"{name!r} is neither an argument nor a field of the Messages API")
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": _messages(question),
        "thinking": {"type": "disabled" if effort == "none" else "adaptive"},
        "stream": stream,
    }
    if system is not None:
        asked["system"] = system
    sent = [_tool(tool) for tool in tools]
    if sent:
        asked["tools"] = sent
    config: dict[str, Any] = {}
    if effort not in (None, "none"):
        config["effort"] = effort
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": dict(schema)}
    if config:
        asked["output_config"] = config
    return {**asked, **more}


def _messages(question: Question) -> list[dict[str, Any]]:
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    return [message_to_wire(one) if isinstance(one, Message) else dict(one) for one in question]


def _tool(tool: AnyTool) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        return dict(tool)
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": dict(tool.parameters)}
