"""An estimate of how many tokens a body has: to ask the upstream would spend quota."""

from __future__ import annotations

import json
from typing import Any

_TOKEN_BYTES = 4
_IMAGE_TOKENS = 1_600
_IMAGES = ("image", "image_url", "input_image")


def tokens(value: Any) -> int:
    """One token for four bytes of the JSON of ``value``, and 1,600 for each image in it."""
    images: list[Any] = []
    said = json.dumps(_without_images(value, images), ensure_ascii=False)
    return -(-len(said.encode()) // _TOKEN_BYTES) + _IMAGE_TOKENS * len(images)


def _without_images(value: Any, images: list[Any]) -> Any:
    if isinstance(value, list):
        return [_without_images(entry, images) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") in _IMAGES:
        images.append(value)
        return None
    return {
        name: _without_images(entry, images)
        for name, entry in value.items()
        if entry is not None and name != "cache_control"
    }
