"""What the sections are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen
from twisted.web.template import Tag, tags

Cell = Any
"""What twisted.web.template takes: text, which it escapes, tags, or a list of both."""


@frozen
class Column:
    """``number``: its cells are aligned as such; ``extra``: it is left out where there is no
    room."""

    title: str
    number: bool = False
    extra: bool = False

    @property
    def looks(self) -> dict[str, str]:
        """The attributes of its cells."""
        words = ["number"] * self.number + ["extra"] * self.extra
        return {"class": " ".join(words)} if words else {}


def section(ident: str, title: str, *content: Cell, aside: Cell = "", wide: bool = False) -> Tag:
    """``aside``: stands beside the title; ``wide``: it takes the whole width."""
    head = tags.header(tags.h2(title, id=f"{ident}-title"), tags.p(aside) if aside else "")
    return tags.section(head, *content, id=ident, class_="wide" if wide else "")(
        **{"aria-labelledby": f"{ident}-title"}
    )


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[tuple[Sequence[Cell], str]],
    titled: bool = False,
) -> Tag:
    """``rows``: cells, the first of them the row's head, and a class for the row; ``titled``: the
    caption is shown, and not only read out."""
    head = tags.tr([tags.th(column.title, scope="col", **column.looks) for column in columns])
    body = []
    for cells, looks in rows:
        first, *others = zip(columns, cells, strict=True)
        body.append(
            tags.tr(
                tags.th(first[1], scope="row", **first[0].looks),
                [tags.td(cell, **column.looks) for column, cell in others],
                **({"class": looks} if looks else {}),
            )
        )
    shown = tags.table(
        tags.caption(caption, class_="" if titled else "unseen"),
        tags.thead(head),
        tags.tbody(body),
    )
    # What is too wide can be moved, with the keyboard as well.
    return tags.div(shown, class_="scroll", role="region", tabindex="0")(**{"aria-label": caption})


def quiet(*content: Cell) -> Tag:
    """Of less weight."""
    return tags.span(*content, class_="quiet")


def sentence(text: str) -> list[Cell]:
    """``text``, in which no ``--option`` is broken at its hyphens."""
    parts = re.split(r"(--[a-z-]+)", text)
    return [tags.span(part, class_="option") if n % 2 else part for n, part in enumerate(parts)]


def note(*content: Cell, looks: str = "quiet") -> Tag:
    """A sentence on its own."""
    return tags.p(*content, class_=looks)


def badge(text: Cell, looks: str = "") -> Tag:
    """A word in a frame. ``looks``: ``good``, ``warning`` or ``bad``."""
    return tags.span(text, class_=f"badge {looks}".strip())


def bar(label: str, *layers: tuple[str, float, float]) -> Tag:
    """A bar of full width. ``layers``: class, begin and end of each, in percent."""
    drawn = [
        Tag("rect")(
            x=f"{begin:.2f}", y="0", width=f"{max(0.0, min(end, 100) - begin):.2f}", height="8",
            class_=looks,
        )
        for looks, begin, end in layers
    ]  # fmt: skip
    return Tag("svg")(drawn, class_="bar", role="img")(
        **{"viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-label": label}
    )
