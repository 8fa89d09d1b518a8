"""What an installation does, step by step: shown, done, and taken back where a later one fails."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import click
from attrs import frozen

from .machine import Machine

Undo = Callable[[], object]

PATIENCE = 90.0
"""Seconds that a service may take to stop: longer than it is given."""

LOOK = 0.2
"""Seconds between two looks whether it has stopped."""


class Failed(Exception):
    """A step could not be done; why, in one line."""


class Step(Protocol):
    """Something to do."""

    def told(self) -> Iterator[str]:
        """What it does, in lines."""

    def do(self, machine: Machine) -> Undo:
        """Do it; gives what takes it back.

        :raises Failed: when it cannot be done.
        :raises OSError: the same.
        """


@frozen
class Run:
    """Runs a command. ``back``: the one that takes it back; ``may_fail``: its status is nothing to
    go by."""

    command: Sequence[str]
    back: Sequence[str] = ()
    may_fail: bool = False

    def told(self) -> Iterator[str]:
        yield f"run {shlex.join(self.command)}"

    def do(self, machine: Machine) -> Undo:
        def undo() -> None:
            if self.back:
                self._run(machine, self.back)

        try:
            self._run(machine, self.command)
        except KeyboardInterrupt:  # it may have done it all the same
            with suppress(Failed, OSError):
                undo()
            raise
        return undo

    def _run(self, machine: Machine, command: Sequence[str], text: str | None = None) -> None:
        ran = machine.run(command, text)
        if ran.returncode and not self.may_fail:
            said = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
            why = said[0] if said else f"status {ran.returncode}"
            raise Failed(f"`{shlex.join(command)}` failed: {why}")


@frozen
class Wait:
    """Waits until a command fails: that what it asks for is no more."""

    command: Sequence[str]

    def told(self) -> Iterator[str]:
        yield f"wait until `{shlex.join(self.command)}` finds nothing"

    def do(self, machine: Machine) -> Undo:
        began = time.monotonic()
        while machine.succeeds(*self.command):
            if time.monotonic() - began > PATIENCE:
                raise Failed(f"it has not stopped within {PATIENCE:.0f} seconds")
            time.sleep(LOOK)
        return lambda: None


@frozen
class Write:
    """Puts ``content`` into a file; ``root``: one of the system's, for all to read."""

    path: Path
    content: str
    root: bool = False

    def told(self) -> Iterator[str]:
        yield f"write {self.path}{' as root' if self.root else ''}"
        yield from (f"    {line}".rstrip() for line in self.content.splitlines())

    def do(self, machine: Machine) -> Undo:
        before = self.path.read_text() if self.path.exists() else None
        self._put(machine, self.content)

        def undo() -> None:
            if before is None:
                Remove(self.path, self.root).do(machine)
            else:
                self._put(machine, before)

        return undo

    def _put(self, machine: Machine, content: str) -> None:
        if self.root:
            Run(())._run(machine, machine.as_root("tee", str(self.path)), content)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "w") as file:
                file.write(content)
            new.replace(self.path.resolve())
        except OSError:
            new.unlink(missing_ok=True)
            raise


@frozen
class Remove:
    """Removes a file or a directory."""

    path: Path
    root: bool = False

    def told(self) -> Iterator[str]:
        yield f"remove {self.path}{' as root' if self.root else ''}"

    def do(self, machine: Machine) -> Undo:
        if self.root:
            Run(machine.as_root("rm", "-f", str(self.path))).do(machine)
        elif self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        return lambda: None


@frozen
class Move:
    """Moves a file."""

    path: Path
    to: Path
    root: bool = False

    def told(self) -> Iterator[str]:
        yield f"move {self.path} to {self.to}{' as root' if self.root else ''}"

    def do(self, machine: Machine) -> Undo:
        self._move(machine, self.path, self.to)
        return lambda: self._move(machine, self.to, self.path)

    def _move(self, machine: Machine, source: Path, target: Path) -> None:
        if self.root:
            Run(machine.as_root("mv", str(source), str(target))).do(machine)
        else:
            source.rename(target)


def show(steps: Sequence[Step]) -> None:
    """Say what would be done."""
    for step in steps:
        first, *rest = step.told()
        click.echo(f"would {first}")
        for line in rest:
            click.echo(line)


def carry_out(steps: Sequence[Step], machine: Machine) -> None:
    """Do them, and say so. Where one fails, those before it are taken back.

    :raises click.ClickException: when one has failed.
    """
    done: list[Undo] = []
    told: list[str] = []
    try:
        for step in steps:
            done.append(step.do(machine))
            told.append(next(step.told()))
    except BaseException as error:  # Ctrl-C among them
        for undo in reversed(done):
            with suppress(Failed, OSError):
                undo()
        if not isinstance(error, (Failed, OSError)):
            raise
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise click.ClickException(f"{why}; what was done before is undone") from None
    for line in told:
        click.echo(line)
