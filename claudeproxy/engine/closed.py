"""The plan's windows that are closed: a turn found them used up, or was charged for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from attrs import define

from claudeproxy.cli.models import ModelInfo

from .merging import closed_order, following
from .windows import bounds

PROBE = 300.0
"""Seconds after which a turn is let through to see whether a closed window is open again."""

DEFAULT_WAIT = 60.0
"""Seconds for which a window is closed that does not say when it resets."""


@define(eq=False)
class Closed:
    """``at``: since when, in the order of what was said about the window; ``until``: its reset;
    both in epoch seconds."""

    name: str
    at: float
    until: float
    probe_at: float
    paid: bool
    """Whether it is closed because a turn was charged for: then a probe would be, too."""
    probing: bool = False


class ClosedWindows:
    """Those that are closed, and when the others were opened last."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._closed: dict[str, Closed] = {}
        self._opened: dict[str, float] = {}

    def close(self, name: str, resets: float | None, *, paid: bool) -> None:
        """``resets``: epoch seconds; ``None`` if that is not known."""
        now = self._now()
        until = now + DEFAULT_WAIT if resets is None else float(resets)
        self._put(Closed(name, following(now, self._last(name)), until, now + PROBE, paid))

    def open(self, entries: Collection[Closed]) -> list[str]:
        """A probe of ``entries`` was answered. The names of those that it has opened: what was
        closed anew since stays closed."""
        opened = [entry.name for entry in entries if self._closed.get(entry.name) is entry]
        for name in opened:
            self._put_open(name, following(self._now(), self._last(name)))
        return opened

    def bounding(self, model: ModelInfo) -> list[Closed]:
        """Those that limit turns of ``model``."""
        now = self._now()
        for name, entry in list(self._closed.items()):
            if now >= entry.until:
                del self._closed[name]
        return [entry for name, entry in self._closed.items() if bounds(name, model)]

    def until(self) -> dict[str, float]:
        """When each of them resets."""
        now = self._now()
        return {name: entry.until for name, entry in self._closed.items() if now < entry.until}

    def probe_at_once(self) -> None:
        """Let the next turn through, to see."""
        for entry in self._closed.values():
            entry.probe_at = 0.0

    def forget(self) -> None:
        """Forget everything: it is another account now."""
        self._closed.clear()
        self._opened.clear()

    def kept(self, names: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
        """What was said last about each window, or about ``names``, as JSON."""
        kept = {
            name: {"at": at, "until": 0.0, "paid": False} for name, at in self._opened.items()
        } | {
            name: {"at": entry.at, "until": entry.until, "paid": entry.paid}
            for name, entry in self._closed.items()
        }
        return kept if names is None else {name: kept[name] for name in names}

    def apply(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what :meth:`kept` returned, here or on another node, where it is news.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        told = {
            name: {"at": float(e["at"]), "until": float(e["until"]), "paid": bool(e["paid"])}
            for name, e in kept.items()
        }
        known, now = self.kept(), self._now()
        for name, entry in told.items():
            at, until = entry["at"], entry["until"]
            if name in known and closed_order(entry) <= closed_order(known[name]):
                continue
            if until:
                self._put(Closed(name, at, until, min(at, now) + PROBE, bool(entry["paid"])))
            else:
                self._put_open(name, at)

    def _put(self, entry: Closed) -> None:
        self._opened.pop(entry.name, None)
        self._closed[entry.name] = entry

    def _put_open(self, name: str, at: float) -> None:
        self._closed.pop(name, None)
        self._opened[name] = at

    def _last(self, name: str) -> float | None:
        entry = self._closed.get(name)
        return self._opened.get(name) if entry is None else entry.at
