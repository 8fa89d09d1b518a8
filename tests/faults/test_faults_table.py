"""``docs/faults.rst`` is what the tests of this directory say they observe.

``CLAUDEMAX_WRITE_DOCS=1 pytest tests/faults/test_faults_table.py`` writes it anew.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from matrix import FAULTS, Fault

TABLE = Path(__file__).parents[2] / "docs" / "faults.rst"

INTRODUCTION = """\
What happens when ...
=====================

The faults that the test suite brings about, and what is observed of each. After every one of them
the next request is answered, its slot is free and no process is left over. "Rewound" means that the
turn is cut out of the CLI's conversation and the same process serves the next request. "Ended"
means that the CLI is told to give up what it is at and its stdin is closed; where that does not
help within the grace (a second, or 40 where a login is at stake, which a kill could lose), it is
killed with its whole group.

.. Written by tests/faults/test_faults_table.py: do not edit.
"""

CHAPTERS = {
    "CLI": "The CLI ...",
    "login": "The login ...",
    "client": "A client ...",
    "daemon": "The daemon ...",
    "machine": "The machine ...",
    "node": "A node behind HAProxy ...",
}


def rendered() -> str:
    """The page."""
    for module in sorted(Path(__file__).parent.glob("test_faults_*.py")):
        importlib.import_module(module.stem)
    chapters = (_chapter(of, title) for of, title in CHAPTERS.items())
    return "\n".join((INTRODUCTION, *chapters))


def _chapter(of: str, title: str) -> str:
    faults = [fault for fault in FAULTS if fault.of == of]
    rows = "\n".join(map(_row, faults))
    table = ".. list-table::\n   :widths: 50 50\n   :header-rows: 1\n"
    head = f"   * - {title}\n     - What is observed"
    return f"{title}\n{'-' * len(title)}\n\n{len(faults)} faults.\n\n{table}\n{head}\n{rows}\n"


def _row(fault: Fault) -> str:
    return f"   * - {_plain(fault.name)}\n     - {_plain(fault.seen)}"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*").replace("_", "\\_").replace("`", "\\`")


def test_the_table_in_the_docs() -> None:
    page = rendered()
    if os.environ.get("CLAUDEMAX_WRITE_DOCS"):
        TABLE.write_text(page)
    assert TABLE.read_text() == page, "run this test with CLAUDEMAX_WRITE_DOCS=1"
    assert len(FAULTS) >= 50
