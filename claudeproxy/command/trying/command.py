"""``claudemax try``: says what it costs, asks, tries, and shows what held."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
from attrs import frozen

from claudeproxy._values import nearest
from claudeproxy.cli import launch
from claudeproxy.engine.catalogue import Catalogue
from claudeproxy.messages import FailureError
from claudeproxy.options import Settings

from .. import places
from ..connect.client import KEY_VARIABLE
from ..login import ask, find
from ..running import NotRunning, Running, WrongKey, chosen
from ..terminal import progress
from . import report
from .questions import QUESTIONS
from .show import show
from .trial import DEMO, SUBSCRIPTION, Trial, run

TOKENS = 20_000
"""About how many a trial takes, most of them to see the cache at work."""

NOT_LOGGED_IN = "NOT LOGGED IN: run `claudemax login`; nothing was sent"
SILENT = "the CLI does not say who is logged in; `claudemax doctor` tries it; nothing was sent"
PAYING = "may pay for turns (--extra-usage), which a trial must not; nothing was sent"


@click.command("try")
@click.option("--url", metavar="URL", help="The URL of the daemon to try.")
@click.option(
    "--key", metavar="KEY", envvar=KEY_VARIABLE, help=f"The daemon's key; better in {KEY_VARIABLE}."
)
@click.option("--model", metavar="MODEL", default="haiku", show_default=True)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option(
    "--report",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a report without private data, to attach to an issue.",
)
def trying(
    url: str | None, key: str | None, model: str, yes: bool, as_json: bool, path: Path | None
) -> None:
    """Spend a little of your plan to learn whether all works with your login.

    Sends about ten short requests through the daemon that runs, else through one of its own: each
    dialect, streamed and not, a tool, a JSON schema, stop sequences, limits and the cache. Says so
    and asks before; stops at once if a request is paid as extra usage.

    Exit status: 0 if all holds, else 1.
    """
    if not yes and not sys.stdin.isatty():
        raise click.ClickException("there is no terminal to ask on; nothing was sent (--yes sends)")
    _check_writable(path)
    tried = _tried(url, key, model)
    click.echo(_cost(tried.upstream, model, tried.where), err=True)
    if not yes and not click.confirm("Go on?", err=True):
        raise click.ClickException("nothing was sent")
    with progress("asking") as tell:
        trial = tried.run(lambda daemon: run(daemon, model, lambda n, of: tell(f"{n} of {of}")))
    told = report.as_dict(trial, model, own=tried.own)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        show(trial)
    if path is not None:
        _write(path, report.as_text(told))
    raise SystemExit(0 if trial.holds else 1)


@frozen
class Tried:
    """The daemon to try. ``where``: as people are told; ``upstream``: as the daemon calls it."""

    where: str
    upstream: str
    own: bool
    run: Callable[[Callable[[Running], Trial]], Trial]


def _tried(url: str | None, key: str | None, model: str) -> Tried:
    """The daemon that runs, unless it could pay for turns; else one of our own.

    :raises click.ClickException: when nobody is logged in or the CLI does not say, there is no such
        model, or the daemon that was named cannot be tried.
    """
    daemon = chosen(url, key)
    try:
        usage = daemon.usage()
    except WrongKey:
        raise click.ClickException(
            f"{daemon.where.url} wants another key; put it into {KEY_VARIABLE}"
        ) from None
    except NotRunning:
        if url is not None:
            raise
        return _own(places.settings(os.environ), model)
    if usage["plan"] and usage["extra_usage"]["allowed_here"]:
        if url is not None:
            raise click.ClickException(f"{daemon.where.url} {PAYING}")
        return _own(places.settings(os.environ), model)
    health = daemon.health()
    if usage["plan"] and health["logged_in"] is False:
        raise click.ClickException(NOT_LOGGED_IN)
    if not daemon.serves(model):
        listed = [one["id"] for one in daemon.models()["data"]]
        raise click.ClickException(f"--model: there is no {model!r}{nearest(model, listed)}")
    return Tried(daemon.where.url, health["upstream"], False, lambda work: work(daemon))


def _own(settings: Settings, model: str) -> Tried:
    executable = find(settings.claude)
    try:
        launch.check_version(executable, launch.environment(os.environ))
        Catalogue(dict(settings.model_alias)).resolve(model)
    except launch.CLIError as error:
        raise click.ClickException(f"{error}{launch.instead_of(executable)}") from None
    except FailureError as error:
        raise click.ClickException(f"--model: {error.failure.message}") from None
    upstream = DEMO if settings.demo else settings.upstream or SUBSCRIPTION
    if upstream == SUBSCRIPTION:
        with progress("asking the CLI who is logged in", quick=True):
            status = ask(executable)
        if status is None:
            raise click.ClickException(SILENT)
        if not status.logged_in:
            raise click.ClickException(NOT_LOGGED_IN)

    def serve(work: Callable[[Running], Trial]) -> Trial:
        from ..own_daemon import serving, small  # with it comes the daemon, which --help needs not

        return serving(small(settings), os.environ, work)

    return Tried("a daemon for the time of it", upstream, True, serve)


def _cost(upstream: str, model: str, where: str) -> str:
    """What is about to be spent, and through what."""
    requests = sum(question.requests for question in QUESTIONS)
    sent = f"{requests} short requests to {model}, about {TOKENS:,} tokens, through {where}"
    if upstream == SUBSCRIPTION:
        return (
            f"This spends a little of your plan: {sent}. No more once one is paid as extra usage."
        )
    if upstream == DEMO:
        return f"This spends nothing, and tells nothing of a subscription: {sent}, the demo."
    return f"This is billed by whoever bills {upstream}: {sent}."


def _check_writable(path: Path | None) -> None:
    if path is None:
        return
    if os.path.exists(path):  # Path.exists() raises where the directory may not be looked into
        raise click.ClickException(f"--report: {path} is there already; nothing was sent")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise click.ClickException(f"--report: {path} cannot be written; nothing was sent")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise click.ClickException(f"--report: {path}: {error.strerror}") from None
    click.echo(f"Wrote {path}: nothing private is in it; look before you attach it.", err=True)
