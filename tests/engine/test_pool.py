"""The pool, with a clock that the test turns and processes of no substance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from claudeproxy.cli.launch import CLIError
from claudeproxy.cli.session import State
from claudeproxy.cli.setup import Setup
from claudeproxy.engine.pool import HOPELESS, MAX_BACKOFF, START_TIMEOUT, Pool


def outcome(deferred: Deferred[Any]) -> Any:
    """The result, the failure, or ``None`` while there is none."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    value = found[0] if found else None
    if value is not None and hasattr(value, "value"):
        return value.value.failure
    return value


class Process:
    """What the pool sees of a process."""

    state = State.WARM
    setup: Setup | None = None

    def __init__(self, born: float) -> None:
        self.born = born
        self.ended = ""

    def kill(self) -> None:
        self.ended = "killed"

    def stop(self) -> None:
        self.ended = "stopped"

    def prime(self, setup: Setup, flags: Mapping[str, Any]) -> None:
        self.setup, self.flags = setup, flags


class Spawned:
    """A pool, its clock, and every process it has started."""

    def __init__(self, warm: int = 2, starts: int = 2) -> None:
        self.clock = Clock()
        self.all: list[Process] = []
        self.error: Exception | None = None
        self.pool = Pool(self.clock, self._spawn, warm=warm, starts=starts)  # type: ignore[arg-type, return-value]

    def _spawn(self) -> Any:
        if self.error is not None:
            raise self.error
        self.all.append(Process(self.clock.seconds()))
        return self.all[-1]

    def start(self) -> None:
        """Every process that starts up has started up."""
        for process in list(self.pool._starting):
            self.pool.ready(process)

    def fail(self) -> None:
        """Every process that starts up ends."""
        for process in list(self.pool._starting):
            self.pool.gone(process)


PLAIN = Setup()


def test_it_fills_as_far_as_it_may() -> None:
    spawned = Spawned(warm=5, starts=2)
    spawned.pool.fill()
    assert len(spawned.all) == 2
    while spawned.pool.starting:
        assert spawned.pool.starting <= 2
        spawned.pool.ready(next(iter(spawned.pool._starting)))
    assert (spawned.pool.warm, len(spawned.all)) == (5, 5)


def test_a_burst_larger_than_the_pool() -> None:
    spawned = Spawned(warm=2, starts=2)
    spawned.pool.fill()
    spawned.start()
    claims = [spawned.pool.claim(PLAIN, {}) for _ in range(10)]
    assert [claim.called for claim in claims] == [True] * 2 + [False] * 8
    for _ in range(20):
        assert spawned.pool.starting <= 2
        spawned.start()
    got = [outcome(claim) for claim in claims]
    assert all(isinstance(process, Process) for process in got)
    assert len({id(process) for process in got}) == 10
    assert spawned.pool.warm == 2


def test_who_leaves_gets_no_process() -> None:
    spawned = Spawned(warm=0)
    first, second = spawned.pool.claim(PLAIN, {}), spawned.pool.claim(PLAIN, {})
    first.addErrback(lambda _: None)
    first.cancel()
    spawned.pool.ready(spawned.all[0])  # type: ignore[arg-type]
    assert outcome(second) is spawned.all[0]


def test_failed_starts_come_ever_slower_and_end_the_waiting() -> None:
    spawned = Spawned(warm=1, starts=1)
    claim = spawned.pool.claim(PLAIN, {})
    delays = []
    for _ in range(12):
        began, count = spawned.clock.seconds(), len(spawned.all)
        spawned.fail()
        while len(spawned.all) == count:
            spawned.clock.advance(0.25)
        delays.append(spawned.clock.seconds() - began)
        assert claim.called == (spawned.pool.failures >= HOPELESS)
    assert delays == sorted(delays)
    assert delays[-1] == MAX_BACKOFF
    assert outcome(claim).status == 503
    spawned.start()
    assert (spawned.pool.failures, spawned.pool.warm) == (0, 1)


def test_a_spawn_that_raises_is_a_failed_start() -> None:
    spawned = Spawned(warm=1)
    spawned.error = CLIError("it is gone")
    claim = spawned.pool.claim(PLAIN, {})
    for _ in range(40):
        spawned.clock.advance(0.25)
    assert "it is gone" in outcome(claim).message
    spawned.error = OSError("no descriptors")
    spawned.clock.advance(MAX_BACKOFF)
    spawned.error = None
    spawned.clock.advance(MAX_BACKOFF)
    assert spawned.pool.starting == 1


def test_one_that_dies_while_it_waits_is_replaced() -> None:
    spawned = Spawned(warm=2)
    spawned.pool.fill()
    spawned.start()
    spawned.pool.gone(spawned.all[0])  # type: ignore[arg-type]
    spawned.clock.advance(1.0)
    spawned.start()
    assert (spawned.pool.warm, len(spawned.all)) == (2, 3)


def test_those_that_always_die_while_they_wait_come_ever_slower() -> None:
    spawned = Spawned(warm=1, starts=1)
    spawned.pool.fill()
    for _ in range(400):
        spawned.start()
        for process in list(spawned.pool._warm):
            spawned.pool.gone(process)
        spawned.clock.advance(0.25)
    assert len(spawned.all) < 12  # in 100 seconds


def test_one_that_never_starts_up_is_killed() -> None:
    spawned = Spawned(warm=1)
    spawned.pool.fill()
    spawned.clock.advance(START_TIMEOUT + 1)
    assert spawned.all[0].ended == "killed"


def test_one_that_starts_up_as_it_is_killed_is_replaced() -> None:
    spawned = Spawned(warm=0)
    claim = spawned.pool.claim(PLAIN, {})
    spawned.clock.advance(START_TIMEOUT)
    (late,) = spawned.all
    spawned.pool.ready(late)  # type: ignore[arg-type]
    spawned.pool.gone(late)  # type: ignore[arg-type]
    spawned.clock.advance(MAX_BACKOFF)
    spawned.start()
    assert outcome(claim) in spawned.all[1:]


def test_a_claim_takes_the_process_that_is_primed_for_it() -> None:
    spawned = Spawned(warm=2)
    spawned.pool.fill()
    spawned.start()
    usual = Setup(("Be brief.",))
    for effort in ("low", "high"):
        spawned.pool.claim(usual, {"effortLevel": effort})
        spawned.pool.fill()
        spawned.start()
    spawned.pool.fill()
    assert sorted(process.setup is None for process in spawned.pool._warm) == [False, True]
    other = outcome(spawned.pool.claim(Setup(("Another.",)), {}))
    assert other.setup is None
    primed = outcome(spawned.pool.claim(usual, {}))
    assert (primed.setup, primed.flags) == (usual, {"effortLevel": "high"})


def test_closed_it_starts_nothing_any_more() -> None:
    spawned = Spawned(warm=2, starts=1)
    spawned.pool.fill()
    spawned.start()
    spawned.pool.close()
    assert [process.ended for process in spawned.all] == ["stopped"] * len(spawned.all)
    for process in spawned.all:
        spawned.pool.gone(process)  # type: ignore[arg-type]
    count = len(spawned.all)
    spawned.pool.fill()
    spawned.clock.advance(1000.0)
    assert len(spawned.all) == count
    assert spawned.clock.getDelayedCalls() == []
