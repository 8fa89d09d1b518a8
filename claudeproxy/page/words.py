"""Numbers, times and names as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twisted.web.template import Tag, tags

LONGEST = 80
"""Characters of a name that are shown."""

WIDE = 14
"""Characters of a name that always fit into a column."""

NOTHING = "\N{EN DASH}"

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(number: float) -> str:
    """``1,234``, ``45.6k``, ``1.2M``: three figures are enough to compare."""
    for size, letter in _UNITS:
        if number >= (10 * size if letter == "k" else size):
            return f"{number / size:,.{1 if number < 100 * size else 0}f}{letter}"
    return f"{number:,.0f}"


def counted(number: int, one: str, many: str = "") -> str:
    """``1 turn``, ``3 turns``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def size(octets: float) -> str:
    """Bytes: ``512 B``, ``1.4 MB``."""
    for factor, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if octets >= factor:
            return f"{octets / factor:,.{1 if octets < 10 * factor else 0}f} {unit}"
    return f"{octets:.0f} B"


def no_turns(health: Mapping[str, Any]) -> str:
    """Why none are told. ``health``: as ``/health`` tells it."""
    if health["store"]["reachable"]:
        return "This server keeps no turns (--no-ledger)."
    return "The store does not answer; the log says why. Turns are told again once it does."


def percent(share: float | None) -> str:
    """A share (0 to 1)."""
    return NOTHING if share is None else f"{share * 100:.1f} %"


def dollars(amount: float) -> str:
    """US dollars, cents where they matter."""
    return f"${amount:,.0f}" if amount >= 1000 else f"${amount:,.2f}"


def price(told: Mapping[str, Any]) -> str:
    """What sums of ``/v1/usage`` come to at list price; a question mark for models without one."""
    unpriced = told["unpriced_turns"]
    if unpriced and unpriced == told["turns"]:
        return "?"
    return dollars(told["list_price_usd"]) + (" + ?" if unpriced else "")


def span(seconds: float) -> str:
    """How long, in two units at most: ``12 s``, ``4 min``, ``3 h 20 min``, ``5 d 2 h``."""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def seconds(milliseconds: float | None) -> str:
    """A duration of a turn: ``0.84 s``, ``12.3 s``, ``4 min``."""
    if milliseconds is None:
        return NOTHING
    took = milliseconds / 1000
    return f"{took:.2f} s" if took < 10 else f"{took:.1f} s" if took < 90 else span(took)


def clock(when: float) -> str:
    """A time in full, by the server's clock."""
    return f"{datetime.fromtimestamp(when).astimezone():%a %Y-%m-%d %H:%M:%S %Z}"


def moment(when: float, *text: Tag | str) -> Tag:
    """``text`` for the time ``when`` (epoch seconds), with that in full as its title."""
    iso = datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")
    return tags.time(*text, datetime=iso, title=clock(when))


def ago(when: float, now: float) -> Tag:
    """``3 h 20 min ago``, where there is room for all of it."""
    if now - when < 1:
        return moment(when, "now")
    number, unit, *more = span(now - when).split(" ")
    rest = " ".join(["", *more, "ago"])
    return moment(when, f"{number} {unit}", tags.span(rest, class_="extra"))


def name(text: str | None, longest: int = LONGEST) -> Tag | str:
    """What somebody else has chosen: cut, without what cannot be seen, and kept from turning the
    text around it to the other side."""
    if not text:
        return NOTHING
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:longest])
    shown += "…" if len(text) > longest else ""
    # The style cuts what is wider than its column.
    return tags.bdi(shown, title=shown) if len(shown) > WIDE else tags.bdi(shown)


def text(words: str, longest: int = 300) -> Tag | str:
    """The same for a sentence, which has the room it needs."""
    cut = name(words, longest)
    return cut if isinstance(cut, str) else cut(class_="text")
