"""What is told of processes: what they are at, and how much they hold."""

from __future__ import annotations

from machine import LOOK, NOBODY, Machine, begun, call, request, said

from claudeproxy.engine.engine import Limits
from claudeproxy.engine.keeper import REFILL
from claudeproxy.engine.reports import ProcessReport
from claudeproxy.testing import transcripts as cli


def told(machine: Machine) -> list[tuple[str, int, int, str]]:
    return [
        (one.state, one.messages, one.turns, one.model) for one in machine.engine.keeper.reports()
    ]


def test_a_process_from_its_start_to_its_end() -> None:
    machine = Machine([begun("answer"), said("more")], Limits(processes=1))
    assert told(machine) == [("warm", 0, 0, "")]
    machine.clock.advance(5)
    (report,) = machine.engine.keeper.reports()
    assert report == ProcessReport(NOBODY, "warm", 5.0, 0, 0, 0, 5.0)
    heard = machine.ask(request("one"))
    (running,) = machine.engine.keeper.reports()
    assert (running.state, running.rest, running.model) == ("running", None, "opus")
    machine.clis[0].say(cli.closing() + cli.result("answer"))
    machine.clock.advance(REFILL / 2)
    (kept,) = machine.engine.keeper.reports()
    assert heard.text == "answer"
    assert (kept.state, kept.messages, kept.model, kept.turns) == ("kept", 2, "opus", 1)
    assert kept.characters is not None and 20 < kept.characters < 500
    assert kept.rest == REFILL / 2
    longer = machine.ask(request("one", "answer", "three" * 100))
    assert longer.text == "more"
    (grown,) = machine.engine.keeper.reports()
    assert grown.messages == 4 and (grown.characters or 0) > kept.characters + 500


def test_one_that_waits_for_results() -> None:
    machine = Machine([call()])
    machine.ask(request("x", tools=(LOOK,)))
    assert told(machine)[0][0] == "parked"


def test_those_that_go() -> None:
    machine = Machine([begun("y")], Limits(processes=1))
    machine.ask(request("x"))
    machine.engine.renew()
    assert ("retiring", 1) in [(state, turns) for state, _, turns, _ in told(machine)]
    machine.clis[0].say(cli.closing() + cli.result("y"))
    assert told(machine)[0][0] == "ending"
