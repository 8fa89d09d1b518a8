"""The program beside the daemon that ends what a dead daemon leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudeproxy.cli.installation import REAPER

Child = subprocess.Popen[bytes]


@pytest.fixture
def groups() -> Iterator[list[Child]]:
    """Four processes, each with a group of its own."""
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    made = [subprocess.Popen(sleep, start_new_session=True) for _ in range(4)]
    yield made
    for child in made:
        child.kill()
        child.wait()


LONG = 30.0
"""Seconds of a grace that nobody waits for."""


def reaper(grace: float) -> Child:
    command = [sys.executable, "-I", "-S", REAPER, str(grace)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env={})


def tell(program: Child, *lines: str) -> None:
    assert program.stdin is not None
    program.stdin.write("".join(f"{line}\n" for line in lines).encode())
    program.stdin.flush()


def leave(program: Child) -> float:
    """The daemon is gone; the seconds until the program is."""
    assert program.stdin is not None
    began = time.monotonic()
    program.stdin.close()
    assert program.wait(60) == 0
    return time.monotonic() - began


def test_what_has_not_ended_in_time_is_killed_and_nothing_else(groups: list[Child]) -> None:
    first, ended, other, unheard = groups
    program = reaper(0.5)
    tell(program, f"+{first.pid}", f"+{ended.pid}", f"-{ended.pid}", f"+{other.pid}")
    time.sleep(0.2)
    assert program.poll() is None
    assert all(child.poll() is None for child in groups), "while the daemon lives"
    assert leave(program) > 0.4
    assert first.wait(1) == other.wait(1) == -signal.SIGKILL
    assert ended.poll() is unheard.poll() is None


def test_nothing_is_waited_for_once_all_have_ended(groups: list[Child]) -> None:
    first, second, *_ = groups
    program = reaper(LONG)
    tell(program, f"+{first.pid}", f"+{second.pid}")
    for child in (first, second):
        child.terminate()
        child.wait()
    assert leave(program) < LONG


def test_a_group_is_killed_with_all_its_children(tmp_path: Path) -> None:
    script = f"{sys.executable} -S -c 'import time; time.sleep(60)' & echo $! >{tmp_path}/pid; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as shell:
        deadline = time.monotonic() + 5
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        inner = int((tmp_path / "pid").read_text())
        program = reaper(0.1)
        tell(program, f"+{shell.pid}")
        leave(program)
        assert shell.wait(1) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while _runs(inner):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_anybody_it_ends_at_once() -> None:
    assert leave(reaper(LONG)) < LONG


def test_the_terminals_ctrl_c_is_not_for_it() -> None:
    program = reaper(LONG)
    deadline = time.monotonic() + 5
    while os.getsid(program.pid) == os.getsid(0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    leave(program)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
