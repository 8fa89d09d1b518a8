"""How many tokens a request is, by estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BYTES_A_TOKEN = 4
MEDIA_TOKENS = 1600
"""An image or PDF page: the API's own upper bound for one image before 4.7."""


def input_tokens(body: Mapping[str, Any]) -> int:
    """The estimated input tokens of a request: four bytes of text a token, media at a flat rate."""
    size = sum(_size(body.get(key, "")) for key in ("system", "tools", "messages"))
    return max(1, size // BYTES_A_TOKEN)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping):
        if value.get("type") in ("base64", "url"):
            return MEDIA_TOKENS * BYTES_A_TOKEN
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return BYTES_A_TOKEN
