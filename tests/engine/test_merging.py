"""What two nodes know of a plan, made one: in any order, as often as one likes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.engine.merging import REMEMBERED, merge, merge_times
from claudeproxy.engine.quota import Quota
from claudeproxy.ledger import shares

# Few values, so that they are often the same, or nearly.
TIMES = st.sampled_from([1000.0, 1000.5, 1001.0, 1002.0])
RESETS = st.sampled_from([7200.0, 7199.0, 7260.5, 7330.0, 7400.0, 9000.0])
NAMES = st.sampled_from(["five_hour", "seven_day", "seven_day_opus"])
SETUPS = st.sampled_from(["a", "b", "c"])

WINDOWS = st.fixed_dictionaries(
    {
        "used": st.sampled_from([0.0, 0.5, 1.0]),
        "resets": RESETS,
        "status": st.sampled_from([None, "allowed"]),
    }
)
CLOSED = st.one_of(
    st.fixed_dictionaries({"at": TIMES, "until": RESETS, "paid": st.booleans()}),
    st.fixed_dictionaries({"at": TIMES, "until": st.just(0.0), "paid": st.just(False)}),
)
STATES = st.fixed_dictionaries(
    {
        "account": st.just("mine"),
        "windows": st.fixed_dictionaries(
            {
                "known": st.dictionaries(NAMES, WINDOWS),
                "extra_usage": st.sampled_from([None, True, False]),
                "in_use": st.booleans(),
                "why_off": st.sampled_from([None, "x"]),
                "claim": st.sampled_from([None, "five_hour"]),
                "told": TIMES,
            }
        ),
        "closed": st.dictionaries(NAMES, CLOSED),
        "charged": st.dictionaries(SETUPS, TIMES),
        "cleared": st.dictionaries(SETUPS, TIMES),
    }
)


@given(STATES, STATES)
def test_it_does_not_matter_whose_is_first(a: Any, b: Any) -> None:
    assert merge(a, b) == merge(b, a)


@given(STATES, STATES, STATES)
def test_it_does_not_matter_which_are_merged_first(a: Any, b: Any, c: Any) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(STATES, STATES)
def test_it_does_not_matter_how_often(a: Any, b: Any) -> None:
    assert merge(a, a) == a
    assert merge(merge(a, b), b) == merge(a, b)


@given(STATES, STATES)
def test_what_is_merged_is_json(a: Any, b: Any) -> None:
    assert json.loads(json.dumps(merge(a, b))) == merge(a, b)


def known(state: Any) -> Any:
    """What counts of a state: of set-ups, whether they are charged for."""
    charged, cleared = state["charged"], state["cleared"]
    counts = {key: at for key, at in charged.items() if at >= cleared.get(key, 0.0)}
    return {**state, "charged": counts, "cleared": None}


@given(STATES, STATES)
def test_a_quota_that_is_told_knows_what_is_kept(a: Any, b: Any) -> None:
    quota = Quota(lambda: 1002.0)
    quota.restore(a)
    quota.apply(b)
    assert known(quota.kept()) == known(merge(a, b))


@given(st.permutations(range(6)), st.lists(STATES, min_size=6, max_size=6))
def test_nodes_that_hear_the_same_in_any_order_know_the_same(order: Any, states: Any) -> None:
    one, other = Quota(lambda: 1002.0), Quota(lambda: 1002.0)
    for number in range(6):
        one.apply(states[number])
        other.apply(states[order[number]])
    assert known(one.kept()) == known(other.kept())


EMPTY: Any = {
    "account": "mine",
    "windows": {
        "known": {}, "extra_usage": None, "in_use": False, "why_off": None, "claim": None,
        "told": 0.0,
    },
    "closed": {}, "charged": {}, "cleared": {},
}  # fmt: skip


def window(used: float, resets: float, **more: Any) -> Any:
    seen = {"five_hour": {"used": used, "resets": resets, "status": None}}
    return {**EMPTY, "windows": {**EMPTY["windows"], "known": seen, **more}}


def use(state: Any) -> float:
    found: float = state["windows"]["known"]["five_hour"]["used"]
    return found


def test_of_a_window_the_greater_use_counts_and_of_two_the_later() -> None:
    hour = 36_000.0
    assert use(merge(window(0.5, hour), window(0.6, hour))) == 0.6
    assert use(merge(window(0.5, hour + 0.02), window(0.6, hour - 0.06))) == 0.6
    for minute in range(9):
        resets = hour + minute * 60
        assert use(merge(window(0.5, resets), window(0.6, resets - 29))) == 0.6
        assert use(merge(window(0.5, resets + 29), window(0.6, resets))) == 0.6
    assert use(merge(window(0.1, hour + 5 * 3600), window(0.9, hour))) == 0.1
    assert use(merge(window(0.1, hour + shares.SAME_WINDOW), window(0.9, hour))) == 0.1


def test_all_else_is_as_it_was_told_last() -> None:
    on = window(0.5, 9000.0, extra_usage=True, told=5.0)
    off = window(0.4, 9000.0, extra_usage=False, told=6.0)
    merged = merge(on, off)["windows"]
    assert (merged["extra_usage"], merged["known"]["five_hour"]["used"]) == (False, 0.5)


def closing(at: float, until: float, paid: bool = False) -> Any:
    return {**EMPTY, "closed": {"five_hour": {"at": at, "until": until, "paid": paid}}}


@pytest.mark.parametrize(
    ("a", "b", "until"),
    [
        (closing(5, 9000), closing(6, 0), 0),
        (closing(7, 9000), closing(6, 0), 9000),
        (closing(5, 9000), closing(5, 0), 9000),
        (closing(5, 9000), closing(5, 8000), 9000),
        (closing(5, 9000), closing(6, 9900), 9900),
    ],
)
def test_the_last_word_on_a_closed_window_counts(a: Any, b: Any, until: float) -> None:
    assert merge(a, b)["closed"]["five_hour"]["until"] == until


def test_the_later_charge_of_a_set_up_counts() -> None:
    merged = merge({**EMPTY, "charged": {"a": 5.0}}, {**EMPTY, "charged": {"a": 6.0, "b": 1.0}})
    assert merged["charged"] == {"a": 6.0, "b": 1.0}


def test_only_so_many_set_ups_are_kept() -> None:
    many = {f"{n}": float(n) for n in range(REMEMBERED)}
    more = {f"{n}": float(n) for n in range(500, REMEMBERED + 500)}
    merged = merge_times(many, more)
    assert len(merged) == REMEMBERED and min(merged.values()) == 500


def test_states_of_two_accounts_are_not_merged() -> None:
    with pytest.raises(ValueError):
        merge(EMPTY, {**EMPTY, "account": "hers"})
