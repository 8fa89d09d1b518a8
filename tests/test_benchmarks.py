"""The benchmarks' own clients: without a run of minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.own import NOWHERE, Double
from benchmarks.subjects import Bare

pytestmark = pytest.mark.cli


@pytest.mark.parametrize("braked", [False, True])
def test_a_cli_spoken_to_by_hand(tmp_path: Path, braked: bool) -> None:
    made = Double(tmp_path)
    bare = Bare(made.directory(), made.claude, NOWHERE, braked=braked)
    try:
        assert bare.first("Be brief.", "x") > 0
        assert bare.next("y") > 0
        assert bare.rewound("z") > 0
    finally:
        bare.end()
