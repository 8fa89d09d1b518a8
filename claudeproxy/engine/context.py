"""What the turns of an engine share, and where their events go."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from claudeproxy.messages import Event

from .admission import Admission
from .deadlines import Deadlines
from .keeper import Keeper
from .quota import Quota
from .structured import StructuredOutput

TurnSink = Callable[[list[Event]], None]
"""Receives the events of one turn in bursts; the last is a ``Finished`` or a ``Failure``."""

RequestSink = Callable[[int, list[Event]], None]
"""Receives a burst of events of the answer with that index."""


@frozen
class EngineContext:
    """What all turns of an engine share."""

    reactor: IReactorTime
    admission: Admission
    keeper: Keeper
    structured_output: StructuredOutput
    quota: Quota
    deadlines: Deadlines
    plain_names: bool
    """Whether tools go upstream under the client's own names."""
    repair: bool
    """Whether a whole answer that breaks its schema is asked for once more."""
