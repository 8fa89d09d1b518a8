"""packaging/patiently: work that takes long shows that it goes on."""

import subprocess
import sys
from pathlib import Path

import pexpect

PATIENTLY = str(Path(__file__).parents[1] / "packaging" / "patiently")


def command(directory: Path, program: str) -> list[str]:
    return [PATIENTLY, "Working", str(directory), sys.executable, "-c", program]


def test_what_is_done_is_told_and_nothing_else(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, *command(tmp_path, "print('chatter')")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == ""
    assert ran.stderr.splitlines() == ["Working ...", "Working: done in 0 s"]


def test_what_failed_is_shown(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, *command(tmp_path, "print('chatter'); raise SystemExit(3)")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 3
    assert ran.stderr.splitlines()[1:] == ["Working: failed (status 3) after 0 s", "chatter"]


def test_a_terminal_sees_it_move(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5 << 20))
    child = pexpect.spawn(sys.executable, command(tmp_path, "input()"), timeout=30)
    child.expect(rb"Working \.\.\. 1 s, 5 MB")
    child.expect(rb"Working \.\.\. 2 s, 5 MB")
    child.sendline("")
    child.expect(rb"Working: done in \d+ s\r\n")
    child.expect(pexpect.EOF)
