"""What was checked, and what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from traceback import format_exception

from attrs import define, field

from .nodes import wait


@define
class Verdict:
    """``checked``: each check with whether it holds and what was seen; ``figures``: by name."""

    checked: list[tuple[str, bool, str]] = field(factory=list)
    figures: dict[str, str] = field(factory=dict)

    def check(self, name: str, holds: bool, seen: object = "") -> None:
        self.checked.append((name, bool(holds), str(seen)[:600]))

    def happens(self, name: str, condition: Callable[[], object], seconds: float = 20.0) -> float:
        """The seconds after which it has: more than ``seconds`` if it has not."""
        began = time.monotonic()
        try:
            wait(condition, seconds)
        except AssertionError:
            self.check(name, False, f"it had not happened after {seconds:g} s")
        else:
            self.check(name, True)
        return time.monotonic() - began

    def goes_on(self, name: str, what: Callable[[], object]) -> None:
        """Do ``what``; if it breaks off, the rest is looked at all the same."""
        try:
            what()
        except Exception as error:
            self.check(f"{name} goes on to its end", False, "".join(format_exception(error)[-3:]))

    def none(self, name: str, found: object) -> None:
        """There must be nothing of this; what there is, is told."""
        self.check(name, not found, found or "")

    @property
    def failed(self) -> bool:
        return not all(holds for _, holds, _ in self.checked)
