"""What the machine has of memory, and what a process takes of it."""

from __future__ import annotations

import psutil

SCARCE = 0.08
"""Share of all memory below which idle processes are given up."""

PROCESS = 200 * 2**20
"""Bytes that a Claude CLI takes, as a rule."""

SHARE = 0.25
"""Of all memory, for Claude CLIs, where nobody says how many."""


def processes() -> int:
    """How many Claude CLIs this machine has room for: from 2 to 16."""
    return max(2, min(16, int(psutil.virtual_memory().total * SHARE / PROCESS)))


def scarce() -> bool:
    """Whether memory is short."""
    memory = psutil.virtual_memory()
    return bool(memory.available < memory.total * SCARCE)


def used(pid: int | None) -> int:
    """Bytes of memory that the process ``pid`` holds; 0 where there is none."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid is not None else 0
    except psutil.Error:
        return 0
