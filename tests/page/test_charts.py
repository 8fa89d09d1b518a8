"""Periods without gaps, and the charts of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from claudeproxy.ledger.totals import Totals
from claudeproxy.messages import Usage
from claudeproxy.page import charts, history
from claudeproxy.page.history import Period

NOW = datetime(2026, 11, 29, 15, 20).timestamp()
SVG = "{http://www.w3.org/2000/svg}"


def told(**usage: int) -> dict[str, Any]:
    return Totals(turns=3, usage=Usage(**usage)).as_dict()


def test_hours_without_turns_are_there() -> None:
    used = told(input_tokens=10, cache_read_tokens=30, cache_write_tokens=20, output_tokens=5,
                cache_write_1h_tokens=8)  # fmt: skip
    ledger = {"by_hour": [{"hour": int(NOW) // 3600 * 3600 - 3600, **used}]}
    hours = history.hours(ledger, NOW)
    assert [hour.label for hour in hours] == [f"{n % 24:02}" for n in range(16, 40)]
    assert hours[-2] == Period("14", 10, 20, 30, 5, 3, 0.5)
    assert history.most(hours) is hours[-2] and history.total(hours) == 65
    assert {hour.tokens for hour in hours[:-2]} == {0}


@pytest.fixture
def in_india(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        yield
    time.tzset()


def test_hours_that_begin_at_half_past(in_india: None) -> None:
    began = datetime(2026, 11, 29, 14).timestamp()
    assert began % 3600 == 1800
    hours = history.hours(
        {"by_hour": [{"hour": int(began), **told(output_tokens=5)}]}, began + 4500
    )
    assert [(hour.label, hour.output) for hour in hours[-2:]] == [("14", 5), ("15", 0)]


def test_days_without_turns_are_there() -> None:
    ledger = {"by_day": [{"day": "2026-11-01", **told(output_tokens=9)}]}
    days = history.days(ledger, NOW)
    assert (len(days), days[0].label, days[-1].label) == (30, "Oct 31", "Nov 29")
    assert days[1] == Period("Nov 1", output=9, turns=3)


PERIODS = [Period(f"{n:02}", n, 2 * n, 30 * n, n, n, n / 24 or None) for n in range(24)]


@pytest.mark.parametrize("width", charts.WIDTHS)
@pytest.mark.parametrize("draw", [charts.tokens, charts.cache])
@pytest.mark.parametrize("periods", [PERIODS, [Period(str(n)) for n in range(30)]])
def test_charts(draw: Any, periods: list[Period], width: int) -> None:
    drawn = draw(periods, width)
    root = ElementTree.fromstring(drawn)
    assert root.tag == f"{SVG}svg" and root.get("viewBox", "").startswith(f"0 0 {width} ")
    assert root.find(f".//{SVG}script") is None
    assert b"prefers-color-scheme:dark" in drawn.replace(b" ", b"")
    if draw is charts.tokens and periods is PERIODS:
        bars = root.findall(f".//{SVG}rect[@class='rect reactive tooltip-trigger']")
        assert len(bars) == 4 * 24
    words = "".join(root.itertext())
    assert ("no turns" in words) == (periods is not PERIODS)
    texts = [
        text.text for text in root.findall(f".//{SVG}g[@class='axis y always_show']//{SVG}text")
    ]
    if draw is charts.cache and periods is PERIODS:
        assert texts == ["0 %", "50 %", "100 %"]
    elif periods is PERIODS:
        assert texts == ["0", "200", "400", "600"]


@pytest.mark.parametrize(
    ("most", "wanted"),
    [
        (0, [0]), (1, [0, 1]), (3, [0, 1, 2, 3]), (4, [0, 2, 4]), (9, [0, 5]),
        (158_000, [0, 50_000, 100_000, 150_000]), (6_100_000, [0, 2_000_000, 4_000_000, 6_000_000]),
    ],
)  # fmt: skip
def test_steps(most: int, wanted: list[int]) -> None:
    assert charts.steps(most) == wanted
