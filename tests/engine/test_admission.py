"""Slots and the queue before them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from claudeproxy.engine.admission import Admission
from claudeproxy.messages import Failure, FailureError, Kind, Tier

STOPPING = Failure(Kind.UNAVAILABLE, "stopping", 503)


def fired(slot: Deferred[None]) -> bool:
    return slot.called


def test_first_come_first_served() -> None:
    admission = Admission(1, 5)
    first, second, third = (admission.enter() for _ in range(3))
    assert list(map(fired, (first, second, third))) == [True, False, False]
    admission.leave(1)
    assert list(map(fired, (first, second, third))) == [True, True, False]
    admission.leave(1)
    admission.leave(1)
    assert fired(third)
    assert (admission.running, admission.waiting) == (0, 0)


def test_priority_goes_before_all_who_wait_and_flex_after_them() -> None:
    admission = Admission(1, 9)
    admission.enter("flex")
    came: list[str] = []
    tiers: list[tuple[str, Tier]] = [("flex 1", "flex"), ("one", "default"), ("first", "priority"),
                                     ("flex 2", "flex"), ("two", "default"),
                                     ("second", "priority")]  # fmt: skip
    for name, tier in tiers:
        admission.enter(tier).addCallback(lambda _, name=name: came.append(name))
    assert admission.waiting == 6
    for _ in range(6):
        admission.leave(1)
    assert came == ["first", "second", "one", "two", "flex 1", "flex 2"]
    assert (admission.running, admission.waiting) == (1, 0)


def test_a_free_slot_is_taken_by_any_tier() -> None:
    admission = Admission(2, 5)
    assert fired(admission.enter("flex")) and fired(admission.enter("flex"))


def test_one_that_leaves_the_queue_is_never_started() -> None:
    admission = Admission(1, 5)
    admission.enter()
    gone, last = admission.enter(), admission.enter()
    gone.addErrback(lambda reason: reason.trap(CancelledError) and None)
    gone.cancel()
    assert admission.waiting == 1
    admission.leave(1)
    assert fired(last)
    assert admission.running == 1


def test_more_than_fit_are_refused_with_an_estimate() -> None:
    admission = Admission(2, 1)
    for _ in range(3):
        admission.check(1)
        admission.enter()
    with pytest.raises(FailureError) as refused:
        admission.check(1)
    failure = refused.value.failure
    assert (failure.status, failure.code) == (429, "rate_limit_exceeded")
    assert failure.kind is Kind.RATE_LIMIT
    assert "2 turns are running and 1 are waiting" in failure.message


def test_those_who_wait_for_something_else_first_have_a_place_too() -> None:
    admission = Admission(1, 1)
    with admission.before():
        assert admission.waiting == 1
        admission.check(1)
        with admission.before(), pytest.raises(FailureError):
            admission.check(1)
    assert admission.waiting == 0
    with pytest.raises(KeyError), admission.before():
        raise KeyError
    assert admission.waiting == 0


def test_several_turns_fit_together_or_not_at_all() -> None:
    admission = Admission(2, 2)
    admission.check(4)
    with pytest.raises(FailureError):
        admission.check(5)


def test_closed() -> None:
    admission = Admission(1, 5)
    admission.enter()
    waiting = admission.enter()
    failures: list[Failure] = []
    waiting.addErrback(lambda reason: failures.append(reason.value.failure))
    admission.close(STOPPING)
    assert failures == [STOPPING]
    with pytest.raises(FailureError):
        admission.check(1)


def test_closed_it_takes_in_nobody_who_was_let_through_before() -> None:
    """A turn that waited elsewhere since it was checked."""
    admission = Admission(2, 5)
    admission.check(1)
    admission.close(STOPPING)
    failures: list[Failure] = []
    admission.enter().addErrback(lambda reason: failures.append(reason.value.failure))
    assert (failures, admission.running) == ([STOPPING], 0)


def test_the_estimate_follows_recent_turns() -> None:
    slow, fast = Admission(1, 0), Admission(1, 0)
    for admission, seconds in ((slow, 60.0), (fast, 1.0)):
        for _ in range(30):
            admission.enter()
            admission.leave(seconds)
        admission.enter()
    estimates = []
    for admission in (slow, fast):
        with pytest.raises(FailureError) as refused:
            admission.check(1)
        estimates.append(refused.value.failure.retry_after or 0)
    assert estimates[0] > 10 * estimates[1]


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.sampled_from(["flex", "default", "priority", "leave", "cancel"]), max_size=60),
)
def test_never_more_than_slots(slots: int, steps: list[Any]) -> None:
    admission = Admission(slots, 1000)
    waiting: list[Deferred[None]] = []
    running = 0
    for step in steps:
        if step in ("flex", "default", "priority"):
            slot = admission.enter(step)
            slot.addErrback(lambda _: None)
            waiting.append(slot)
        elif step == "leave" and running:
            admission.leave(1.0)
            running -= 1
        elif step == "cancel" and waiting:
            waiting.pop().cancel()
        running += sum(slot.called for slot in waiting)
        waiting = [slot for slot in waiting if not slot.called]
        assert admission.running == running <= slots
        assert admission.waiting == len(waiting)
        assert not waiting or running == slots


def test_a_long_queue_of_turns_that_fail_at_once() -> None:
    admission = Admission(1, 2000)
    admission.enter()
    ended: list[int] = []

    def fails_at_once(number: int) -> None:
        ended.append(number)
        admission.leave(0)

    for number in range(2000):
        admission.enter().addCallback(lambda _, number=number: fails_at_once(number))
    admission.leave(1)
    assert ended == list(range(2000))
    assert (admission.running, admission.waiting) == (0, 0)


def test_what_could_never_fit_is_no_matter_of_waiting() -> None:
    with pytest.raises(FailureError) as refused:
        Admission(2, 3).check(6)
    assert "at most 5 answers" in refused.value.failure.message
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "n")


@pytest.mark.parametrize(("waiting", "seconds", "estimate"), [(4, 10.0, 30.0), (0, 0.0, 1.0)])
def test_the_estimate_counts_those_who_wait(waiting: int, seconds: float, estimate: float) -> None:
    admission = Admission(2, waiting)
    for _ in range(60):
        admission.enter()
        admission.leave(seconds)
    for _ in range(2 + waiting):
        admission.enter()
    with pytest.raises(FailureError) as refused:
        admission.check(1)
    assert refused.value.failure.retry_after == estimate
