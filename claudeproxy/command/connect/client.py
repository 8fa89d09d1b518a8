"""What a client is, and what it is told of the daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from .change import Change

NAME = "claudemax"
"""What the daemon is called in a client's settings."""

KEY_VARIABLE = "CLAUDE_MAX_API_KEY"
"""Where the key is read from, here and by clients that read theirs from a variable. It does not
begin with ``CLAUDEMAX_``: variables that do are options of the daemon, and whoever set this one
would believe that the daemon then asks for a key."""


@frozen
class Model:
    """A model of the daemon: ``title`` for people; ``context`` and ``output`` in tokens."""

    id: str
    title: str
    context: int
    output: int


@frozen
class Daemon:
    """What clients are told: ``url`` without a path, ``key`` if it has one, and the models, of
    which the first is to be the client's default."""

    url: str
    key: str | None
    models: Sequence[Model]

    @property
    def base(self) -> str:
        """The base URL for clients of OpenAI's API."""
        return f"{self.url}/v1"

    @property
    def any_key(self) -> str:
        """The key, or a word in its place: many clients insist on one."""
        return self.key or "none"

    @property
    def shown_key(self) -> str:
        """What is shown in place of the key, which goes into the client's file only."""
        return "YOUR-KEY" if self.key else "none"


@frozen
class Machine:
    """The machine whose clients are set up. ``darwin``: whether it runs macOS."""

    home: Path
    environ: Mapping[str, str]
    darwin: bool

    def config(self, *parts: str) -> Path:
        """A path below XDG's directory for settings, which some clients use on every system."""
        return Path(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config", *parts)

    def application(self, *parts: str) -> Path:
        """A path below the system's own directory for settings: on macOS not XDG's."""
        support = self.home / "Library" / "Application Support"
        return support.joinpath(*parts) if self.darwin else self.config(*parts)

    def named(self, variable: str, default: Path) -> Path:
        """The directory that a client's own variable names."""
        return Path(self.environ.get(variable) or default)


class Format(Protocol):
    """A module that knows a format of settings."""

    def load(self, text: str) -> Any:
        """The plain value of ``text``.

        :raises ValueError: if it is not of this format.
        """

    def changed(self, text: str, changes: Sequence[Change]) -> str:
        """``text`` with the changes made.

        :raises Unfit: if what is on the path of a change is neither an object nor a list.
        :raises ValueError: if it is written in a way that cannot be changed.
        """


def nothing(daemon: Daemon) -> Sequence[str]:
    """For clients that need nothing else done."""
    return ()


@frozen
class Client:
    """A client that has its settings in a file. ``changes`` is also given the plain value of the
    file; ``then`` tells what is left to do."""

    title: str
    place: Callable[[Machine], Path]
    format: Format
    changes: Callable[[Daemon, Any], Sequence[Change]]
    then: Callable[[Daemon], Sequence[str]] = nothing


@frozen
class Told:
    """A client that keeps its settings where no other program can set them: ``steps`` tells its
    user what to type."""

    title: str
    steps: Callable[[Daemon], Sequence[str]]
