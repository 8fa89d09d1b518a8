"""Control lines for the CLI's stdin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .outputs import Write


def write_line(value: Mapping[str, Any]) -> Write:
    """``value`` as one line."""
    return Write(json.dumps(value).encode() + b"\n")


def control_request(request_id: str, request: Mapping[str, Any]) -> Write:
    """A request to the CLI, which answers with a ``control_response`` of the same
    ``request_id``."""
    return write_line({"type": "control_request", "request_id": request_id, "request": request})


def apply_flags(flags: Mapping[str, Any]) -> Write:
    """Set model, effort and environment from the next upstream request on."""
    return control_request("flags", {"subtype": "apply_flag_settings", "settings": flags})


def mcp_answer(request_id: str, answer: Mapping[str, Any]) -> Write:
    """The JSON-RPC ``answer`` to the CLI's ``mcp_message`` ``request_id``."""
    response = {
        "subtype": "success",
        "request_id": request_id,
        "response": {"mcp_response": answer},
    }
    return write_line({"type": "control_response", "response": response})
