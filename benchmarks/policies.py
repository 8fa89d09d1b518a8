"""Which processes to give up: made-up traffic over several policies, without a CLI.

The choice is made by :mod:`claudeproxy.engine.placing` itself, with another ``loss`` for each
policy. What a turn costs is counted in its milliseconds; of what is a guess there, only time tells.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from unittest.mock import patch

from attrs import define, evolve, field, frozen

from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State
from claudeproxy.engine import placing
from claudeproxy.engine.digest import extended
from claudeproxy.engine.keeper import REFILL
from claudeproxy.engine.placing import Kept, Wanted
from claudeproxy.messages import Message, Request, Text, Tool

HOURS = 2.0
START = 1000.0
"""Milliseconds that a process takes to start."""

PARK = 900.0
IDLE = 600.0

Loss = Callable[[Kept, float, int], float]


def by_use(kept: Kept, now: float, since: int = 0) -> float:
    """The least recently used first, whatever it holds."""
    return placing.REPLACING if kept.unused else kept.used * 1e-6


def by_age(kept: Kept, now: float, since: int = 0) -> float:
    """The oldest first."""
    return placing.REPLACING if kept.unused else kept.process.born * 1e-6


def never(kept: Kept, now: float, since: int = 0) -> float:
    """No conversation is given up while there is another way: each has a process of its own."""
    return placing.REPLACING if kept.unused else 1e6 + kept.used * 1e-6


@frozen
class Policy:
    """``loss``: in place of :func:`.placing.loss`; ``half_life``: seconds; ``replacing``:
    milliseconds; ``gives_way``: whether a conversation gives way to an unused process."""

    loss: Loss = placing.loss
    half_life: float = placing.HALF_LIFE
    replacing: float = placing.REPLACING
    gives_way: bool = True


POLICIES = {
    "always started": Policy(never, gives_way=False),
    "oldest process": Policy(by_age, gives_way=False),
    "least recently used": Policy(by_use, gives_way=False),
    "expected loss": Policy(gives_way=False),
    "least recently used, gives way": Policy(by_use),
    "expected loss, gives way": Policy(),
    **{f"  half-life {n:g} s": Policy(half_life=n) for n in (15, 60, 120, 300, 900)},
    **{f"  an unused one {n:g} ms": Policy(replacing=n) for n in (25, 50, 200)},
}


# -- traffic --


@frozen(order=True)
class Turn:
    """``at``: seconds; ``takes``: how long its answer does; ``answer``: what it says."""

    at: float
    number: int
    request: Request = field(order=False)
    answer: Message = field(order=False)
    takes: float = field(order=False)
    wanted: Wanted = field(init=False, order=False)

    @wanted.default
    def _wanted(self) -> Wanted:
        return Wanted(self.request, "opus", Setup.of(self.request))


class Traffic:
    """What clients ask within :data:`HOURS`, in order."""

    def __init__(self, seed: int, gaps: Sequence[float] = ()) -> None:
        """``gaps``: recorded seconds between turns, to draw those of people from."""
        self._random = random.Random(seed)
        self._gaps = gaps
        self._count = 0

    def _text(self, role: str, size: float) -> Message:
        self._count += 1
        characters = int(self._random.lognormvariate(math.log(size), 0.8))
        return Message(role, (Text(f"{self._count} ".ljust(characters, "x")),))  # type: ignore[arg-type]

    def _turn(self, at: float, request: Request, size: float, takes: float) -> Turn:
        return Turn(at, self._count, request, self._text("assistant", size), takes)

    def _pause(self) -> float:
        """Until a person's next message."""
        if self._gaps:
            return self._random.choice(self._gaps)
        return self._random.lognormvariate(math.log(40), 1.0)

    def person(self, system: str) -> Iterator[Turn]:
        """Conversations with regenerated answers and edits, and housekeeping after the first turn
        of each."""
        now = self._random.uniform(0, 600)
        while now < HOURS * 3600:
            request = Request("opus", (), system=(system,))
            for number in range(self._random.randint(1, 15)):
                kind = self._random.random()
                messages = request.messages
                if number and kind < 0.08:
                    messages = messages[:-1]  # once more
                elif number and kind < 0.14:
                    messages = messages[: 2 * self._random.randrange(len(messages) // 2)]
                    messages += (self._text("user", 300),)
                else:
                    messages += (self._text("user", 300),)
                request = evolve(request, messages=messages)
                turn = self._turn(now, request, 1500, 8.0)
                yield turn
                now += turn.takes
                request = evolve(request, messages=(*messages, turn.answer))
                if number == 0:
                    for task in ("title", "tags"):
                        asks = Request("opus", (self._text("user", 2000),), system=(task,))
                        yield self._turn(now, asks, 60, 1.0)
                now += self._pause()
            now += self._random.expovariate(1 / 300)

    def agent(self, name: str) -> Iterator[Turn]:
        """A program in a tool loop, and helpers of it that begin with what it knows or nothing."""
        tools = (Tool(name, "Works.", {"type": "object"}),)
        now = self._random.uniform(0, 600)
        while now < HOURS * 3600:
            request = Request("opus", (), system=(f"agent {name}",), tools=tools)
            for _ in range(self._random.randint(5, 50)):
                request = evolve(request, messages=(*request.messages, self._text("user", 3000)))
                turn = self._turn(now, request, 800, 4.0)
                yield turn
                now += turn.takes + self._random.uniform(0.2, 4.0)
                if self._random.random() < 0.08:
                    fork = evolve(
                        request, messages=(*request.messages[:-1], self._text("user", 500))
                    )
                    yield self._turn(now, fork, 800, 4.0)
                if self._random.random() < 0.08:
                    helper = Request("opus", (self._text("user", 3000),), system=("a helper",))
                    yield self._turn(now, helper, 800, 4.0)
                request = evolve(request, messages=(*request.messages, turn.answer))
            now += self._random.expovariate(1 / 400)

    def script(self, name: str) -> Iterator[Turn]:
        """A set-up of its own, and a question every few minutes."""
        now = self._random.expovariate(1 / 300)
        while now < HOURS * 3600:
            asks = Request("opus", (self._text("user", 1000),), system=(name,))
            yield self._turn(now, asks, 400, 3.0)
            now += self._random.expovariate(1 / 300)


def traffic(name: str, seed: int, gaps: Sequence[float]) -> list[Turn]:
    """The turns of one mix."""
    made = Traffic(seed, gaps)
    sources: list[Iterator[Turn]] = []
    if name in ("people", "all"):
        sources += [made.person("Open WebUI") for _ in range(6)]
    if name in ("agents", "all"):
        sources += [made.agent(f"a{n}") for n in range(3)]
    if name in ("scripts", "all"):
        sources += [made.script(f"script {n}") for n in range(20)]
    return sorted(turn for source in sources for turn in source)


MIXES = ("people", "agents", "scripts", "all")


# -- processes --


@define(eq=False)
class Process:
    """What :mod:`~claudeproxy.engine.placing` sees of a process."""

    born: float
    setup: Setup | None = None
    held: int = 0
    busy_until: float = 0.0
    state = State.IDLE
    can_rewind = True
    awaits_billing = False
    at_rest = True
    calls: frozenset[str] = frozenset()

    @property
    def points(self) -> tuple[int, ...]:
        return (*range(0, self.held, 2), self.held)


@define
class Outcome:
    """``spent``: milliseconds of all turns."""

    turns: int = 0
    spent: float = 0.0
    starts: int = 0


class Simulation:
    """A keeper of ``budget`` processes."""

    def __init__(self, budget: int, gives_way: bool) -> None:
        self._budget = budget
        self._gives_way = gives_way
        self._kept: list[Kept] = []
        self._ready: list[tuple[float, int]] = []  # when those that start up will have done so
        self._filled = 0.0  # when what was missing after the last turn was started
        self.outcome = Outcome()
        self._start(-START)

    def _start(self, now: float) -> None:
        self.outcome.starts += 1
        heapq.heappush(self._ready, (now + START / 1000, self.outcome.starts))

    def _look(self, now: float) -> None:
        """What has happened until ``now``."""
        while self._ready and self._ready[0][0] <= now:
            at, _ = heapq.heappop(self._ready)
            self._kept.append(Kept(Process(at), at))  # type: ignore[arg-type]
        for kept in self._kept:
            kept.busy = kept.process.busy_until > now  # type: ignore[attr-defined]
        for kept in [k for k in self._kept if k.free and not k.unused and now - k.used > IDLE]:
            if len(self._kept) > 1:
                self._kept.remove(kept)
        if any(kept.unused for kept in self._kept) or self._ready:
            return
        if self._gives_way and len(self._kept) == self._budget > 1:
            least = placing.worth_less(self._kept, now)
            if least is not None:
                self._kept.remove(least)
        if len(self._kept) < self._budget:
            self._start(now)

    def turn(self, turn: Turn) -> None:
        wanted, now = turn.wanted, turn.at
        self._look(min(self._filled, now))
        self._look(now)
        while not any(kept.free for kept in self._kept) and not self._ready:
            now = min(kept.process.busy_until for kept in self._kept)  # type: ignore[attr-defined]
            self._look(now)
        way = placing.cheapest(self._kept, wanted, now, PARK)
        waited = 0.0
        while way is None:
            if not self._ready:
                if len(self._kept) >= self._budget:
                    least = placing.least(self._kept, now)
                    assert least is not None
                    self._kept.remove(least)
                self._start(now)
            at = self._ready[0][0]
            waited += (at - now) * 1000
            now = at
            self._look(now)
            way = placing.cheapest(self._kept, wanted, now, PARK)
        self._serve(turn, wanted, way, now, waited)

    def _serve(
        self, turn: Turn, wanted: Wanted, way: placing.Placement, now: float, waited: float
    ) -> None:
        kept, process = way.kept, way.kept.process
        before = len(turn.request.messages) - 1
        spent = waited + placing._replay(wanted.prefixes, way.since, before)
        if kept.unused:
            spent += placing.SET_UP
        else:
            spent += placing._tools(kept, wanted)
            spent += placing.REWIND if process.held > way.since else 0.0
        self._filled = now + REFILL
        self.outcome.turns += 1
        self.outcome.spent += spent
        process.setup = wanted.setup  # type: ignore[misc]
        process.held = before + 2  # type: ignore[misc]
        process.busy_until = kept.used = now + turn.takes  # type: ignore[attr-defined]
        kept.prefixes = extended(wanted.prefixes, turn.answer)


def simulate(turns: Sequence[Turn], policy: Policy, budget: int) -> Outcome:
    """One policy over one mix."""
    simulation = Simulation(budget, policy.gives_way)
    constants = {"HALF_LIFE": policy.half_life, "REPLACING": policy.replacing}
    with patch.multiple(placing, loss=policy.loss, **constants):
        for turn in turns:
            simulation.turn(turn)
    return simulation.outcome


def table(budgets: Sequence[int] = (4, 8, 16), gaps: Sequence[float] = (), seeds: int = 3) -> str:
    """Milliseconds a turn and starts an hour, for each policy, mix and budget."""
    heads = [f"{mix}, {budget}" for mix in MIXES for budget in budgets]
    lines = [f"{'ms a turn / starts an hour':<31}" + "".join(f"{head:>13}" for head in heads)]
    mixes = {mix: [traffic(mix, seed, gaps) for seed in range(seeds)] for mix in MIXES}
    for name, policy in POLICIES.items():
        cells = []
        for mix in MIXES:
            for budget in budgets:
                outcomes = [simulate(turns, policy, budget) for turns in mixes[mix]]
                spent = sum(o.spent for o in outcomes) / sum(o.turns for o in outcomes)
                starts = sum(o.starts for o in outcomes) / seeds / HOURS
                cells.append(f"{spent:.0f} / {starts:.0f}")
        lines.append(f"{name:<31}" + "".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def gaps(times: Sequence[float]) -> list[float]:
    """Seconds between turns at ``times`` (epoch seconds), as far as they are one sitting's."""
    ordered = sorted(times)
    return [b - a for a, b in pairwise(ordered) if b - a < 1800]
