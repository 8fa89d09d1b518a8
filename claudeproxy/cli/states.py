"""The life of one CLI process as a table: which step leads from which state to which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    """It has not reported its models yet."""
    UNUSED = "unused"
    """Started up; it fits any request."""
    REPLAYING = "replaying"
    """A turn waits while the conversation before it is sent to the CLI."""
    ASKED = "asked"
    """The turn's own message is sent, and the CLI has yet to begin with it."""
    WITHDRAWN = "withdrawn"
    """Given up before the CLI began with the turn, which cannot be rewound until it does: it stays
    under the brake until then."""
    ANSWERING = "answering"
    """The CLI has the turn and is answering it."""
    CUT = "cut"
    """Answered, but the CLI would go on by itself: it may, under the brake, until it has reported
    how the answer was paid for."""
    AWAITING_RESULT = "awaiting result"
    """Answered; the CLI has yet to end the turn."""
    QUEUED = "queued"
    """A turn waits for the previous one to end."""
    PARKED = "parked"
    """Answered with tool calls; the CLI waits for their results."""
    IDLE = "idle"
    """At rest, with the conversation it holds, if any."""
    PREPARING = "preparing"
    """Nobody waits for the replay any more; the CLI is processing its last line."""
    REWINDING = "rewinding"
    """A rewind is under way, and nobody waits."""
    REOPENING = "reopening"
    """A rewind is under way, and a turn waits for it."""
    DEAD = "dead"
    """Ended, or about to."""


class Step(Enum):
    """What happens to a process: what it is told to do, or what it says it has done."""

    STARTED = "it has reported its models"
    OPEN = "it is given a turn"
    REOPEN = "it is given a turn, and has to forget messages first"
    QUEUE = "it is given a turn while the previous one is ending"
    ASKED = "it is sent the turn's own message, or the results of its calls"
    BEGUN = "the CLI begins with the turn"
    ANSWERED = "the answer is complete"
    CALLED = "the answer is complete and calls tools"
    OVERRAN = "the answer is complete, but the CLI would go on by itself"
    RESULT = "it has ended the turn"
    GIVE_UP = "nobody waits for the turn any more"
    REWOUND = "the rewind is done"
    RESTED = "it has processed what it was sent"
    END = "it has to end"


_S, _T = State, Step

TRANSITIONS: Mapping[tuple[State, Step], State] = {
    (_S.STARTING, _T.STARTED): _S.UNUSED,
    (_S.UNUSED, _T.OPEN): _S.REPLAYING,
    (_S.IDLE, _T.OPEN): _S.REPLAYING,
    (_S.IDLE, _T.REOPEN): _S.REOPENING,
    (_S.PARKED, _T.REOPEN): _S.REOPENING,
    (_S.REOPENING, _T.REWOUND): _S.REPLAYING,
    (_S.AWAITING_RESULT, _T.QUEUE): _S.QUEUED,
    (_S.QUEUED, _T.RESULT): _S.REPLAYING,
    (_S.QUEUED, _T.REOPEN): _S.REOPENING,
    (_S.REPLAYING, _T.ASKED): _S.ASKED,
    (_S.ASKED, _T.BEGUN): _S.ANSWERING,
    (_S.ASKED, _T.GIVE_UP): _S.WITHDRAWN,
    (_S.WITHDRAWN, _T.BEGUN): _S.REWINDING,
    (_S.PARKED, _T.ASKED): _S.ANSWERING,
    (_S.ANSWERING, _T.ANSWERED): _S.AWAITING_RESULT,
    (_S.ANSWERING, _T.CALLED): _S.PARKED,
    (_S.ANSWERING, _T.OVERRAN): _S.CUT,
    (_S.AWAITING_RESULT, _T.RESULT): _S.IDLE,
    (_S.REPLAYING, _T.GIVE_UP): _S.PREPARING,
    (_S.PREPARING, _T.RESTED): _S.IDLE,
    (_S.QUEUED, _T.GIVE_UP): _S.REWINDING,
    (_S.ANSWERING, _T.GIVE_UP): _S.REWINDING,
    (_S.CUT, _T.GIVE_UP): _S.REWINDING,
    (_S.AWAITING_RESULT, _T.GIVE_UP): _S.REWINDING,
    (_S.PARKED, _T.GIVE_UP): _S.REWINDING,
    (_S.REOPENING, _T.GIVE_UP): _S.REWINDING,
    (_S.REWINDING, _T.REWOUND): _S.IDLE,
    **{(state, _T.END): _S.DEAD for state in State},
}
"""Every legal step; any other is a bug of ours."""

IN_TURN = frozenset({_S.REOPENING, _S.QUEUED, _S.REPLAYING, _S.ASKED, _S.ANSWERING})
"""States in which somebody waits for an answer."""

AT_REST = frozenset({_S.UNUSED, _S.IDLE, _S.AWAITING_RESULT, _S.PARKED})
"""States in which it can be given a turn."""

REWINDS = frozenset({_S.REWINDING, _S.REOPENING})
"""States in which it has yet to answer a rewind."""

OWES = REWINDS | {_S.PREPARING, _S.WITHDRAWN}
"""States that it must leave by itself, and soon."""

RETURNING = frozenset({_S.REWINDING, _S.PREPARING, _S.WITHDRAWN})
"""States in which nobody waits and it will soon be at rest."""

GIVES_UP = frozenset(state for state, step in TRANSITIONS if step is _T.GIVE_UP)
"""States in which a turn can be given up."""


def after(state: State, step: Step) -> State:
    """Where ``step`` leads from ``state``.

    :raises ValueError: if there is no such step.
    """
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise ValueError(f"{step.name} in {state.name}") from None
