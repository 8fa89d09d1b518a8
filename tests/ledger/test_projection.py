"""When a window will be full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.ledger.projection import LEAST_SPAN, look_back, project

HOUR = 3600.0


def test_the_line_goes_on() -> None:
    found = project([(0, 0.2), (HOUR, 0.4)], 0.4, 10 * HOUR, HOUR, 0)
    assert found is not None
    assert found.pace * 1 == pytest.approx(0.2)
    assert found.full_at == pytest.approx(4 * HOUR)
    assert (found.at_reset, found.reports, found.span) == (1.0, 2, HOUR)
    assert found.as_dict() == {
        "percent_per_hour": 20.0,
        "full_at": 14400,
        "percent_at_reset": 100.0,
        "based_on": {"reports": 2, "minutes": 60},
    }


def test_a_window_that_resets_before_is_never_full() -> None:
    found = project([(0, 0.2), (HOUR, 0.3)], 0.3, 2 * HOUR, HOUR, 0)
    assert found is not None and found.full_at is None
    assert found.at_reset == pytest.approx(0.4)


def test_without_use_it_stays_as_it_is() -> None:
    found = project([(0, 0.2), (HOUR, 0.2)], 0.2, 9 * HOUR, HOUR, 0)
    assert found is not None and (found.pace, found.full_at, found.at_reset) == (0.0, None, 0.2)


@pytest.mark.parametrize(
    ("reports", "now", "since"),
    [
        ([], HOUR, 0),
        ([(0, 0.1)], HOUR, 0),
        ([(0, 0.1), (1, 0.2)], LEAST_SPAN - 1, 0),
        ([(0, 0.9), (2000, 0.1)], HOUR, 0),  # the first is of the window before
        ([(0, 0.1), (2000, 0.2)], HOUR, 1),  # the first is too old
        ([(0, 0.1), (2000, 0.2)], 10 * HOUR, 0),  # it has reset
    ],
)
def test_too_little_to_go_by(reports: list[tuple[float, float]], now: float, since: float) -> None:
    assert project(reports, 0.2, 10 * HOUR, now, since) is None


def test_how_far_back_it_looks() -> None:
    assert look_back("five_hour") < look_back("seven_day") == look_back("seven_day_opus")


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1))), st.floats(0, 1), st.floats(1, 1e5))
def test_it_never_promises_what_cannot_be(
    reports: list[tuple[float, float]], used: float, resets: float
) -> None:
    found = project(sorted(reports), used, resets, 1e4, 0)
    if found is not None:
        assert found.pace >= 0 and used <= found.at_reset + 1e-9 and found.at_reset <= 1
        assert found.full_at is None or 1e4 <= found.full_at < resets
