"""What the machine has of memory, and what a process takes of it."""

from __future__ import annotations

import os

import psutil
import pytest

from claudeproxy.engine import memory


@pytest.mark.parametrize(("share", "scarce"), [(0.0, False), (2.0, True)])
def test_scarce(share: float, scarce: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SCARCE", share)
    assert memory.scarce() is scarce


@pytest.mark.parametrize(
    ("processes", "expected"), [(0.5, 2), (3.9, 3), (10.5, 10), (16.9, 16), (100.0, 16)]
)
def test_as_many_as_the_machine_has_room_for(
    processes: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = psutil.virtual_memory().total
    monkeypatch.setattr(memory, "SHARE", processes * memory.PROCESS / total)
    assert memory.processes() == expected


def test_what_a_process_holds() -> None:
    assert memory.used(os.getpid()) > 10 * 2**20
    assert memory.used(1 << 30) == memory.used(None) == 0
