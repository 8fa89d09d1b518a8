"""What the Responses API needs from the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from claudeproxy.dialects.responses import References
from claudeproxy.dialects.responses_input import Past
from claudeproxy.dialects.responses_items import listed
from claudeproxy.messages import FailureError
from claudeproxy.store.store import Store


async def past(store: Store | None, wanted: References, key: str | None) -> Past | None:
    """The stored responses and items that a body of the holder of ``key`` refers to; ``None``
    without a store."""
    if store is None:
        return None
    items = {}
    for ident in wanted.responses:
        found = await store.responses.get(ident, key)
        items.update({item["id"]: item for item in found.output} if found else {})
    if wanted.conversation is not None:
        said = await store.conversations.items(wanted.conversation, key)
        items.update({item["id"]: item for item in said or ()})
        return Past(said, items, "conversation")
    if wanted.previous is None:
        return Past(items=items)
    chain = await store.responses.chain(wanted.previous, key)
    if chain is None:
        return Past(None, items)
    if chain[-1].running:
        why = f"the response {wanted.previous[:100]!r} is not complete yet"
        raise FailureError.invalid(why, "previous_response_id")
    history = [item for stored in chain for item in (*stored.items, *stored.output)]
    return Past(history, items)


async def input_items(
    store: Store | None, ident: str, key: str | None
) -> list[Mapping[str, Any]] | None:
    """All input items of a response, including those of the responses before it; ``None`` if one of
    these is not stored."""
    chain = await store.responses.chain(ident, key) if store is not None else None
    if chain is None:
        return None
    items: list[Mapping[str, Any]] = []
    for stored in chain:
        items += listed(stored.id, stored.items)
        items += stored.output
    return items[: len(items) - len(chain[-1].output)]
