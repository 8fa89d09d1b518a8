"""A CLI that never answers costs the client that met it, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define
from machine import Claude, Machine, request, said

from claudeproxy.cli.process import REWIND_GRACE, CLIProcess
from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import Engine, Limits
from claudeproxy.engine.starts import START_TIMEOUT
from claudeproxy.messages import Finished, Kind
from claudeproxy.testing import transcripts as cli


class Mute(Claude):
    """One that never starts up: it reads, and says nothing."""

    def _take(self, line: Any) -> None:
        self.read.append(line)


@define(eq=False)
class Hanging(Machine):
    """``mute``: how many of the first CLIs never start up."""

    mute: int = 0

    def _spawn(self, engine: Engine) -> CLIProcess:
        claude = (Mute if len(self.clis) < self.mute else Claude)(self)
        self.clis.append(claude)
        claude.process.connectionMade()
        return claude.process


def asked(machine: Machine) -> list[Claude]:
    return [claude for claude in machine.clis if claude.asked]


@pytest.mark.parametrize(("says", "spent"), [(b"", False), (cli.requesting(), True)])
def test_the_next_in_the_queue_has_its_whole_deadline(says: bytes, spent: bool) -> None:
    """It begins with the process, not while somebody else's does not answer."""
    limits = Limits(concurrency=1, deadlines=Deadlines(first_token=10.0))
    machine = Machine([says, b""], limits)
    machine.rewinds = None
    first = machine.ask(request("a"))
    machine.run(8.0)
    second = machine.ask(request("b"))
    machine.run(1.9)
    assert (first.events, second.events) == ([], [])
    machine.run(0.1)
    assert (first.end.status, first.end.kind, first.end.spent) == (504, Kind.TIMEOUT, spent)
    assert first.end.message == "no answer began within 10 seconds"
    mute, other = asked(machine)
    machine.run(REWIND_GRACE)
    assert (mute.closed, other.closed, second.events) == (True, False, [])
    machine.run(9.9 - REWIND_GRACE)  # 11.9 seconds after it was asked for
    other.say(said("Here."))
    machine.run()
    assert (second.text, type(second.end), second.group.queued) == ("Here.", Finished, 2.0)


def test_one_beside_it_is_answered_at_once() -> None:
    limits = Limits(deadlines=Deadlines(first_token=10.0))
    machine = Machine([cli.requesting(), said("Here."), said("Again.")], limits)
    machine.rewinds = None
    first = machine.ask(request("a"))
    machine.run(9.0)
    assert machine.ask(request("b")).text == "Here."
    machine.run(1.0)
    assert first.end.status == 504
    assert machine.ask(request("b", "Here.", "Again?")).text == "Again."
    machine.run(REWIND_GRACE)
    assert [claude.closed for claude in asked(machine)] == [True, False]


def test_its_own_next_request_meets_another_process() -> None:
    limits = Limits(deadlines=Deadlines(first_token=10.0, idle=5.0))
    machine = Machine([said("one"), b"", said("two")], limits)
    machine.ask(request("a"))
    machine.rewinds = None
    heard = machine.ask(request("a", "one", "b"))
    machine.run(10.0)
    assert (heard.end.status, heard.end.spent, heard.group.placement) == (504, False, "kept")
    heard = machine.ask(request("a", "one", "b"))
    assert (heard.text, heard.group.placement) == ("two", "warm")
    machine.run(REWIND_GRACE)
    assert [claude.closed for claude in asked(machine)] == [True, False]


def test_a_cli_that_never_starts_up() -> None:
    """The second client waits with a deadline of its own for what starts in that one's place."""
    limits = Limits(starts=1, deadlines=Deadlines(first_token=100.0))
    machine = Hanging([said("Here.")], limits, mute=2)
    first = machine.ask(request("a"))
    machine.run(START_TIMEOUT)
    assert machine.clis[0].closed
    machine.run(30.0)
    second = machine.ask(request("b"))
    machine.run(9.9)
    assert (first.events, second.events) == ([], [])
    machine.run(0.1)
    assert (first.end.status, first.end.spent) == (504, False)
    assert first.end.message == (
        "no Claude CLI was ready for this turn: no answer began within 100 seconds"
    )
    assert (second.events, len(machine.clis)) == ([], 2)
    machine.run(START_TIMEOUT)
    machine.run(1.0)
    assert (second.text, type(second.end)) == ("Here.", Finished)
    assert asked(machine) == [machine.clis[2]]
    assert machine.engine.admission.running == 0


def test_of_two_that_start_only_one_hangs() -> None:
    limits = Limits(starts=2, deadlines=Deadlines(first_token=10.0))
    machine = Hanging([said("one"), said("two")], limits, mute=1)
    assert machine.ask(request("a")).text == "one"
    assert machine.ask(request("b")).text == "two"
    machine.run(START_TIMEOUT)
    assert [claude.closed for claude in machine.clis[:2]] == [True, False]
