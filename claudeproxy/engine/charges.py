"""Turns that were paid as extra usage, and the set-ups that Anthropic charges for.

Anthropic decides by the content of a request: while the window has room, it may charge for one
client's system prompt and tools and not for another's. So charges are remembered by set-up.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping

from claudeproxy.messages import Request

from .merging import REMEMBERED as _REMEMBERED
from .merging import following

AGAIN = 3600.0
"""Seconds after which a set-up that was charged for gets another try."""


def setup_key(request: Request) -> str:
    """The digest of a request's system prompt and tools."""
    tools = [[tool.name, tool.description, tool.parameters] for tool in request.tools]
    text = json.dumps([request.system, tools], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Charges:
    """``paid``: turns that were paid as extra usage since the daemon started; ``paid_elsewhere``:
    those that other nodes have told of since."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._charged: OrderedDict[str, float] = OrderedDict()
        self._free: OrderedDict[str, float] = OrderedDict()
        self._cleared: OrderedDict[str, float] = OrderedDict()
        self.paid = self.paid_elsewhere = 0

    def is_charged(self, key: str) -> bool:
        """Whether turns of this set-up were charged for recently."""
        at = self._charged.get(key)
        return at is not None and self._now() < at + AGAIN

    def is_judged(self, key: str) -> bool:
        """Whether it is known how turns of this set-up are paid for."""
        return key in self._free or self.is_charged(key)

    def charge(self, key: str) -> float:
        """A turn of this set-up was charged for although its windows had room. Returns when."""
        at = following(self._now(), self._free.get(key, self._cleared.get(key)))
        self._charge(key, at)
        return at

    def _charge(self, key: str, at: float) -> None:
        self._free.pop(key, None)
        self._cleared.pop(key, None)
        _put(self._charged, key, at)

    def clear(self, key: str) -> float | None:
        """A turn of this set-up was paid by the plan. Returns when; ``None`` if that is no news."""
        known = key in self._free
        at = following(self._now(), self._charged.get(key))
        self._clear(key, at)
        return None if known else at

    def _clear(self, key: str, at: float) -> None:
        if self._charged.pop(key, None) is not None or key in self._cleared:
            _put(self._cleared, key, at)
        _put(self._free, key, at)

    @property
    def charged(self) -> int:
        """How many set-ups are refused at present."""
        return sum(map(self.is_charged, self._charged))

    def forget(self) -> None:
        """Forget everything: it is another account now."""
        self._charged.clear()
        self._free.clear()
        self._cleared.clear()

    def kept(self) -> dict[str, float]:
        """Which set-ups were charged for, and when: as JSON, for after a restart."""
        return dict(self._charged)

    def cleared(self) -> dict[str, float]:
        """When those were paid by the plan that had been charged for before: as JSON."""
        return dict(self._cleared)

    def restore(self, kept: Mapping[str, float], cleared: Mapping[str, float]) -> None:
        """Take in what :meth:`kept` and :meth:`cleared` returned, here or on another node, where it
        is news.

        :raises ValueError, TypeError, AttributeError: when it has another shape.
        """
        charges = [(str(key), float(at)) for key, at in kept.items()]
        clears = [(str(key), float(at)) for key, at in cleared.items()]
        for key, at in charges:  # of two at the same time, the charge counts
            if at > self._charged.get(key, 0.0) and at >= self._free.get(key, 0.0):
                self._charge(key, at)
        for key, at in clears:
            if at > max(self._charged.get(key, 0.0), self._free.get(key, 0.0)):
                self._clear(key, at)


def _put(remembered: OrderedDict[str, float], key: str, at: float) -> None:
    remembered[key] = at
    remembered.move_to_end(key)
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
