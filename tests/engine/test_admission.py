"""Slots and the queue before them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from claudeproxy.engine.admission import Admission
from claudeproxy.messages import Failure, FailureError, Kind

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
    assert failure.retry_after is not None
    assert failure.retry_after >= 1


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
@given(st.integers(1, 4), st.lists(st.sampled_from(["enter", "leave", "cancel"]), max_size=60))
def test_never_more_than_slots(slots: int, steps: list[str]) -> None:
    admission = Admission(slots, 1000)
    waiting: list[Deferred[None]] = []
    running = 0
    for step in steps:
        if step == "enter":
            slot = admission.enter()
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
    assert (refused.value.failure.status, refused.value.failure.param) == (400, "n")
