"""Stop sequences over any chunking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.engine.stops import StopFilter

LETTERS = st.text(alphabet="ab\n", max_size=24)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=4)


def run(chunks: list[str], stops: list[str]) -> tuple[str, str | None]:
    stop_filter = StopFilter(stops)
    out = "".join(stop_filter.feed(chunk) for chunk in chunks)
    return (out if stop_filter.found else out + stop_filter.flush()), stop_filter.found


def reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What a reader of one character at a time sees, who stops at the first whole sequence."""
    for end in range(1, len(text) + 1):
        whole = [stop for stop in stops if text[:end].endswith(stop)]
        if whole:
            longest = max(whole, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(LETTERS, STOPS, st.data())
def test_any_chunking_gives_what_the_whole_text_gives(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert run(chunks, stops) == reference(text, stops)


@given(LETTERS, STOPS)
def test_nothing_of_a_sequence_leaves(text: str, stops: list[str]) -> None:
    out, found = run(list(text), stops)
    assert all(stop not in out for stop in stops)
    assert text.startswith(out if found is None else out + found)


def test_nothing_follows_a_sequence() -> None:
    stop_filter = StopFilter(["END"])
    assert stop_filter.feed("one EN") == "one "
    assert stop_filter.feed("D two") == ""
    assert stop_filter.found == "END"
    assert stop_filter.feed("three") == ""


def test_what_only_looked_like_a_sequence_comes_out() -> None:
    stop_filter = StopFilter(["END"])
    assert stop_filter.feed("the EN") == "the "
    assert stop_filter.flush() == "EN"
