"""Runs what has failed once more, by itself, as CPython's tests are with ``--rerun``: on a busy
machine one of thousands of tests of real processes may be late. Both runs are told; many failures
are no accident, and are not run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

LIMIT = 5
"""Failures that may be accidents."""


def main(arguments: list[str]) -> int:
    """The exit code of the second run; 1 without one."""
    try:
        failed = list(json.loads(Path(".pytest_cache/v/cache/lastfailed").read_text("utf-8")))
    except OSError:
        failed = []  # it did not come that far
    if not 0 < len(failed) <= LIMIT:
        return 1
    print(
        f"\nOnce more, what failed, each by itself ({len(failed)}):",
        *failed,
        sep="\n  ",
        flush=True,
    )
    code = int(pytest.main([*arguments, "--last-failed", "--last-failed-no-failures=none"]))
    if code == 0:
        print("\nUNSTABLE: they failed once and then passed:", *failed, sep="\n  ", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
