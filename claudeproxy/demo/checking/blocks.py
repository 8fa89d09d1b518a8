"""What the Messages API refuses in one content block."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from typing import Any

from claudeproxy.demo.checking.basics import (
    Refused,
    boolean,
    cache_control,
    fields,
    items,
    need,
    one_of,
    string,
)

_FIELDS: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    "text": (["text"], ["cache_control", "citations"]),
    "image": (["source"], ["cache_control", "transformations"]),
    "document": (["source"], ["cache_control", "citations", "context", "title"]),
    "search_result": (["content", "source", "title"], ["cache_control", "citations"]),
    "thinking": (["thinking", "signature"], []),
    "redacted_thinking": (["data"], []),
    "tool_use": (["id", "name", "input"], ["cache_control", "caller", "toolset_name"]),
    "tool_result": (["tool_use_id"], ["cache_control", "content", "is_error", "toolset_name"]),
}
"""Required and optional fields beside `type` (anthropic SDK 2.12, `…BlockParam`)."""

_SERVER = re.compile(
    r"server_tool_use|container_upload|compaction|fallback|mcp_\w+|\w+_tool_result"
)
"""Blocks of server-side tools: accepted as they are, no client of ours sends them."""

_NESTED = ("text", "image", "document", "search_result", "tool_reference")
_ONLY = {
    "user": ("image", "document", "search_result", "tool_result"),
    "assistant": ("thinking", "redacted_thinking", "tool_use"),
}
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_IMAGE_LIMIT = 5 * 1024 * 1024
_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")


def check_block(block: Any, role: str, path: str) -> None:
    """Refuse a content block that is not valid in a message of this role."""
    kind = _kind(block, path)
    if _SERVER.fullmatch(kind):
        return
    if kind not in _FIELDS:
        raise _unknown(kind, path, _FIELDS)
    for owner, kinds in _ONLY.items():
        allowed = owner == role or kind not in kinds
        need(allowed, f"{path}: `{kind}` blocks can only be in `{owner}` messages")
    _check_fields(block, kind, f"{path}.{kind}")


def check_text(block: Any, path: str, *, root: str = "messages") -> None:
    """Refuse what is not a text block with text in it; `root` begins the message."""
    kind = _kind(block, path)
    if kind != "text":
        raise _unknown(kind, path, ["text"])
    _check_fields(block, kind, f"{path}.text", root)


def _kind(block: Any, path: str) -> str:
    need(isinstance(block, Mapping), f"{path}: Input should be an object")
    need("type" in block, f"{path}.type: Field required")
    string(block["type"], f"{path}.type")
    return str(block["type"])


def _unknown(kind: str, path: str, known: Collection[str]) -> Refused:
    expected = ", ".join(f"'{name}'" for name in sorted(known))
    return Refused(
        f"{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags: "
        f"{expected}"
    )


def _check_fields(block: Mapping[str, Any], kind: str, path: str, root: str = "messages") -> None:
    required, optional = _FIELDS[kind]
    fields(block, path, ["type", *required], optional)
    cache_control(block, path)
    if kind == "text":
        string(block["text"], f"{path}.text")
        need(block["text"], f"{root}: text content blocks must be non-empty")
        need(block["text"].strip(), f"{root}: text content blocks must contain non-whitespace text")
    elif kind == "image":
        _check_image(block["source"], f"{path}.source")
    elif kind == "document":
        _check_document(block["source"], f"{path}.source")
    elif kind == "search_result":
        for number, part in enumerate(items(block["content"], f"{path}.content")):
            check_text(part, f"{path}.content.{number}")
    elif kind == "tool_use":
        _check_tool_use(block, path)
    elif kind == "tool_result":
        _check_tool_result(block, path)
    else:
        for name in required:
            string(block[name], f"{path}.{name}")


def _check_tool_use(block: Mapping[str, Any], path: str) -> None:
    _check_id(block["id"], f"{path}.id")
    string(block["name"], f"{path}.name")
    length = len(block["name"])
    need(
        0 < length <= 200, f"{path}.name: String should have at least 1 and at most 200 characters"
    )
    need(isinstance(block["input"], Mapping), f"{path}.input: Input should be a valid dictionary")


def _check_id(value: Any, path: str) -> None:
    string(value, path)
    valid = _TOOL_ID.fullmatch(value)
    need(valid, f"{path}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_tool_result(block: Mapping[str, Any], path: str) -> None:
    _check_id(block["tool_use_id"], f"{path}.tool_use_id")
    failed = block.get("is_error", False)
    boolean(failed, f"{path}.is_error")
    content = block.get("content", "")
    need(content or not failed, f"{path}: content cannot be empty if `is_error` is true")
    if isinstance(content, str):
        return
    for number, part in enumerate(items(content, f"{path}.content")):
        where = f"{path}.content.{number}"
        kind = _kind(part, where)
        if kind not in _NESTED:
            raise _unknown(kind, where, _NESTED)
        text_only = kind == "text" or not failed
        need(text_only, f'{path}: all content must be type "text" if `is_error` is true')
        if kind != "tool_reference":
            _check_fields(part, kind, f"{where}.{kind}")


def _check_image(source: Any, path: str) -> None:
    kind = _kind(source, path)
    if kind == "base64":
        path = f"{path}.base64"
        fields(source, path, ["type", "media_type", "data"], [])
        one_of(source["media_type"], f"{path}.media_type", _IMAGES)
        _check_base64(source["data"], path)
        size = len(source["data"])
        fits = size <= _IMAGE_LIMIT
        need(fits, f"{path}: image exceeds 5 MB maximum: {size} bytes > {_IMAGE_LIMIT} bytes")
    else:
        _check_reference(source, kind, path, ["base64", "url", "file"])


def _check_document(source: Any, path: str) -> None:
    kind = _kind(source, path)
    if kind == "base64":
        fields(source, f"{path}.base64", ["type", "media_type", "data"], [])
        one_of(source["media_type"], f"{path}.base64.media_type", ["application/pdf"])
        _check_base64(source["data"], f"{path}.base64")
    elif kind == "text":
        fields(source, f"{path}.text", ["type", "media_type", "data"], [])
        one_of(source["media_type"], f"{path}.text.media_type", ["text/plain"])
        string(source["data"], f"{path}.text.data")
    elif kind == "content":
        fields(source, f"{path}.content", ["type", "content"], [])
        if not isinstance(source["content"], str):
            for number, part in enumerate(items(source["content"], f"{path}.content")):
                check_block(part, "user", f"{path}.content.{number}")
    else:
        _check_reference(source, kind, path, ["base64", "content", "file", "text", "url"])


def _check_reference(source: Any, kind: str, path: str, known: Collection[str]) -> None:
    if kind == "url":
        fields(source, f"{path}.url", ["type", "url"], [])
        string(source["url"], f"{path}.url.url")
        secure = source["url"].startswith("https://")
        need(secure, f"{path}.url.url: Only HTTPS URLs are supported.")
    elif kind == "file":
        fields(source, f"{path}.file", ["type", "file_id"], [])
    else:
        raise _unknown(kind, path, known)


def _check_base64(data: Any, path: str) -> None:
    string(data, f"{path}.data")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{path}: invalid base64 data") from None
