"""Which process serves a request, by cost: in milliseconds, measured on a quiet machine.

All of it is a cache: whatever is chosen, the same conversation goes upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, evolve, field, frozen

from claudeproxy.cli.process import BILLING_WAIT, CLIProcess
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State
from claudeproxy.cli.tools import verbatim
from claudeproxy.messages import Message, Request, ToolResult, normalise_tool_id

from .digest import Prefix, prefixes

REWIND = 12.0
"""A rewind, and the settings sent after it."""

MESSAGE = 2.0
"""Replaying one message of the history."""

CHARACTER = 0.0125
"""One replayed character, upstream: most of a replay is not in the provider's cache. A guess, at
50 µs per token."""

SETTLING = 5.0
"""The usual wait for the previous turn to end, if it has not ended yet."""

REPORT = 1000 * BILLING_WAIT
"""The wait for a parked process to report how its answer was paid for."""

TOOLS = 10.0
"""Replacing the tools that a process has."""

SET_UP = 90.0
"""What a process's first turn costs beyond the first turn of a rewound one."""

REPLACING = 100.0
"""Using up an unused process: another has to start, though usually while nobody waits. A
conversation worth less than this gives way to an unused process. This and the next were chosen with
``python -m benchmarks policies``."""

HALF_LIFE = 30.0
"""Seconds without a next message after which one becomes half as likely."""

RECENT = 10.0
"""Seconds for which, if nobody waits, a process is left to whoever has just used it: they may be
asking it one thing after another."""


@frozen(eq=False)
class Wanted:
    """What a request needs from a process. ``prefixes``: those of its messages, see
    :func:`.digest.prefixes`."""

    request: Request
    model: str
    setup: Setup
    prefixes: tuple[Prefix, ...] = field(init=False)

    @prefixes.default
    def _prefixes(self) -> tuple[Prefix, ...]:
        return prefixes(self.request, self.model, self.request.messages)

    @property
    def fixed(self) -> tuple[Any, ...]:
        """What cannot change while calls are parked: the CLI would apply it one turn late."""
        return self.request.max_tokens, self.request.effort


@define(eq=False)
class Kept:
    """A process that has started up. ``prefixes``: those of what it holds, as far as the client
    is known to hold the same; ``used``: when it was given back (reactor seconds); ``busy``:
    whether a turn runs on it; ``model``: of its last turn."""

    process: CLIProcess
    used: float
    prefixes: tuple[Prefix, ...] = ()
    fixed: tuple[Any, ...] = ()
    busy: bool = False
    model: str = ""

    @property
    def free(self) -> bool:
        """Whether it can be given a turn."""
        return not self.busy and self.process.at_rest

    @property
    def unused(self) -> bool:
        """Whether it fits any request."""
        return self.process.setup is None

    @property
    def known(self) -> bool:
        """Whether the client is known to hold all that it holds."""
        return self.process.held == len(self.prefixes) - 1


@frozen(eq=False)
class Placement:
    """``since``: how many messages of the request the process holds; ``results``: the
    results of the calls it is parked on, under the ids it knows; ``how``: ``kept``, ``parked``,
    ``rewound`` or ``warm``; ``cost``: in milliseconds; ``ready``: whether it can begin now, and not
    only once the process has reported how its last answer was paid for; ``before``: the prefixes of
    what it held."""

    kept: Kept
    how: str
    cost: float
    since: int = 0
    results: tuple[ToolResult, ...] = ()
    ready: bool = True
    before: tuple[Prefix, ...] = field(init=False)

    @before.default
    def _before(self) -> tuple[Prefix, ...]:
        return self.kept.prefixes


def loss(kept: Kept, now: float, since: int = 0) -> float:
    """The expected cost if ``kept`` forgets what it holds beyond the first ``since`` messages."""
    if kept.unused:
        return REPLACING
    held = min(kept.process.held, len(kept.prefixes) - 1)
    if held <= since:
        return 0.0
    likely: float = 0.5 ** ((now - kept.used) / HALF_LIFE)
    return likely * (REWIND + _replay(kept.prefixes, since, held))


def _replay(conversation: tuple[Prefix, ...], since: int, until: int) -> float:
    """The cost of replaying the messages from ``since`` to ``until``."""
    characters = conversation[until].size - conversation[since].size
    return MESSAGE * (until - since) + CHARACTER * characters


def cheapest(all_kept: Iterable[Kept], wanted: Wanted, now: float, park: float) -> Placement | None:
    """The cheapest way to serve ``wanted``, now or in a moment; ``None`` if no process can.

    ``park``: seconds after which a parked call no longer gets its result.
    """
    ways = [way for kept in all_kept if kept.free and (way := _way(kept, wanted, now, park))]
    return min(ways, key=lambda way: way.cost, default=None)


def _way(kept: Kept, wanted: Wanted, now: float, park: float) -> Placement | None:
    process = kept.process
    before = len(wanted.prefixes) - 2  # the last message is new to any process
    if kept.unused:
        return Placement(kept, "warm", REPLACING + SET_UP + _replay(wanted.prefixes, 0, before))
    assert process.setup is not None
    if process.setup.lasting != wanted.setup.lasting:
        return None
    agrees = process.held == before and _agree(kept, wanted, before)
    if process.state is State.PARKED and agrees and now - kept.used <= park:
        results = _results(kept, wanted)
        if results:
            return Placement(kept, "parked", 0.0, results=results)
    points = [at for at in process.points if at <= before and (at == 0 or _agree(kept, wanted, at))]
    if not points:
        return None
    since = max(points)
    cost = _replay(wanted.prefixes, since, before) + _tools(kept, wanted) + _settling(process)
    # Opened earlier, it would leave unsaid how its last answer was paid for.
    ready = not process.awaits_billing
    if since == process.held:
        return Placement(kept, "kept" if since else "rewound", cost, since, ready=ready)
    return Placement(kept, "rewound", REWIND + cost + loss(kept, now, since), since, ready=ready)


def _settling(process: CLIProcess) -> float:
    if process.state is State.AWAITING_RESULT:
        return SETTLING
    return REPORT if process.awaits_billing else 0.0


def _agree(kept: Kept, wanted: Wanted, at: int) -> bool:
    """Whether the set-up and the first ``at`` messages are the same."""
    return at < len(kept.prefixes) and kept.prefixes[at] == wanted.prefixes[at]


def _tools(kept: Kept, wanted: Wanted) -> float:
    setup = kept.process.setup
    return 0.0 if setup is not None and setup.servers == wanted.setup.servers else TOOLS


def _results(kept: Kept, wanted: Wanted) -> tuple[ToolResult, ...]:
    """The results that ``kept`` is parked for, if they are all there, with nothing else, and can
    be delivered word for word; otherwise none."""
    last: Message = wanted.request.messages[-1]
    results = [block for block in last.content if isinstance(block, ToolResult)]
    calls = {normalise_tool_id(call): call for call in kept.process.calls}
    answered = {normalise_tool_id(result.tool_use_id) for result in results}
    if len(results) != len(last.content) or answered != calls.keys():
        return ()
    if kept.fixed != wanted.fixed or not all(verbatim(result) for result in results):
        return ()
    return tuple(evolve(r, tool_use_id=calls[normalise_tool_id(r.tool_use_id)]) for r in results)


def least(all_kept: Iterable[Kept], now: float) -> Kept | None:
    """The free process whose loss costs least."""
    return min((k for k in all_kept if k.free), key=lambda k: loss(k, now), default=None)


def worth_less(all_kept: Iterable[Kept], now: float) -> Kept | None:
    """The free process that costs least to lose, if an unused one in its place is worth more."""
    kept = least((k for k in all_kept if now - k.used > RECENT), now)
    return kept if kept is not None and loss(kept, now) < REPLACING else None
