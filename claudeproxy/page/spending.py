"""What was used: sums, charts with their figures, and who it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.web.template import Tag, tags

from . import history, words
from .charts import WIDTHS
from .history import Period
from .parts import Cell, Column, badge, note, quiet, section, table
from .snapshot import Snapshot

MOST = 12
"""Rows of a table of models, clients or keys; the others are left to ``/v1/usage``."""

_TOKENS = (
    Column("Turns", True), Column("Input", True), Column("Cached", True), Column("Output", True),
    Column("At list price", True, extra=True),
)  # fmt: skip


def usage(seen: Snapshot, base: str) -> Tag:
    """The section of tokens and cache over time. ``base``: where the page is."""
    ledger = seen.usage["ledger"]
    if ledger is None:
        return section("usage", "Usage", note(words.no_turns(seen.health)))
    sums = (("Today", ledger["today"]), ("7 days", ledger["last_7_days"]),
            (f"{ledger['days']} days", ledger["total"]))  # fmt: skip
    return section(
        "usage",
        "Usage",
        tags.dl([_sum(title, sums_of) for title, sums_of in sums], class_="sums"),
        tags.div(
            _figure(
                "The last 24 hours", "24h", "hour", history.hours(ledger, seen.now), seen, base
            ),
            _figure("The last 30 days", "30d", "day", history.days(ledger, seen.now), seen, base),
            class_="charts",
        ),
        wide=True,
    )


def _sum(title: str, told: Mapping[str, Any]) -> Tag:
    prompt = (
        told["input_tokens"] + told["cache_read_tokens"]
        + told["cache_write_5m_tokens"] + told["cache_write_1h_tokens"]
    )  # fmt: skip
    facts: list[Cell] = [
        f"{words.count(prompt)} tokens in, {words.count(told['output_tokens'])} out",
        f"{words.percent(told['cache_share'])} of the input cached",
        f"{words.price(told)} at list price",
    ]
    if told["failed"]:
        facts.append(f"{words.count(told['failed'])} without an answer")
    if told["paid_turns"]:
        facts.append(badge(words.counted(told["paid_turns"], "paid turn"), "bad"))
    return tags.div(
        tags.dt(title),
        tags.dd(tags.strong(words.counted(told["turns"], "turn"))),
        [tags.dd(fact) for fact in facts],
    )


def _figure(
    title: str, ident: str, unit: str, periods: Sequence[Period], seen: Snapshot, base: str
) -> Tag:
    most = history.most(periods)
    told = (
        f"{title}: {words.count(history.total(periods))} tokens"
        + (f", most in the {unit} {most.label}" if most.tokens else "")
    )  # fmt: skip
    # Another address each minute: what is shown again is not loaded again.
    at = f"at={seen.now // 60:.0f}"
    columns = (
        Column(unit.title()), Column("New input", True), Column("Written", True, extra=True),
        Column("From cache", True), Column("Output", True), Column("Cached", True),
    )  # fmt: skip
    rows = [
        (
            [
                period.label, words.count(period.fresh), words.count(period.written),
                words.count(period.cached), words.count(period.output),
                words.percent(period.cache_share),
            ],
            "",
        )
        for period in reversed(periods)
        if period.turns
    ]  # fmt: skip
    return tags.figure(
        tags.figcaption(title),
        _chart(f"{base}page/tokens-{ident}", at, 230, f"Tokens. {told}"),
        _chart(f"{base}page/cache-{ident}", at, 130, f"Input from the cache. {title}"),
        tags.details(
            tags.summary("As a table"),
            table(f"Tokens by {unit}", columns, rows) if rows else note("There was no turn."),
            id=f"figures-{ident}",
        ),
    )  # fmt: skip


def _chart(path: str, at: str, height: int, alt: str) -> Tag:
    wide, narrow = (f"{path}-{width}.svg?{at}" for width in WIDTHS)
    return Tag("picture")(
        tags.source(media="(max-width: 40rem)", srcset=narrow),
        tags.img(src=wide, alt=alt, width=str(WIDTHS[0]), height=str(height)),
    )


def who(seen: Snapshot) -> Tag:
    """The section of keys, clients and models."""
    ledger = seen.usage["ledger"]
    keys = seen.usage["keys"]
    tables = [_keys(keys, ledger, seen.now)] if keys else []
    if ledger is not None:
        named = [row for row in ledger["by_key"] if row["key"]]
        if named and not keys:
            tables.append(_group("Keys", "key", named))
        if ledger["total"]["turns"]:
            tables.append(_group("Models", "model", ledger["by_model"]))
            tables.append(_group("Clients", "client", ledger["by_client"]))
    aside = f"last {ledger['days']} days" if ledger is not None else ""
    nothing = note("There was no turn." if ledger is not None else words.no_turns(seen.health))
    content = tags.div(tables, class_="groups") if tables else nothing
    return section("who", "Keys, models, clients", content, aside=aside, wide=True)


def _group(title: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Tag:
    columns = (Column(title.removesuffix("s")), *_TOKENS)
    cells = [([words.name(row[name]), *_figures(row)], "") for row in rows[:MOST]]
    more = len(rows) - len(cells)
    return tags.div(
        table(title, columns, cells, titled=True),
        note(f"and {words.count(more)} more: claudemax usage --json has them") if more else "",
        class_=name,
    )


def _figures(row: Mapping[str, Any]) -> list[Cell]:
    prompt = (
        row["input_tokens"] + row["cache_read_tokens"]
        + row["cache_write_5m_tokens"] + row["cache_write_1h_tokens"]
    )  # fmt: skip
    return [
        words.count(row["turns"]), words.count(prompt), words.percent(row["cache_share"]),
        words.count(row["output_tokens"]), words.price(row),
    ]  # fmt: skip


def _keys(keys: Sequence[Mapping[str, Any]], ledger: Mapping[str, Any] | None, now: float) -> Tag:
    spent = {row["key"]: row for row in ledger["by_key"]} if ledger is not None else {}
    columns = (
        Column("Key"), Column("Turns", True, extra=True), Column("Output", True),
        Column("At list price", True, extra=True), Column("Quotas"), Column("Models", extra=True),
        Column("Expires"),
    )  # fmt: skip
    rows = []
    for key in keys:
        row = spent.get(key["name"])
        quotas = [tags.div(_quota(quota, now)) for quota in key["quotas"]]
        models = key["models"]
        rows.append((
            [
                words.name(key["name"]),
                words.count(row["turns"] if row else 0),
                words.count(row["output_tokens"] if row else 0),
                words.price(row) if row else words.dollars(0),
                quotas or quiet("none"),
                words.text(", ".join(models)) if models else quiet("all"),
                _end(key),
            ],
            "",
        ))  # fmt: skip
    return tags.div(table("Keys", columns, rows, titled=True), class_="key")


def _quota(quota: Mapping[str, Any], now: float) -> Cell:
    name, used, limit = quota["quota"], quota["used"], quota["limit"]
    share = name.startswith("share ")
    amounts = [f"{n:.3g} %" if share else words.count(n) for n in (used, limit)]
    text = f"{name.replace('_', ' ')}: {amounts[0]} of {amounts[1]}"
    if used < limit:
        return text
    resets = quota["resets_at"]
    again: list[Cell] = (
        ["; again in ", words.moment(resets, words.span(resets - now))] if resets else []
    )
    return tags.strong(text, *again, class_="bad")


def _end(key: Mapping[str, Any]) -> Cell:
    if not key["expires"]:
        return quiet("never")
    return badge("expired", "bad") if key["expired"] else tags.span(key["expires"], class_="whole")
