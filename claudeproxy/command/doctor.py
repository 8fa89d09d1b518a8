"""``claudemax doctor``: checks everything, and says what it found and what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure as Reason

from claudeproxy.selftest.run import Report, run

from . import checks_cli, checks_machine, checks_store
from .case import Case, Check
from .findings import Finding, failed
from .terminal import console, progress

CHECKS: dict[str, Check] = {
    "python": checks_machine.python,
    "packages": checks_machine.packages,
    "settings": checks_machine.settings,
    "cli": checks_cli.which,
    "cli version": checks_cli.version,
    "cli origin": checks_cli.origin,
    "login": checks_cli.login,
    "variables": checks_cli.variables,
    "port": checks_machine.port,
    "keys": checks_machine.keys,
    "service": checks_machine.service,
    "state directory": checks_machine.state_directory,
    "store": checks_store.store,
    "memory": checks_machine.memory,
    "other sessions": checks_machine.sessions,
    "network": checks_machine.network,
    "self-test": checks_cli.self_test,
    "model aliases": checks_cli.aliases,
}
"""In the order in which they run and are shown."""

SELF_TEST = "self-test"
"""The self-test runs just before this check."""

MARKS = {"ok": ("✓", "good"), "warning": ("!", "warning"), "failed": ("✗", "bad")}
SKIPPED = ("-", "quiet")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--claude", metavar="PATH", help="The CLI to check, like the daemon's --claude.")
def doctor(as_json: bool, claude: str | None) -> None:
    """Check whether all is well, and say what to do if it is not.

    The last check runs your CLI against an upstream on this machine, without using login or quota.
    Exit status: 0 if nothing has failed, else 1.
    """
    shown = None if as_json else console()
    found: dict[str, Finding] = {}
    for name, finding in examine(Case(os.environ, claude)):
        found[name] = finding
        if shown is not None:
            _show(shown, name, finding)
    worst = [name for name, finding in found.items() if finding.state == "failed"]
    if shown is None:
        click.echo(json.dumps(as_dict(found), indent=2, ensure_ascii=False))
    else:
        warnings = sum(finding.state == "warning" for finding in found.values())
        _summary(shown, worst, warnings)
    raise SystemExit(1 if worst else 0)


def examine(case: Case) -> Iterator[tuple[str, Finding]]:
    """Run the checks one after another; yields each with its name."""
    for name, check in CHECKS.items():
        with progress(f"checking {name}", quick=name != SELF_TEST) as tell:
            if name == SELF_TEST and case.version[0] and case.executable is not None:
                case.report = self_test(case.executable, tell)
            try:
                finding = check(case)
            except Exception as error:  # one that breaks must not hide the others
                finding = failed(f"the check broke: {error!r}", "please report this")
        yield name, finding


def as_dict(found: dict[str, Finding]) -> dict[str, Any]:
    """For machines."""
    return {
        "ok": not any(finding.state == "failed" for finding in found.values()),
        "checks": [
            {
                "name": name,
                "state": finding.state,
                "found": finding.found,
                "remedy": finding.remedy or None,
                **finding.more,
            }
            for name, finding in found.items()
        ],
    }


def self_test(executable: str, tell: Callable[[str], None] = lambda far: None) -> Report:
    """Run the self-test on this process's reactor, which can only run once.

    :raises click.Abort: when a signal ends it.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    reports: list[Report] = []
    broken: list[Reason] = []

    def begin() -> None:
        trying = ensureDeferred(run(reactor, executable, lambda done, of: tell(f"{done} of {of}")))
        stopping = False

        def stop() -> Deferred[None]:
            nonlocal stopping
            stopping = True
            trying.cancel()  # it ends its CLIs and cleans up
            return over

        over = trying.addCallbacks(reports.append, broken.append)
        over.addBoth(lambda _: None if stopping else reactor.stop())
        reactor.addSystemEventTrigger("before", "shutdown", stop)

    reactor.callWhenRunning(begin)
    reactor.run()
    if broken and broken[0].check(CancelledError):
        raise click.Abort
    if broken:
        broken[0].raiseException()
    return reports[0]


def _show(shown: Console, name: str, finding: Finding) -> None:
    mark, style = MARKS.get(finding.state, SKIPPED)
    line = Text.assemble((f" {mark} ", style), (f"{name:<16} ", "title"))
    line.append(finding.found, "" if finding.state == "ok" else style)
    shown.print(line)
    for fact in finding.more.get("facts") or ():
        if not fact["holds"]:
            shown.print(Text.assemble(" " * 22, (fact["name"], "bad"), f": {fact['meaning']}"))
            shown.print(Padding(Text(f"seen: {fact['seen']}", "quiet"), (0, 0, 0, 24)))
    if finding.remedy:
        shown.print(Text.assemble(" " * 20, ("→ ", style), (finding.remedy, "command")))


def _summary(shown: Console, worst: list[str], warnings: int) -> None:
    if worst:
        shown.print(f"\n[bad]Failed: {', '.join(worst)}.[/]")
    elif warnings:
        shown.print(f"\n[warning]It works; {warnings} warning{'s'[: warnings != 1]}.[/]")
    else:
        shown.print("\n[good]All is well.[/]")
    sys.stdout.flush()
