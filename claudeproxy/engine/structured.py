"""How the model is given a schema, and what is done about an answer that does not satisfy it.

The API's own constrained output is preferred (``output_config.format``): JSON as plain text.
Schemas that it does not accept go by a tool of ours (``answer_tool``), whose arguments become the
text of the answer. Either way, the daemon itself validates the answer (``validation``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import evolve

from claudeproxy.messages import Assembly, Failure, Kind, Message, Request, Text

from .constrained import closed

MAX_REMEMBERED = 1_000


class OutputMode(Enum):
    """How the model is given a schema."""

    NONE = "none"
    NATIVE = "native"
    TOOL = "tool"


class StructuredOutput:
    """Chooses the mode, and remembers which schemas the upstream has refused."""

    def __init__(self) -> None:
        self._refused: dict[bytes, None] = {}

    def mode(self, request: Request) -> OutputMode:
        """How the model is given the schema of ``request``.

        ``NONE`` also where the model must call one of the client's tools: there is no text then.
        """
        if request.schema is None or (request.tools and request.tool_choice.forced):
            return OutputMode.NONE
        if not request.schema or _key(request.schema) in self._refused:
            return OutputMode.TOOL
        return OutputMode.TOOL if closed(request.schema) is None else OutputMode.NATIVE

    def refused(self, request: Request, failure: Failure) -> bool:
        """Whether ``failure`` means that the upstream refused the schema. If so, that is
        remembered."""
        message = failure.message.lower()
        words = ("output_config", "output_format", "structured output")
        if failure.kind is not Kind.INVALID or not any(word in message for word in words):
            return False
        assert request.schema is not None
        self._refused[_key(request.schema)] = None
        if len(self._refused) > MAX_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        return True


def repair(request: Request, answer: Assembly, why: str) -> Request:
    """A request that asks once more, with the answer that failed and what is wrong with it."""
    correction = (
        f"That answer does not satisfy the required JSON schema ({why}). "
        "Answer again, with the corrected JSON only."
    )
    failed = Message("assistant", (Text(answer.text()),))
    messages = (*request.messages, failed, Message("user", (Text(correction),)))
    return evolve(request, messages=messages)


def _key(schema: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).digest()
