"""Turns that were paid as extra usage, and the set-ups that Anthropic charges for.

Anthropic decides by the content of a request: while the window has room, it may charge for one
client's system prompt and tools and not for another's. So charges are remembered by set-up.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from claudeproxy.messages import Request

AGAIN = 3600.0
"""Seconds after which a set-up that was charged for gets another try."""

_REMEMBERED = 1000


def setup_key(request: Request) -> str:
    """The digest of a request's system prompt and tools."""
    tools = [[tool.name, tool.description, tool.parameters] for tool in request.tools]
    text = json.dumps([request.system, tools], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Charges:
    """``paid``: turns that were paid as extra usage since the daemon started."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._charged: OrderedDict[str, float] = OrderedDict()
        self._free: OrderedDict[str, None] = OrderedDict()
        self.paid = 0

    def is_charged(self, key: str) -> bool:
        """Whether turns of this set-up were charged for recently."""
        at = self._charged.get(key)
        return at is not None and self._now() < at + AGAIN

    def is_judged(self, key: str) -> bool:
        """Whether it is known how turns of this set-up are paid for."""
        return key in self._free or self.is_charged(key)

    def charge(self, key: str) -> None:
        """A turn of this set-up was charged for although its windows had room."""
        self._free.pop(key, None)
        self._charged[key] = self._now()
        _bound(self._charged)

    def clear(self, key: str) -> None:
        """A turn of this set-up was paid by the plan."""
        self._charged.pop(key, None)
        self._free[key] = None
        self._free.move_to_end(key)
        _bound(self._free)

    @property
    def charged(self) -> int:
        """How many set-ups are refused at present."""
        return sum(map(self.is_charged, self._charged))

    def forget(self) -> None:
        """Forget everything: it is another account now."""
        self._charged.clear()
        self._free.clear()

    def kept(self) -> dict[str, float]:
        """The state as JSON, for after a restart."""
        return dict(self._charged)

    def restore(self, kept: dict[str, float]) -> None:
        """Restore what :meth:`kept` returned."""
        self._charged.update((str(key), float(at)) for key, at in kept.items())


def _bound(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
