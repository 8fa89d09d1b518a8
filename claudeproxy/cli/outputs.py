"""What a :class:`~.session.Session` wants done or made known, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from attrs import frozen

from claudeproxy.messages import Event

from .models import ModelInfo


@frozen
class Write:
    """Bytes for the process's stdin."""

    data: bytes


@frozen
class Ready:
    """The process has started up; ``models`` is its list."""

    models: tuple[ModelInfo, ...]


@frozen
class Rested:
    """It is at rest again after a turn that was given up."""


@frozen
class Account:
    """Whose login the process uses, as in the answer to ``initialize``."""

    info: object


@frozen
class Limits:
    """The state of the plan's windows or of extra usage has changed; ``info`` is the
    ``rate_limit_info``."""

    info: Mapping[str, Any]


@frozen
class BillingKnown:
    """How the last answer was paid for: ``limits`` is the ``rate_limit_info`` of that answer,
    empty where the upstream reports no plan."""

    limits: Mapping[str, Any]


@frozen
class ContextSizes:
    """How many tokens models read, by their full ids, as the CLI says of those that answered."""

    tokens: Mapping[str, int]


@frozen
class MustEnd:
    """The process must be ended, because of ``why``, before it does anything else."""

    why: str


Notice: TypeAlias = Ready | Rested | Account | Limits | BillingKnown | ContextSizes | MustEnd
"""What concerns the process, and not whoever waits for its answer."""

Output: TypeAlias = Write | Notice | Event
