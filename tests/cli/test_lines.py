"""Framing: lines come out the same wherever the bytes are cut."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.cli.lines import Lines, LineTooLong


def fed(parts: Iterable[bytes], limit: int = 1000) -> list[bytes]:
    lines = Lines(limit)
    return [line for part in parts for line in lines.feed(part)]


def cuts(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b" "))), st.data())
def test_any_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    places = data.draw(st.lists(st.integers(0, len(whole))))
    assert fed(cuts(whole, places)) == lines


def test_an_unfinished_line_is_kept_back() -> None:
    assert fed([b"a\nb"]) == [b"a"]
    assert fed([b"a\nb", b"", b"c\n\n"]) == [b"a", b"bc", b""]


def test_carriage_returns_are_left_alone() -> None:
    assert fed([b"a\r\n"]) == [b"a\r"]


@settings(deadline=None)
@given(st.integers(1, 50))
def test_an_unfinished_line_has_a_bound(step: int) -> None:
    lines = Lines(100)
    assert lines.feed(b"x" * 100) == []
    with pytest.raises(LineTooLong):
        for _ in range(100):
            lines.feed(b"x" * step)


def test_the_bound_is_that_of_one_line() -> None:
    assert fed([b"x" * 90 + b"\n"] * 10, limit=100) == [b"x" * 90] * 10


def test_a_huge_line_in_small_reads_costs_no_time() -> None:
    began = time.process_time()
    assert fed([b"x" * 8192] * 2500 + [b"\n"], limit=1 << 30) == [b"x" * 8192 * 2500]
    assert time.process_time() - began < 1.0
