"""The figures as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

Result = Mapping[str, Any]

US, PEER = "claudemax", "peer"
MANY = "new conversations a second, 4 at once"
LEAVING = "clients that leave after the first token a second, 4 at once"
EDIT = "50 turns of history, edited in the middle"


@frozen
class Target:
    """A figure that was asked for: at least ``bound``, or at most if not ``least``."""

    name: str
    values: Sequence[float]
    """One for each round, or the only one there is."""
    bound: float
    unit: str
    least: bool

    def line(self) -> str:
        """With its quartiles; the bound between them decides nothing."""
        sign = ">=" if self.least else "<="
        asked = f"{sign} {self.bound:g}{self.unit}"
        if not self.values:
            return f"{self.name:<42} {'-':>8} {'':<17} {asked}"
        low, middle, high = _quartiles(self.values)
        passed = [
            value >= self.bound if self.least else value <= self.bound for value in (low, high)
        ]
        word = {2: "holds", 1: "OPEN", 0: "MISSED"}[sum(passed)]
        spread = f"({low:.3g}-{high:.3g})"
        return f"{self.name:<42} {middle:>8.3g} {spread:<17} {asked:<10} {word}"


def targets(result: Result) -> list[Target]:
    """What is asked of it, and what came of it."""
    return [
        Target("new conversations, ours / peer", _ratio(result, MANY, US, PEER), 10, "", True),
        Target("new conversations, ours / bare", _bare(result, MANY), 0.65, "", True),
        Target("clients that leave, ours / peer's turns", _leaving(result), 6, "", True),
        Target("first turn, peer / ours", _ratio(result, "first turn"), 9, "", True),
        Target("first turn, ours / bare", _bare(result, "first turn"), 1.25, "", False),
        Target("follow-up, ours / bare", _bare(result, "follow-up"), 1.2, "", False),
        Target("burst of 4 (mean), peer / ours", _ratio(result, "burst of 4, mean"), 4, "", True),
        Target("regenerate / follow-up, both ours", _regenerate(result), 1.5, "", False),
        Target("edit in the middle, peer / ours", _ratio(result, EDIT), 8, "", True),
        Target("CPU of a turn of a known set-up", _cpu(result), 45, " ms", False),
        Target("added by us, first turn", _own(result, "added_first_ms"), 3, " ms", False),
        Target("added by us, follow-up", _own(result, "added_follow_up_ms"), 3, " ms", False),
        Target("CPU per streamed delta", _own(result, "cpu_per_delta_us"), 100, " us", False),
        Target("bookkeeping of a turn", _own(result, "bookkeeping_ms"), 1, " ms", False),
        Target("bytes upstream for Hello, peer / ours", _bytes(result), 20, "", True),
        Target("RSS with the most open streams", _rss(result), 150, " MB", False),
    ]  # fmt: skip


def table(result: Result) -> str:
    """Everything, for a terminal."""
    machine = result["machine"]
    lines = [f"{machine['cores']} cores, CLI {machine['cli']}, load {machine['load']}", ""]
    if result.get("times"):
        lines += _times(result["times"])
    for name, values in result.get("facts", {}).items():
        lines.append(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))
    own = result.get("own")
    if own:
        lines += ["", "The daemon alone, over a CLI that costs nothing"]
        for name, value in own.items():
            lines.append(f"  {name:<28} {_shown(value)}")
    lines += ["", "Asked for"]
    lines += [f"  {target.line()}" for target in targets(result)]
    return "\n".join(lines)


def _times(times: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    head = f"{'milliseconds, or a second: median (least-most)':<62}"
    lines = [
        head + "".join(f"{name:>20}" for name in ("bare", "claudemax", "peer")) + "  peer/ours"
    ]
    for scenario, by in times.items():
        rate = " a second" in scenario
        cells = [_spread(by.get(name), rate) for name in ("bare", "claudemax", "peer")]
        both = "peer" in by and "claudemax" in by
        shown = f"{statistics.median(_paired(by['peer'], by['claudemax'])):.1f}" if both else "-"
        lines.append(f"{scenario:<62}" + "".join(f"{cell:>20}" for cell in cells) + f"{shown:>11}")
    return [*lines, ""]


def _spread(seconds: Sequence[float] | None, rate: bool = False) -> str:
    if not seconds:
        return "-"
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    if rate:
        return f"{middle:.1f} ({low:.1f}-{high:.1f})"
    return f"{1000 * middle:.0f} ({1000 * low:.0f}-{1000 * high:.0f})"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        low, middle, high = (
            statistics.quantiles(value, n=10)[0],
            statistics.median(value),
            statistics.quantiles(value, n=10)[-1],
        )
        return f"{middle:.2f} (10 %: {low:.2f}, 90 %: {high:.2f}, n={len(value)})"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number:.0f}" for key, number in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _paired(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """The ratio of each round: what disturbs the machine disturbs both."""
    return [mine / theirs for mine, theirs in zip(one, other, strict=True)]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _ratio(
    result: Result, scenario: str, one: str = "peer", other: str = "claudemax"
) -> list[float]:
    by = result.get("times", {}).get(scenario, {})
    return _paired(by[one], by[other]) if one in by and other in by else []


def _bare(result: Result, scenario: str) -> list[float]:
    return _ratio(result, scenario, US, "bare")


def _leaving(result: Result) -> list[float]:
    times = result.get("times", {})
    ours, theirs = times.get(LEAVING, {}).get(US), times.get(MANY, {}).get(PEER)
    return _paired(ours, theirs) if ours and theirs else []


def _regenerate(result: Result) -> list[float]:
    times = result.get("times", {})
    again, follow = (times.get(name, {}).get(US) for name in ("regenerate", "follow-up"))
    return _paired(again, follow) if again and follow else []


def _cpu(result: Result) -> list[float]:
    by = result.get("times", {}).get(MANY.replace("a second", "CPU of each"), {})
    return [1000 * seconds for seconds in by.get(US, ())]


def _own(result: Result, name: str) -> list[float]:
    value = (result.get("own") or {}).get(name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _bytes(result: Result) -> list[float]:
    by = result.get("facts", {}).get("bytes upstream for Hello", {})
    return [by["peer"] / by["claudemax"]] if len(by) == 2 else []


def _rss(result: Result) -> list[float]:
    by = (result.get("own") or {}).get("rss_mb")
    return [max(by.values())] if by else []


# -- the picture --

_COLOURS = {"bare": "#9aa0a6", "claudemax": "#2f6fde", "peer": "#e08a2e"}
_NAMES = {"bare": "bare CLI, warm", "claudemax": "claudemax", "peer": "claude-max-api-proxy"}
_LEFT, _WIDTH, _BAR, _GAP = 230, 480, 14, 16
_LEAST, _MOST = 0.01, 100.0


def picture(result: Result) -> str:
    """Times to first content as an SVG, on a logarithmic scale."""
    from math import log10

    def x(seconds: float) -> float:
        span = log10(_MOST) - log10(_LEAST)
        return _LEFT + _WIDTH * (log10(max(seconds, _LEAST)) - log10(_LEAST)) / span

    body, y = [], 50
    for scenario, by in result["times"].items():
        if " a second" in scenario or "CPU" in scenario:
            continue
        names = [name for name in _COLOURS if by.get(name)]
        middle = y + _BAR * len(names) / 2 + 4
        body.append(f'<text x="{_LEFT - 10}" y="{middle:.0f}" text-anchor="end">{scenario}</text>')
        for name in names:
            seconds = statistics.median(by[name])
            width = max(1.0, x(seconds) - _LEFT)
            body.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR - 2}" '
                f'fill="{_COLOURS[name]}"/><text x="{_LEFT + width + 5:.0f}" y="{y + 10}">'
                f"{_words(seconds)}</text>"
            )
            y += _BAR
        y += _GAP
    lines = [
        f'<line x1="{x(s):.0f}" x2="{x(s):.0f}" y1="42" y2="{y - _GAP}" stroke="#8883"/>'
        f'<text x="{x(s):.0f}" y="{y}" text-anchor="middle" fill="#888">{_words(s)}</text>'
        for s in (0.01, 0.1, 1.0, 10.0)
    ]
    legend = "".join(
        f'<rect x="{_LEFT + 150 * n}" y="12" width="12" height="12" fill="{_COLOURS[name]}"/>'
        f'<text x="{_LEFT + 150 * n + 18}" y="22">{_NAMES[name]}</text>'
        for n, name in enumerate(_COLOURS)
    )
    size = f'viewBox="0 0 {_LEFT + _WIDTH + 40} {y + 14}"'
    style = 'font-family="sans-serif" font-size="12" fill="#666"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n'
        f"<title>Time to first content, median; logarithmic scale</title>\n{legend}\n"
        + "\n".join([*lines, *body])
        + "\n</svg>\n"
    )


def _words(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
