"""Checks of the CLI: which it is, how old, whose, and whether it does what we rely on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from claudeproxy._installed import installer
from claudeproxy.cli import launch
from claudeproxy.cli.login import TOKEN, config_directory
from claudeproxy.cli.models import parse_models
from claudeproxy.engine.catalogue import Catalogue

from .case import Case, needs_cli
from .findings import Finding, failed, ok, skipped, warning

MINIMUM = ".".join(map(str, launch.MINIMUM))

BUNDLED, NPM, BREW, NATIVE = "bundled", "npm", "Homebrew", "native"

UPDATES = {
    NPM: "npm install --global @anthropic-ai/claude-code@latest",
    BREW: "brew upgrade claude-code",
    NATIVE: "claude update",
}
"""How to update a CLI that did not come along, by how it was installed."""

HIDING = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL")
"""Variables of the user that the CLI would obey; the daemon passes none of them on."""


def installed(executable: str) -> str:
    """How the CLI at ``executable`` was installed, judging by its path."""
    path = os.path.realpath(executable)
    if "claude_agent_sdk" in path:
        return BUNDLED
    if "node_modules" in path:
        return NPM
    if "/Caskroom/" in path or "/Cellar/" in path or "/homebrew/" in path:
        return BREW
    return NATIVE


def updating(how: str) -> str:
    """The command that updates a CLI that was installed like this."""
    return installer().update_cli if how == BUNDLED else UPDATES[how]


def which(case: Case) -> Finding:
    """Which CLI is used, and why that one."""
    settings, executable = case.settings, case.executable
    if executable is None:
        if settings.claude is not None:
            return failed(f"there is no CLI at {settings.claude}", "correct --claude, or leave it")
        return failed(
            "there is none on the PATH, and none came along",
            f"{installer().add_cli}, or https://claude.com/claude-code",
        )
    on_path = shutil.which("claude", path=case.environ.get("PATH"))
    why = "it came along (claude-agent-sdk)"
    if settings.claude is not None:
        why = "--claude says so"
    elif on_path is not None:
        why = "it is the first on the PATH"
    return ok(f"{executable}: {why}", executable=executable)


def version(case: Case) -> Finding:
    """Whether it is new enough, and if not, whether a better one is at hand."""
    if case.executable is None:
        return skipped("there is no CLI")
    found, why = case.version
    update = updating(installed(case.executable))
    if found is not None:
        return ok(f"{found} ({MINIMUM} or newer is needed)", version=found)
    return failed(why, f"{update}{launch.instead_of(case.executable)}")


def origin(case: Case) -> Finding:
    """How it was installed, and how it is updated."""
    if case.executable is None:
        return skipped("there is no CLI")
    how = installed(case.executable)
    return ok(f"{how}; update with `{updating(how)}`", installed=how, update=updating(how))


@needs_cli
def login(case: Case) -> Finding:
    """Whether somebody is logged in, how, and for how long that is valid."""
    if not case.uses_plan:
        return skipped("not needed: the upstream is another one")
    status = case.login
    if status is None:
        return warning("the CLI does not say", "claudemax login")
    if not status.logged_in:
        return failed("NOT LOGGED IN", "claudemax login")
    if status.source == TOKEN:
        return ok(
            "a token of setup-token; it lasts a year from its making, and only a turn tells "
            "whether it still does",
            kind="token",
        )
    plan = f" ({status.plan})" if status.plan else ""
    return ok(f"a stored login{plan}; the CLI renews it by itself", kind="stored", plan=status.plan)


def variables(case: Case) -> Finding:
    """Whether a variable would have led the CLI elsewhere."""
    environ = case.environ
    token = environ.get(TOKEN) and case.uses_plan
    if token and _has_stored_login(environ):
        return warning(
            f"{TOKEN} is set and hides the login that is stored", f"unset {TOKEN}, or keep to it"
        )
    found = [name for name in HIDING if environ.get(name)]
    if found:
        return warning(
            f"{', '.join(found)} set here; not passed on to the CLI",
            "nothing to do for claudemax; `claude` in this shell uses it, and may bill it",
        )
    return ok("no stray one")


def _has_stored_login(environ: Mapping[str, str]) -> bool:
    """Whether the CLI keeps one in a file, which is not opened. One in a keychain is not seen."""
    return os.path.exists(os.path.join(config_directory(environ), ".credentials.json"))


def aliases(case: Case) -> Finding:
    """Whether each ``--model-alias`` leads to a model."""
    if not case.settings.model_alias:
        return skipped("there are none")
    if case.report is None or not case.report.models:
        return skipped("the CLI has told no models")
    catalogue = Catalogue(dict(case.settings.model_alias))
    catalogue.learn(parse_models(case.report.models))
    dangling = catalogue.dangling()
    if dangling:
        return failed(f"no model for {'; '.join(dangling)}", "correct --model-alias")
    return ok(f"{len(case.settings.model_alias)} lead to a model")


@needs_cli
def self_test(case: Case) -> Finding:
    """Whether it does what the daemon relies on, fact by fact."""
    report = case.report
    if report is None:
        return skipped("it was not run")
    facts = [
        {
            "name": one.fact.name,
            "meaning": one.fact.meaning,
            "holds": one.lost is None,
            "seen": one.lost,
        }
        for one in report.outcomes
    ]
    took = f"in {report.seconds:.1f} s, without quota"
    if not report.lost:
        return ok(f"all {len(facts)} facts hold, {took}", facts=facts)
    names = ", ".join(one.fact.name for one in report.lost)
    return failed(
        f"{len(report.lost)} of {len(facts)} facts do not hold, {took}: {names}",
        "use a version of the CLI that was tried (docs/cli-protocol.rst), or update claudemax",
        facts=facts,
    )
