"""Tries all facts on one CLI."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime

from claudeproxy._reactor import IStageReactor

from .facts import CANARY, FACTS, Bench, Fact
from .lines import Line
from .stage import Lost, Stage

LONGEST = 40.0
"""Seconds after which the rest is not tried: that CLI is not one to use."""


@frozen
class Outcome:
    """``lost``: why the fact does not hold; ``None`` if it does."""

    fact: Fact
    lost: str | None


@frozen
class Report:
    """What became of each fact, the models that the CLI told, and the seconds it took."""

    outcomes: Sequence[Outcome]
    models: Sequence[Line]
    seconds: float

    @property
    def lost(self) -> list[Outcome]:
        """Those that do not hold."""
        return [outcome for outcome in self.outcomes if outcome.lost is not None]


async def run(
    reactor: IStageReactor,
    executable: str,
    told: Callable[[int, int], object] = lambda done, of: None,
) -> Report:
    """Try every fact on the CLI at ``executable``: in a scratch HOME, with no login and no quota.

    ``told``: called with how many are done, and of how many.
    """
    # By this name a daemon finds it that comes after one which died.
    folder = Path(tempfile.mkdtemp(prefix=f"claudemax-{os.getpid()}-trial-")).resolve()
    stages: list[Stage] = []

    async def start(login: str) -> Stage:
        made = Stage(reactor, executable, folder / str(len(stages)), login=login)
        stages.append(made)
        plant(made)
        await made.start()
        return made

    try:
        return await try_all(reactor, Bench(start), told)
    finally:
        for made in stages:
            await made.close()
        shutil.rmtree(folder, ignore_errors=True)


async def try_all(
    reactor: IReactorTime, bench: Bench, told: Callable[[int, int], object] = lambda done, of: None
) -> Report:
    """As :func:`run`, on a bench that is there."""
    began = reactor.seconds()
    outcomes = []
    for fact in FACTS:
        why = None
        if reactor.seconds() - began > LONGEST:
            why = f"not tried: those before it took {LONGEST:.0f} seconds"
        else:
            why = await _why_not(bench, fact)
        outcomes.append(Outcome(fact, why))
        told(len(outcomes), len(FACTS))
    models: Sequence[Line] = bench.models
    return Report(outcomes, models, reactor.seconds() - began)


async def _why_not(bench: Bench, fact: Fact) -> str | None:
    """Why ``fact`` does not hold, if it does not; a process that it has left in some state goes."""
    try:
        await fact.check(bench)
    except Lost as error:
        why = str(error)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        why = f"the CLI printed something else ({type(error).__name__}: {error})"
    except (OSError, ProcessExitedAlready) as error:
        why = f"it does not run: {error}"
    else:
        return None
    await bench.drop()
    return why


def plant(stage: Stage) -> None:
    """Put there by what a user speaks to the CLI, each with a canary."""
    for folder in (stage.home / ".claude", stage.config, stage.cwd.parent / ".claude"):
        for name in ("CLAUDE.md", "rules/canary.md", "commands/canary.md"):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(CANARY)
        (folder / "settings.json").write_text(f'{{"language": "{CANARY}"}}')
    (stage.home / "CLAUDE.md").write_text(CANARY)
