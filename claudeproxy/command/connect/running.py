"""Asks the running daemon for what a client is to be told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from claudeproxy._values import nearest

from ..places import Address
from ..running import Running, WrongKey, chosen
from .client import KEY_VARIABLE, Daemon, Model

USUAL = ("sonnet", "opus", "haiku")
"""Each its family's current model; more is for those who name them."""


def daemon(url: str | None, key: str | None, models: Sequence[str]) -> Daemon:
    """What to tell clients of the daemon at ``url``, else of that which the settings make.

    :raises click.ClickException: when none runs, it wants another key, or has no such model.
    """
    running = chosen(url, key)
    if running.where.socket:
        raise click.ClickException(
            f"clients need an address, and {running.where.url} is none; give one with --url"
        )
    try:
        listed = _listed(running)
    except WrongKey:
        running = Running(running.where, _asked(running, key), running.trusted)
        listed = _listed(running)
    host = "127.0.0.1" if running.where.host == "localhost" else running.where.host
    told = Address(host, running.where.port, tls=running.where.tls).url
    return Daemon(told, running.key, _chosen(listed, models))


def _listed(running: Running) -> dict[str, dict[str, Any]]:
    listed = running.models()  # first: without a key it is told that one is wanted
    running.health()  # another server of OpenAI's API lists models, too
    return {one["id"]: one for one in listed["data"]}


def _asked(running: Running, key: str | None) -> str:
    where = running.where.url
    if key is not None:
        raise click.ClickException(f"{where} does not take that key")
    if not sys.stdin.isatty():
        raise click.ClickException(f"{where} wants a key; put it into {KEY_VARIABLE}")
    return str(click.prompt(f"The key for {where}", hide_input=True, err=True))


def _chosen(listed: dict[str, dict[str, Any]], names: Sequence[str]) -> list[Model]:
    for name in names:
        if name not in listed:
            raise click.ClickException(
                f"--model: the daemon lists no {name!r}{nearest(name, listed)}"
            )
    chosen = names or [name for name in USUAL if name in listed]
    return [
        Model(
            name,
            _title(name, listed[name]),
            listed[name]["context_length"],
            listed[name]["max_output_tokens"],
        )
        for name in chosen
    ]


def _title(name: str, listed: dict[str, Any]) -> str:
    """Of a family's current model without its version, which is another one after an update."""
    return f"Claude {name.title()}" if name in USUAL else str(listed["display_name"])
