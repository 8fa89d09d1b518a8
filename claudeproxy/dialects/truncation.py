"""Responses: ``truncation: auto``, which leaves out what a model cannot read any more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .estimate import tokens
from .fields import Fields

SHARE = 0.9
"""How much of the context an input may fill by our estimate, which is one: see :mod:`.estimate`.
The rest is for what the estimate misses, and for the answer."""


def truncated(items: Sequence[Fields], used: int, context: int) -> tuple[list[Fields], int]:
    """``items`` without the oldest whole turns, and how many of these were left out.

    ``used``: tokens of everything else in the body; ``context``: tokens that the model reads. A
    turn is a message of the user with all that follows it, up to the next one. What comes before
    the first is kept, and so is the last turn, however large.
    """
    starts = [
        place
        for place, item in enumerate(items)
        if item.raw("role") == "user" and item.raw("type") in (None, "message")
    ]
    sizes = [tokens(item.value) for item in items]
    room, total, dropped = context * SHARE - used, sum(sizes), 0
    for begin, end in pairwise(starts):
        if total <= room:
            break
        total -= sum(sizes[begin:end])
        dropped += 1
    if not dropped:
        return list(items), 0
    return [*items[: starts[0]], *items[starts[dropped] :]], dropped
