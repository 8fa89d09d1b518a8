"""How much memory the machine has left, as far as the system tells."""

from __future__ import annotations

from pathlib import Path

SCARCE = 0.08
"""Share of all memory below which kept processes are given up."""

_MEMINFO = Path("/proc/meminfo")


def scarce(meminfo: Path = _MEMINFO) -> bool:
    """Whether memory is short; never where there is no ``/proc/meminfo`` (macOS)."""
    try:
        lines = meminfo.read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return sizes["MemAvailable"] < sizes["MemTotal"] * SCARCE
    except (OSError, ValueError, KeyError, IndexError):
        return False
