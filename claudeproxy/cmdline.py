"""The ``claudemax`` command: what is done around the daemon. twistd runs the daemon itself."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from claudeproxy import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. What is wrong ends the program with one line."""
    chosen = _parser().parse_args(arguments)
    chosen.run(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="claudemax",
        description="What is done around the daemon; `twistd -n claudemax` runs the daemon.",
    )
    parser.add_argument("--version", action="version", version=f"claudemax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    key = commands.add_parser(
        "key",
        help="make a key for --api-key-file",
        description="Make a key for --api-key-file, in a file that only you can read.",
    )
    key.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="where to put it (default: $XDG_CONFIG_HOME/claudemax/key); never overwritten",
    )
    key.set_defaults(run=_key)
    return parser


def _key(chosen: argparse.Namespace) -> None:
    path = Path(chosen.file).absolute() if chosen.file else default_key_file(os.environ)
    try:
        make_key(path)
    except FileExistsError:
        raise SystemExit(f"claudemax: {path} is there already; it stays as it is") from None
    except OSError as error:
        raise SystemExit(f"claudemax: {path} cannot be written: {error.strerror}") from None
    print(f"There is a new key in {path}, for you alone to read. Serve with")
    print(f"    --api-key-file {path}")
    print("and give the key to your clients.")


def default_key_file(environ: Mapping[str, str]) -> Path:
    """Where a key is put when nobody says."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "claudemax", "key")


def make_key(path: Path) -> None:
    """Put a new key of 256 bits into a new file at ``path``, mode 0600.

    :raises OSError: FileExistsError among them, when it cannot be done.
    """
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700, parents=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
