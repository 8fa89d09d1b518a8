"""How processes are started: so many at once, ever slower where it fails, and told to who waits."""

from __future__ import annotations

from typing import Any

from machine import Heard, Machine, begun, request, said

from claudeproxy.cli.launch import CLIError
from claudeproxy.engine.engine import Limits
from claudeproxy.engine.starts import HOPELESS, MAX_BACKOFF, START_TIMEOUT
from claudeproxy.messages import Kind
from claudeproxy.testing import transcripts as cli

BRIEF = ("Be brief.",)


def waiting(machine: Machine, *requests: Any) -> list[Heard]:
    """Requests, with nothing done yet."""
    heard = []
    for asks in requests:
        events: list[Any] = []
        group = machine.engine.ask(asks, lambda _, burst, events=events: events.extend(burst))  # type: ignore[misc]
        heard.append(Heard(group, events))
    return heard


def test_so_many_at_once() -> None:
    machine = Machine([begun("a")] * 6, Limits(processes=6, starts=2))
    waiting(machine, *[request(str(n)) for n in range(6)])
    counts = []
    for claude in machine.clis:  # grows as they start up
        counts.append(machine.engine.keeper.starting)
        claude.say(b"")
        machine.clock.advance(0)
    assert max(counts) <= 2
    assert len([claude for claude in machine.clis if claude.upstream]) == 6


def test_failed_starts_come_ever_slower_and_end_the_waiting() -> None:
    machine = Machine(limits=Limits(starts=1), starts=False)
    (heard,) = waiting(machine, request("x"))
    delays = []
    for failures in range(1, 13):
        began, count = machine.clock.seconds(), len(machine.clis)
        machine.clis[-1].die()
        assert machine.engine.keeper.failures == failures
        while len(machine.clis) == count:
            machine.run(0.25)
        delays.append(machine.clock.seconds() - began)
        assert heard.group.done.called == (failures >= HOPELESS)
    assert delays == sorted(delays)
    assert delays[-1] == MAX_BACKOFF
    assert (heard.end.kind, heard.end.status) == (Kind.UNAVAILABLE, 503)
    assert "ended while starting up" in heard.end.message
    machine.starts = True
    machine.clis[-1].die()
    machine.run(MAX_BACKOFF)
    assert (machine.engine.keeper.failures, machine.engine.keeper.unused) == (0, 1)


def test_a_spawn_that_raises_is_a_failed_start() -> None:
    machine = Machine(no_spawn=CLIError("it is gone"))
    (heard,) = waiting(machine, request("x"))
    for _ in range(40):
        machine.run(0.25)
    assert "it is gone" in heard.end.message
    machine.no_spawn = OSError("no descriptors")
    machine.run(MAX_BACKOFF)
    machine.no_spawn = None
    machine.run(MAX_BACKOFF)
    assert machine.engine.keeper.unused == 1


def test_whoever_is_told_makes_nobody_try_at_once_again() -> None:
    """A slot that is left is taken by the next turn, which wants a process, too."""
    limits = Limits(processes=4, concurrency=1)
    machine = Machine(limits=limits, no_spawn=CLIError("it is gone"))
    heard = waiting(machine, *[request("x") for _ in range(20)])
    for tried in range(2, 6):  # the first was for nobody
        before = machine.engine.keeper.failures
        assert before == tried - 1
        machine.run(0.25 * 2**before)
    assert machine.engine.keeper.failures == 5
    told = [each for each in heard if each.group.done.called]
    assert [each.end.status for each in told] == [503] * 3


def test_those_who_can_be_served_go_on_waiting() -> None:
    """Nothing can be started; but a process that fits is at work, and will be done."""
    machine = Machine([begun("a"), said("b")], Limits(processes=4))
    machine.no_spawn = CLIError("it is gone")
    machine.ask(request("x"))
    same = machine.ask(request("y"))
    other = machine.ask(request("z", system=BRIEF))
    for _ in range(40):
        machine.run(0.25)
    assert other.end.status == 503
    assert not same.group.done.called
    (claude,) = machine.alive
    claude.say(cli.closing() + cli.result("a"))
    machine.run()
    assert same.text == "b"


def test_no_process_goes_for_one_that_cannot_be_started() -> None:
    machine = Machine([said("a"), said("b")], Limits(processes=2))
    machine.ask(request("x"))
    machine.ask(request("y", system=BRIEF))
    assert machine.engine.keeper.holding == 2
    machine.no_spawn = CLIError("it is gone")
    for n in range(4):
        machine.ask(request("z", system=(f"Neither {n}.",)))
        heard = machine.ask(request("z", system=(f"Nor {n}.",)))
        for _ in range(130):
            machine.run(0.25)
        assert heard.end.status == 503
    assert machine.engine.keeper.holding == 1


def test_one_that_dies_while_it_waits_is_replaced() -> None:
    machine = Machine()
    machine.clis[0].die()
    machine.run(1.0)
    assert (machine.engine.keeper.unused, len(machine.clis)) == (1, 2)


def test_those_that_always_die_while_they_wait_come_ever_slower() -> None:
    machine = Machine()
    for _ in range(400):
        for claude in machine.alive:
            claude.die()
        machine.run(0.25)
    assert len(machine.clis) < 12  # in 100 seconds


def test_one_that_never_starts_up_is_ended() -> None:
    machine = Machine(starts=False)
    machine.run(START_TIMEOUT - 1)
    assert not machine.clis[0].closed
    machine.run(1)
    assert (machine.clis[0].closed, machine.engine.keeper.failures) == (True, 1)


def test_one_that_starts_up_as_it_is_ended_is_replaced() -> None:
    machine = Machine([said("a")], Limits(starts=1), starts=False)
    (heard,) = waiting(machine, request("x"))
    (late,) = machine.clis
    dies, late.die = late.die, lambda: None  # type: ignore[method-assign]
    machine.run(START_TIMEOUT)
    late.say(cli.ready())
    machine.run()
    assert (late.closed, late.asked, machine.engine.keeper.unused) == (True, [], 0)
    machine.starts = True
    dies()
    machine.run(MAX_BACKOFF)
    assert (heard.text, late.asked) == ("a", [])
