"""Ids of tool calls. Clients rewrite them (``call_x`` becomes ``callx``), so they are sent and
compared without punctuation."""

from __future__ import annotations

_UPSTREAM = "toolu"


def normalise_tool_id(identifier: str) -> str:
    """The letters and digits of ``identifier``, by which ids are compared."""
    return "".join(char for char in identifier if char.isascii() and char.isalnum())


def upstream_id(identifier: str) -> str:
    """The id as the API writes it: ``toolu01A`` was ``toolu_01A`` before it was sent to the
    client."""
    plain = normalise_tool_id(identifier)
    if plain.startswith(_UPSTREAM):
        return f"{_UPSTREAM}_{plain[len(_UPSTREAM) :]}"
    return plain
