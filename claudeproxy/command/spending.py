"""What turns came to, as a person reads it: sums in tables, and the receipt of one turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .terminal import plain

LONGEST = 10
"""Rows of a table of sessions, models, keys or clients; of days there are all."""

NAME_WIDTHS = (14, 32)
"""Characters of a row's name: at least, however narrow the terminal, and at most."""

Totals = Mapping[str, Any]
"""Sums as ``/v1/usage`` tells them."""


@frozen
class Column:
    """``width``: characters; ``style``: of what is not zero; ``optional``: left out where it says
    nothing of the whole period."""

    title: str
    width: int
    value: Callable[[Totals], float]
    shown: Callable[[Totals], str]
    style: str = ""
    optional: bool = False


Rows = Sequence[tuple[str, Totals]]
"""Names and what they came to."""


def show_spending(console: Console, ledger: Mapping[str, Any]) -> None:
    """Print the ``ledger`` of ``/v1/usage``: sums of periods, days, sessions, models, keys and
    clients."""
    if not ledger["total"]["turns"]:
        console.print(f"No turn {_period(ledger['days'])}.")
        return
    columns = [each for each in _COLUMNS if not each.optional or each.value(ledger["total"])]
    tables = _tables(ledger)
    longest = max(len(name) for _, rows in tables for name, _ in rows)
    room = console.width - sum(column.width + 1 for column in columns)
    least, most = NAME_WIDTHS
    name_width = max(least, min(longest, room, most))
    for title, rows in tables:
        shown = rows if title == "Day" else rows[:LONGEST]
        console.print()
        console.print(_table(title, name_width, columns, shown))
        if len(shown) < len(rows):
            console.print(f"and {len(rows) - len(shown)} more: --json has them", style="quiet")
    console.print()
    console.print(_about_prices(ledger), style="quiet")


def _tables(ledger: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    days = ledger["days"]
    periods = {"today": ledger["today"]}
    if days > 7:
        periods["last 7 days"] = ledger["last_7_days"]
    periods[_period(days).removeprefix("in the ")] = ledger["total"]
    sessions = [(_session(row["start"], row["end"]), row) for row in ledger["sessions"]]
    tables: list[tuple[str, Rows]] = [
        ("Period", list(periods.items())),
        ("Day", [(_day(row["day"]), row) for row in ledger["by_day"]]),
        ("Session", sessions[::-1]),
    ]
    for name, nobody in (("model", "none"), ("key", "no key"), ("client", "not told")):
        found = ledger[f"by_{name}"]
        if any(row[name] for row in found):
            tables.append((name.title(), [(row[name] or nobody, row) for row in found]))
    return tables


def _table(title: str, name_width: int, columns: Sequence[Column], rows: Rows) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="quiet")
    table.add_column(title, width=name_width, no_wrap=True, overflow="ellipsis")
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True, min_width=column.width)
    for name, totals in rows:
        cells = (
            Text(column.shown(totals), column.style if column.value(totals) else "quiet")
            for column in columns
        )
        table.add_row(Text(plain(name)), *cells)
    return table


def _about_prices(ledger: Mapping[str, Any]) -> Text:
    lines = [f"Price: Anthropic's list prices of {ledger['list_prices_of']}."]
    if ledger["total"]["saved_usd"]:
        lines.append("Saved: of that, what the plan has paid for.")
    for row in ledger["by_model"]:
        if row["unpriced_turns"]:
            model, turns = plain(row["model"]), row["unpriced_turns"]
            lines.append(f"No price is known of {model}: {_turns(turns)}, in no sum.")
    return Text("\n".join(lines))


def _turns(number: int) -> str:
    return "1 turn" if number == 1 else f"{number:,} turns"


def _day(day: str) -> str:
    return f"{date.fromisoformat(day):%a} {day}"


def _session(start: float, end: float) -> str:
    first, last = datetime.fromtimestamp(start), datetime.fromtimestamp(end)
    return f"{first:%a} {first.day} {first:%b} {first:%H:%M}-{last:%H:%M}"


def _period(days: int) -> str:
    return "today" if days == 1 else f"in the last {days} days"


def _count(number: int) -> str:
    """At most seven characters: ``12,345``, ``446 k``, ``1.23 M``."""
    for least, size, unit in ((10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**5, 1000, "k")):
        if number >= least:
            value = number / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{number:,}"


def _prompt(totals: Totals) -> int:
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    return sum(int(totals[f"{name}_tokens"]) for name in names)


def _percent(totals: Totals) -> str:
    share = totals["cache_share"]
    return "" if share is None else f"{share * 100:.0f} %"


def _dollars(value: float) -> str:
    return "<$0.01" if 0 < value < 0.01 else f"${value:,.2f}"


def _price(totals: Totals) -> str:
    unpriced = totals["unpriced_turns"]
    if unpriced and unpriced == totals["turns"]:
        return "?"
    return _dollars(totals["list_price_usd"]) + (" +?" if unpriced else "")


_COLUMNS = (
    Column("Turns", 5, lambda t: t["turns"], lambda t: f"{t['turns']:,}", "title"),
    Column("Failed", 6, lambda t: t["failed"], lambda t: f"{t['failed']:,}", "warning", True),
    Column("Paid", 4, lambda t: t["paid_turns"], lambda t: f"{t['paid_turns']:,}", "bad", True),
    Column("Input", 6, _prompt, lambda t: _count(_prompt(t))),
    Column("Cached", 6, lambda t: t["cache_share"] or 0, _percent),
    Column("Output", 6, lambda t: t["output_tokens"], lambda t: _count(t["output_tokens"])),
    Column("Price", 9, lambda t: t["list_price_usd"] + t["unpriced_turns"], _price),
    Column("Saved", 6, lambda t: t["saved_usd"], lambda t: _dollars(t["saved_usd"]), "good", True),
)


_WHO_PAID = {
    "plan": ("by the plan", "good"),
    "paid": ("as extra usage", "bad"),
    "other": ("another upstream", ""),
    None: ("not known", ""),
}


def show_receipt(console: Console, turn: Mapping[str, Any]) -> None:
    """Print a turn as ``/v1/usage/turns/REQUEST_ID`` tells it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="quiet")
    table.add_column(overflow="fold")

    def row(name: str, said: str, style: str = "") -> None:
        table.add_row(name, Text(plain(said), style))

    spent, price = turn["usage"], turn["list_price_usd"]
    row("Request", turn["request_id"])
    row("Time", f"{datetime.fromtimestamp(turn['time']):%a %Y-%m-%d %H:%M:%S}")
    row("Client", (turn["client"] or "not told") + (f", key {turn['key']}" if turn["key"] else ""))
    row(
        "Model",
        turn["model"] + (f", answered by {turn['answered_by']}" if turn["answered_by"] else ""),
    )
    answers = f", {turn['answers']} answers" if turn["answers"] > 1 else ""
    placement = f", {turn['placement']}" if turn["placement"] else ""
    row("Served", f"{turn['dialect']}{placement}{answers}")
    good = turn["outcome"] == "ok"
    ended = [str(turn["status"] or "-"), turn["outcome"], turn["code"] or ""]
    row("Outcome", " ".join(filter(None, ended)), "good" if good else "bad")
    reasoning = f" ({spent['reasoning_tokens']:,} reasoning)" if spent["reasoning_tokens"] else ""
    row(
        "Tokens",
        f"{spent['input_tokens']:,} in, {spent['cache_read_tokens']:,} read from the cache, "
        f"{spent['cache_write_5m_tokens'] + spent['cache_write_1h_tokens']:,} written to it, "
        f"{spent['output_tokens']:,} out{reasoning}",
    )
    row(
        "Bytes",
        f"{turn['body_bytes']:,} asked, {turn['cli_bytes']:,} to the CLI, "
        f"{turn['reply_bytes']:,} replied",
    )
    first = turn["first_token_ms"]
    row(
        "Time taken",
        f"{turn['queue_ms']:,.0f} ms queued, "
        + ("" if first is None else f"first token after {first:,.0f} ms, ")
        + f"{turn['total_ms']:,.0f} ms in all",
    )
    row("Paid", *_WHO_PAID[turn["paid_by"]])
    row("List price", "not known for this model" if price is None else f"${price:,.6f}")
    for name, after in turn["windows_after"].items():
        before = turn["windows_before"].get(name)
        was = "?" if before is None else f"{before * 100:g} %"
        row(name.replace("_", " "), f"{was} before, {after * 100:g} % after")
    console.print(table)
