"""Charts, drawn by pygal as SVG. The page shows them as images: no script and no style of theirs
reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import tostring

from . import words
from .history import Period

_COLOURS = """
svg { --text: #5f5b55; --line: #e4e1db; --c0: #2f6db5; --c1: #8c6bc8; --c2: #9cc3ea; --c3: #d08a2e }
@media (prefers-color-scheme: dark) {
  svg { --text: #a8a39b; --line: #37342f;
    --c0: #5b9be6; --c1: #a58be0; --c2: #2f4f73; --c3: #e0a44f }
}
.reactive { fill-opacity: 1; stroke-width: 0 }
.line-graph .reactive { stroke-width: 2 }
.axis .line, .axis .major.line { stroke: var(--line) }
.axis.x .guide.line, .axis.x .line { stroke: none }
.axis text, .axis text.major, .legends .legend text { fill: var(--text) }
"""

_FONT = "system-ui, sans-serif"


WIDTHS = (620, 340)
"""In CSS pixels: the letters are as large for a telephone as for others."""


def tokens(periods: Sequence[Period], width: int) -> bytes:
    """A bar for each period: its tokens by how they were counted. A SVG document."""
    from pygal import StackedBar

    chart = StackedBar(
        **_looks(periods, width, 230),
        value_formatter=lambda number: words.count(number).replace(".0", ""),
        y_labels=steps(max(period.tokens for period in periods)),
    )
    for title, name in (("new input", "fresh"), ("written to the cache", "written"),
                        ("read from the cache", "cached"), ("output", "output")):  # fmt: skip
        chart.add(title, [getattr(period, name) or None for period in periods])
    return _rendered(chart)


def cache(periods: Sequence[Period], width: int) -> bytes:
    """The share of the input that came from the cache, in percent. A SVG document."""
    from pygal import Line

    shares = [None if p.cache_share is None else 100 * p.cache_share for p in periods]
    chart = Line(
        **_looks(periods, width, 130), value_formatter=lambda share: f"{share:.0f} %",
        range=(0, 100), y_labels=[0, 50, 100], dots_size=2, allow_interruptions=True,
    )  # fmt: skip
    chart.add("input from the cache", shares)
    return _rendered(chart)


def steps(most: int) -> list[int]:
    """Round numbers from 0 to ``most`` at even distances, four at most."""
    step = 1
    while most >= 4 * step:
        # 1, 2, 5, 10, 20 ...
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return list(range(0, most + 1, step))


def _looks(periods: Sequence[Period], width: int, height: int) -> dict[str, Any]:
    # Not above: it takes a quarter of a second, which a daemon that starts has no use for.
    from pygal.style import Style

    style = Style(
        background="transparent", plot_background="transparent", opacity="1", opacity_hover="1",
        foreground="var(--text)", foreground_strong="var(--text)",
        foreground_subtle="var(--line)", guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)", major_guide_stroke_dasharray="none",
        font_family=_FONT, label_font_size=11,
        major_label_font_size=11, legend_font_size=12, no_data_font_size=14, transition="0s",
        colors=("var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)"),
    )  # fmt: skip
    return {
        "width": width, "height": height, "style": style, "js": (), "no_prefix": True,
        "css": ("file://style.css", "file://graph.css", f"inline:{_COLOURS}"),
        "x_labels": [period.label for period in periods],
        "x_labels_major_every": max(1, len(periods) * 90 // width), "show_minor_x_labels": False,
        "legend_at_bottom": True, "legend_at_bottom_columns": width // 150, "legend_box_size": 10,
        "truncate_legend": -1, "truncate_label": -1, "margin": 4, "spacing": 8,
        "print_values": False, "no_data_text": "no turns",
    }  # fmt: skip


def _rendered(chart: Any) -> bytes:
    drawn = chart.render_tree()
    for definitions in drawn.findall("defs"):
        for script in definitions.findall("script"):  # for tooltips, which an image has not
            definitions.remove(script)
    document: bytes = tostring(drawn, encoding="utf-8")
    return document
