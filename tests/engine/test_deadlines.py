"""Deadlines on a clock of their own."""

from __future__ import annotations

from twisted.internet.task import Clock

from claudeproxy.engine.deadlines import Deadlines, Watch
from claudeproxy.messages import Failure, Kind

LIMITS = Deadlines(first_token=10, idle=5, turn=60)


def watch() -> tuple[Clock, Watch, list[Failure]]:
    clock, failures = Clock(), list[Failure]()
    return clock, Watch(clock, LIMITS, failures.append), failures


def pass_time(clock: Clock, seconds: float) -> None:
    clock.pump([0.5] * int(seconds * 2))


def test_no_first_event() -> None:
    clock, _, failures = watch()
    pass_time(clock, 9.5)
    assert failures == []
    pass_time(clock, 1)
    assert [failure.kind for failure in failures] == [Kind.TIMEOUT]
    assert "within 10 seconds" in failures[0].message
    assert failures[0].status == 504


def test_silence_after_it_began() -> None:
    clock, watched, failures = watch()
    for _ in range(5):
        pass_time(clock, 4)
        watched.touch()
    pass_time(clock, 4.5)
    assert failures == []
    pass_time(clock, 1)
    assert "silent for 5 seconds" in failures[0].message


def test_the_whole_turn() -> None:
    clock, watched, failures = watch()
    for _ in range(59):
        pass_time(clock, 1)
        watched.touch()
    assert failures == []
    pass_time(clock, 2)
    assert "longer than 60 seconds" in failures[0].message


def test_a_client_that_does_not_read_is_no_silence_of_the_model() -> None:
    clock, watched, failures = watch()
    watched.touch()
    watched.pause()
    pass_time(clock, 30)
    watched.resume()
    pass_time(clock, 4)
    assert failures == []
    pass_time(clock, 2)
    assert len(failures) == 1


def test_a_turn_that_has_ended() -> None:
    clock, watched, failures = watch()
    watched.stop()
    pass_time(clock, 100)
    assert failures == []
    assert clock.getDelayedCalls() == []


def test_silence_where_the_first_event_may_take_long() -> None:
    clock, failures = Clock(), list[Failure]()
    watched = Watch(clock, Deadlines(first_token=120, idle=1, turn=600), failures.append)
    watched.touch()
    pass_time(clock, 2.5)
    assert [failure.message for failure in failures] == ["the model was silent for 1 seconds"]


def test_a_deadline_is_kept_to_the_moment() -> None:
    clock, watched, failures = watch()
    clock.advance(1.0)
    watched.touch()
    clock.advance(4.0)  # it looks, and there was an event
    clock.advance(0.9)
    assert failures == []
    clock.advance(0.1)
    assert len(failures) == 1


def test_while_nobody_reads_it_looks_once_in_a_while() -> None:
    clock, watched, failures = watch()
    watched.touch()
    watched.pause()
    looks = 0
    while clock.seconds() < 59.0:
        (timer,) = clock.getDelayedCalls()
        clock.advance(timer.getTime() - clock.seconds())
        looks += 1
    assert looks <= 60 / LIMITS.idle
    clock.advance(1.0)
    assert "longer than 60 seconds" in failures[0].message
