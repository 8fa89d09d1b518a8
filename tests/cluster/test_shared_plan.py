"""One plan on several nodes: what one learns, all know, and one finds out for all."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from nodes import (
    BROKEN,
    STEP,
    A,
    B,
    Node,
    Nodes,
    answered,
    charged_for,
    pump,
    told,
    used_up,
)
from twisted.internet.defer import CancelledError

from claudeproxy.cluster.plan import OTHERS, RETRY, SAVE
from claudeproxy.engine.charges import AGAIN
from claudeproxy.engine.closed import PROBE
from claudeproxy.engine.gates import FULL, LOOK_AGAIN
from claudeproxy.engine.permit import PROBE_RETRY, Permit
from claudeproxy.engine.quota import CLOSE, Policy
from claudeproxy.messages import FailureError

FREE = told("allowed", five_hour=0.1)


def three() -> tuple[Nodes, Node, Node, Node]:
    nodes = Nodes("mine", "mine", "mine")
    first, second, third = nodes.nodes
    return nodes, first, second, third


def settled(*quiet: str) -> tuple[Nodes, Node, Node, Node]:
    """Three nodes that know that extra usage is on, and that the set-ups ``quiet`` are free."""
    nodes, first, second, third = three()
    for setup in quiet or ("a",):
        first.turn(FREE, evolve(A, setup=setup))
    return nodes, first, second, third


def idle(nodes: Nodes) -> bool:
    """Whether nobody holds or waits for anything."""
    return not nodes.database.leases and not any(node.quota.gates for node in nodes.nodes)


# -- what one learns, all know --


def test_a_window_that_closes_on_one_is_closed_on_all() -> None:
    nodes, first, *others = settled()
    first.entered().ended(used_up())
    nodes.clock.advance(STEP)
    for node in others:
        assert node.quota.closed() == {"five_hour": pytest.approx(6000, abs=9)}
        failure = node.refused()
        assert (failure.status, failure.window) == (429, "five_hour")


def test_a_probe_opens_it_for_all() -> None:
    nodes, first, second, third = settled()
    first.failing_turn(used_up())
    nodes.clock.advance(PROBE)
    second.turn(FREE)
    assert [node.quota.closed() for node in nodes.nodes] == [{}, {}, {}]
    third.turn(FREE)


def test_the_reserve_counts_what_others_have_reported() -> None:
    _, first, second, third = settled()
    first.turn(told("allowed", five_hour=0.85))
    claim = evolve(A, reserve={"five_hour": 0.2})
    for node in (second, third):
        assert "20%" in node.refused(claim).message
        assert node.quota.windows.known["five_hour"].used == 0.85
    second.turn(told("allowed", five_hour=0.86))
    assert third.quota.windows.known["five_hour"].used == 0.86


def test_late_news_of_a_window_take_nothing_back() -> None:
    _, first, second, _ = settled()
    first.turn(told("allowed", five_hour=0.6))
    second.quota.apply({"windows": first.quota.windows.kept() | {"told": 0.0, "known": {
        "five_hour": {"used": 0.5, "resets": 9030.0, "status": None}}}})  # fmt: skip
    assert second.quota.windows.known["five_hour"].used == 0.6


def test_a_set_up_that_is_charged_for_on_one_is_refused_by_all() -> None:
    nodes, first, second, third = settled()
    first.turn(charged_for(five_hour=0.4), B)
    assert [node.refused(B).status for node in nodes.nodes] == [402, 402, 402]
    assert [node.quota.charges.paid for node in nodes.nodes] == [1, 0, 0]
    assert [node.quota.charges.paid_elsewhere for node in nodes.nodes] == [0, 1, 1]
    nodes.clock.advance(AGAIN)
    third.turn(FREE, B)
    assert not second.entered(B).undecided, "it is free, and all know it"


def test_what_is_heard_is_not_told_again() -> None:
    nodes, first, second, _ = settled()
    heard: list[Any] = []
    nodes.database.heard["0"].append(lambda kind, what: heard.append(what))
    first.turn(charged_for("five_hour", five_hour=1.0))
    pump(nodes.clock)
    assert second.quota.closed() and heard == []


def test_what_says_nothing_new_is_not_told() -> None:
    nodes, first, _, _ = settled()
    heard: list[Any] = []
    nodes.database.heard["1"].append(lambda kind, what: heard.append(what))
    first.turn(FREE)
    assert heard == []
    first.turn(told("allowed", five_hour=0.2))
    assert len(heard) == 1


# -- one finds out for all --


def test_one_probe_over_all() -> None:
    nodes, first, second, third = settled()
    first.failing_turn(used_up())
    nodes.clock.advance(PROBE)
    probe = second.entered()
    for node in nodes.nodes:
        assert node.refused().retry_after == pytest.approx(PROBE_RETRY)
    probe.ended(used_up())
    pump(nodes.clock)
    assert nodes.database.leases == {}
    for node in nodes.nodes:
        assert node.refused().retry_after == pytest.approx(5000, abs=9)
    nodes.clock.advance(PROBE)
    third.turn(FREE)
    assert first.quota.closed() == {}


def test_when_the_prober_dies_another_probes() -> None:
    nodes, first, second, third = settled()
    first.failing_turn(used_up())
    nodes.clock.advance(PROBE)
    second.entered()
    assert third.refused().retry_after == pytest.approx(PROBE_RETRY)
    nodes.database.node_died("1")
    third.turn(FREE)
    assert first.quota.closed() == {}


def test_a_probe_that_told_nothing_lets_another_node_probe() -> None:
    nodes, first, second, third = settled()
    first.failing_turn(used_up())
    nodes.clock.advance(PROBE)
    second.entered().ended(BROKEN)
    pump(nodes.clock)
    third.turn(FREE)
    assert first.quota.closed() == {}


def test_a_new_set_up_goes_alone_over_all_nodes() -> None:
    nodes, first, second, third = settled()
    running = first.entered(B)
    permits: list[Permit] = []
    for node in (second, third, third):
        node.enter(B).addCallback(permits.append)
    pump(nodes.clock, 500)
    assert permits == []
    answered(first, running, FREE)
    nodes.clock.advance(STEP)
    pump(nodes.clock, 4)
    assert [permit.undecided for permit in permits] == [False, False, False]
    assert nodes.database.leases == {}


def test_at_most_one_paid_turn_over_three_nodes_with_an_unknown_set_up() -> None:
    nodes, first, second, third = three()
    permits: list[Permit] = []
    failures: list[int] = []
    for node in (first, second, third, first, second, third):
        entering = node.enter(B).addCallback(permits.append)
        entering.addErrback(lambda reason: failures.append(reason.value.failure.status))
    pump(nodes.clock)
    (paid,) = permits
    (node,) = [node for node in nodes.nodes if node.quota is paid._quota]
    answered(node, paid, charged_for(five_hour=0.4))
    pump(nodes.clock)
    assert (len(permits), failures) == (1, [402] * 5)
    assert idle(nodes)


def test_close_to_the_end_of_a_window_all_nodes_take_turns() -> None:
    nodes, first, second, _ = settled("a", "b")
    first.turn(told("allowed", five_hour=CLOSE))
    running = first.entered()
    assert running.undecided
    failures: list[int] = []
    second.enter(B).addErrback(lambda reason: failures.append(reason.value.failure.status))
    pump(nodes.clock)
    answered(first, running, charged_for("five_hour", five_hour=1.0))
    pump(nodes.clock)
    assert failures == [429]
    assert sum(node.quota.charges.paid for node in nodes.nodes) == 1
    assert idle(nodes)


def test_more_leases_are_taken_where_the_state_asks_for_more() -> None:
    """The other's news were not heard: that the window is nearly full is read with the lease."""
    nodes, first, second, _ = settled()
    nodes.database.deaf = True
    first.turn(told("allowed", five_hour=CLOSE))
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    second.entered(B)
    assert {name.split(" gate ")[1] for name in nodes.database.leases} == {"b", FULL}


def test_a_turn_waits_on_when_the_node_that_decides_dies() -> None:
    nodes, first, second, _ = settled()
    first.entered(B)
    permits: list[Permit] = []
    second.enter(B).addCallback(permits.append)
    pump(nodes.clock)
    nodes.database.node_died("0")
    nodes.clock.advance(LOOK_AGAIN)
    pump(nodes.clock)
    assert permits[0].undecided


def test_one_node_asks_for_a_gate_once_a_second_however_many_wait() -> None:
    nodes, first, second, _ = settled()
    first.entered(B)
    asked: list[float] = []
    take = second.plan.take
    second.plan.take = lambda names: asked.append(nodes.clock.seconds()) or take(names)  # type: ignore
    for _ in range(50):
        second.enter(B)
    pump(nodes.clock, round(3.5 * LOOK_AGAIN / STEP))
    assert len(asked) == 4


def test_nobody_asks_for_leases_where_nothing_is_to_be_found_out() -> None:
    nodes, first, second, _ = settled()
    nodes.lose()
    permits: list[Permit] = []
    for node in (first, second):
        node.enter().addCallback(permits.append)
    assert len(permits) == 2, "at once"


# -- money, whatever comes late --

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=8
)


@given(ARRIVALS, st.booleans())
def test_one_turn_is_paid_for_whenever_they_come_and_whatever_is_not_heard(
    arrivals: list[tuple[int, int, int]], deaf: bool
) -> None:
    """``arrivals``: at which node, at which step, and how many steps the answer takes."""
    nodes, *_ = three()
    nodes.database.deaf = deaf
    over: list[Any] = []
    for number, at, takes in arrivals:
        node = nodes.nodes[number]

        def begun(permit: Permit, node: Node = node, takes: int = takes) -> None:
            nodes.clock.callLater(
                takes * STEP, answered, node, permit, charged_for(five_hour=0.4)
            )  # fmt: skip

        def come(node: Node = node, begun: Any = begun) -> None:
            entering = node.enter(B).addCallback(begun)
            entering.addErrback(lambda reason: reason.trap(FailureError)).addBoth(over.append)

        nodes.clock.callLater(at * STEP, come)
    pump(nodes.clock, 100 + 30 * 8 + round(2 * LOOK_AGAIN / STEP))
    assert len(over) == len(arrivals)
    assert sum(node.quota.charges.paid for node in nodes.nodes) == 1
    assert idle(nodes)


# -- a turn that is given up gives back what it got --


@pytest.mark.parametrize("steps", range(0, 16))
@pytest.mark.parametrize("scene", ["a gate", "a probe", "a gate elsewhere"])
def test_given_up_at_every_step(scene: str, steps: int) -> None:
    nodes, first, second, third = settled()
    claim = A if scene == "a probe" else B
    if scene == "a probe":
        first.failing_turn(used_up())
        nodes.clock.advance(PROBE)
    elsewhere = third.entered(B) if scene == "a gate elsewhere" else None
    entering = first.enter(claim)
    ends: list[Any] = []

    def over(result: Any) -> None:
        ends.append(result)
        if isinstance(result, Permit):
            result.ended(BROKEN)  # as a turn does that is given up once it runs

    entering.addBoth(over)
    for _ in range(steps):
        nodes.clock.advance(STEP / 2)
    entering.cancel()
    if ends and not isinstance(ends[0], Permit):
        ends[0].trap(CancelledError)
    if elsewhere is not None:
        elsewhere.ended(BROKEN)
    pump(nodes.clock, 250)
    assert len(ends) == 1
    assert idle(nodes)
    second.turn(FREE, claim)
    assert not third.entered(claim).undecided


# -- accounts --


def test_other_accounts_are_kept_apart(caplog_of_twisted: list[str]) -> None:
    nodes = Nodes("mine", "mine", "hers")
    mine, also_mine, hers = nodes.nodes
    running = mine.entered(B)
    hers.turn(FREE, B)
    answered(mine, running, charged_for(five_hour=0.99))
    mine.failing_turn(used_up("seven_day"))
    pump(nodes.clock)
    assert also_mine.refused(B).status == 429
    assert hers.quota.closed() == {}
    assert hers.quota.windows.known["five_hour"].used == 0.1
    assert not hers.entered(B).undecided
    assert (hers.plan.other_accounts, mine.plan.other_accounts) == (["mine"], ["hers"])
    assert sorted(nodes.database.states) == ["hers", "mine"]
    warnings = [line for line in caplog_of_twisted if "another account" in line]
    assert len(warnings) == 3, "once a node"


def test_a_node_that_logs_in_to_the_account_of_the_others_learns_what_they_know() -> None:
    nodes = Nodes("mine", "hers")
    mine, other = nodes.nodes
    mine.failing_turn(used_up())
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    assert other.plan.other_accounts == ["mine"]
    other.turn(told("allowed", seven_day=0.7))
    other.log_in("mine")
    pump(nodes.clock)
    assert list(other.quota.closed()) == ["five_hour"]
    assert "seven_day" not in other.quota.windows.known, "that was hers"
    assert other.plan.other_accounts == []
    assert mine.plan.other_accounts == ["hers"]
    nodes.clock.advance(OTHERS)
    assert mine.plan.other_accounts == []


def test_a_node_learns_what_others_know_once_its_account_is_known() -> None:
    nodes = Nodes("mine", None)
    mine, new = nodes.nodes
    mine.failing_turn(used_up())
    new.quota.hear(told("allowed", seven_day=0.7))
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    assert new.quota.closed() == {}
    new.log_in("mine")
    pump(nodes.clock)
    assert list(new.quota.closed()) == ["five_hour"]
    assert mine.quota.windows.known["seven_day"].used == 0.7


# -- the store --


def test_a_node_that_starts_later_knows_what_the_others_do() -> None:
    nodes, first, second, _ = settled()
    first.turn(charged_for(five_hour=0.4), B)
    second.failing_turn(used_up("seven_day_opus"))
    first.turn(FREE, evolve(A, model=evolve(A.model, name="haiku", resolved="haiku")))
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    fourth = nodes.add()
    assert list(fourth.quota.closed()) == ["seven_day_opus"]
    assert fourth.quota.charges.is_charged("b")
    assert fourth.quota.windows.known["five_hour"].used == 0.4


@pytest.mark.parametrize("steps", range(8))
def test_a_node_that_starts_as_a_window_closes_knows_it_within_a_second(steps: int) -> None:
    nodes, _, second, _ = settled()
    second.failing_turn(used_up("seven_day_opus"))
    nodes.clock.advance(steps * STEP / 2)
    fourth = nodes.add()
    nodes.clock.pump([STEP / 2] * 20)
    assert list(fourth.quota.closed()) == ["seven_day_opus"]


def test_changes_are_written_once_a_second() -> None:
    nodes, first, _, _ = settled()
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    before = len(nodes.database.saves)
    for number in range(100):
        first.quota.hear(told("allowed", five_hour=number / 1000))
        nodes.clock.advance(SAVE / 50)
    pump(nodes.clock, 150)
    assert len(nodes.database.saves) - before <= 3
    assert nodes.database.states["mine"].count('"used": 0.1') == 1


def test_while_the_store_is_lost_a_node_judges_alone_and_probes_nothing() -> None:
    nodes, first, second, _ = settled()
    nodes.lose()
    running = first.entered(B)
    assert second.entered(B).undecided
    others: list[int] = []
    first.enter(B).addErrback(lambda reason: others.append(reason.value.failure.status))
    pump(nodes.clock)
    assert others == [], "at most one a node"
    answered(first, running, charged_for(five_hour=0.4))
    pump(nodes.clock)
    assert others == [402]
    first.failing_turn(used_up())
    nodes.clock.advance(PROBE)
    assert first.refused().retry_after == pytest.approx(5000 - PROBE, abs=9)
    assert second.quota.closed() == {}
    nodes.find()
    assert list(second.quota.closed()) == ["five_hour"]
    assert second.quota.charges.is_charged("b")
    second.turn(FREE)
    assert first.quota.closed() == {}


def test_leases_that_could_not_be_given_back_are_later() -> None:
    nodes, first, second, _ = settled()
    running = first.entered(B)
    nodes.lose()
    running.ended(BROKEN)
    pump(nodes.clock)
    assert nodes.database.leases and not first.quota.gates
    nodes.database.lost = False
    nodes.clock.advance(RETRY)
    pump(nodes.clock)
    assert nodes.database.leases == {}
    second.turn(FREE, B)


def test_what_it_has_not_given_back_is_free_for_the_node_itself() -> None:
    nodes, first, *_ = settled()
    running = first.entered(B)
    nodes.lose()
    running.ended(BROKEN)
    pump(nodes.clock)
    nodes.database.lost = False
    assert first.entered(B).undecided


def test_what_is_not_kept_yet_is_kept_at_the_end() -> None:
    nodes, first, _, _ = settled()
    nodes.clock.advance(SAVE)
    pump(nodes.clock)
    first.quota.hear(told("allowed", five_hour=0.77))
    first.plan.stop()
    pump(nodes.clock)
    assert "0.77" in nodes.database.states["mine"]
    assert nodes.clock.getDelayedCalls() == []


def test_a_node_of_another_version_does_no_harm(caplog_of_twisted: list[str]) -> None:
    nodes, first, _, _ = settled()
    for event in ([], {"closed": {"five_hour": 5}}, {"windows": {}}, {"charged": {"a": "b"}}):
        for heard in nodes.database.heard["0"]:
            heard("plan", {"account": "mine", "event": event})
            heard("of something else", {"account": "hers"})
    assert [line for line in caplog_of_twisted if "another version" in line]
    assert (first.quota.closed(), first.plan.other_accounts) == ({}, [])
    first.turn(FREE)


def test_where_extra_usage_is_agreed_to_nobody_waits() -> None:
    nodes = Nodes("mine", "mine", policy=Policy(extra_usage=True))
    first, second = nodes.nodes
    for node in (first, second):
        assert not node.entered(B).undecided
    assert nodes.database.leases == {}
