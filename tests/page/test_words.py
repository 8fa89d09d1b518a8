"""Numbers, times and names as the page shows them."""

from __future__ import annotations

import pytest
from twisted.web.template import flattenString

from claudeproxy.page import words
from claudeproxy.page.words import NOTHING


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"), (999, "999"), (1234, "1,234"), (9999, "9,999"), (10_000, "10.0k"),
        (45_640, "45.6k"), (999_000, "999k"), (1_000_000, "1.0M"), (104_200_000, "104M"),
        (2.5e9, "2.5G"),
    ],
)  # fmt: skip
def test_counts(number: int, shown: str) -> None:
    assert words.count(number) == shown


def test_a_number_of_things() -> None:
    assert words.counted(1, "turn") == "1 turn"
    assert words.counted(0, "turn") == "0 turns"
    assert words.counted(2, "match", "matches") == "2 matches"


@pytest.mark.parametrize(
    ("octets", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (213 << 20, "213 MB"), (3 << 30, "3.0 GB")],
)
def test_sizes(octets: int, shown: str) -> None:
    assert words.size(octets) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"), (0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"),
        (5400, "1 h 30 min"), (7200, "2 h"), (47 * 3600, "47 h"), (50 * 3600, "2 d 2 h"),
        (96 * 3600, "4 d"),
    ],
)  # fmt: skip
def test_spans(seconds: float, shown: str) -> None:
    assert words.span(seconds) == shown


def test_shares_money_and_durations() -> None:
    assert (words.percent(None), words.percent(0.915), words.percent(1)) == (
        NOTHING,
        "91.5 %",
        "100.0 %",
    )
    assert (words.dollars(0.049), words.dollars(12345.6)) == ("$0.05", "$12,346")
    took = [words.seconds(ms) for ms in (None, 840, 12_340, 240_000)]
    assert took == [NOTHING, "0.84 s", "12.3 s", "4 min"]


def of(what: object) -> str:
    found: list[bytes] = []
    flattenString(None, what).addCallback(found.append)
    return found[0].decode()


def test_a_moment_has_its_time_in_full() -> None:
    told = of(words.ago(1_700_000_000, 1_700_000_120))
    assert told.startswith("<time ") and "2 min<span" in told and " ago" in told
    assert 'datetime="2023-11-1' in told and "2023-11-1" in told.partition("title=")[2]
    long_ago = of(words.ago(1_700_000_000, 1_700_012_000))
    assert '>3 h<span class="extra"> 20 min ago</span>' in long_ago
    assert ">now<" in of(words.ago(100.0, 100.5))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("laptop", "<bdi>laptop</bdi>"),
        ("<script>", "<bdi>&lt;script&gt;</bdi>"),
        ("a\x00\x1b\n\u202eb", "<bdi>a����b</bdi>"),
        ("\">'", "<bdi>\"&gt;'</bdi>"),
    ],
)
def test_names_of_others(name: str, text: str) -> None:
    assert of(words.name(name)) == text


def test_long_and_missing_names() -> None:
    told = of(words.name('x"' * 5000))
    assert told.count("x") == words.LONGEST and "…" in told, "in the text and in the title"
    assert 'title="x&quot;' in told
    assert [words.name(nothing) for nothing in (None, "")] == [NOTHING, NOTHING]
    assert of(words.text("y" * 5000)).count("y") == 2 * 300
