"""How hard a model is to think: levels of effort, and the budgets they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Effort = Literal["none", "low", "medium", "high", "xhigh", "max"]
"""``none``: no thinking, where the model can do without."""

EFFORTS: tuple[Effort, ...] = ("low", "medium", "high", "xhigh", "max")
"""The levels of the API, in order."""

BUDGETS: Mapping[Effort, int] = {
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 31_999,
}
"""Tokens of thinking, for models that take a budget instead of a level."""

MIN_BUDGET = 1_024
"""The smallest budget that the API takes. It must be less than ``max_tokens``, too."""
