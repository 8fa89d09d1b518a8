"""Stop sequences, enforced on the text as it streams by.

The API enforces those it takes; blank ones it refuses, and it looks at nothing else. Here all
hold, across any chunking: nothing of a sequence, or of what follows it, leaves.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """``feed`` returns what of the text may leave now; ``found`` is the sequence that ended it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Text that is certainly before every stop sequence."""
        if self.found is not None:
            return ""
        self._held += text
        hits = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if hits:
            # The earliest to be complete is the one a token-by-token reader would have met.
            at, self.found = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            out, self._held = self._held[:at], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out = self._held[: len(self._held) - keep]
        self._held = self._held[len(out) :]
        return out

    def flush(self) -> str:
        """What was held back, once the text has ended without a stop sequence."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` could be the beginning of ``stop``."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
