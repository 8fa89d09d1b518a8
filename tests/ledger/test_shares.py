"""Which part of a window went to which key."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pytest_twisted import ensureDeferred

from claudeproxy.ledger import shares
from claudeproxy.ledger.shares import Plan, grow, window_seconds
from claudeproxy.store.database import Database

PLAN = Plan(1000.0, "me", {"five_hour": 5000.0})


def used(share: float) -> dict[str, float]:
    return {"five_hour": share}


class Told:
    """Turns that are over, told to a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heard(
        self,
        key: str | None,
        before: Mapping[str, float],
        after: Mapping[str, float],
        plan: Plan = PLAN,
    ) -> None:
        await self._database.run(grow, key, before, after, plan)

    async def of(self, key: str, window: str = "five_hour", account: str = "me") -> float:
        found = await self._database.run(shares.shares, account)
        share = found.get(key, {}).get(window)
        return 0.0 if share is None else share.used


@pytest.fixture
def told(database: Database) -> Told:
    return Told(database)


@ensureDeferred
async def test_each_key_gets_the_growth_that_its_turns_report(told: Told) -> None:
    await told.heard("a", used(0.1), used(0.12))
    await told.heard("b", used(0.1), used(0.12))  # beside it: the growth is counted once
    await told.heard("b", used(0.12), used(0.15))
    await told.heard(None, used(0.15), used(0.2))
    await told.heard("a", used(0.2), used(0.21))
    assert await told.of("a") == pytest.approx(0.03)
    assert await told.of("b") == pytest.approx(0.03)
    assert await told.of("c") == 0
    assert await told.of("a", "seven_day") == 0


@ensureDeferred
async def test_a_window_of_which_nothing_was_known_belongs_to_nobody(told: Told) -> None:
    await told.heard("a", {}, used(0.5))
    assert await told.of("a") == 0
    await told.heard("a", used(0.5), used(0.6))
    assert await told.of("a") == pytest.approx(0.1)


@ensureDeferred
async def test_a_new_window_begins_anew(told: Told) -> None:
    await told.heard("a", used(0.1), used(0.4))
    await told.heard("b", used(0.4), used(0.45))
    await told.heard("a", {}, used(0.45), Plan(6000.0, "me", {"five_hour": 23_000.0}))
    assert await told.of("a") == pytest.approx(0.45)
    assert await told.of("b") == 0
    # The same one, told a second later.
    await told.heard("a", {}, used(0.47), Plan(6000.0, "me", {"five_hour": 23_001.0}))
    assert await told.of("a") == pytest.approx(0.47)


@ensureDeferred
async def test_a_share_that_falls_is_not_taken_back(told: Told) -> None:
    for before, after in ((0.1, 0.3), (0.3, 0.2), (0.2, 0.25)):
        await told.heard("a", used(before), used(after))
    assert await told.of("a") == pytest.approx(0.25)


@ensureDeferred
async def test_what_is_told_late_grows_nothing(told: Told) -> None:
    later = Plan(6000.0, "me", {"five_hour": 23_000.0})
    await told.heard("a", used(0.1), used(0.2), later)
    await told.heard("b", used(0.3), used(0.9))  # of the window before
    await told.heard("b", used(0.1), used(0.15), Plan(5999.0, "me", later.resets))
    await told.heard("a", used(0.2), used(0.3), later)
    assert await told.of("a") == pytest.approx(0.2)
    assert await told.of("b") == 0


@ensureDeferred
async def test_accounts_have_windows_of_their_own(told: Told) -> None:
    other = Plan(1000.0, "other", PLAN.resets)
    for step in range(1, 4):
        await told.heard("a", used(0.1 * (step - 1)), used(0.1 * step))
        await told.heard("a", used(0.5), used(0.5), other)
    assert await told.of("a") == pytest.approx(0.3)
    assert await told.of("a", account="other") == 0


def test_how_long_windows_last() -> None:
    assert window_seconds("five_hour") == 18_000
    assert window_seconds("seven_day_opus") == window_seconds("seven_day") == 604_800
    assert window_seconds("overage") == 0
