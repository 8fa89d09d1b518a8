"""What may follow a key in its file."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from claudeproxy.ledger.periods import DAY, MINUTE, period
from claudeproxy.web.key_rules import Rules, parse


def test_all_rules() -> None:
    assert parse([]) == Rules()
    line = (
        "requests=60/min requests=500/day tokens=100k/min tokens=2M/day share=five_hour=30 "
        "share=seven_day=12.5% reserve=five_hour=20 models=opus,claude-haiku-4-5[1m] "
        "expires=2027-01-31"
    )
    assert parse(line.split()) == Rules(
        requests={"min": 60, "day": 500},
        tokens={"min": 100_000, "day": 2_000_000},
        shares={"five_hour": 0.3, "seven_day": 0.125},
        reserve={"five_hour": 0.2},
        models=("opus", "claude-haiku-4-5[1m]"),
        expires=date(2027, 1, 31),
    )


REQUESTS = "requests=60/min or requests=500/day"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("requests=60", REQUESTS),
        ("requests=0/min", REQUESTS),
        ("requests=60/hour", REQUESTS),
        ("requests=-1/min", REQUESTS),
        ("requests=1.5/min", REQUESTS),
        ("requests=1m/min", REQUESTS),
        ("requests", REQUESTS),
        ("requests=1/min requests=2/min", f"{REQUESTS}, and each of them once"),
        ("tokens=lots/day", "tokens=100k/min or tokens=2M/day"),
        ("share=five_hour=101", "share=five_hour=30"),
        ("share=30", "share=five_hour=30"),
        ("reserve=five_hour=1 reserve=five_hour=2", "reserve=five_hour=20, and each of them once"),
        ("models=", "models=sonnet,haiku"),
        ("models=a,,b", "models=sonnet,haiku"),
        ("models=a models=b", "models=sonnet,haiku, and each of them once"),
        ("expires=2027-02-30", "expires=2027-01-31"),
        ("expires=20270131", "expires=2027-01-31"),
        ("expires=soon", "expires=2027-01-31"),
    ],
)
def test_refused_rules(words: str, told: str) -> None:
    with pytest.raises(ValueError, match="=") as caught:
        parse(words.split())
    assert str(caught.value) == told


def test_a_key_counts_on_its_last_day() -> None:
    rules = Rules(expires=date(2027, 1, 31))
    assert not rules.expired(datetime(2027, 1, 31, 23, 59).timestamp())
    assert rules.expired(datetime(2027, 2, 1, 0, 1).timestamp())
    assert not Rules().expired(datetime(2099, 1, 1).timestamp())


def test_minutes_and_days() -> None:
    noon = datetime(2027, 1, 31, 12, 0, 30)
    assert period(MINUTE, noon.timestamp()) == (
        datetime(2027, 1, 31, 12, 0).timestamp(),
        datetime(2027, 1, 31, 12, 1).timestamp(),
    )
    assert period(DAY, noon.timestamp()) == (
        datetime(2027, 1, 31).timestamp(),
        datetime(2027, 2, 1).timestamp(),
    )
