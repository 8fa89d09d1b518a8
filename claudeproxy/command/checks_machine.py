"""Checks of the machine: Python, packages, settings, port, files, memory, other sessions."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from claudeproxy import __version__, ports, state
from claudeproxy._installed import installer, own_requirement
from claudeproxy.engine.memory import PROCESS
from claudeproxy.service import processes
from claudeproxy.web.keys import KeyFileError
from claudeproxy.web.keys import read as read_keys

from .case import Case
from .findings import Finding, failed, ok, skipped, warning
from .places import address, config_directory

NEEDED_PYTHON = (3, 10)

ROOM = 200 << 20
"""Bytes of free disk below which doctor warns."""

SERVICES = (
    "Library/LaunchAgents/com.claude-max-api.plist",
    ".config/systemd/user/claudemax.service",
)
"""Where a user's service is described, below the home directory."""

UPSTREAM = ("api.anthropic.com", 443)

PATIENCE = 5.0
"""Seconds to wait for a connection."""


def python(case: Case) -> Finding:
    """Whether Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < NEEDED_PYTHON:
        return failed(f"{found} at {sys.executable}", "claudemax needs Python 3.10 or newer")
    return ok(f"{found} at {sys.executable}", version=found)


def packages(case: Case) -> Finding:
    """Whether all packages are there, in versions that fit."""
    try:
        needed = metadata.requires("claudemax") or []
    except metadata.PackageNotFoundError:
        return warning(
            "claudemax is not installed, only on the path", f"pip install '{own_requirement()}'"
        )
    wrong = []
    required = [
        requirement
        for requirement in map(Requirement, needed)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    for requirement in required:
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        return failed("; ".join(wrong), installer().update)
    return ok(f"claudemax {__version__} and the {len(required)} it needs", version=__version__)


def settings(case: Case) -> Finding:
    """Whether the configuration file and the variables can be read."""
    if case.wrong_settings is not None:
        return failed(case.wrong_settings, "correct it; `claudemax serve --help` lists all options")
    path = case.environ.get("CLAUDEMAX_CONFIG")
    file = Path(path) if path else config_directory(case.environ) / "config.toml"
    return ok(str(file) if file.exists() else f"the defaults ({file} is not there)")


def port(case: Case) -> Finding:
    """Whether the daemon can listen, or already does."""
    if case.daemon is not None:
        return ok(f"claudemax answers at {case.daemon.where.url}", url=case.daemon.where.url)
    places = [place for endpoint in case.settings.port if (place := address(endpoint))]
    for place in places:
        if place.socket or ports.is_free(place.port):
            continue
        held, free = ports.holder(place.port), ports.next_free(place.port)
        by = "somebody" if held is None else str(held)
        return failed(f"{place.port} is taken by {by}", f"stop it, or serve with --port {free}")
    return ok(f"{', '.join(place.url for place in places)}: free, claudemax does not run")


def keys(case: Case) -> Finding:
    """Whether the keys file can be used."""
    path = case.settings.api_key_file
    if path is None:
        return ok("none: whoever is on this machine may use it, and nobody else")
    try:
        rules = read_keys(path).rules
    except KeyFileError as error:
        return failed(f"{path} {error}", f"chmod 600 {path}, or `claudemax key` for a new one")
    expired = [name for name, of in rules.items() if of.expired(time.time())]
    if expired:
        return warning(f"{path}: expired: {', '.join(expired)}", "delete them, or let them last")
    return ok(f"{path}: {len(rules)} keys" if len(rules) > 1 else path)


def service(case: Case) -> Finding:
    """Whether a service is installed to start it."""
    home = Path(case.environ.get("HOME") or os.path.expanduser("~"))
    found = [str(home / name) for name in SERVICES if (home / name).exists()]
    found += map(str, Path("/etc/systemd/system").glob("claudemax@*.service"))
    if not found:
        return skipped("there is none; `claudemax install` makes one")
    return ok(", ".join(found))


def state_directory(case: Case) -> Finding:
    """Whether what outlives the daemon can be stored, for its owner alone."""
    directory = state.directory(case.environ)
    try:
        (directory / "empty").mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / f".doctor-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        return failed(
            f"{error.filename}: {error.strerror}",
            f"make {directory} yours: chown -R {os.geteuid()} {directory}; or set XDG_STATE_HOME",
        )
    stray = next((directory / "empty").iterdir(), None)
    if stray is not None:
        return failed(f"{stray} is where nothing may be", f"move {stray} away")
    if shutil.disk_usage(directory).free < ROOM:
        return warning(f"the disk of {directory} is nearly full", "make room")
    return ok(str(directory))


def memory(case: Case) -> Finding:
    """Whether there is room for all processes."""
    wanted = processes(case.settings) * PROCESS
    free = psutil.virtual_memory().available
    said = f"{free >> 20:,} MB free, {wanted >> 20:,} MB for the Claude CLIs at most"
    if free < wanted and case.daemon is None:
        return warning(said, "serve with fewer: --processes 2")
    return ok(said)


def sessions(case: Case) -> Finding:
    """Other sessions of the user: they share the windows."""
    if not case.uses_plan:
        return skipped("not needed: the upstream is another one")
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            mine = process.uids().real == os.geteuid()
            command = process.cmdline()
            ours = "--strict-mcp-config" in command
            found += mine and not ours and os.path.basename((command or [""])[0]) == "claude"
    if not found:
        return ok("none of your own runs beside it")
    return ok(f"{found} of your own run; they share the plan's windows, and cannot speak to ours")


def network(case: Case) -> Finding:
    """Whether Anthropic can be reached. Nothing is sent."""
    if not case.uses_plan:
        return skipped("not needed: the upstream is another one")
    if case.environ.get("HTTPS_PROXY") or case.environ.get("https_proxy"):
        return skipped("the way leads through a proxy")
    try:
        socket.create_connection(UPSTREAM, PATIENCE).close()
    except OSError as error:
        return warning(
            f"{UPSTREAM[0]} cannot be reached: {error.strerror or error}",
            "look at network and firewall",
        )
    return ok(f"{UPSTREAM[0]} can be reached")
