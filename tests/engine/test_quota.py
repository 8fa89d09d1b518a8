"""Whether a turn may use the plan now: by values, on a clock of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from clocks import SetClock
from nodes import charged_for, told, used_up
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from claudeproxy.cli.errors import LoginAdvice, not_logged_in
from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.engine.charges import AGAIN
from claudeproxy.engine.closed import DEFAULT_WAIT, PROBE
from claudeproxy.engine.permit import PROBE_RETRY, Permit
from claudeproxy.engine.quota import CLOSE, Claim, Policy, Quota
from claudeproxy.messages import Failure, FailureError, Kind

OPUS = ModelInfo("opus", "claude-opus-5-5")
HAIKU = ModelInfo("haiku", "claude-haiku-5-5")
FABLE = ModelInfo("claude-fable-5", "claude-fable-5")
BROKEN = Failure(Kind.UPSTREAM, "broken", 502)

A = Claim(OPUS, "a", {})
B = Claim(OPUS, "b", {})


def plan(policy: Policy | None = None) -> tuple[SetClock, Quota]:
    """The quota of a subscription."""
    clock = SetClock()
    quota = Quota(clock, policy)
    quota.applies = True
    return clock, quota


def refusal(quota: Quota, claim: Claim = A) -> Failure | None:
    try:
        quota.check(claim)
    except FailureError as error:
        return error.failure
    return None


def enter(quota: Quota, claim: Claim = A) -> Deferred[Permit]:
    async def admitted() -> Permit:
        while not isinstance(permit := quota.admit(claim), Permit):
            await permit
        return permit

    return ensureDeferred(admitted())


def entered(quota: Quota, claim: Claim = A) -> Permit:
    """The permit, given at once."""
    permits: list[Permit] = []
    enter(quota, claim).addCallback(permits.append)
    (permit,) = permits
    return permit


def turn(quota: Quota, info: dict[str, Any] | None = None, claim: Claim = A) -> None:
    """A whole turn that is answered; ``info`` comes with the answer."""
    permit = entered(quota, claim)
    if info is not None:
        quota.hear(info)
    permit.billing_known(info)
    permit.ended(None)


def failing_turn(quota: Quota, failure: Failure, claim: Claim = A) -> None:
    entered(quota, claim).ended(failure)


# -- windows that are used up --


def test_a_window_closes_by_a_turn_that_failed_and_by_nothing_else() -> None:
    clock, quota = plan()
    turn(quota, {**told(five_hour=1.0), "status": "rejected"})
    assert (refusal(quota), quota.closed()) == (None, {})
    failing_turn(quota, BROKEN)
    assert quota.closed() == {}
    failing_turn(quota, used_up())
    failure = refusal(quota)
    assert failure is not None
    assert (failure.status, failure.kind, failure.retry_after) == (429, Kind.PLAN_LIMIT, 5000.0)
    assert (failure.window, quota.closed()) == ("five_hour", {"five_hour": 6000.0})
    clock.now += 100
    later = refusal(quota)
    assert later is not None and later.retry_after == 4900.0


@pytest.mark.parametrize(
    ("window", "closed"),
    [
        ("five_hour", {OPUS, HAIKU, FABLE}),
        ("seven_day", {OPUS, HAIKU, FABLE}),
        ("seven_day_opus", {OPUS}),
        ("seven_day_overage_included", {FABLE}),
    ],
)
def test_it_closes_for_the_models_it_bounds(window: str, closed: set[ModelInfo]) -> None:
    _, quota = plan()
    failing_turn(quota, used_up(window))
    refused = {m for m in (OPUS, HAIKU, FABLE) if refusal(quota, evolve(A, model=m)) is not None}
    assert refused == closed


def test_a_limit_that_names_no_window_closes_nothing() -> None:
    _, quota = plan()
    failing_turn(quota, Failure(Kind.PLAN_LIMIT, "kept for the owner", 429, retry_after=5.0))
    failing_turn(quota, Failure(Kind.RATE_LIMIT, "busy", 429, window="five_hour"))
    assert quota.closed() == {}


def test_a_window_that_does_not_say_when_it_resets() -> None:
    _, quota = plan()
    failing_turn(quota, used_up(after=None))
    failure = refusal(quota)
    assert failure is not None and failure.retry_after == DEFAULT_WAIT


def test_one_turn_goes_through_every_few_minutes_to_see() -> None:
    clock, quota = plan()
    failing_turn(quota, used_up())
    clock.now += PROBE - 1
    assert refusal(quota) is not None
    clock.now += 1
    probe = entered(quota)
    second = refusal(quota, B)
    assert second is not None and second.retry_after == PROBE_RETRY
    probe.ended(used_up())
    clock.now += PROBE - 1
    assert refusal(quota) is not None
    clock.now += 1
    turn(quota)
    assert (refusal(quota), quota.closed()) == (None, {})


def test_before_the_reset_one_turn_goes_as_a_probe() -> None:
    clock, quota = plan()
    failing_turn(quota, used_up(after=1000.0))
    clock.now += PROBE
    probe = entered(quota)
    assert refusal(quota) is not None
    probe.ended(BROKEN)
    probe = entered(quota)  # that told nothing
    assert refusal(quota) is not None
    probe.ended(None)
    assert (refusal(quota), quota.closed()) == (None, {})


def test_after_the_reset_all_go() -> None:
    """Several at once, too: a client that asks for two answers would never get past a probe."""
    clock, quota = plan()
    quota.hear(told(five_hour=0.1))
    failing_turn(quota, used_up(after=100.0))
    clock.now += 100
    assert quota.closed() == {}
    first, second = entered(quota), entered(quota)
    first.ended(None)
    second.ended(None)


def test_a_probe_of_a_model_the_window_does_not_bound_tells_nothing() -> None:
    clock, quota = plan()
    failing_turn(quota, used_up("seven_day_opus"))
    clock.now += PROBE
    turn(quota, claim=evolve(B, model=HAIKU))
    assert quota.closed() == {"seven_day_opus": 6000.0}
    assert refusal(quota) is None, "it is still to be probed"


def test_a_probe_that_meets_another_window_is_over_all_the_same() -> None:
    clock, quota = plan()
    failing_turn(quota, used_up())
    clock.now = 6001
    failing_turn(quota, used_up("seven_day", 5000.0))
    clock.now = 11_002
    turn(quota)
    assert quota.closed() == {}


def test_a_turn_from_before_the_window_closed_does_not_open_it() -> None:
    _, quota = plan()
    turn(quota, told())
    early, late = entered(quota), entered(quota)
    late.ended(used_up())
    early.ended(None)
    assert refusal(quota) is not None


def test_it_is_probed_at_once_after_a_login() -> None:
    _, quota = plan()
    failing_turn(quota, used_up())
    quota.changed_login(other_account=False)
    probe = entered(quota)
    assert refusal(quota) is not None
    probe.ended(None)
    assert quota.closed() == {}


def test_a_login_of_the_same_account_lets_a_probe_through() -> None:
    _, quota = plan()
    quota.login_is(LoginStatus(True, "mine"), stored=False)
    failing_turn(quota, used_up())
    quota.login_is(LoginStatus(True, "mine"), stored=False)
    assert refusal(quota) is not None
    quota.login_is(LoginStatus(True, "mine"), stored=True)
    assert refusal(quota) is None


def test_another_account_has_windows_and_charges_of_its_own() -> None:
    _, quota = plan()
    turn(quota, charged_for())
    failing_turn(quota, used_up(), B)
    quota.hear(told("allowed", five_hour=1.0))
    quota.changed_login(other_account=True)
    assert (refusal(quota), quota.closed(), quota.windows.known) == (None, {}, {})
    assert quota.windows.extra_usage is None
    first = entered(quota)
    assert waits(enter(quota, B)), "nothing has been told of its plan"
    first.billing_known(told("allowed", five_hour=0.1))


@pytest.mark.parametrize("failure", [None, used_up()], ids=["answered", "used up"])
def test_a_turn_of_another_account_tells_nothing_of_this_one(failure: Failure | None) -> None:
    _, quota = plan(Policy())
    quota.login_is(LoginStatus(True, "mine"), stored=False)
    permit = entered(quota)
    quota.login_is(LoginStatus(True, "hers"), stored=True)
    permit.billing_known(charged_for())
    permit.ended(failure)
    assert (refusal(quota), quota.closed(), quota.charges.charged) == (None, {}, 0)
    assert quota.charges.paid == 1


def test_the_login_is_asked_first() -> None:
    clock, quota = plan()
    quota.login.told(LoginStatus(True, "mine"), stored=False)
    failing_turn(quota, not_logged_in(LoginAdvice()))
    failing: list[Failure] = []
    enter(quota).addErrback(lambda reason: failing.append(reason.value.failure))
    assert [failure.status for failure in failing] == [401]
    clock.now += 60
    probe = entered(quota)
    assert refusal(quota) is not None, "one turn tells enough"
    probe.ended(None)
    assert refusal(quota) is None


# -- the reserve --


def reserving(tier: Any = "default", **shares: float) -> Claim:
    return evolve(A, reserve=shares, tier=tier)


@pytest.mark.parametrize(
    ("used", "tier", "refused"),
    [
        (0.79, "default", False),
        (0.80, "default", True),
        (0.95, "default", True),
        (0.79, "priority", False),
        (0.80, "priority", True),
        (0.59, "flex", False),
        (0.60, "flex", True),
    ],
)
def test_a_share_is_left_for_the_owner_and_flex_leaves_twice_as_much(
    used: float, tier: Any, refused: bool
) -> None:
    _, quota = plan()
    quota.hear(told(five_hour=used, seven_day=0.99))
    failure = refusal(quota, reserving(tier, five_hour=0.2))
    assert (failure is not None) is refused
    if failure is not None:
        assert (failure.status, failure.kind, failure.retry_after) == (429, Kind.PLAN_LIMIT, 8000)
        assert "the last 20% of the five hour window" in failure.message
        assert ("twice as much: 40%" in failure.message) is (tier == "flex")
        assert (failure.window, failure.code) == (None, "rate_limit_exceeded")


def test_whose_reserve_it_is() -> None:
    _, quota = plan(Policy(reserve={"five_hour": 0.2}))
    quota.hear(told(five_hour=0.9))
    of_all, of_key = (refusal(quota, reserving(five_hour=share)) for share in (0.2, 0.4))
    assert of_all is not None and "(--reserve)" in of_all.message
    assert of_key is not None and "(reserve= of this key)" in of_key.message


def test_twice_the_reserve_is_at_most_everything() -> None:
    _, quota = plan()
    quota.hear(told(five_hour=0.0))
    assert refusal(quota, reserving(five_hour=0.7)) is None
    failure = refusal(quota, reserving("flex", five_hour=0.7))
    assert failure is not None and "100%" in failure.message


def test_the_reserve_is_over_with_the_window() -> None:
    clock, quota = plan()
    quota.hear(told(five_hour=0.9))
    assert refusal(quota, reserving(five_hour=0.2)) is not None
    clock.now = 8999.5
    failure = refusal(quota, reserving(five_hour=0.2))
    assert failure is not None and failure.retry_after == 1.0
    clock.now = 9000
    assert refusal(quota, reserving(five_hour=0.2)) is None


def test_the_reserve_of_a_window_that_bounds_other_models() -> None:
    _, quota = plan()
    quota.hear(told(seven_day_opus=0.9))
    claim = reserving(seven_day_opus=0.2)
    assert refusal(quota, claim) is not None
    assert refusal(quota, evolve(claim, model=HAIKU)) is None


def test_nothing_is_known_and_nothing_kept_back() -> None:
    _, quota = plan()
    assert refusal(quota, reserving(five_hour=1.0)) is None
    quota.hear(told(seven_day=0.99))
    assert refusal(quota, reserving(five_hour=0.99)) is None
    quota.hear(told(five_hour=1.0))
    assert refusal(quota, reserving(five_hour=0.0)) is None


# -- extra usage --


def test_a_full_window_that_was_paid_over_is_no_obstacle_once_that_is_allowed() -> None:
    _, quota = plan()
    turn(quota, charged_for("five_hour", five_hour=1.0))
    _, allowed = plan(Policy(extra_usage=True))
    allowed.restore(quota.kept())
    assert refusal(quota) is not None
    first, second = entered(allowed), entered(allowed)
    first.ended(None)
    second.ended(None)
    assert allowed.closed() == {}


def test_with_a_full_window_the_next_turn_would_be_charged() -> None:
    clock, quota = plan()
    quota.hear(told("allowed", five_hour=1.0))
    failure = refusal(quota)
    assert failure is not None
    assert (failure.status, failure.kind, failure.retry_after) == (429, Kind.PLAN_LIMIT, 8000.0)
    assert "--extra-usage" in failure.message and "five hour window" in failure.message
    assert (failure.window, failure.code) == (None, "rate_limit_exceeded")
    clock.now = 8999.5
    failure = refusal(quota)
    assert failure is not None and failure.retry_after == 1.0
    clock.now = 9000
    assert refusal(quota) is None


@pytest.mark.parametrize("extra", ["rejected", None])
def test_where_extra_usage_is_off_a_full_window_charges_nobody(extra: Any) -> None:
    _, quota = plan()
    quota.hear(told(extra, five_hour=1.0))
    assert refusal(quota) is None


def test_a_turn_charged_in_place_of_its_window_closes_that_until_its_reset() -> None:
    clock, quota = plan()
    turn(quota, charged_for("five_hour"))
    assert quota.charges.paid == 1
    assert (quota.closed(), quota.charges.charged) == ({"five_hour": 9000.0}, 0)
    for claim in (A, B):
        failure = refusal(quota, claim)
        assert failure is not None
        assert (failure.status, failure.retry_after) == (429, 8000.0)
    clock.now = 8999
    assert refusal(quota) is not None, "a probe would be charged for, too"
    quota.changed_login(other_account=False)
    assert refusal(quota) is not None
    clock.now = 9000
    probe = entered(quota)
    probe.billing_known(told("allowed", five_hour=0.0))
    probe.ended(None)
    assert (refusal(quota), quota.charges.paid) == (None, 1)


@pytest.mark.parametrize(
    ("change", "model", "closed"),
    [
        ({}, OPUS, {"five_hour": 9000.0}),
        ({"rateLimitType": "seven_day_opus"}, OPUS, {"seven_day_opus": 9000.0}),
        ({"rateLimitType": "seven_day_opus"}, HAIKU, {}),
        ({"resetsAt": None}, OPUS, {"five_hour": 1000.0 + DEFAULT_WAIT}),
        ({"resetsAt": "soon"}, OPUS, {"five_hour": 1000.0 + DEFAULT_WAIT}),
        ({"rateLimitType": None}, OPUS, {}),
        ({"status": "allowed"}, OPUS, {}),
    ],
    ids=range(7),
)
def test_what_a_charged_turn_closes_its_window_or_its_set_up(
    change: dict[str, Any], model: ModelInfo, closed: dict[str, float]
) -> None:
    _, quota = plan()
    entered(quota, evolve(A, model=model)).billing_known({**charged_for("five_hour"), **change})
    assert (quota.closed(), quota.charges.charged) == (closed, 0 if closed else 1)


def test_a_window_that_was_charged_for_is_not_probed() -> None:
    """Whatever share of it is said to be used: the probe would be charged for, too."""
    clock, quota = plan()
    turn(quota, charged_for("five_hour"))
    quota.hear(told("allowed", five_hour=0.5))
    clock.now += PROBE
    failure = refusal(quota)
    assert failure is not None and (failure.status, failure.retry_after) == (429, 7700.0)
    quota.hear(told("rejected", five_hour=0.5))
    assert refusal(quota) is None, "extra usage has been switched off"


def test_a_turn_charged_by_its_content_refuses_its_set_up_for_an_hour() -> None:
    clock, quota = plan()
    turn(quota, charged_for(five_hour=0.4))
    assert quota.charges.paid == 1
    failure = refusal(quota)
    assert failure is not None
    assert (failure.status, failure.kind, failure.code, failure.retry_after) == (
        402, Kind.BILLING, "insufficient_quota", None,
    )  # fmt: skip
    assert "five hour: 40% used" in failure.message
    assert refusal(quota, B) is None
    clock.now += AGAIN - 1
    assert refusal(quota) is not None
    clock.now += 1
    turn(quota, charged_for(five_hour=0.4))
    assert quota.charges.paid == 2
    assert refusal(quota) is not None
    clock.now += AGAIN
    turn(quota, told("allowed", five_hour=0.4))
    clock.now += 1
    assert (refusal(quota), quota.charges.paid) == (None, 2)


def test_what_is_allowed_is_counted_and_goes_on() -> None:
    _, quota = plan(Policy(extra_usage=True))
    turn(quota, charged_for(five_hour=0.4))
    turn(quota, charged_for("five_hour", five_hour=1.0))
    turn(quota, charged_for("five_hour", five_hour=1.0))
    assert quota.charges.paid == 3
    assert (refusal(quota), quota.closed()) == (None, {})


def test_another_upstream_has_no_extra_usage() -> None:
    quota = Quota(SetClock())
    quota.hear(told("allowed", five_hour=1.0))
    assert refusal(quota) is None
    entered(quota)
    entered(quota)


# -- one by one, where the next could be charged for --


def waits(entering: Deferred[Permit]) -> bool:
    return not entering.called


def given(entering: Deferred[Permit]) -> Permit:
    """The permit that somebody has who waited for it."""
    permits: list[Permit] = []
    entering.addCallback(permits.append)
    (permit,) = permits
    return permit


def refused(entering: Deferred[Permit]) -> Failure:
    failures: list[Failure] = []
    entering.addErrback(lambda reason: failures.append(reason.value.failure))
    (failure,) = failures
    return failure


def test_until_anything_is_told_all_go_one_by_one() -> None:
    _, quota = plan()
    first = entered(quota)
    second = enter(quota, B)
    assert waits(second)
    first.billing_known(told("allowed", five_hour=0.1))
    given(second)


def test_a_window_nearly_full_is_paid_over_once_whatever_the_set_up() -> None:
    _, quota = plan()
    turn(quota, told("allowed", five_hour=0.97))
    first = entered(quota, B)
    others = [enter(quota, evolve(A, setup=name)) for name in "cde"]
    assert all(map(waits, others))
    quota.hear(charged_for("five_hour", five_hour=1.0))
    first.billing_known(charged_for("five_hour", five_hour=1.0))
    for other in others:
        failures: list[Any] = []
        other.addErrback(failures.append)
        assert failures[0].value.failure.status == 429
    assert quota.charges.paid == 1


def test_a_charge_by_a_window_that_does_not_bound_the_model_is_the_set_ups() -> None:
    _, quota = plan()
    turn(quota, charged_for("overage", five_hour=0.4))
    found = refusal(quota)
    assert found is not None and found.status == 402


def test_a_new_set_up_goes_alone_until_it_is_known_how_it_is_paid() -> None:
    _, quota = plan()
    turn(quota, told("allowed", five_hour=0.1), B)
    first = entered(quota)
    assert first.undecided
    second, third = enter(quota), enter(quota)
    assert waits(second) and waits(third)
    turn(quota, claim=B)  # others do not wait for it
    first.billing_known(told("allowed", five_hour=0.1))
    assert not given(second).undecided
    assert not given(third).undecided
    first.ended(None)


def test_those_who_wait_are_refused_when_the_first_was_charged() -> None:
    _, quota = plan()
    first = entered(quota)
    second, third = enter(quota), enter(quota)
    quota.hear(charged_for(five_hour=0.4))
    first.billing_known(charged_for(five_hour=0.4))
    assert [refused(entering).status for entering in (second, third)] == [402, 402]
    assert quota.charges.paid == 1


def test_a_first_turn_that_told_nothing_lets_the_next_one_go_alone() -> None:
    _, quota = plan()
    first = entered(quota)
    second, third = enter(quota), enter(quota)
    first.ended(BROKEN)
    assert given(second).undecided
    assert waits(third)


def test_a_billing_without_a_word_is_no_verdict_either() -> None:
    _, quota = plan()
    first = entered(quota)
    second, third = enter(quota), enter(quota)
    first.billing_known(None)
    first.ended(None)
    assert given(second).undecided
    assert waits(third)


def test_an_answer_that_has_no_billing_yet_keeps_the_others_waiting() -> None:
    _, quota = plan()
    first = entered(quota)
    second = enter(quota)
    first.ended(None, awaits_billing=True)
    assert waits(second)
    first.billing_known(told("allowed", five_hour=0.1))
    assert not given(second).undecided


def test_nor_does_the_clients_next_turn_outrun_it() -> None:
    """The set-up was free until now; the answer just given may have been charged."""
    _, quota = plan()
    turn(quota, told("allowed", five_hour=0.1))
    first = entered(quota)
    assert not first.undecided
    first.ended(None, awaits_billing=True)
    second = enter(quota)
    assert waits(second)
    first.billing_known(charged_for(five_hour=0.4))
    assert refused(second).status == 402


def test_one_that_leaves_while_it_waits_holds_nobody_up() -> None:
    _, quota = plan()
    first = entered(quota)
    second, third = enter(quota), enter(quota)
    gone: list[Any] = []
    second.addErrback(lambda reason: gone.append(reason.type))
    second.cancel()
    assert gone == [CancelledError]
    first.ended(BROKEN)
    assert given(third).undecided
    fourth = enter(quota)
    assert waits(fourth)


def test_all_have_left() -> None:
    _, quota = plan()
    first = entered(quota)
    second = enter(quota)
    second.addErrback(lambda _: None)
    second.cancel()
    first.ended(BROKEN)
    assert entered(quota).undecided


def test_close_to_the_end_of_a_window_all_go_one_by_one() -> None:
    _, quota = plan()
    info = told("allowed", five_hour=CLOSE)
    turn(quota, info)
    turn(quota, info, B)
    first = entered(quota, A)
    second = enter(quota, B)
    assert first.undecided and waits(second)
    quota.hear(told("allowed", five_hour=1.0))
    first.billing_known(told("allowed", five_hour=1.0))
    first.ended(None)
    assert refused(second).status == 429


def test_only_for_models_that_the_window_bounds() -> None:
    _, quota = plan()
    haiku, other = evolve(A, model=HAIKU), evolve(B, model=HAIKU)
    info = told("allowed", seven_day_opus=CLOSE)
    for claim in (A, B, haiku, other):
        turn(quota, info, claim)
    assert entered(quota, haiku).undecided is entered(quota, other).undecided is False
    assert entered(quota, A).undecided
    assert waits(enter(quota, B))


@pytest.mark.parametrize("extra", ["allowed", "rejected"])
def test_nobody_goes_one_by_one_where_nothing_can_be_charged(extra: str) -> None:
    _, quota = plan(Policy(extra_usage=extra == "allowed"))
    quota.hear(told(extra, five_hour=0.99))
    assert not entered(quota).undecided
    assert not entered(quota).undecided


def test_two_answers_at_once_are_both_awaited() -> None:
    """The first whose billing is known opens no gate that the second still holds."""
    _, quota = plan()
    turn(quota, told("allowed", five_hour=0.1))
    first, second = entered(quota), entered(quota)
    first.ended(None, awaits_billing=True)
    second.ended(None, awaits_billing=True)
    third = enter(quota)
    first.billing_known(told("allowed", five_hour=0.1))
    assert waits(third)
    second.billing_known(charged_for(five_hour=0.4))
    assert refused(third).status == 402


def test_many_who_wait_all_get_their_turn_in_order() -> None:
    _, quota = plan()
    first = entered(quota)
    came: list[int] = []
    for number in range(2000):
        enter(quota).addCallback(lambda _, number=number: came.append(number))
    first.billing_known(told("allowed", five_hour=0.1))
    assert came == list(range(2000))


# -- over a restart --


def test_what_is_known_survives_a_restart() -> None:
    clock, quota = plan()
    quota.login.told(LoginStatus(True, "mine"), stored=False)
    turn(quota, charged_for(five_hour=0.4))
    quota.hear(told("allowed", five_hour=1.0))
    kept = json.loads(json.dumps(quota.kept()))
    _, again = plan()
    again.restore(kept)
    assert again.login.account == "mine"
    failure = refusal(again, B)
    assert failure is not None and (failure.status, failure.retry_after) == (429, 8000.0)
    clock, late = plan()
    clock.now = 9000
    late.restore(kept)
    assert late.windows.known == {}
    assert refusal(late, B) is None
    assert late.windows.extra_usage is True
    clock.now = 1000 + AGAIN - 1
    charged = refusal(late, A)
    assert charged is not None and charged.status == 402


def test_what_is_closed_stays_so_over_a_restart_until_it_is_probed() -> None:
    clock, quota = plan()
    failing_turn(quota, used_up())
    clock.now += 100
    kept = json.loads(json.dumps(quota.kept()))
    again_clock, again = plan()
    again_clock.now = clock.now
    again.restore(kept)
    assert again.closed() == {"five_hour": 6000.0}
    failure = refusal(again)
    assert failure is not None and failure.retry_after == 4900.0
    again_clock.now += PROBE - 101
    assert refusal(again) is not None
    again_clock.now += 1
    turn(again, told("allowed", five_hour=0.1))
    assert again.closed() == {}
    again.restore(json.loads(json.dumps(quota.kept())))
    assert again.closed() == {}, "it has been opened since"


def test_a_window_that_was_charged_for_is_not_probed_after_a_restart_either() -> None:
    _, quota = plan()
    turn(quota, charged_for("five_hour"))
    _, again = plan()
    again.restore(json.loads(json.dumps(quota.kept())))
    again._closed.probe_at_once()
    assert refusal(again) is not None
    assert again.closed() == {"five_hour": 9000.0}


def test_a_file_of_before_knows_of_nothing_closed() -> None:
    _, quota = plan()
    kept = quota.kept()
    del kept["closed"], kept["cleared"], kept["windows"]["told"]
    quota.restore(kept)
    assert quota.closed() == {}


@pytest.mark.parametrize("kept", [None, [], {}, {"windows": {"known": {}}, "charged": 5}, "x"])
def test_what_is_something_else_is_not_restored(kept: Any) -> None:
    _, quota = plan()
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        quota.restore(kept)


def test_changes_that_are_kept_are_told() -> None:
    _, quota = plan()
    changes: list[int] = []
    quota.on_change = lambda: changes.append(1)
    quota.hear(told())
    assert len(changes) == 1
    quota.billing_known(A, charged_for())
    assert len(changes) == 2
    quota.changed_login(other_account=True)
    assert len(changes) == 3
    failing_turn(quota, used_up())
    assert len(changes) == 4
    quota.changed_login(other_account=False)
    turn(quota)
    assert len(changes) == 6
    quota.apply({"closed": {"five_hour": {"at": 2000, "until": 9000, "paid": False}}})
    assert len(changes) == 7


def test_what_is_learnt_is_told_as_it_can_be_applied() -> None:
    clock, quota = plan()
    _, other = plan()
    told_of: list[dict[str, Any]] = []

    def tell(event: dict[str, Any]) -> None:
        told_of.append(event)
        other.apply(json.loads(json.dumps(event)))

    quota.on_learnt = tell
    other.on_learnt = lambda event: pytest.fail("it is not told again")
    turn(quota, told("allowed", five_hour=0.3))
    assert [sorted(event) for event in told_of] == [["windows"], ["cleared", "paid"]]
    turn(quota, told("allowed", five_hour=0.3))
    assert len(told_of) == 2
    assert not entered(other).undecided, "that set-up is free"
    turn(quota, charged_for(five_hour=0.3), B)
    assert sorted(told_of[-1]) == ["charged", "paid"]
    failure = refusal(other, B)
    assert failure is not None and failure.status == 402
    assert (other.charges.paid, other.charges.paid_elsewhere) == (0, 1)
    turn(quota, charged_for("five_hour", five_hour=0.3), evolve(A, setup="c"))
    assert sorted(told_of[-1]) == ["closed", "paid"]
    assert other.closed() == quota.closed() == {"five_hour": 9000.0}
    clock.now = 9000
    failing_turn(quota, used_up("seven_day"), evolve(A, setup="c"))
    quota.changed_login(other_account=False)
    turn(quota)
    assert sorted(told_of[-1]) == ["closed"]
    assert "seven_day" not in other.closed()


def test_a_login_to_another_account_is_told_once_all_is_forgotten() -> None:
    _, quota = plan()
    accounts: list[Any] = []
    quota.on_account = lambda: accounts.append((quota.login.account, quota.closed()))
    assert not quota.login_is(LoginStatus(True, "mine"), stored=False)
    failing_turn(quota, used_up())
    assert not quota.login_is(LoginStatus(True, "mine"), stored=False)
    assert quota.login_is(LoginStatus(True, "hers"), stored=True)
    assert accounts == [("mine", {}), ("hers", {})]


def test_a_window_that_failed_is_probed_also_where_extra_usage_is_on() -> None:
    clock, quota = plan()
    quota.hear(told("allowed", five_hour=0.5))
    failing_turn(quota, used_up())
    assert refusal(quota) is not None
    clock.now += PROBE
    assert refusal(quota) is None  # it failed: it was not charged for, and would not be
