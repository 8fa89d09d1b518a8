"""What is told of a process: what it is at, and how much it holds; never what that says."""

from __future__ import annotations

from attrs import evolve, frozen

from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.states import State

from . import memory
from .placing import Kept


@frozen
class ProcessReport:
    """``state``: ``running`` (a turn), ``warm``, ``kept``, ``parked``, ``settling`` (between a turn
    and rest), ``starting``, ``retiring`` (it ends after its turn) or ``ending``; ``age`` and
    ``rest`` (since its last turn): seconds; ``memory``: bytes; ``messages`` and ``characters``:
    what it holds of a conversation; ``model``: of its last turn, empty before the first."""

    pid: int | None
    state: str
    age: float
    turns: int
    memory: int
    messages: int = 0
    rest: float | None = None
    characters: int | None = None
    model: str = ""


def report(process: CLIProcess, state: str, now: float) -> ProcessReport:
    """Of any process. ``now``: seconds of the reactor's clock."""
    return ProcessReport(
        process.pid, state, now - process.born, process.turns, memory.used(process.pid),
        process.held,
    )  # fmt: skip


def report_kept(kept: Kept, now: float) -> ProcessReport:
    """Of one that has started up. What it holds is known to the character only while the client is
    known to hold the same."""
    told = report(kept.process, _state(kept), now)
    return evolve(
        told,
        rest=None if kept.busy else now - kept.used,
        characters=kept.prefixes[-1].size if kept.prefixes and kept.known else None,
        model=kept.model,
    )


def _state(kept: Kept) -> str:
    if kept.busy:
        return "running"
    if kept.unused:
        return "warm"
    if kept.process.state is State.PARKED:
        return "parked"
    return "kept" if kept.free else "settling"
