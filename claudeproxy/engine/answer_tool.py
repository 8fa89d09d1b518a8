"""A tool whose arguments are the answer, for schemas that constrained output does not accept.

It is served like the client's tools: the CLI neither checks its schema nor asks for a better
answer. The CLI's own structured output (``jsonSchema``) does both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from attrs import evolve

from claudeproxy.messages import (
    COMBINERS,
    ArgumentsDelta,
    BlockStarted,
    BlockStopped,
    Event,
    Finished,
    Request,
    Text,
    TextDelta,
    Tool,
    ToolChoice,
    ToolUse,
    lenient_schema,
    mapped,
    property_fits,
)

BOX = "answer"
"""The property that holds the answer where it cannot itself be the arguments of a tool."""

_DESCRIPTION = (
    "Gives the final answer: the arguments of this tool are the answer, whole. Nobody reads "
    "anything said beside it."
)
_OPENING = re.compile(rf'\A\s*\{{\s*"{BOX}"\s*:\s*')
_ANY_OBJECT = {"type": "object", "additionalProperties": True}


class AnswerTool:
    """The tool for one request; it turns a call of the tool back into an answer in text.

    ``bound``: the request with the tool. The model has to call it, or one of the client's tools
    if it may call those.
    """

    def __init__(self, request: Request) -> None:
        """``request`` must have a schema."""
        schema = lenient_schema(request.schema or _ANY_OBJECT)
        self._boxed = not _may_be_arguments(schema)
        taken = {tool.name for tool in request.tools}
        names = ("answer" if n == 1 else f"answer_{n}" for n in count(1))
        self._name = next(name for name in names if name not in taken)
        tool = Tool(self._name, _DESCRIPTION, _box(schema) if self._boxed else schema)
        choice = ToolChoice("tool", self._name, parallel=False)
        if request.tools and request.tool_choice.mode == "auto":
            choice = ToolChoice("any", parallel=request.tool_choice.parallel)
        self.bound = evolve(request, tools=(*request.tools, tool), tool_choice=choice)
        self.called = False
        """Whether the model called it. The process then waits for the result of a call that the
        client does not know of."""
        self._ours: dict[int, list[str]] = {}
        self._others = False

    def translate(self, events: Iterable[Event]) -> list[Event]:
        """The events as the client gets them."""
        return [seen for event in events for seen in self._event(event)]

    def _event(self, event: Event) -> Iterable[Event]:
        if isinstance(event, BlockStarted) and isinstance(event.block, ToolUse):
            if event.block.name == self._name:
                self.called = True
                self._ours[event.index] = []
                return (BlockStarted(event.index, Text("")),)
            self._others = True
        elif isinstance(event, ArgumentsDelta) and event.index in self._ours:
            if not self._boxed:
                return (TextDelta(event.index, event.json),)
            self._ours[event.index].append(event.json)
            return ()
        elif isinstance(event, BlockStopped) and self._boxed and event.index in self._ours:
            return (TextDelta(event.index, _unboxed("".join(self._ours[event.index]))), event)
        elif isinstance(event, Finished) and event.stop_reason == "tool_use" and not self._others:
            return (evolve(event, stop_reason="end_turn"),)
        return (event,)


def _may_be_arguments(schema: Mapping[str, Any]) -> bool:
    return (
        schema.get("type") == "object"
        and "$ref" not in schema
        and not any(name in schema for name in COMBINERS)
        and all(map(property_fits, schema.get("properties", ())))
    )


def _box(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object with ``schema`` as its only property, and the references within adjusted."""

    def moved(part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        out = mapped(part, moved)
        reference = part.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            out["$ref"] = f"#/properties/{BOX}{reference[1:]}"
        return out

    inner = {n: v for n, v in moved(schema).items() if n not in ("$schema", "$id")}
    return {
        "type": "object",
        "properties": {BOX: inner},
        "required": [BOX],
        "additionalProperties": False,
    }


def _unboxed(arguments: str) -> str:
    """The answer, or its beginning if it was cut. Arguments of another form stay as they are:
    validation will judge them."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return _OPENING.sub("", arguments, count=1)
    if isinstance(value, dict) and value.keys() == {BOX}:
        return json.dumps(value[BOX], ensure_ascii=False)
    return arguments
