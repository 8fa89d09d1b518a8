"""``claudemax usage``: what was used, of the plan and by turns, in all and by one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from .quotas import show_quotas
from .running import PORT, listening
from .spending import show_receipt, show_spending
from .terminal import console
from .windows import show_windows

MAX_DAYS = 400
"""As long as the ledger keeps what it knows."""


@click.command()
@click.argument("request_id", required=False)
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=30, show_default=True)
@PORT
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def usage(request_id: str | None, days: int, port: tuple[str, ...], as_json: bool) -> None:
    """Tell what was used: of the plan's windows, and by the turns of the last days. Spends nothing.

    With the REQUEST_ID of a reply (its x-request-id): the receipt of that turn.
    """
    if request_id is not None and not re.fullmatch(r"[\w-]+", request_id):
        raise click.ClickException("REQUEST_ID: must be an x-request-id, such as req_0123abcd")
    running, shown = listening(port), console()
    told = running.usage(days) if request_id is None else running.turn(request_id)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    elif request_id is not None:
        show_receipt(shown, told)
    else:
        if not told["plan"]:
            shown.print("This server uses no plan: it has another upstream.")
        elif not told["windows"]:
            shown.print("Nothing is known of the windows yet: the first turn tells.")
        else:
            show_windows(shown, told["windows"])
        if told["plan"]:
            shown.print(_extra_usage(told["extra_usage"]), style="quiet", soft_wrap=False)
        show_quotas(shown, told["keys"])
        if told["ledger"] is None:
            shown.print("This server keeps no turns: it runs with --no-ledger.")
        else:
            show_spending(shown, told["ledger"])


def _extra_usage(told: Mapping[str, Any]) -> str:
    """What is known of paid turns, in a sentence."""
    enabled = {True: "switched on", False: "switched off", None: "not known"}[told["enabled"]]
    spent = "is spent" if told["allowed_here"] else "is not spent without --extra-usage"
    return f"Extra usage: {enabled} in the account; it {spent}. Paid turns: {told['paid_turns']}."
