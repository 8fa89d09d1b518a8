"""Runs the command as its user does: a process of its own, in a private HOME."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pexpect
import pyte
from attrs import define, field

ROOT = Path(__file__).parents[2]
COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'claudemax'; "
    "from claudeproxy.command import main; getattr(main, sys.argv.pop(1))()",
)
SIZE = (50, 160)


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a user has: a HOME, a PATH without a CLI, and no daemon's variables."""
    return {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(ROOT),
        **more,
    }


@define
class Command:
    """``claudemax`` in a private HOME."""

    home: Path
    variables: dict[str, str] = field(factory=dict)
    terminals: list[Terminal] = field(factory=list)

    def run(self, *arguments: str, entry: str = "main") -> subprocess.CompletedProcess[str]:
        """Without a terminal, to its end."""
        return subprocess.run(
            [*COMMAND, entry, *arguments],
            env=environment(self.home, **self.variables),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def refusal(self, *arguments: str) -> str:
        """The one line with which it ends, with status 1 and nothing else said."""
        ran = self.run(*arguments)
        assert (ran.returncode, ran.stdout) == (1, ""), ran
        assert ran.stderr.startswith("claudemax: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr.removeprefix("claudemax: ").rstrip()

    def terminal(self, *arguments: str, entry: str = "main") -> Terminal:
        """On a terminal."""
        child = pexpect.spawn(
            COMMAND[0],
            [*COMMAND[1:], entry, *arguments],
            env=environment(self.home, **self.variables),
            cwd=str(self.home),
            dimensions=SIZE,
            timeout=40,
        )
        made = Terminal(child)
        self.terminals.append(made)
        return made


class Terminal:
    """A pseudo-terminal with a program in it, and what can be read on it."""

    def __init__(self, child: pexpect.spawn[bytes]) -> None:
        self.child = child
        self.raw = b""

    def until(self, words: str) -> None:
        """Read until ``words`` come."""
        self.child.expect_exact(words.encode())
        self._take()
        self.raw += self.child.after

    def end(self) -> int:
        """Read to its end; its exit status, or the negative number of a signal."""
        self.child.expect(pexpect.EOF)
        self._take()
        self.child.close()
        if self.child.signalstatus:
            return -int(self.child.signalstatus)
        return int(self.child.exitstatus or 0)

    def _take(self) -> None:
        self.raw += self.child.before or b""

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        screen = pyte.Screen(SIZE[1], SIZE[0])
        pyte.ByteStream(screen).feed(self.raw)
        return [line.rstrip() for line in screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
