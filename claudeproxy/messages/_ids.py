"""Tool-call ids: clients rewrite them (``call_x`` becomes ``callx``), so punctuation counts for
nothing, and those that go out hold none."""

from __future__ import annotations

_UPSTREAM = "toolu"


def plain_id(identifier: str) -> str:
    """Letters and digits of ``identifier``, which is what ids are compared by."""
    return "".join(char for char in identifier if char.isascii() and char.isalnum())


def upstream_id(identifier: str) -> str:
    """The id as the API writes it: ``toolu01A`` was ``toolu_01A`` before it went to the client."""
    plain = plain_id(identifier)
    if plain.startswith(_UPSTREAM):
        return f"{_UPSTREAM}_{plain[len(_UPSTREAM) :]}"
    return plain
