"""Whom ``claudemax doctor`` looks at: what the checks share, found out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import click

from claudeproxy.cli import launch
from claudeproxy.cli.login import LoginStatus
from claudeproxy.options import ConfigError, Settings, load
from claudeproxy.selftest.run import Report

from .findings import Finding, skipped
from .login import ask
from .running import Running, daemon_of


class Case:
    """One environment. What is wrong with it is an attribute, too: no check raises."""

    def __init__(self, environ: Mapping[str, str], claude: str | None = None) -> None:
        """``claude``: the CLI to look at, as ``--claude``."""
        self.environ = environ
        self.settings = Settings()
        self.wrong_settings: str | None = None
        try:
            self.settings = load({} if claude is None else {"claude": claude}, environ)
        except ConfigError as error:
            self.wrong_settings = str(error)
        self.report: Report | None = None
        """What the self-test came to, once it has run."""

    @cached_property
    def executable(self) -> str | None:
        """The CLI that the daemon would use."""
        try:
            return launch.find(self.settings.claude, self.environ.get("PATH"))
        except launch.CLIError:
            return None

    @cached_property
    def version(self) -> tuple[str | None, str]:
        """The CLI's version, and why there is none that can be used."""
        if self.executable is None:
            return None, "there is no CLI"
        try:
            environment = launch.environment(self.environ)
            return launch.check_version(self.executable, environment), ""
        except launch.CLIError as error:
            return None, str(error)

    @cached_property
    def login(self) -> LoginStatus | None:
        """Whose login the CLI finds."""
        return None if self.executable is None else ask(self.executable)

    @property
    def uses_plan(self) -> bool:
        """Whether the daemon would use the login at all."""
        return not (self.settings.demo or self.settings.upstream)

    @cached_property
    def daemon(self) -> Running | None:
        """The daemon of these settings, if it runs."""
        try:
            running = daemon_of(self.settings)
            running.health()
        except click.ClickException:
            return None
        return running


Check = Callable[[Case], Finding]


def needs_cli(check: Check) -> Check:
    """A check that has nothing to look at without a CLI that can be used."""

    def looked(case: Case) -> Finding:
        return check(case) if case.version[0] else skipped("there is no CLI to ask")

    return looked
