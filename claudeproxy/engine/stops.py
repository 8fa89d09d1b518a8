"""Stop sequences, enforced on the text as it streams through.

The API refuses blank sequences and enforces the others. Here all are enforced, however the text is
split: nothing of a sequence, or of what follows it, gets out.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """``feed`` returns the text that may be passed on; ``found`` is the sequence that ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Add ``text``. Returns the text that is certainly before any stop sequence."""
        if self.found is not None:
            return ""
        self._held += text
        hits = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if hits:
            # The first to be complete is the one that somebody reading by token would meet.
            at, self.found = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            out, self._held = self._held[:at], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out

    def flush(self) -> str:
        """The text that was held back; to be called when the text ends."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` could be the beginning of ``stop``."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
