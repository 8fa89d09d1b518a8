"""Plan limits and an expired login, as they show on a subscription's token."""

import time

import pytest
from driver import run

from claudeproxy.cli.errors import LoginAdvice, classify
from claudeproxy.demo.answering.orders import limit
from claudeproxy.demo.steps import ApiError
from claudeproxy.messages import Kind

RESETS = 2_000_000_000


@pytest.fixture(scope="module")
def subscription(stage):
    """The turns of one process with a token, by name."""

    async def play():
        made = await stage(login="oauth")
        await made.begin()
        turns = {}
        for name, error in {
            "busy": ApiError(429, "Too many at once"),
            "five_hour": limit("five_hour", RESETS),
            "seven_day": limit("seven_day", RESETS),
            "expired": ApiError(401, "OAuth token has expired"),
        }.items():
            made.demo.answer = lambda received, error=error: error
            turns[name] = await made.turn("Hello")
        return turns

    return run(play())


def rejected(turn):
    (line,) = turn.all("rate_limit_event")
    return line["rate_limit_info"]


@pytest.mark.parametrize("window", ["five_hour", "seven_day"])
def test_a_plan_limit_is_a_rejected_window_with_type_and_reset(subscription, window):
    info = rejected(subscription[window])
    assert info["status"] == "rejected"
    assert info["rateLimitType"] == window
    assert info["resetsAt"] == RESETS


def test_a_plan_limit_comes_before_its_result(subscription):
    kinds = [line["type"] for line in subscription["five_hour"].lines]
    assert kinds.index("rate_limit_event") < kinds.index("result")


def test_a_busy_server_is_a_rejected_window_without_type(subscription):
    info = rejected(subscription["busy"])
    assert info["status"] == "rejected"
    assert "rateLimitType" not in info and "resetsAt" not in info


@pytest.mark.parametrize(
    ("name", "kind"),
    [("five_hour", Kind.PLAN_LIMIT), ("seven_day", Kind.PLAN_LIMIT), ("busy", Kind.RATE_LIMIT)],
)
def test_the_two_are_told_apart(subscription, name, kind):
    """By the daemon's own code, on the real lines."""
    turn = subscription[name]
    said = turn.result
    status, reason = said["api_error_status"], said["terminal_reason"]
    assert status == 429
    limits, now = rejected(turn), time.time()
    found = classify(said["result"], status, reason, limits, now, LoginAdvice())
    assert found.kind == kind


@pytest.mark.parametrize("name", ["five_hour", "seven_day", "busy"])
def test_a_limit_is_one_request(subscription, name):
    assert len(subscription[name].requests) == 1


def test_an_expired_token_is_tried_twice(subscription):
    """Whatever ``CLAUDE_CODE_MAX_RETRIES`` says; then it has the status of a 401."""
    assert len(subscription["expired"].requests) == 2
    assert subscription["expired"].result["api_error_status"] == 401
