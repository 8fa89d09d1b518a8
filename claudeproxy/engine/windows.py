"""The plan's windows and extra usage, as last reported by the upstream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import asdict, define, field, frozen

from claudeproxy.cli.models import ModelInfo

from .merging import merge_windows

_BOUNDS = {
    "seven_day_opus": "opus",
    "seven_day_sonnet": "sonnet",
    "seven_day_overage_included": "fable",
}
"""The windows that limit one family of models; any other limits all models."""

_SHORT = {"five_hour": "5h", "seven_day": "7d", "seven_day_overage_included": "7d_oi"}
_UNIFIED = "anthropic-ratelimit-unified"

FULL = 1.0


@frozen
class Window:
    """``used``: 0 to 1, or beyond; ``resets``: epoch seconds; ``status``: Anthropic's word."""

    used: float
    resets: float
    status: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether it is used up."""
        return self.used >= FULL


@define
class Windows:
    """``extra_usage``: whether the owner of the account has switched it on, ``None`` while that is
    unknown; ``in_use``: whether it paid for the last reply; ``why_off``: Anthropic's word for why
    it is off; ``claim``: the window that Anthropic, or the CLI in a warning, names as the
    decisive one; ``told``: when this was last told, epoch seconds."""

    known: dict[str, Window] = field(factory=dict)
    extra_usage: bool | None = None
    in_use: bool = False
    why_off: str | None = None
    claim: str | None = None
    told: float = 0.0

    def hear(self, info: Mapping[str, Any], now: float = 0.0) -> None:
        """Take in a ``rate_limit_info`` of the CLI."""
        self.told = now
        self.known.update(_told(info))
        self.in_use = is_paid(info)
        claim = info.get("rateLimitType")
        self.claim = claim if isinstance(claim, str) else self.claim
        overage = info.get("overageStatus")
        if isinstance(overage, str):
            self.extra_usage = overage in ("allowed", "allowed_warning")
            why = info.get("overageDisabledReason")
            self.why_off = why if isinstance(why, str) else None
        elif self.in_use:  # 2.1.292 leaves the rest out while a window warns
            self.extra_usage, self.why_off = True, None

    def bounding(self, model: ModelInfo, now: float) -> Iterator[tuple[str, Window]]:
        """The windows that limit turns of ``model`` and have not reset yet."""
        for name, window in self.known.items():
            if now < window.resets and bounds(name, model):
                yield name, window

    def shares(self, now: float) -> dict[str, float]:
        """The used share of each window that has not reset yet."""
        return {name: window.used for name, window in self.known.items() if now < window.resets}

    def forget(self) -> None:
        """Forget everything: it is another account now."""
        self.known.clear()
        self.extra_usage, self.in_use, self.why_off, self.claim = None, False, None, None
        self.told = 0.0

    def headers(self, now: float) -> dict[str, str]:
        """The state as headers of a reply, under Anthropic's own names."""
        running = {name: window for name, window in self.known.items() if now < window.resets}
        headers: dict[str, str] = {}
        for name, window in running.items():
            of = f"{_UNIFIED}-{_SHORT.get(name, name)}"
            headers[f"{of}-utilization"] = f"{window.used:g}"
            headers[f"{of}-reset"] = str(round(window.resets))
            if window.status is not None:
                headers[f"{of}-status"] = window.status
        if self.claim in running:
            headers[f"{_UNIFIED}-representative-claim"] = str(self.claim)
            headers[f"{_UNIFIED}-reset"] = str(round(running[str(self.claim)].resets))
        if self.extra_usage is not None:
            headers[f"{_UNIFIED}-overage-status"] = "allowed" if self.extra_usage else "rejected"
        return headers

    def kept(self) -> dict[str, Any]:
        """The state as JSON, for after a restart."""
        return asdict(self)

    def joined(self, kept: Mapping[str, Any], now: float) -> Windows:
        """These, with what :meth:`kept` returned on another node.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        return Windows.restored(merge_windows(self.kept(), Windows.restored(kept, now).kept()), now)

    @classmethod
    def restored(cls, kept: Mapping[str, Any], now: float) -> Windows:
        """What :meth:`kept` returned, without windows that have reset since.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        windows = {
            name: Window(float(window["used"]), float(window["resets"]), window["status"])
            for name, window in kept["known"].items()
        }
        running = {name: window for name, window in windows.items() if now < window.resets}
        return cls(**{**kept, "known": running})


def bounds(name: str, model: ModelInfo) -> bool:
    """Whether the window ``name`` limits turns of ``model``."""
    family = _BOUNDS.get(name)
    return name != "overage" and (
        family is None or family in model.name or family in model.resolved
    )


def is_paid(info: Mapping[str, Any]) -> bool:
    """Whether a reply with this ``rate_limit_info`` was paid as extra usage."""
    return info.get("overageInUse") is True or info.get("isUsingOverage") is True


def _told(info: Mapping[str, Any]) -> Iterator[tuple[str, Window]]:
    told = info.get("unifiedWindows")
    windows = dict(told) if isinstance(told, Mapping) else {}
    name = info.get("rateLimitType")
    if isinstance(name, str) and name not in windows and name != "overage":
        used = info.get("utilization")
        if info.get("status") == "rejected":
            used = FULL
        windows[name] = {**info, "utilization": used}
    for name, window in windows.items():
        used, resets = window.get("utilization"), window.get("resetsAt")
        if isinstance(used, (int, float)) and isinstance(resets, (int, float)):
            status = window.get("status")
            yield name, Window(float(used), float(resets), status if status else None)
