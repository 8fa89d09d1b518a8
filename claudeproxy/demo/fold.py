"""Folding a stream of events into the one message that a non-streaming request gets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from claudeproxy.demo.steps import Event

_DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "input"),
}


def message(events: Iterable[Event]) -> dict[str, Any]:
    """The whole message of a complete stream, `message_start` first."""
    whole: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "message_start":
            whole = {**event["message"], "usage": dict(event["message"]["usage"])}
        elif event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
            if "input" in blocks[-1]:
                blocks[-1]["input"] = ""
        elif event["type"] == "content_block_delta":
            source, target = _DELTAS[event["delta"]["type"]]
            blocks[-1][target] += event["delta"][source]
        elif event["type"] == "message_delta":
            whole.update(event["delta"])
            whole["usage"].update(event["usage"])
    return {**whole, "content": [_parsed(block) for block in blocks]}


def _parsed(block: dict[str, Any]) -> dict[str, Any]:
    if "input" not in block:
        return block
    try:
        return {**block, "input": json.loads(block["input"] or "{}")}
    except ValueError:
        return {**block, "input": {}}
