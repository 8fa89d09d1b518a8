"""The double as an executable."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any


def fake_cli(directory: str | os.PathLike[str], **plan: Any) -> str:
    """An executable in ``directory`` that behaves as ``plan`` says; see
    :mod:`claudeproxy.testing`."""
    folder = os.path.abspath(directory)
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/plan.new", "w") as file:
        json.dump(plan, file)
    os.replace(f"{folder}/plan.new", f"{folder}/plan.json")
    executable = f"{folder}/claude"
    if not os.path.exists(executable):
        with open(executable, "w") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join(_program(folder))} "$@"\n')
        os.chmod(executable, 0o755)
    return executable


def _program(folder: str) -> list[str]:
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    load = f"import sys; sys.path.append({root!r}); from claudeproxy.testing._program import main"
    return [sys.executable, "-IS", "-c", f"{load}; main()", folder]


def journal(executable: str) -> list[str]:
    """What the processes of a double noted, in order."""
    try:
        with open(os.path.join(os.path.dirname(executable), "journal")) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
