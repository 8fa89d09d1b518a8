"""Whether the upstream takes turns at all: plan windows that are used up, a login that is missing.

Both are learnt from turns. While one of them stands in the way a turn is refused at once: asking
again would spend a process on the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define

from claudeproxy.cli.errors import LOGGED_OUT, not_logged_in, plan_limit, used_up
from claudeproxy.cli.models import ModelInfo
from claudeproxy.messages import Failure, FailureError

PROBE_RETRY = 5.0
"""Seconds after which those are asked to come back who meet somebody else's probe."""

DEFAULT_WAIT = 60.0
"""Seconds until a probe, where a rejected window does not say when it resets."""


@define
class _Rejected:
    info: Mapping[str, Any]
    until: float
    probing: bool = False


class Standing:
    """Times are epoch seconds, as the CLI tells them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rejected: dict[str, _Rejected] = {}
        self.logged_in: bool | None = None
        """As last known; false refuses every turn until somebody sets it. ``None`` while nobody
        looks after it, as with another upstream."""

    def check(self, model: ModelInfo) -> None:
        """Let one turn through, or say why not.

        After a window's reset one turn goes first, as a probe; the others follow its success.

        :raises FailureError: 401 while logged out, 429 while a window of ``model`` is used up.
        """
        if self.logged_in is False:
            raise FailureError(not_logged_in())
        now = self._now()
        closed = [entry for name, entry in self._rejected.items() if _concerns(name, model)]
        for entry in closed:
            if now < entry.until:
                raise FailureError(plan_limit({**entry.info, "resetsAt": entry.until}, now))
            if entry.probing:
                raise FailureError(plan_limit({**entry.info, "resetsAt": now + PROBE_RETRY}, now))
        for entry in closed:
            entry.probing = True

    def window(self, info: Mapping[str, Any]) -> None:
        """A ``rate_limit_info`` of the CLI. A rejection without a type is no plan limit."""
        name = info.get("rateLimitType")
        if not isinstance(name, str):
            return
        if used_up(info):
            resets = info.get("resetsAt")
            until = (
                float(resets) if isinstance(resets, (int, float)) else self._now() + DEFAULT_WAIT
            )
            self._rejected[name] = _Rejected(info, until)
        else:
            self._rejected.pop(name, None)

    def ended(self, model: ModelInfo, failure: Failure | None) -> None:
        """A turn that :meth:`check` let through is over; ``failure`` if it brought no answer."""
        if failure is not None and failure.code == LOGGED_OUT and self.logged_in is not None:
            self.logged_in = False
        for name, entry in list(self._rejected.items()):
            if not _concerns(name, model):
                continue
            entry.probing = False
            if failure is None and self._now() >= entry.until:
                del self._rejected[name]

    def report(self) -> dict[str, str]:
        """The used-up windows and when they reset (epoch seconds), for ``/health``."""
        return {name: str(round(entry.until)) for name, entry in self._rejected.items()}


def _concerns(window: str, model: ModelInfo) -> bool:
    """Whether a window bounds turns of ``model``: ``seven_day_opus`` only those of Opus."""
    for family in ("opus", "sonnet", "haiku", "fable"):
        if window.endswith(family):
            return family in model.name or family in model.resolved
    return True
