"""Cutting an answer where `max_tokens` or a stop sequence ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from claudeproxy.demo.answering.orders import Block, Call, Text
from claudeproxy.demo.tokens import BYTES_A_TOKEN


@frozen
class Cut:
    """The blocks that are left, and why the rest is not: a stop reason and a stop sequence."""

    blocks: Sequence[Block]
    stop: str | None = None
    sequence: str | None = None


def cut(blocks: Sequence[Block], body: Mapping[str, Any]) -> Cut:
    """Apply the `max_tokens` (of four characters each) and `stop_sequences` of a body.

    Stop sequences are looked for in text only; a block of which nothing is left is dropped.
    """
    left = body["max_tokens"] * BYTES_A_TOKEN
    kept: list[Block] = []
    text = ""
    for block in blocks:
        full = characters(block)
        # A raw text belongs to the block before it, where a sequence may have begun.
        joined = text if isinstance(block, Text) and block.raw else ""
        before = len(joined)
        text = joined + full if isinstance(block, Text) else ""
        found = _first(text, body.get("stop_sequences") or (), before)
        if found is not None and found[0] + len(found[1]) - before <= left:
            return Cut(_shortened([*kept, block], len(text) - found[0]), "stop_sequence", found[1])
        if len(full) > left:
            return Cut(_shortened([*kept, block], len(full) - left), "max_tokens")
        left -= len(full)
        kept.append(block)
    return Cut(kept)


def characters(block: Block) -> str:
    """What is streamed of a block."""
    return block.arguments if isinstance(block, Call) else block.text


def _first(text: str, sequences: Sequence[str], before: int) -> tuple[int, str] | None:
    hits = [(text.find(s, max(0, before - len(s) + 1)), s) for s in sequences]
    found = [hit for hit in hits if hit[0] >= 0]
    return min(found, key=lambda hit: hit[0]) if found else None


def _shortened(blocks: Sequence[Block], by: int) -> list[Block]:
    """The blocks without the last `by` characters, which may reach over several raw texts."""
    kept = list(blocks)
    while kept and by >= len(characters(kept[-1])):
        by -= len(characters(kept.pop()))
    if kept and by:
        last, rest = kept[-1], characters(kept[-1])[:-by]
        kept[-1] = (
            evolve(last, arguments=rest) if isinstance(last, Call) else evolve(last, text=rest)
        )
    return kept
