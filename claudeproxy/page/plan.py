"""The plan's windows, and what was paid beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.web.template import Tag, tags

from claudeproxy.ledger.record import TurnRecord

from . import words
from .parts import Cell, Column, badge, bar, note, quiet, section, sentence, table
from .snapshot import Snapshot

HIGH = 80
"""Percent of a window above which it is shown as nearly used up."""

_NAMES = {"five_hour": "5-hour window", "seven_day": "7-day window"}


def window_name(name: str) -> str:
    """``seven_day_opus`` is the ``7-day window, opus``."""
    for start, words_for in _NAMES.items():
        if name.startswith(start):
            family = name.removeprefix(start).strip("_").replace("_", " ")
            return f"{words_for}, {family}" if family else words_for
    return "".join(c for c in name.replace("_", " ")[: words.LONGEST] if c.isprintable())


def plan(seen: Snapshot) -> Tag:
    """The section."""
    told = seen.usage
    if not told["plan"]:
        content: Cell = note(
            "No plan is used: this server talks to ", words.name(seen.health["upstream"]), "."
        )
    elif not told["windows"]:
        content = note("Nothing is known of the windows yet: the first turn tells.")
    else:
        content = tags.div(
            [_window(name, window, seen.now) for name, window in told["windows"].items()],
            class_="windows",
        )
    paid = told["ledger"]["total"]["paid_turns"] if told["ledger"] else 0
    return section(
        "plan",
        "Plan",
        content,
        _extra_usage(told["extra_usage"], max(paid, told["extra_usage"]["paid_turns"]))
        if told["plan"]
        else "",
        _paid(seen) if seen.paid else "",
    )


def _window(name: str, window: Mapping[str, Any], now: float) -> Tag:
    used, resets, projection = window["used"], window["resets_at"], window["projection"]
    filled = 100.0 if used is None or window["closed"] else min(used, 100.0)
    looks = "good"
    if filled >= HIGH or (projection and projection["full_at"]):
        looks = "warning"
    if window["closed"] or filled >= 100:
        looks = "bad"
    layers = [("track", 0.0, 100.0)]
    if projection:
        layers.append((f"ahead {looks}", filled, projection["percent_at_reset"]))
    layers.append((looks, 0.0, filled))
    if window["reserve"]:
        at = 100 - window["reserve"]
        layers.append(("reserve", at, at + 0.6))
    share, rest = ("used up", "") if looks == "bad" else (f"{filled:.3g} %", " used")
    title = window_name(name)
    return tags.div(
        tags.h3(title),
        tags.p(tags.strong(share, class_=looks), quiet(rest)),
        bar(f"{title}: {share}{rest}", *layers),
        tags.ul(
            tags.li("resets in ", words.moment(resets, words.span(resets - now))),
            tags.li(_ahead(projection, now)) if looks != "bad" else "",
            tags.li(_reserve(window)) if window["reserve"] else "",
            class_="facts",
        ),
        class_="window",
    )  # fmt: skip


def _reserve(window: Mapping[str, Any]) -> Cell:
    used, reserve = window["used"], window["reserve"]
    kept = f"the last {reserve:g} % are kept for you"
    if used is None or used < 100 - reserve:
        return kept
    return tags.strong(*sentence(f"{kept}: turns are refused (--reserve)"), class_="bad")


def _ahead(projection: Mapping[str, Any] | None, now: float) -> Cell:
    if projection is None:
        return "too few turns to project"
    pace = f"{projection['percent_per_hour']:.3g} % an hour"
    if projection["full_at"] is not None:
        full = projection["full_at"]
        return tags.strong(
            f"at {pace} used up in ", words.moment(full, words.span(full - now)), class_="warning"
        )
    return f"at {pace} it will be {projection['percent_at_reset']:.3g} % by then"


def _extra_usage(told: Mapping[str, Any], paid: int) -> Tag:
    enabled = {True: "on", False: "off", None: "not known"}[told["enabled"]]
    here = "is spent" if told["allowed_here"] else "is not spent (--extra-usage)"
    return tags.p(
        quiet(*sentence(f"Extra usage: {enabled} in the account; here it {here}. ")),
        badge(words.counted(paid, "paid turn"), "bad") if paid else quiet("No turn was paid."),
    )


def _paid(seen: Snapshot) -> Tag:
    columns = (
        Column("Paid turn"), Column("Client"), Column("Model", extra=True), Column("Output", True),
        Column("At list price", True),
    )  # fmt: skip
    return table(
        "Turns paid as extra usage", columns, [(_row(t, seen.now), "paid") for t in seen.paid]
    )


def _row(turn: TurnRecord, now: float) -> list[Cell]:
    price = turn.list_price
    return [
        words.ago(turn.time, now),
        words.name(turn.key or turn.client),
        words.name(turn.answered_by or turn.model),
        words.count(turn.usage.output_tokens),
        words.NOTHING if price is None else words.dollars(price),
    ]
