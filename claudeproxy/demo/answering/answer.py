"""The stand-in's answer: from a request body and its orders to the steps that are played.

The events have the shapes of the Messages API's own stream
(platform.claude.com/docs/en/build-with-claude/streaming): `message_start`; per block
`content_block_start` (a `ping` behind the first), deltas, `content_block_stop`;
`message_delta` with the stop reason and the usage; `message_stop`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from claudeproxy.demo.answering.cuts import characters, cut
from claudeproxy.demo.answering.instances import instance
from claudeproxy.demo.answering.orders import Block, Call, Orders, Text, Thinking, last_user, parse
from claudeproxy.demo.steps import ApiError, Event, Header, Step, Wait
from claudeproxy.demo.tokens import BYTES_A_TOKEN, input_tokens

_ARGUMENT_PIECE = 12


def orders_of(body: Mapping[str, Any]) -> Orders:
    """The orders in the last user message: in its text, and in its last tool result.

    Raises ValueError for an order that cannot be read.
    """
    said, result = last_user(body)
    if result is None:
        return parse(said)
    orders = parse(f"{result}\n{said}")
    return evolve(orders, rest=parse(said).rest)


def answer(body: Mapping[str, Any], orders: Orders, *, message_id: str = "msg_demo") -> list[Step]:
    """The steps that answer a valid request; `message_id` should differ from answer to answer."""
    steps: list[Step] = [Wait(orders.wait)] if orders.wait else []
    steps += [Header(name, value) for name, value in orders.headers]
    if orders.error is not None:
        return [*steps, orders.error]
    kept = cut(_blocks(body, orders), body)
    usage = _input_usage(body, orders)
    steps.append(_message_start(body, message_id, usage))
    events = list(_content(kept.blocks, body, orders, message_id))
    if orders.ending is not None:
        if kept.blocks:
            events.pop()
        return [*steps, *_paused(events, orders.pause), orders.ending]
    stop = kept.stop or orders.stop or _natural_stop(kept.blocks)
    return [
        *steps,
        *_paused(events, orders.pause),
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": kept.sequence},
            "usage": {**usage, **_output_usage(kept.blocks, orders)},
        },
        {"type": "message_stop"},
    ]


def _blocks(body: Mapping[str, Any], orders: Orders) -> list[Block]:
    choice = body.get("tool_choice") or {"type": "auto"}
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    blocks = [block for block in orders.blocks if thinks or not isinstance(block, Thinking)]
    offered = [tool["name"] for tool in body.get("tools") or ()]
    blocks = [_named(block, offered) if isinstance(block, Call) else block for block in blocks]
    if choice["type"] == "none":
        blocks = [block for block in blocks if not isinstance(block, Call)]
    calls = [block for block in blocks if isinstance(block, Call)]
    if choice.get("disable_parallel_tool_use"):
        blocks = [b for b in blocks if not isinstance(b, Call) or b is calls[0]]
    if choice["type"] in ("any", "tool") and not calls:
        blocks.append(_forced(body["tools"], choice))
    if choice["type"] == "auto" and not orders.blocks and orders.ending is None:
        name = _asked_for(body, orders, offered)
        if name is not None:
            blocks.append(_forced(body["tools"], {"name": name}))
    if not any(isinstance(block, (Text, Call)) for block in blocks) and _speaks(orders):
        blocks.append(Text(_plain(body, orders)))
    return blocks


def _named(call: Call, offered: Sequence[str]) -> Call:
    """The call under the name of the tool offered: `look` may be ordered as `mcp__c1__look` is."""
    full = next((name for name in offered if name.endswith(f"__{call.name}")), call.name)
    return call if call.name in offered else evolve(call, name=full)


def _asked_for(body: Mapping[str, Any], orders: Orders, offered: Sequence[str]) -> str | None:
    """The tool whose name has a word of the user's question in it: `get_weather`, for "What is the
    weather like?"."""
    _, result = last_user(body)
    if result is not None or not orders.rest.endswith("?"):
        return None
    said = set(re.findall("[a-z]{6,}", orders.rest.lower()))
    named = (name for name in offered if said & set(re.findall("[a-z]{6,}", name.lower())))
    return next(named, None)


def _speaks(orders: Orders) -> bool:
    """A bare `[[drop]]` or `[[hang]]` comes before any text, an `[[error-mid]]` behind some."""
    return orders.ending is None or isinstance(orders.ending, ApiError)


def _forced(tools: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> Call:
    name = choice.get("name", tools[0]["name"])
    tool = next(tool for tool in tools if tool["name"] == name)
    return Call(name, json.dumps(instance(tool.get("input_schema", {}))))


def _plain(body: Mapping[str, Any], orders: Orders) -> str:
    form = (body.get("output_config") or {}).get("format")
    if form is not None:
        return json.dumps(instance(form["schema"]))
    said, result = last_user(body)
    if result is not None and not said:
        return f"The tool said: {parse(result).rest}".strip()
    return f"You said: {orders.rest}".strip()


def _natural_stop(blocks: Sequence[Block]) -> str:
    return "tool_use" if any(isinstance(block, Call) for block in blocks) else "end_turn"


def _content(
    blocks: Sequence[Block], body: Mapping[str, Any], orders: Orders, message_id: str
) -> Iterator[Event]:
    omitted = (body.get("thinking") or {}).get("display") == "omitted"
    index = 0
    for position, block in enumerate(blocks):
        goes_on = _continues(blocks, position)
        if not _continues(blocks, position - 1):
            tool_id = f"toolu_{message_id.removeprefix('msg_')}{index}"
            yield {
                "type": "content_block_start",
                "index": index,
                "content_block": _opening(block, tool_id),
            }
            if index == 0:
                yield {"type": "ping"}
        for delta in _deltas(block, orders.chunk, omitted):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if not goes_on:
            yield {"type": "content_block_stop", "index": index}
            index += 1


def _continues(blocks: Sequence[Block], position: int) -> bool:
    """Whether the block after `position` is a raw text that joins the text block at `position`."""
    if not 0 <= position < len(blocks) - 1:
        return False
    following = blocks[position + 1]
    return isinstance(blocks[position], Text) and isinstance(following, Text) and following.raw


def _opening(block: Block, tool_id: str) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": ""}
    if isinstance(block, Thinking):
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": tool_id, "name": block.name, "input": {}}


def _deltas(block: Block, chunk: int | None, omitted: bool) -> Iterator[dict[str, Any]]:
    if isinstance(block, Text):
        for piece in [block.text] if block.raw else _pieces(block.text, chunk):
            yield {"type": "text_delta", "text": piece}
    elif isinstance(block, Thinking):
        for piece in [] if omitted else _pieces(block.text, chunk):
            yield {"type": "thinking_delta", "thinking": piece}
        digest = hashlib.sha256(block.text.encode()).digest()
        yield {"type": "signature_delta", "signature": base64.b64encode(digest).decode()}
    else:
        yield {"type": "input_json_delta", "partial_json": ""}
        for piece in _pieces(block.arguments, chunk or _ARGUMENT_PIECE):
            yield {"type": "input_json_delta", "partial_json": piece}


def _pieces(text: str, chunk: int | None) -> list[str]:
    if chunk is None:
        return re.findall(r"\s*\S+|\s+", text)
    return [text[start : start + chunk] for start in range(0, len(text), chunk)]


def _paused(events: Sequence[Event], pause: float) -> Iterator[Step]:
    started = False
    for event in events:
        if event["type"] == "content_block_delta":
            if started and pause:
                yield Wait(pause)
            started = True
        yield event


def _message_start(body: Mapping[str, Any], message_id: str, usage: Mapping[str, Any]) -> Event:
    return {
        "type": "message_start",
        "message": {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 1, "service_tier": "standard"},
        },
    }


def _input_usage(body: Mapping[str, Any], orders: Orders) -> dict[str, Any]:
    usage = {
        "input_tokens": input_tokens(body),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    return {**usage, **orders.usage}


def _output_usage(blocks: Sequence[Block], orders: Orders) -> dict[str, Any]:
    thought = [block for block in blocks if isinstance(block, Thinking)]
    usage: dict[str, Any] = {"output_tokens": _tokens(blocks)}
    if thought:
        usage["output_tokens_details"] = {"thinking_tokens": _tokens(thought)}
    return {**usage, **orders.usage}


def _tokens(blocks: Sequence[Block]) -> int:
    size = sum(len(characters(block)) for block in blocks)
    return max(1, -(-size // BYTES_A_TOKEN))
