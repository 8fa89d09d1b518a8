"""What a terminal is shown: one console, and how work that takes long is told."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.theme import Theme

THEME = Theme(
    {
        "good": "green",
        "warning": "yellow",
        "bad": "bold red",
        "quiet": "dim",
        "command": "bold cyan",
        "title": "bold",
    }
)
"""Styles by what they mean; ``NO_COLOR`` and what is no terminal get none."""

PLAIN_WIDTH = 200
"""Where there is no terminal lines are not to be broken."""

PLAIN_EVERY = 10.0
"""Seconds between two lines that work goes on, where there is no terminal."""


def console(file: IO[str] | None = None) -> Console:
    """A console on ``file``, else on stdout."""
    file = sys.stdout if file is None else file
    width = None if file.isatty() else PLAIN_WIDTH
    return Console(file=file, theme=THEME, highlight=False, soft_wrap=True, width=width)


def plain(text: str) -> str:
    """``text`` that somebody else has chosen, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def progress(what: str, *, quick: bool = False) -> Iterator[Callable[[str], None]]:
    """Tell on stderr that ``what`` goes on: a moving line on a terminal, else a line now and then,
    and none for what is ``quick`` as a rule.

    Gives a function that takes how far it has come.
    """
    shown = console(sys.stderr)
    if shown.is_terminal:
        with shown.status(f"{what} …") as status:
            yield lambda far: status.update(f"{what} … {far}")
        return
    if quick:
        yield lambda far: None
        return
    began = told = time.monotonic()
    print(f"{what} ...", file=sys.stderr, flush=True)

    def tell(far: str) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PLAIN_EVERY:
            told = now
            print(f"{what} ... {far} ({now - began:.0f} s)", file=sys.stderr, flush=True)

    yield tell
