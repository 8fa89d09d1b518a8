"""What a client gets: the stream of the Messages API, as frozen values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import evolve, frozen

from ._blocks import Block, Text, Thinking, ToolUse
from ._failure import Failure

MAX_DIGITS = 400
"""Digits of an integer: somewhat more than the largest float has."""


@frozen
class Usage:
    """Token counts as the upstream reports them; ``input_tokens`` excludes both cache figures.
    ``cache_write_1h_tokens`` are those of ``cache_write_tokens`` that stay for an hour instead of
    five minutes."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Everything the model read, cached or not."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
        )


@frozen
class Started:
    """``message_start``: the model has begun to answer."""

    id: str
    model: str
    usage: Usage


@frozen
class BlockStarted:
    """``content_block_start``: ``block`` is empty except for the id and name of a call."""

    index: int
    block: Text | Thinking | ToolUse


@frozen
class TextDelta:
    index: int
    text: str


@frozen
class ThinkingDelta:
    index: int
    thinking: str


@frozen
class SignatureDelta:
    index: int
    signature: str


@frozen
class ArgumentsDelta:
    """A piece of a call's arguments: JSON text, cut anywhere."""

    index: int
    json: str


@frozen
class BlockStopped:
    index: int


@frozen
class Finished:
    """The end of a good answer. ``stop_reason`` is the API's word, whether known here or not, and
    ``stop_details`` its object about a refusal."""

    stop_reason: str
    stop_sequence: str | None
    usage: Usage
    stop_details: Mapping[str, Any] | None = None


Event: TypeAlias = (
    Started
    | BlockStarted
    | TextDelta
    | ThinkingDelta
    | SignatureDelta
    | ArgumentsDelta
    | BlockStopped
    | Finished
    | Failure
)
"""A turn consists of ``Started``, blocks, and ``Finished``. A ``Failure`` may come at any time, and
is then the last."""


class Assembly:
    """Collects a stream of events into blocks."""

    def __init__(self) -> None:
        self._blocks: dict[int, Text | Thinking | ToolUse] = {}
        self._written: dict[int, list[str]] = {}

    def add(self, event: Event) -> None:
        """Add the next event; one without content changes nothing."""
        if isinstance(event, TextDelta):
            self._written[event.index].append(event.text)
        elif isinstance(event, ThinkingDelta):
            self._written[event.index].append(event.thinking)
        elif isinstance(event, ArgumentsDelta):
            self._written[event.index].append(event.json)
        elif isinstance(event, BlockStarted):
            self._blocks[event.index] = event.block
            self._written[event.index] = []
        elif isinstance(event, SignatureDelta):
            block = self._blocks[event.index]
            if isinstance(block, Thinking):
                signature = block.signature + event.signature
                self._blocks[event.index] = evolve(block, signature=signature)

    def blocks(self) -> tuple[Block, ...]:
        """The blocks so far, in order of their index.

        Arguments that are not a JSON object are kept under the key ``"arguments"`` of the input.
        """
        return tuple(block for _, block in self.indexed())

    def indexed(self) -> list[tuple[int, Block]]:
        """The blocks with their indices."""
        return [
            (index, _filled(self._blocks[index], "".join(self._written[index])))
            for index in sorted(self._blocks)
        ]

    def text(self) -> str:
        """All text blocks, joined."""
        return "".join(block.text for block in self.blocks() if isinstance(block, Text))

    def arguments(self, index: int) -> str:
        """The arguments of the call at ``index``, letter for letter as the model wrote them."""
        return "".join(self._written[index])

    def size(self) -> int:
        """Characters written so far."""
        return sum(len(part) for parts in self._written.values() for part in parts)


def _filled(block: Text | Thinking | ToolUse, written: str) -> Block:
    if isinstance(block, Text):
        return Text(block.text + written)
    if isinstance(block, Thinking):
        return evolve(block, thinking=block.thinking + written)
    return evolve(block, input=parse_arguments(written)) if written else block


def parse_arguments(text: str) -> dict[str, object]:
    """Arguments as an object; any other text is kept under the key ``"arguments"``."""
    if not text.strip():
        return {}
    try:
        value = strict_json(text)
    except (ValueError, RecursionError):
        return {"arguments": text}
    return value if isinstance(value, dict) else {"arguments": text}


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text whose numbers can be written as JSON again.

    :raises ValueError: for any other text, also for ``NaN``, ``Infinity`` and ``1e999``, which
        would become infinite.
    :raises RecursionError: for text nested too deeply.
    """
    return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_not_endless)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _not_endless(text: str) -> int:
    if len(text) > MAX_DIGITS:  # the time grows with the square
        raise ValueError(f"an integer of {len(text)} digits is too large")
    return int(text)
