"""The plan's windows, by what the CLI tells of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from claudeproxy.cli.models import ModelInfo
from claudeproxy.engine.windows import Window, Windows, bounds, is_paid

OPUS = ModelInfo("opus", "claude-opus-5-5")
SONNET = ModelInfo("sonnet", "claude-sonnet-5-5")
HAIKU = ModelInfo("haiku", "claude-haiku-5-5")
FABLE = ModelInfo("claude-fable-5", "claude-fable-5")
DEFAULT = ModelInfo("default", "claude-opus-5-5")
MODELS = (OPUS, SONNET, HAIKU, FABLE, DEFAULT)

INFO: dict[str, Any] = {
    "status": "allowed",
    "rateLimitType": "five_hour",
    "resetsAt": 5000,
    "overageStatus": "rejected",
    "overageDisabledReason": "org_level_disabled",
    "isUsingOverage": False,
    "unifiedWindows": {
        "five_hour": {"utilization": 0.25, "resetsAt": 5000, "status": "allowed"},
        "seven_day": {"utilization": 0.5, "resetsAt": 90_000, "status": "allowed_warning"},
        "seven_day_overage_included": {"utilization": 1.0, "resetsAt": 9000},
    },
}


def heard(info: Any = INFO) -> Windows:
    windows = Windows()
    windows.hear(info)
    return windows


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("five_hour", MODELS),
        ("seven_day", MODELS),
        ("a_window_to_come", MODELS),
        ("seven_day_opus", (OPUS, DEFAULT)),
        ("seven_day_sonnet", (SONNET,)),
        ("seven_day_overage_included", (FABLE,)),
        ("overage", ()),
    ],
)
def test_whom_a_window_bounds(name: str, bound: tuple[ModelInfo, ...]) -> None:
    assert tuple(model for model in MODELS if bounds(name, model)) == bound


def test_all_windows_of_a_reply_are_kept() -> None:
    windows = heard()
    assert windows.known == {
        "five_hour": Window(0.25, 5000.0, "allowed"),
        "seven_day": Window(0.5, 90_000.0, "allowed_warning"),
        "seven_day_overage_included": Window(1.0, 9000.0),
    }
    assert windows.claim == "five_hour"
    assert (windows.extra_usage, windows.why_off) == (False, "org_level_disabled")
    assert [window.is_full for window in windows.known.values()] == [False, False, True]


def test_what_a_reply_does_not_name_stays_as_it_was() -> None:
    windows = heard()
    windows.hear({"unifiedWindows": {"five_hour": {"utilization": 0.75, "resetsAt": 6000}}})
    assert windows.known["five_hour"] == Window(0.75, 6000.0)
    assert windows.known["seven_day"] == Window(0.5, 90_000.0, "allowed_warning")
    assert (windows.claim, windows.extra_usage) == ("five_hour", False)


def test_a_rejection_alone_means_a_full_window() -> None:
    info = {"status": "rejected", "rateLimitType": "seven_day_opus", "resetsAt": 5000}
    assert heard(info).known == {"seven_day_opus": Window(1.0, 5000.0, "rejected")}


def test_a_reply_that_tells_of_one_window_only() -> None:
    info = {
        "status": "allowed_warning",
        "rateLimitType": "seven_day",
        "resetsAt": 5000,
        "utilization": 0.875,
        "overageStatus": "rejected",
        "overageDisabledReason": 5,
    }
    windows = heard(info)
    assert windows.known == {"seven_day": Window(0.875, 5000.0, "allowed_warning")}
    assert (windows.extra_usage, windows.why_off) == (False, None)


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"status": "allowed"},
        {"status": "allowed", "rateLimitType": "five_hour", "resetsAt": 5000},
        {"status": "rejected", "rateLimitType": "five_hour"},
        {"status": "rejected", "rateLimitType": "overage", "resetsAt": 5000},
        {"status": "rejected", "rateLimitType": 5, "resetsAt": 5000},
        {"unifiedWindows": [1]},
        {"unifiedWindows": {"five_hour": {"utilization": "much", "resetsAt": 1}}},
        {"unifiedWindows": {"five_hour": {}}},
    ],
    ids=range(9),
)
def test_what_tells_of_no_window(info: Any) -> None:
    assert heard(info).known == {}


@pytest.mark.parametrize(
    ("status", "extra"),
    [("allowed", True), ("allowed_warning", True), ("rejected", False), (None, None)],
)
def test_whether_extra_usage_is_switched_on(status: Any, extra: bool | None) -> None:
    assert heard({"overageStatus": status}).extra_usage is extra


@pytest.mark.parametrize(
    ("info", "paid"),
    [
        ({"isUsingOverage": True}, True),
        ({"overageInUse": True}, True),
        ({"isUsingOverage": False, "overageInUse": False}, False),
        ({"isUsingOverage": "yes"}, False),
        ({}, False),
    ],
)
def test_whether_a_reply_was_paid(info: Any, paid: bool) -> None:
    assert is_paid(info) is paid
    assert heard(info).in_use is paid


def test_only_windows_that_run_bound_a_turn() -> None:
    windows = heard()
    assert [name for name, _ in windows.bounding(HAIKU, 4999.0)] == ["five_hour", "seven_day"]
    assert [name for name, _ in windows.bounding(HAIKU, 5000.0)] == ["seven_day"]
    assert len([*windows.bounding(FABLE, 4999.0)]) == 3


def test_headers_under_anthropics_own_names() -> None:
    unified = "anthropic-ratelimit-unified"
    assert heard().headers(4999.0) == {
        f"{unified}-5h-utilization": "0.25",
        f"{unified}-5h-reset": "5000",
        f"{unified}-5h-status": "allowed",
        f"{unified}-7d-utilization": "0.5",
        f"{unified}-7d-reset": "90000",
        f"{unified}-7d-status": "allowed_warning",
        f"{unified}-7d_oi-utilization": "1",
        f"{unified}-7d_oi-reset": "9000",
        f"{unified}-representative-claim": "five_hour",
        f"{unified}-reset": "5000",
        f"{unified}-overage-status": "rejected",
    }
    past = heard().headers(5000.0)
    assert f"{unified}-5h-reset" not in past and f"{unified}-representative-claim" not in past
    assert f"{unified}-7d-reset" in past
    assert Windows().headers(0.0) == {}


def test_kept_over_a_restart_as_long_as_they_run() -> None:
    windows = heard()
    kept = json.loads(json.dumps(windows.kept()))
    assert Windows.restored(kept, 4999.0) == windows
    later = Windows.restored(kept, 5000.0)
    assert list(later.known) == ["seven_day", "seven_day_overage_included"]
    assert (later.extra_usage, later.claim) == (False, "five_hour")


@pytest.mark.parametrize(
    "kept",
    [
        None,
        5,
        {},
        {"known": 5},
        {"known": {"five_hour": 5}},
        {"known": {"five_hour": {"used": 0.5}}},
        {"known": {"five_hour": {"used": 0.5, "resets": "x"}}},
        {"known": {"five_hour": {"used": "much", "resets": 5000}}},
        {"known": {}, "of another version": 5},
    ],
    ids=range(9),
)
def test_what_is_something_else_is_not_restored(kept: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Windows.restored(kept, 0.0)


def test_another_account_has_other_windows() -> None:
    windows = heard()
    windows.forget()
    assert windows == Windows()


def test_extra_usage_in_use_is_switched_on() -> None:
    """2.1.292 leaves its status out while a window warns."""
    windows = Windows()
    windows.hear({"status": "allowed_warning", "isUsingOverage": False, "overageInUse": True})
    assert (windows.extra_usage, windows.in_use) == (True, True)


def test_headers_of_windows_to_come_and_of_extra_usage() -> None:
    unified = "anthropic-ratelimit-unified"
    info = {
        "overageStatus": "allowed",
        "unifiedWindows": {"seven_day_opus": {"utilization": 0.5, "resetsAt": 5000}},
    }
    assert heard(info).headers(0.0) == {
        f"{unified}-seven_day_opus-utilization": "0.5",
        f"{unified}-seven_day_opus-reset": "5000",
        f"{unified}-overage-status": "allowed",
    }
