"""What ``packaging/`` has for Grafana and Prometheus speaks of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Daemon, until
from prometheus_client.parser import text_string_to_metric_families
from pytest_twisted import ensureDeferred
from scraping import scrape, user

from claudeproxy.testing import fake_cli

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
DASHBOARD = json.loads((PACKAGING / "grafana.json").read_text())
RULES = yaml.safe_load((PACKAGING / "claudemax.rules.yml").read_text())
SHOWN = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
ALERTS = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
METRIC = re.compile(r"\b(?:claudemax|process|python)_\w+")


def served(text: str) -> Iterator[str]:
    """The names of all samples that a scrape could have."""
    for family in text_string_to_metric_families(text):
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        yield from (family.name + end for end in ends.get(family.type, ("",)))


@ensureDeferred
async def test_they_ask_for_what_is_served(make_daemon: Any, tmp_path: Path) -> None:
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    await daemon.chat(user("Hello"), model="sonnet")
    await until(lambda: not daemon.api.journal.running)
    names = set(served(await scrape(daemon)))
    asked = {name for expr in (*SHOWN, *ALERTS) for name in METRIC.findall(expr)}
    assert len(asked) > 20
    assert asked - names == set()
    page = (ROOT / "docs" / "metrics.rst").read_text()
    documented = set(re.findall(r"``((?:claudemax|process)_\w+)", page))
    described = {name for name in names if not name.startswith("python_")}
    described = {re.sub("_(bucket|sum|count)$", "", name) for name in described}
    assert documented == described, "docs/metrics.rst has a table of them"


def test_every_expression_names_a_metric_and_the_daemon() -> None:
    assert len(SHOWN) > 30
    for expr in SHOWN:
        for name in METRIC.findall(expr):
            assert re.search(name + r'\{instance=~"\$instance"', expr), expr
        assert METRIC.search(expr)


def test_the_dashboard_can_be_imported() -> None:
    panels = DASHBOARD["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Plan", "State", "Turns", "Tokens", "Latency", "Processes", "Errors"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({target["refId"] for target in panel.get("targets", ())}) == len(
            panel.get("targets", ())
        )


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_prometheus_understands_them() -> None:
    command = ["promtool", "check", "config", str(PACKAGING / "prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
