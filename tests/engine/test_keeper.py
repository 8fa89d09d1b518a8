"""Processes from turn to turn: who gets which, what is taken back, what ends, what starts."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from machine import LOOK, Claude, Machine, begun, call, request, said, user
from twisted.internet.defer import Deferred

from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.process import GRACE, REWIND_GRACE
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State
from claudeproxy.engine import attempt, keeper, memory
from claudeproxy.engine.attempt import OUTLIVE
from claudeproxy.engine.engine import TEND, Limits, TurnGroup
from claudeproxy.engine.keeper import REFILL
from claudeproxy.engine.placing import RECENT, Placement, Wanted
from claudeproxy.engine.quota import Policy
from claudeproxy.messages import Failure, Finished, Message, Request, Text, ToolResult, ToolUse
from claudeproxy.testing import transcripts as cli

BRIEF = ("Be brief.",)
END = cli.closing() + cli.result("a")
"""The end of an answer that has begun."""
INFO = {
    "status": "allowed",
    "rateLimitType": "five_hour",
    "overageStatus": "rejected",
    "unifiedWindows": {"five_hour": {"utilization": 0.1, "resetsAt": 9000}},
}
PAID = cli.line({"type": "rate_limit_event", "rate_limit_info": INFO})


def asked(machine: Machine) -> list[Claude]:
    """Those that have asked upstream."""
    return [claude for claude in machine.clis if claude.upstream]


def paying(script: list[bytes], limits: Limits | None = None) -> Machine:
    """A machine with a login, where it matters how an answer is paid for."""
    machine = Machine(script, limits or Limits(processes=4))
    machine.engine.quota.applies = True
    machine.engine.login_is(LoginStatus(True, "mine"))
    return machine


# -- who gets which --


def test_one_process_serves_conversation_after_conversation() -> None:
    machine = Machine([said(str(n)) for n in range(20)])
    heard = [machine.ask(request(f"question {n}")) for n in range(20)]
    assert [each.text for each in heard] == [str(n) for n in range(20)]
    assert [each.group.placement for each in heard] == ["warm"] + ["rewound"] * 19
    (claude,) = asked(machine)
    assert claude.upstream == [[f"question {n}"] for n in range(20)]
    assert (len(machine.alive), machine.engine.keeper.unused) == (2, 1)


def test_an_edit_replays_only_what_comes_after_it() -> None:
    machine = Machine([said("1"), said("2"), said("3"), said("4")])
    machine.ask(request("a"))
    machine.ask(request("a", "1", "b"))
    machine.ask(request("a", "1", "b", "2", "c"))
    (claude,) = asked(machine)
    written = len(claude.asked)
    heard = machine.ask(request("a", "1", "edited"))
    assert (heard.text, heard.group.placement) == ("4", "rewound")
    assert claude.upstream[-1] == ["a", "1", "edited"]
    assert len(claude.asked) == written + 1


def test_other_tools_on_the_same_process() -> None:
    machine = Machine([said("1"), said("2"), said("3")])
    other = evolve(LOOK, name="touch")
    for n, tools in enumerate(((LOOK,), (other,), ())):
        assert machine.ask(request("x", tools=tools)).text == str(n + 1)
    (claude,) = asked(machine)
    sets = [line["request"] for line in claude.read if "mcp_set_servers" in str(line)]
    assert [len(each["servers"]) for each in sets] == [1, 0]


def test_under_plain_names_other_tools_take_another_process() -> None:
    """The CLI would send the old definition of a tool whose name it knows."""
    machine = Machine([said(str(n)) for n in range(3)], Limits(processes=4, plain_names=True))
    other = evolve(LOOK, description="Looks elsewhere.")
    for tools in ((LOOK,), (other,), (LOOK,)):
        assert machine.ask(request("x", tools=tools)).end.stop_reason == "end_turn"
        machine.run(1.0)
    assert [len(claude.upstream) for claude in asked(machine)] == [2, 1]
    assert not any("mcp_set_servers" in str(claude.read) for claude in machine.clis)


def test_who_waits_is_served_in_turn_where_it_fits() -> None:
    machine = Machine([begun("a"), said("b"), said("c"), said("d")], Limits(processes=4, starts=1))
    machine.starts = False
    machine.ask(request("x"))
    order: list[str] = []

    def ask(asks: Request, name: str) -> None:
        def sink(_: int, burst: list[Any]) -> None:
            if isinstance(burst[-1], Finished):
                order.append(name)

        machine.engine.ask(asks, sink)

    ask(request("y", system=BRIEF), "another's")
    ask(request("y"), "first")
    ask(request("z"), "second")
    machine.run()
    assert order == []
    asked(machine)[0].say(END)
    machine.run()
    assert order == ["first", "second"]  # the other one's process starts
    machine.starts = True
    machine.clis[-1].say(cli.ready())
    machine.run()
    assert order == ["first", "second", "another's"]


def test_two_clients_of_one_system_prompt_do_not_starve_a_third_with_another() -> None:
    machine = Machine([begun("a")] * 2 + [said("b"), said("c")], Limits(processes=2))
    one, _ = machine.ask(request("1")), machine.ask(request("2"))
    other = machine.ask(request("x", system=BRIEF))
    third = machine.ask(request("3"))
    assert machine.engine.admission.waiting == 2
    one.group.cancel()
    machine.run()
    assert (other.text, third.text) == ("b", "c")
    assert len(machine.alive) == 2


def test_a_claim_that_is_withdrawn_gets_nothing() -> None:
    machine = Machine([begun("a"), said("b")], Limits(processes=1, concurrency=2))
    machine.engine.admission._slots = 2
    machine.ask(request("x"))
    leaves, stays = machine.ask(request("y")), machine.ask(request("z"))
    leaves.group.cancel()
    asked(machine)[0].say(END)
    machine.run()
    assert (leaves.events, stays.text) == ([], "b")


def test_one_claim_served_may_withdraw_or_serve_another() -> None:
    """A claim that is served begins its turn at once, and that may be the end of others."""
    machine = Machine([begun("a")], Limits(processes=2))
    keeper, served = machine.engine.keeper, []
    first = machine.ask(request("1"))
    machine.run(REFILL)
    unused = outcome(claim(machine))
    waiting = [claim(machine) for _ in range(3)]

    def begins(placement: Any) -> None:
        served.append(1)
        waiting[1].cancel()
        keeper.give_back(unused, None)  # and the third is served

    def ends_at_once(placement: Any) -> None:
        served.append(3)
        keeper.give_back(placement, None)

    waiting[0].addCallback(begins)
    waiting[1].addErrback(lambda _: served.append(-2))
    waiting[2].addCallback(ends_at_once)
    first.group.cancel()
    machine.run()
    assert served == [1, -2, 3]


def claim(machine: Machine) -> Deferred[Placement]:
    return machine.engine.keeper.claim(Wanted(request("x"), "opus", Setup()))


def outcome(deferred: Deferred[Placement]) -> Placement:
    found: list[Placement] = []
    deferred.addCallback(found.append)
    return found[0]


# -- the budget --


def test_one_unused_process_is_kept_at_hand_within_the_budget() -> None:
    machine = Machine([begun("a")] * 3, Limits(processes=3))
    counts = []
    for n in range(3):
        machine.ask(request(f"{n}"))
        counts.append(len(machine.alive))
        machine.run(REFILL)  # the turn that begins has the CPU first
        counts.append(len(machine.alive))
    assert counts == [1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("budget", [1, 2])
def test_set_ups_beyond_the_budget_take_turns(budget: int) -> None:
    machine = Machine([said(str(n)) for n in range(12)], Limits(processes=budget))
    for n in range(12):
        heard = machine.ask(request("x", system=(f"Prompt {n % 3}.",)))
        machine.run(1.0)
        assert (heard.text, len(machine.alive)) == (str(n), budget)


def test_room_is_made_by_ending_what_costs_least_to_lose() -> None:
    machine = Machine([said("1" * 4000), said("2"), said("3"), said("4")], Limits(processes=3))
    machine.ask(request("long"))
    machine.ask(request("short", system=BRIEF))
    machine.ask(request("medium", "x" * 400, "more", system=("Be verbose.",)))
    long, short, medium = asked(machine)
    machine.ask(request("new", system=("Be wise.",)))
    assert [claude.closed for claude in (long, short, medium)] == [False, True, False]
    assert len(machine.alive) == 3


def test_room_is_made_once_for_each_that_waits() -> None:
    machine = Machine([said("1"), said("2"), said("3"), said("4")], Limits(processes=3))
    for name in ("1", "2", "3"):
        machine.ask(request(name, system=(name,)))
    machine.starts = False
    machine.ask(request("x", system=BRIEF))
    for _ in range(3):
        machine.engine.keeper.fill()
        machine.run()
    assert machine.engine.keeper.holding == 2
    assert machine.engine.keeper.starting == 1


def test_what_is_worth_little_gives_way_to_an_unused_process() -> None:
    machine = Machine([said("1" * 40_000), said("2"), said("3"), said("4")], Limits(processes=2))
    machine.ask(request("a"))
    machine.ask(request("title", system=BRIEF))
    long, short = asked(machine)
    machine.run(RECENT + 1)
    machine.engine.keeper.fill()
    machine.run()
    assert (long.closed, short.closed, machine.engine.keeper.unused) == (False, True, 1)
    assert machine.ask(request("x", system=("Be wise.",))).group.placement == "warm"
    assert machine.ask(request("a", "1" * 40_000, "b")).group.placement == "kept"


def test_the_only_process_never_gives_way() -> None:
    machine = Machine([said("1"), said("2")], Limits(processes=1))
    machine.ask(request("a"))
    for _ in range(60):
        machine.run(TEND)
    assert machine.ask(request("a", "1", "b")).group.placement == "kept"


def test_no_more_turns_than_processes() -> None:
    machine = Machine([begun("a")] * 5, Limits(processes=2, concurrency=8))
    for n in range(5):
        machine.ask(request(str(n)))
    assert (machine.engine.admission.running, machine.engine.admission.waiting) == (2, 3)
    assert len(machine.alive) == 2


def test_nothing_starts_for_one_who_waits_for_a_rewind() -> None:
    machine = Machine([begun("a"), said("b")], Limits(processes=4, concurrency=1))
    first = machine.ask(request("x"))
    machine.starts = False  # of the spare that starts then
    later = machine.ask(request("y"))
    first.group.cancel()
    assert machine.engine.keeper._waiting() == 0
    machine.run()
    assert later.group.placement == "rewound"


def test_an_idle_daemon_shrinks_to_one_process_that_fits_any_request() -> None:
    machine = Machine([said(str(n)) for n in range(5)], Limits(processes=4, idle=600.0))
    for n in range(4):
        machine.ask(request("x", system=(f"Prompt {n}.",)))
    assert len(machine.alive) == 4
    for _ in range(int(600 / TEND)):
        machine.run(TEND)
    assert len(machine.alive) == 4
    for _ in range(4):
        machine.run(TEND)
    assert (len(machine.alive), machine.engine.keeper.unused) == (1, 1)
    assert machine.ask(request("y")).group.placement == "warm"


# -- what grows old --


@pytest.mark.parametrize("known", [True, False], ids=["kept", "given up"])
def test_after_many_turns_a_process_retires(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "MAX_TURNS", 3)
    machine = Machine([said("a"), said("b"), said("c") if known else begun("c"), said("d")])
    machine.ask(request("1"))
    machine.ask(request("2"))
    (claude,) = asked(machine)
    assert not claude.closed
    machine.ask(request("3")).group.cancel()
    machine.run()
    assert claude.closed
    assert machine.ask(request("4")).text == "d"


def test_after_a_long_time_a_process_retires_once_its_turn_is_over() -> None:
    machine = Machine([begun("a")], Limits(processes=4, idle=1e9))
    heard = machine.ask(request("x"))
    (claude,) = asked(machine)
    machine.clock.rightNow += keeper.MAX_AGE + 1
    machine.engine.keeper.tend()
    assert not claude.closed
    claude.say(END)
    machine.run()
    assert (heard.text, claude.closed) == ("a", True)


def test_one_that_has_grown_large_retires(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine([said("a"), begun("b")])
    machine.ask(request("x"))
    machine.ask(request("y", system=BRIEF))
    kept, busy = asked(machine)
    monkeypatch.setattr(keeper, "MAX_RSS", -1)
    machine.run(TEND)
    assert (kept.closed, busy.closed) == (True, False)


def test_while_memory_is_scarce_nothing_starts_that_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine([begun("a"), said("b"), said("c")])
    first = machine.ask(request("x"))
    monkeypatch.setattr(memory, "SCARCE", 2.0)
    machine.run(TEND)
    asked(machine)[0].say(END)
    machine.run(TEND)
    assert (first.text, len(machine.alive)) == ("a", 1)
    assert machine.ask(request("y", system=BRIEF)).text == "b"  # who waits is served
    monkeypatch.setattr(memory, "SCARCE", 0.0)
    machine.run(TEND)
    assert machine.engine.keeper.unused == 1


@pytest.mark.parametrize("idle", [100.0, 1e9])
def test_a_parked_call_whose_result_never_comes_is_taken_back(idle: float) -> None:
    machine = Machine([call(), said("b")], Limits(processes=1, idle=idle, park=900.0))
    machine.ask(request("x", tools=(LOOK,)))
    (claude,) = asked(machine)
    machine.run(900.0 - TEND)
    assert claude.process.state is State.PARKED
    machine.run(TEND)
    machine.run(TEND)
    assert (claude.process.state, claude.rewinds, claude.holds) == (State.IDLE, 1, [])
    assert machine.ask(request("y", tools=(LOOK,))).group.placement == "rewound"


def test_a_parked_call_waits_its_time_even_if_idle_ones_do_not() -> None:
    machine = Machine([call(), said("seen")], Limits(processes=4, idle=60.0, park=900.0))
    asks = request("x", tools=(LOOK,))
    machine.ask(asks)
    for _ in range(20):
        machine.run(TEND)
    called = Message("assistant", (ToolUse("toolu_1", "look", {}),))
    result = Message("user", (ToolResult("toolu_1", (Text("a door"),)),))
    heard = machine.ask(evolve(asks, messages=(*asks.messages, called, result)))
    assert (heard.text, heard.group.placement) == ("seen", "parked")


# -- turns that are given up --

TOO_LONG = begun("a") + cli.closing("max_tokens")
BROKEN = cli.requesting() + cli.result("API Error: 500 no", is_error=True, api_error_status=500)


@pytest.mark.parametrize(
    ("says", "leaves"),
    [
        (b"", True),  # asked, and nothing heard
        (cli.requesting(), True),
        (begun("a"), True),
        (TOO_LONG, False),
        (BROKEN, False),
    ],
)
def test_a_turn_that_is_given_up_leaves_a_process_as_new(says: bytes, leaves: bool) -> None:
    machine = Machine([says, said("b"), said("c")])
    heard = machine.ask(request("x"))
    if leaves:
        heard.group.cancel()
        machine.run()
    (claude,) = asked(machine)
    again = machine.ask(request("y"))
    assert (again.text, again.group.placement) == ("b", "rewound")
    assert claude.upstream == [["x"], ["y"]]
    after = machine.ask(request("y", "b", "z"))
    assert (after.text, after.group.placement) == ("c", "kept")


def put(machine: Machine, asks: Request) -> tuple[TurnGroup, Claude]:
    """A turn that has just been put to a process, which has not read anything of it yet."""
    group = machine.engine.ask(asks, lambda *_: None)
    return group, next(claude for claude in machine.clis if claude.process.listener)


def test_one_given_up_while_its_history_is_put_rests_once_that_is_taken_in() -> None:
    machine = Machine([said("b"), said("c")])
    group, claude = put(machine, request("1", "2", "3", "4", "5"))
    group.cancel()
    assert claude.process.state is State.PREPARING
    machine.run()
    assert (claude.process.state, claude.upstream) == (State.IDLE, [])
    heard = machine.ask(request("1", "2", "other"))
    assert heard.text == "b"
    assert claude.upstream == [["1", "2", "other"]]


def test_one_that_never_takes_its_history_in_is_ended() -> None:
    machine = Machine([said("b")])
    machine.clis[0]._take = lambda line: None  # type: ignore[method-assign]  # it hangs
    group, claude = put(machine, request("1", "2", "3"))
    group.cancel()
    machine.run(REWIND_GRACE)
    assert claude.closed
    assert machine.ask(request("1")).text == "b"


def test_one_given_up_behind_a_turn_that_ends_still_holds_what_it_held() -> None:
    """Its next client must not be answered from the conversation of the one before."""
    machine = Machine([said("1"), said("2").replace(cli.result("2"), b""), said("3")])
    machine.ask(request("a"))
    machine.ask(request("a", "1", "b"))
    (claude,) = asked(machine)
    assert claude.process.state is State.AWAITING_RESULT
    for alive in machine.alive:
        if alive is not claude:
            alive.process.stop()
    other = request("x", "y", "z", "w", "v")
    group, claude = put(machine, other)
    assert claude.process.state is State.QUEUED
    group.cancel()
    claude.say(cli.result("2"))
    machine.run()
    heard = machine.ask(request("x", "y", "z", "w", "u"))
    assert heard.text == "3"
    assert asked(machine)[-1].upstream[-1] == ["x", "y", "z", "w", "u"]


def test_one_behind_a_turn_that_does_not_end_is_taken_back_with_it() -> None:
    """So that the next does not wait for that turn, too."""
    machine = Machine([said("1").replace(cli.result("1"), b""), said("2")])
    machine.ask(request("a"))
    (claude,) = asked(machine)
    waits = machine.ask(request("a", "1", "b"))
    assert (claude.process.state, waits.events) == (State.QUEUED, [])
    waits.group.cancel()
    machine.run()
    heard = machine.ask(request("a", "1", "b"))
    assert (heard.text, heard.group.placement) == ("2", "rewound")
    assert claude.upstream[-1] == ["a", "1", "b"]


def test_one_given_up_while_it_is_taken_back() -> None:
    machine = Machine([said("1"), said("2")])
    machine.ask(request("a"))
    group, claude = put(machine, request("b"))
    assert claude.process.state is State.REOPENING
    group.cancel()
    machine.run()
    assert machine.ask(request("c")).text == "2"
    assert claude.upstream == [["a"], ["c"]]


def test_a_process_that_refuses_to_be_taken_back_is_replaced_and_the_turn_put_again() -> None:
    machine = Machine([said("1"), said("2")])
    machine.ask(request("a"))
    (claude,) = asked(machine)
    claude.holds.clear()  # it no longer knows the line it is to be taken back to
    heard = machine.ask(request("b"))
    assert (heard.text, heard.group.placement, claude.closed) == ("2", "warm", True)


def test_a_process_that_does_not_answer_to_a_rewind_is_replaced_and_the_turn_put_again() -> None:
    machine = Machine([said("1"), said("2")])
    machine.ask(request("a"))
    (claude,) = asked(machine)
    machine.rewinds = None
    heard = machine.ask(request("b"))
    assert heard.events == []
    machine.run(REWIND_GRACE)
    assert (heard.text, claude.closed) == ("2", True)


@pytest.mark.parametrize(
    "says", [None, b"", begun("a"), TOO_LONG, said("a"), call()], ids=lambda s: str(s)[:1]
)
def test_one_that_ends_in_any_phase_leaves_nothing_behind(says: bytes | None) -> None:
    machine = Machine([said("b")], Limits(processes=1))
    if says is not None:
        machine.script.insert(0, says)
        machine.ask(request("x", tools=(LOOK,)))
    (claude,) = machine.clis
    claude.die()
    machine.run(1.0)
    assert machine.ask(request("y")).text == "b"
    assert (len(machine.alive), machine.engine.admission.running) == (1, 0)


def test_one_that_ends_while_it_is_taken_back_leaves_nothing_behind() -> None:
    machine = Machine([begun("a"), said("b")], Limits(processes=1))
    heard = machine.ask(request("x"))
    (claude,) = machine.clis
    heard.group.cancel()
    assert claude.process.state is State.REWINDING
    claude.die()
    machine.run()
    assert machine.ask(request("y")).text == "b"
    assert len(machine.alive) == 1


@pytest.mark.parametrize("login", [False, True], ids=["key", "login"])
def test_one_whose_answer_breaks_the_daemon_is_given_back(
    monkeypatch: pytest.MonkeyPatch, nothing_logged: list[str], login: bool
) -> None:
    def broken(blocks: object) -> bool:
        raise RuntimeError("no known answer does this")

    machine = (paying if login else Machine)([said("a"), said("b")], Limits(processes=1))
    with monkeypatch.context() as patch:
        patch.setattr(attempt, "held_as_said", broken)
        assert machine.ask(request("x")).end.status == 500
    machine.run(1.0)
    assert machine.ask(request("y")).text == "b"
    (claude,) = machine.clis
    assert claude.upstream == [["x"], ["y"]]
    assert "no known answer does this" in nothing_logged.pop()


# -- how it is paid for --


def unended(*parts: str) -> bytes:
    """A whole answer whose turn the CLI has yet to end."""
    return begun(*parts) + cli.closing()


@pytest.mark.parametrize("follows", [True, False], ids=["it goes on", "a new conversation"])
@pytest.mark.parametrize("login", [False, True], ids=["key", "login"])
def test_what_follows_an_answer_at_once_waits_for_its_end_and_uses_up_no_process(
    login: bool, follows: bool
) -> None:
    make = paying if login else Machine
    machine = make([unended("a"), said("b")])
    machine.engine.quota.hear(INFO)  # nothing can be charged: no gate is shut
    machine.ask(request("x"))
    waits = machine.ask(request("x", "a", "y") if follows else request("y"))
    (claude,) = asked(machine)
    assert (waits.events, claude.upstream, machine.engine.keeper.starting) == ([], [["x"]], 0)
    claude.say(cli.result("a"))
    machine.run()
    assert (waits.text, waits.group.placement) == ("b", "kept" if follows else "rewound")
    assert machine.engine.keeper.unused == 1


def test_of_two_that_follow_at_once_only_one_waits() -> None:
    machine = paying([unended("a"), begun("b"), said("c")])
    machine.engine.quota.hear(INFO)
    machine.ask(request("x"))
    waits, other = machine.ask(request("y")), machine.ask(request("z"))
    assert (waits.events, other.group.placement) == ([], "warm")
    asked(machine)[0].say(cli.result("a"))
    machine.run()
    assert (waits.text, waits.group.placement) == ("c", "rewound")


def test_what_waits_for_a_process_that_ends_gets_another() -> None:
    machine = paying([unended("a"), said("b")])
    machine.engine.quota.hear(INFO)
    machine.ask(request("x"))
    waits = machine.ask(request("y"))
    asked(machine)[0].die()
    machine.run()
    assert (waits.text, waits.group.placement) == ("b", "warm")


def test_an_answer_paid_as_extra_usage_counts_although_the_next_turn_is_there() -> None:
    machine = paying([unended("a"), said("b")], Limits(policy=Policy(extra_usage=True)))
    machine.ask(request("x"))
    follows = machine.ask(request("x", "a", "y"))
    (claude,) = asked(machine)
    info = {**INFO, "overageStatus": "allowed", "isUsingOverage": True}
    claude.say(cli.line({"type": "rate_limit_event", "rate_limit_info": info}) + cli.result("a"))
    assert machine.engine.quota.charges.paid == 1
    machine.run()
    assert (follows.text, follows.group.placement) == ("b", "kept")


def test_one_cut_waits_to_tell_how_it_was_paid_and_is_taken_back_then() -> None:
    machine = paying([TOO_LONG, said("b")])
    heard = machine.ask(request("x"))
    assert heard.end.stop_reason == "max_tokens"
    (claude,) = asked(machine)
    assert (claude.process.state, claude.rewinds) == (State.CUT, 0)
    claude.say(PAID)
    machine.run()
    assert (claude.process.state, claude.rewinds) == (State.IDLE, 1)
    assert machine.ask(request("y")).group.placement == "rewound"


def test_one_cut_that_does_not_tell_is_taken_back_all_the_same() -> None:
    machine = paying([TOO_LONG])
    machine.ask(request("x"))
    (claude,) = asked(machine)
    machine.run(GRACE)
    assert (claude.process.state, claude.rewinds) == (State.IDLE, 1)


def left(machine: Machine) -> Claude:
    """One that goes on with its answer after its client has left."""
    machine.ask(request("x")).group.cancel()
    machine.run()
    (claude,) = asked(machine)
    assert (claude.rewinds, claude.process.outliving) == (0, True)
    return claude


@pytest.mark.parametrize(
    "says", [END, BROKEN, PAID + END, cli.closing("max_tokens") + PAID], ids=str
)
def test_one_that_outlives_its_client_serves_the_next(says: bytes) -> None:
    machine = paying([begun("a"), begun("b")], Limits(processes=1))
    claude = left(machine)
    claude.say(says)
    machine.run(1.0)
    heard = machine.ask(request("y"))
    assert claude.upstream == [["x"], ["y"]]
    machine.run(OUTLIVE)  # and nobody gives that turn up
    claude.say(END)
    machine.run()
    assert (heard.text, isinstance(heard.end, Finished)) == ("b", True)


def test_what_it_says_to_one_who_left_is_not_for_the_next() -> None:
    machine = paying([begun("a"), said("b")], Limits(processes=1))
    claude = left(machine)
    waits = machine.ask(request("y"))
    assert waits.events == []
    # The rest of the answer, and that it is paid for, which lets the next begin: in one piece.
    claude.say(cli.closing() + PAID)
    claude.say(cli.result("a"))
    machine.run()
    assert (waits.text, len([e for e in waits.events if isinstance(e, Finished)])) == ("b", 1)
    assert claude.upstream == [["x"], ["y"]]


def test_one_that_outlives_its_client_for_too_long_is_taken_back() -> None:
    machine = paying([begun("a"), said("b")], Limits(processes=1))
    claude = left(machine)
    machine.run(OUTLIVE)
    assert (claude.rewinds, claude.process.state) == (1, State.IDLE)


def test_after_a_new_login_one_that_outlives_its_client_ends_then() -> None:
    machine = paying([begun("a"), said("b")], Limits(processes=1))
    claude = left(machine)
    machine.engine.login_is(LoginStatus(True, "hers"))
    machine.run()
    assert not claude.closed
    claude.say(END)
    machine.run(1.0)
    assert claude.closed
    assert machine.ask(request("y")).text == "b"
    assert len(machine.alive) == 1


# -- renewed and closed --


def test_renewed_who_waits_gets_a_new_process() -> None:
    machine = Machine([begun("a"), said("b")], Limits(processes=4))
    first = machine.ask(request("x"))
    (busy,) = asked(machine)
    machine.starts = False
    waits = machine.ask(request("y"))
    starting = [claude for claude in machine.alive if claude is not busy]
    assert starting
    machine.starts = True
    machine.engine.renew()
    for claude in starting:
        claude.say(cli.ready())  # too late
    machine.run()
    assert all(claude.closed and not claude.asked for claude in starting)
    assert (busy.closed, waits.text, machine.engine.keeper.failures) == (False, "b", 0)
    busy.say(END)
    machine.run()
    assert (first.text, busy.closed) == ("a", True)


def test_renewed_the_budget_holds() -> None:
    machine = Machine([begun("a"), said("b"), said("c")], Limits(processes=2))
    machine.ask(request("x"))
    machine.ask(request("y", system=BRIEF))
    machine.engine.renew()
    machine.run()
    waits = machine.ask(request("y", system=("Be wise.",)))
    assert waits.text == "c"
    assert len(machine.alive) == 2


def test_closed_it_starts_nothing_any_more() -> None:
    machine = Machine([said("a"), begun("b")])
    machine.ask(request("x"))
    machine.ask(request("y", system=BRIEF))
    kept, busy = asked(machine)
    machine.engine.keeper.close()
    count = len(machine.clis)
    machine.run()
    assert (kept.closed, busy.closed) == (True, False)
    busy.say(END)
    machine.run(1.0)
    machine.engine.keeper.fill()
    machine.run(TEND)
    assert (busy.closed, machine.alive, len(machine.clis)) == (True, [], count)


# -- a CLI that knows no rewind --


def test_without_the_rewind_conversations_go_on_and_all_else_ends_the_process() -> None:
    machine = Machine([said("1"), said("2"), begun("3"), said("4")], rewinds=False)
    machine.ask(request("a"))
    (first,) = asked(machine)
    heard = machine.ask(request("a", "1", "b"))
    assert (heard.text, heard.group.placement) == ("2", "kept")
    left = machine.ask(request("x"))  # a process of its own
    assert left.group.placement == "warm"
    second = asked(machine)[-1]
    left.group.cancel()
    machine.run()
    assert (first.closed, second.closed, first.rewinds + second.rewinds) == (False, True, 0)
    heard = machine.ask(request("a", "1", "edited"))
    assert (heard.text, heard.group.placement) == ("4", "warm")


@pytest.mark.parametrize("says", [TOO_LONG, BROKEN, begun("a"), b""])
def test_without_the_rewind_nothing_is_left_of_a_turn_given_up(says: bytes) -> None:
    machine = Machine([says, said("b")], Limits(processes=1), rewinds=False)
    machine.ask(request("x")).group.cancel()
    machine.run(GRACE)
    (claude,) = asked(machine)
    assert claude.closed
    assert machine.ask(request("y")).text == "b"


def test_without_the_rewind_one_given_up_behind_another_turn_ends() -> None:
    machine = Machine(
        [said("1").replace(cli.result("1"), b""), said("2")], Limits(processes=1), rewinds=False
    )
    machine.ask(request("a"))
    (claude,) = asked(machine)
    waits = machine.ask(request("a", "1", "b"))
    assert claude.process.state is State.QUEUED
    waits.group.cancel()
    machine.run(GRACE)
    assert claude.closed
    assert machine.ask(request("y")).text == "2"


# -- anything, in any order --

ANSWERS = st.sampled_from(["said", "said", "said", "begun", "nothing", "too long", "broken"])
DEED = st.one_of(
    st.tuples(st.just("new"), st.integers(0, 2)),
    st.tuples(
        st.sampled_from(["next", "next", "edit", "again", "leave", "die"]), st.integers(0, 9)
    ),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("time"), st.sampled_from([0.5, 5.0, 40.0, 700.0])),
    st.tuples(st.just("renew"), st.just(0)),
)


class Clients:
    """Clients that talk, edit and leave; each message of theirs is like no other."""

    def __init__(self, machine: Machine, answers: list[str]) -> None:
        self.machine = machine
        self.answers = answers
        self.said = 0
        self.sent: list[list[str]] = []
        self.running: list[tuple[Any, Request]] = []
        self.conversations: list[Request] = []

    def answer(self) -> bytes:
        kind = self.answers[self.said % len(self.answers)] if self.answers else "said"
        self.said += 1
        text = f"answer {self.said}"
        return {
            "said": said(text),
            "begun": begun(text),
            "nothing": b"",
            "too long": begun(text) + cli.closing("max_tokens"),
            "broken": BROKEN,
        }[kind]

    def ask(self, asks: Request) -> None:
        text = ["".join(b.text for b in m.content if isinstance(b, Text)) for m in asks.messages]
        self.sent.append(text)
        heard = self.machine.ask(asks)
        self.running.append((heard, asks))
        self.settle()

    def settle(self) -> None:
        for heard, asks in list(self.running):
            if heard.group.done.called:
                self.running.remove((heard, asks))
                if heard.events and isinstance(heard.events[-1], Finished) and heard.text:
                    answer = Message("assistant", (Text(heard.text),))
                    self.conversations.append(evolve(asks, messages=(*asks.messages, answer)))

    def do(self, deed: str, number: float) -> None:
        machine, n = self.machine, int(number)
        fresh = user(f"message {len(self.sent)}")
        if deed == "new":
            tools = (LOOK,) if n == 2 else ()
            self.ask(Request("opus", fresh, system=BRIEF if n == 1 else (), tools=tools))
        elif deed in ("next", "edit", "again") and self.conversations:
            held = self.conversations[n % len(self.conversations)]
            keep = len(held.messages)
            if deed != "next":
                keep = (n % keep) // 2 * 2
            last = held.messages[keep : keep + 1] if deed == "again" else fresh
            self.ask(evolve(held, messages=(*held.messages[:keep], *last)))
        elif deed in ("leave", "end") and self.running:
            heard, _ = self.running[n % len(self.running)]
            if deed == "leave":
                heard.group.cancel()
            else:
                busy = [c for c in machine.alive if c.process.state is State.ANSWERING]
                if busy:
                    busy[n % len(busy)].say(END)
            machine.run()
        elif deed == "die" and machine.alive:
            machine.alive[n % len(machine.alive)].die()
            machine.run()
        elif deed == "time":
            machine.run(number)
        elif deed == "renew":
            machine.engine.renew()
            machine.run()
        self.settle()


class Answers:
    """A script that never ends."""

    def __init__(self) -> None:
        self.clients: Clients | None = None

    def pop(self, _: int) -> bytes:
        assert self.clients is not None
        return self.clients.answer()


@given(
    st.lists(DEED, max_size=40),
    st.lists(ANSWERS, max_size=7),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_whatever_clients_do(
    deeds: list[tuple[str, float]], answers: list[str], budget: int, rewinds: bool, pays: bool
) -> None:
    """Each is answered from its own conversation, no more processes run than may, and in the end
    none is left that could not serve."""
    script = Answers()
    machine = Machine(script, Limits(processes=budget), rewinds=rewinds)  # type: ignore[arg-type]
    if pays:
        machine.engine.quota.applies = True
        machine.engine.login_is(LoginStatus(True, "mine"))
    clients = script.clients = Clients(machine, answers)
    for deed, number in deeds:
        clients.do(deed, number)
        assert len(machine.alive) <= budget
    for heard, _ in list(clients.running):
        heard.group.cancel()
    machine.run(OUTLIVE + 1.0)
    machine.run(40.0)
    clients.answers = []
    for system in ((), BRIEF, ("Be wise.",)):
        asks = Request("opus", user(f"{system}"), system=system)
        heard = machine.ask(asks)
        clients.sent.append([f"{system}"])
        for _ in range(10):
            machine.run(1.0)
        assert not isinstance(heard.end, Failure)
    assert machine.engine.admission.running == 0
    assert all(kept.free for kept in machine.engine.keeper._kept.values())
    for claude in machine.clis:
        for conversation in claude.upstream:
            assert conversation in clients.sent
