"""What a good CLI prints, line by line: for tests that feed it to a session, and for the double."""

# The double imports this: the standard library only, so that it starts in 40 ms.
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MODELS = [
    {"value": "default", "resolvedModel": "claude-opus-5-5", "displayName": "Default"},
    {"value": "opus", "resolvedModel": "claude-opus-5-5", "displayName": "Opus"},
    {"value": "sonnet", "resolvedModel": "claude-sonnet-5-5", "displayName": "Sonnet"},
    {"value": "haiku", "resolvedModel": "claude-haiku-5-5", "displayName": "Haiku"},
]
"""The models that the double offers."""

_COMMON = {
    "session_id": "4e6e8c21-7417-4248-9609-70e0517b6bdf",
    "parent_tool_use_id": None,
    "uuid": "1e7baded-b90c-4285-94c1-a18725fd6874",
}
"""What all lines of a stream have, so that they are as long as the real ones."""


def line(value: Mapping[str, Any]) -> bytes:
    """One line of stdout."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def event(kind: str, **fields: Any) -> bytes:
    """A line with one event of the Messages API's stream."""
    return line({"type": "stream_event", "event": {"type": kind, **fields}, **_COMMON})


def response(request_id: str, **fields: Any) -> bytes:
    """A good answer to a control request."""
    answer = {"subtype": "success", "request_id": request_id, "response": fields}
    return line({"type": "control_response", "response": answer})


def refused(request_id: str, why: str) -> bytes:
    """The answer to a control request that is refused, or that nobody knows."""
    answer = {"subtype": "error", "request_id": request_id, "error": why}
    return line({"type": "control_response", "response": answer})


def rewound(request_id: str, target: str, before: str | None = None) -> bytes:
    """A rewind to the line ``target`` is done; ``before``: the answer that is the last one now."""
    return response(request_id, rewound=True, targetMessageUuid=target, prefillText="",
                    precedingAssistantUuid=before)  # fmt: skip


def rewound_not(request_id: str, reason: str) -> bytes:
    """A rewind is refused."""
    return response(request_id, rewound=False, prefillText=None, precedingAssistantUuid=None,
                    error=reason.replace("_", " "), reason=reason)  # fmt: skip


def mcp_request(request_id: str, message: Mapping[str, Any], server: str = "c") -> bytes:
    """JSON-RPC for the MCP server ``server``."""
    body = {"subtype": "mcp_message", "server_name": server,
            "message": {"jsonrpc": "2.0", "id": 1, **message}}  # fmt: skip
    return line({"type": "control_request", "request_id": request_id, "request": body})


def tools_call(call_id: str, name: str, request_id: str, rpc_id: int = 1) -> bytes:
    """The tool call ``call_id``, as it reaches the MCP server."""
    params = {"name": name, "_meta": {"claudecode/toolUseId": call_id}}
    return mcp_request(request_id, {"id": rpc_id, "method": "tools/call", "params": params})


def ready(request_id: str = "ready") -> bytes:
    """The answer to ``list_models``."""
    return response(request_id, models=MODELS)


def lifecycle(line_id: str, state: str) -> bytes:
    """What becomes of a user line."""
    return line({"type": "command_lifecycle", "command_uuid": line_id, "state": state})


def completed(line_id: str) -> bytes:
    """What follows a line of the history."""
    return result() + lifecycle(line_id, "completed")


def cancelled(line_id: str) -> bytes:
    """What follows a line whose turn is interrupted."""
    return lifecycle(line_id, "cancelled")


def result(said: str = "", **fields: Any) -> bytes:
    """The line that ends a turn."""
    end = {"type": "result", "subtype": "success", "is_error": False, "result": said}
    return line({**end, **fields})


def requesting() -> bytes:
    """What comes just before each request upstream."""
    return line({"type": "system", "subtype": "status", "status": "requesting"})


def opening() -> bytes:
    """``message_start``."""
    message = {"id": f"msg_{os.getpid()}", "model": "claude-fake", "usage": {"input_tokens": 7}}
    return event("message_start", message=message)


def text_block(parts: Sequence[str], index: int = 0) -> Iterator[bytes]:
    """A text block, line by line, with a delta for each of ``parts``."""
    block = {"type": "text", "text": ""}
    yield event("content_block_start", index=index, content_block=block)
    for part in parts:
        delta = {"type": "text_delta", "text": part}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def call_block(call_id: str, name: str, arguments: str, index: int) -> Iterator[bytes]:
    """A tool call, line by line; ``arguments`` is JSON, or meant to be."""
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    yield event("content_block_start", index=index, content_block=block)
    delta = {"type": "input_json_delta", "partial_json": arguments}
    yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def closing(reason: str = "end_turn") -> bytes:
    """``message_delta``, which has the stop reason, and ``message_stop``."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, usage={"output_tokens": 5}) + event("message_stop")


def transcript(text: str, reason: str = "end_turn") -> bytes:
    """All that a CLI prints for one good answer."""
    return requesting() + opening() + b"".join(text_block([text])) + closing(reason) + result(text)
