"""``claudemax key``: makes a key for ``--api-key-file``."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import click

from .places import config_directory


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def key(file: Path | None) -> None:
    """Make a key for --api-key-file, in a file that only you can read.

    FILE: where to put it; else in your configuration directory. It is never overwritten.
    """
    path = file.absolute() if file else config_directory(os.environ) / "key"
    try:
        make_key(path)
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; it stays as it is") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"There is a new key in {path}, for you alone to read. Serve with")
    click.echo(f"    --api-key-file {path}")
    click.echo("and give the key to your clients.")


def make_key(path: Path) -> None:
    """Put a new key of 256 bits into a new file at ``path``, mode 0600.

    :raises OSError: FileExistsError among them, when it cannot be done.
    """
    with suppress(FileExistsError):
        path.parent.mkdir(mode=0o700, parents=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
