"""The Conversations API: what its bodies hold, and the objects that it replies with.

Shapes: openai-python's ``types/conversations``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from claudeproxy.messages import FailureError

from .fields import Fields
from .responses_input import Item, check_item
from .responses_items import listed

MOST_ITEMS = 20
"""Items that can be added at a time, as at OpenAI."""


def read_items(body: Fields, ident: str) -> list[dict[str, Any]]:
    """The ``items`` of a body, with ids of their own; ``ident``: what these ids share.

    :raises FailureError: 400 that names the item and the field at fault.
    """
    items = list(body.objects("items"))
    if len(items) > MOST_ITEMS:
        raise body.refuse("items", f"at most {MOST_ITEMS} can be added at a time")
    for item in items:
        check_item(item)
    return own_items(ident, [item.value for item in items])


def own_items(ident: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    """``items`` as a conversation has them: with ids of our own in place of the client's."""
    plain = [{name: item[name] for name in item if name != "id"} for item in items]
    return listed(ident, plain)


def conversation(ident: str, created: int, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The object that describes a conversation. ``created``: epoch seconds."""
    return {
        "id": ident,
        "object": "conversation",
        "created_at": created,
        "metadata": dict(metadata),
    }


def too_large() -> FailureError:
    """The error for items that a conversation has no room for."""
    return FailureError.invalid("items: the conversation would be larger than the store", "items")
