"""The figures of ``make mutants``: mutants of each module, and what became of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

LOST = ("survived", "no tests")
"""What no fast test notices."""


def main() -> None:
    whole: Counter[str] = Counter()
    print(f"{'module':<40}{'mutants':>8}{'killed':>8}{'survived':>10}{'no tests':>10}")
    for path in sorted(Path("mutants").rglob("*.py.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        found = Counter(status_by_exit_code[code] for code in codes.values() if code is not None)
        if found:
            whole += found
            print(_row(str(path.relative_to("mutants")).removesuffix(".meta"), found))
    print(_row("all", whole))


def _row(name: str, found: Counter[str]) -> str:
    lost = [found[status] for status in LOST]
    total = found.total()
    return f"{name:<40}{total:>8}{total - sum(lost):>8}{lost[0]:>10}{lost[1]:>10}"


if __name__ == "__main__":
    main()
