"""Plan windows and logins, by values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from claudeproxy.cli.errors import not_logged_in
from claudeproxy.cli.models import ModelInfo
from claudeproxy.engine.memory import scarce
from claudeproxy.engine.standing import DEFAULT_WAIT, PROBE_RETRY, Standing
from claudeproxy.messages import Failure, FailureError, Kind

OPUS = ModelInfo("opus", "claude-opus-5-5")
HAIKU = ModelInfo("haiku", "claude-haiku-5-5")
BROKEN = Failure(Kind.UPSTREAM, "broken", 502)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def rejected(window: str = "five_hour", resets: Any = 1600) -> dict[str, Any]:
    return {"status": "rejected", "rateLimitType": window, "resetsAt": resets}


def refusal(standing: Standing, model: ModelInfo = OPUS) -> Failure | None:
    try:
        standing.check(model)
    except FailureError as error:
        return error.failure
    return None


def test_a_used_up_window_refuses_until_its_reset() -> None:
    clock = Clock()
    standing = Standing(clock)
    assert refusal(standing) is None
    standing.window(rejected())
    failure = refusal(standing, HAIKU)
    assert failure is not None
    assert (failure.status, failure.kind, failure.retry_after) == (429, Kind.PLAN_LIMIT, 600)
    assert standing.report() == {"five_hour": "1600"}
    clock.now = 1600
    assert refusal(standing) is None


def test_after_the_reset_one_turn_goes_first() -> None:
    clock = Clock()
    standing = Standing(clock)
    standing.window(rejected())
    clock.now = 1601
    assert refusal(standing) is None
    second = refusal(standing)
    assert second is not None
    assert second.retry_after == PROBE_RETRY
    standing.ended(OPUS, BROKEN)
    assert refusal(standing) is None
    standing.ended(OPUS, None)
    assert refusal(standing) is None
    assert refusal(standing) is None
    assert standing.report() == {}


def test_a_probe_that_is_rejected_waits_for_the_new_reset() -> None:
    clock = Clock()
    standing = Standing(clock)
    standing.window(rejected())
    clock.now = 1601
    standing.check(OPUS)
    standing.window(rejected(resets=2000))
    standing.ended(OPUS, Failure(Kind.PLAN_LIMIT, "no", 429))
    failure = refusal(standing)
    assert failure is not None
    assert failure.retry_after == 399


def test_a_window_of_one_family_leaves_the_others() -> None:
    standing = Standing(Clock())
    standing.window(rejected("seven_day_opus"))
    assert refusal(standing, OPUS) is not None
    assert refusal(standing, HAIKU) is None


def test_an_allowed_window_is_open_again() -> None:
    standing = Standing(Clock())
    standing.window(rejected())
    standing.window({"status": "allowed", "rateLimitType": "five_hour"})
    assert refusal(standing) is None


def test_a_rejection_without_a_type_is_no_plan_limit() -> None:
    standing = Standing(Clock())
    standing.window({"status": "rejected", "isUsingOverage": False})
    assert refusal(standing) is None


def test_a_window_that_does_not_say_when_it_resets() -> None:
    standing = Standing(Clock())
    standing.window(rejected(resets=None))
    failure = refusal(standing)
    assert failure is not None
    assert failure.retry_after == DEFAULT_WAIT


def test_a_probe_that_meets_another_window_is_over_all_the_same() -> None:
    clock = Clock()
    standing = Standing(clock)
    standing.window(rejected())
    clock.now = 1601
    standing.check(OPUS)
    standing.window(rejected("seven_day", 5000))
    standing.ended(OPUS, Failure(Kind.PLAN_LIMIT, "no", 429))
    clock.now = 5001
    assert refusal(standing) is None
    standing.ended(OPUS, None)
    assert standing.report() == {}


def test_extra_usage_in_place_of_the_window() -> None:
    standing = Standing(Clock())
    standing.window({**rejected(), "overageStatus": "allowed", "isUsingOverage": True})
    assert refusal(standing) is None


def test_nobody_looks_after_the_login_of_another_upstream() -> None:
    standing = Standing(Clock())
    standing.ended(OPUS, not_logged_in())
    assert refusal(standing) is None


def test_logged_out_until_somebody_says_otherwise() -> None:
    standing = Standing(Clock())
    standing.logged_in = True
    standing.ended(OPUS, BROKEN)
    assert standing.logged_in is True
    standing.ended(OPUS, not_logged_in())
    failure = refusal(standing)
    assert failure is not None
    assert (failure.status, failure.code) == (401, "not_logged_in")
    standing.logged_in = True
    assert refusal(standing) is None


@pytest.mark.parametrize(
    ("meminfo", "expected"),
    [
        ("MemTotal: 1000 kB\nMemAvailable: 50 kB\n", True),
        ("MemTotal: 1000 kB\nMemAvailable: 500 kB\n", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_memory(tmp_path: Path, meminfo: str | None, expected: bool) -> None:
    path = tmp_path / "meminfo"
    if meminfo is not None:
        path.write_text(meminfo)
    assert scarce(path) is expected
