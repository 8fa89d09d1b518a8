"""Responses: turns a stored response into the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from claudeproxy.messages import (
    ArgumentsDelta,
    BlockStarted,
    Event,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
)

from .custom_tools import INPUT
from .responses_answer import ResponseEnvelope
from .responses_stream import ResponsesStream

_RESULT = (
    "id", "object", "created_at", "completed_at", "status", "error", "incomplete_details",
    "output", "usage",
)  # fmt: skip
"""The fields of a response that do not repeat the request."""


def replay(response: Mapping[str, Any]) -> bytes:
    """The SSE bytes for a ``response`` that has ended, every item in one piece."""
    echo = {name: value for name, value in response.items() if name not in _RESULT}
    custom = [tool["name"] for tool in response["tools"] if tool["type"] == "custom"]
    ident = response["id"].removeprefix("resp_")
    stream = ResponsesStream(
        ResponseEnvelope(ident, response["created_at"], echo, custom, lambda: 0)
    )
    events = [
        event for place, item in enumerate(response["output"]) for event in _events(place, item)
    ]
    cut = bool(response["output"]) and response["output"][-1].get("status") == "incomplete"
    ended = {
        name: response.get(name)
        for name in ("completed_at", "error", "incomplete_details", "usage")
    }
    out = stream.render(0, events) if events else stream.queue()
    return (
        out
        + stream.close("incomplete" if cut else "completed")
        + stream.end(response["status"], **ended)
    )


def _events(place: int, item: Mapping[str, Any]) -> Iterator[Event]:
    """The events that have made ``item``."""
    if item["type"] == "message":
        yield BlockStarted(place, Text(""))
        yield TextDelta(place, "".join(part["text"] for part in item["content"]))
    elif item["type"] == "reasoning":
        yield BlockStarted(place, Thinking(""))
        yield ThinkingDelta(place, "".join(part["text"] for part in item["summary"]))
    else:
        yield BlockStarted(place, ToolUse(item["call_id"], item["name"], {}))
        custom = item["type"] == "custom_tool_call"
        text = json.dumps({INPUT: item["input"]}) if custom else item["arguments"]
        yield ArgumentsDelta(place, text)
