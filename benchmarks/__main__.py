"""``python -m benchmarks``: measure, print, and write ``.cache/bench/latest.json``."""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path
from typing import Any

from attrs import asdict

from claudeproxy.cli import launch

from . import own, policies, report
from .subjects import ROOT, install_peer
from .turns import Turns


def main() -> None:
    options = _options()
    if options.part == "policies":
        lines = Path(options.times).read_text().splitlines() if options.times else []
        times = [float(line) for line in lines]
        print(policies.table(gaps=policies.gaps(times)))
        return
    # A thousand streams are five thousand descriptors; the daemon inherits the limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    claude = os.path.realpath(launch.find(options.claude))
    result: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "cli": launch.check_version(claude, launch.environment(os.environ)),
            "load": [round(load, 1) for load in os.getloadavg()],
        }
    }
    if options.part != "own":
        why = install_peer(ROOT / ".cache")
        if why is not None:
            print(f"Without the peer: {why}.")
        turns = Turns(claude, ROOT / ".cache", why is None, options.rounds)
        turns.run()
        result.update(times=turns.times, facts=turns.facts)
    if options.part != "turns":
        result["own"] = asdict(own.measure(most=options.streams))
    result["machine"]["load"] += [round(load, 1) for load in os.getloadavg()]

    _write(ROOT / ".cache/bench/latest.json", result)
    print(f"\n{report.table(result)}")
    if options.docs:
        _write(ROOT / "docs/bench.json", result)
        (ROOT / "docs/bench.svg").write_text(report.picture(result))


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = json.loads(json.dumps(result), parse_float=lambda text: round(float(text), 5))
    path.write_text(json.dumps(rounded, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "part", nargs="?", choices=("all", "turns", "own", "policies"), default="all"
    )
    parser.add_argument("--claude", metavar="PATH", help="the CLI (default: as the daemon does)")
    parser.add_argument("--rounds", type=int, default=9, help="of each scenario (default: 9)")
    parser.add_argument("--streams", type=int, default=1000, help="to open (default: 1000)")
    parser.add_argument(
        "--times", metavar="FILE", help="with policies: when turns were asked, epoch seconds"
    )
    parser.add_argument("--docs", action="store_true", help="also write docs/bench.{json,svg}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
