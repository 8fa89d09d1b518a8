"""Responses: the list of input items of a stored response.

Shapes: openai-python's ``ResponseItem`` and ``ResponseItemList``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from claudeproxy.messages import FailureError

from .responses_input import Item

MAX_LIMIT, LIMIT = 100, 20
"""The most objects of a page, and how many it has if nothing is said."""
_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}


def listed(response: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    """The input ``items`` of the response ``ident``, with the fields that listed items have: an id
    of their own, a status, and content in parts."""
    ident = response.removeprefix("resp_")
    return [_listed(item, f"{ident}i{place}") for place, item in enumerate(items)]


def _listed(item: Item, ident: str) -> dict[str, Any]:
    kind = item.get("type") or "message"
    found: dict[str, Any] = {"id": f"{_PREFIXES.get(kind, 'item')}_{ident}", "type": kind}
    if kind != "reasoning":
        found["status"] = "completed"
    found.update((name, value) for name, value in item.items() if value is not None)
    content = found.get("content")
    if kind == "message" and isinstance(content, str):
        part: dict[str, Any] = {"type": "input_text", "text": content}
        if item.get("role") == "assistant":
            part.update(type="output_text", annotations=[], logprobs=[])
        found["content"] = [part]
    return found


def limit_of(query: Mapping[str, str]) -> int:
    """How many objects a page is to have: ``limit``, 1 to 100, else 20.

    :raises FailureError: 400 that names the field of the query.
    """
    limit = query.get("limit", str(LIMIT))
    if not re.fullmatch(r"[0-9]{1,3}", limit, re.ASCII) or not 1 <= int(limit) <= MAX_LIMIT:
        raise FailureError.invalid(f"limit: must be between 1 and {MAX_LIMIT}", "limit")
    return int(limit)


def ascends(query: Mapping[str, str], default: str = "desc") -> bool:
    """Whether the ``order`` of a page is ``asc``, rather than ``desc``.

    :raises FailureError: 400 that names the field of the query.
    """
    order = query.get("order", default)
    if order not in ("asc", "desc"):
        raise FailureError.invalid("order: must be one of asc, desc", "order")
    return order == "asc"


def page(items: Sequence[Item], query: Mapping[str, str], default: str = "desc") -> dict[str, Any]:
    """A page of ``items``, which are in ascending order; ``query``: ``after`` (an id), and what
    :func:`limit_of` and :func:`ascends` read.

    :raises FailureError: 400 that names the field of the query.
    """
    limit = limit_of(query)
    left = list(items if ascends(query, default) else reversed(items))
    after = query.get("after")
    if after is not None:
        ids = [item["id"] for item in left]
        if after not in ids:
            raise FailureError.invalid(f"after: there is no item {after[:100]!r}", "after")
        del left[: ids.index(after) + 1]
    return listing(left[:limit], len(left) > limit)


def listing(data: Sequence[Item], more: bool) -> dict[str, Any]:
    """A page of a list; ``more``: there is another one."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }
