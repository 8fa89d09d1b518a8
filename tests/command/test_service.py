"""``claudemax install`` and what goes with it, by launchctls and systemctls that record."""

from __future__ import annotations

import io
import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click
import pytest
from attrs import define, frozen
from shell import Command, environment, free_port

from claudeproxy.cli.process import GRACE_LOGIN
from claudeproxy.command.main import main
from claudeproxy.command.service import systemd
from claudeproxy.command.service.config import MARK, Conflict, with_options, without_options
from claudeproxy.command.service.install import set_up, take_away
from claudeproxy.command.service.launchd import LABEL, SCRIPT, Launchd
from claudeproxy.command.service.machine import Machine
from claudeproxy.command.service.manager import installed
from claudeproxy.command.service.steps import Failed, Run, Write, carry_out
from claudeproxy.command.service.systemd import Systemd
from claudeproxy.options import Settings, load
from claudeproxy.service import LAST_BYTES

GOODBYE = Settings().drain + GRACE_LOGIN + LAST_BYTES
"""Seconds that the daemon may take to stop."""

RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >> "$HOME/calls"
if [ -s "$HOME/fails" ] && echo "$*" | grep -q -f "$HOME/fails"; then echo "no way" >&2; exit 5; fi
"""
SYSTEMCTL = """
for word in "$@"; do case $word in
  start|restart) touch "$HOME/active";;
  stop|disable) rm -f "$HOME/active";;
  is-active) test -e "$HOME/active" || exit 3;;
esac; done
"""
LAUNCHCTL = """
case "$1 $2" in
  bootstrap*) test ! -e "$HOME/active" || exit 5; touch "$HOME/active";;
  bootout*) (sleep 0.5; rm -f "$HOME/active") > /dev/null 2>&1 & ;;
  print*/*/*) test -e "$HOME/active" || exit 113;;
esac
"""
LOGINCTL = """
cat "$HOME/linger" 2>/dev/null || echo no
"""
JOURNALCTL = """
echo "a line of the log"
"""
NPM = {
    "Label": LABEL,
    "ProgramArguments": ["/usr/local/bin/node", "/opt/claude-max-api-proxy/standalone.js"],
}


@pytest.fixture
def fakes(command: Command, cli_script: Callable[[str], str]) -> Path:
    """A HOME, and on its PATH a CLI and the system's programs, which write what they are called
    with to ``HOME/calls``."""
    folder = Path(cli_script("exit 0")).parent
    scripts = {
        "systemctl": SYSTEMCTL, "launchctl": LAUNCHCTL, "loginctl": LOGINCTL,
        "journalctl": JOURNALCTL,
    }  # fmt: skip
    for name, body in scripts.items():
        (folder / name).write_text(RECORD + body)
        (folder / name).chmod(0o755)
    command.variables["PATH"] = f"{folder}:/usr/bin:/bin"
    return command.home


@pytest.fixture
def mac(fakes: Path, command: Command) -> Machine:
    """A Mac, as far as it is told by its programs."""
    environ = environment(fakes, **command.variables)
    return Machine(fakes, "ada", 501, "darwin", environ)


@define
class Inside:
    """The command in this process, which is quicker."""

    environ: Mapping[str, str]
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As :meth:`shell.Command.run`."""
        self.capsys.readouterr()
        with self.patch.context() as patch:
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in self.environ.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                main(arguments)
        said, code = self.capsys.readouterr(), caught.value.code
        words = f"{code}\n" if isinstance(code, str) else ""
        status = 1 if words else int(code or 0)
        return subprocess.CompletedProcess(arguments, status, said.out, said.err + words)

    def refusal(self, *arguments: str) -> str:
        """As :meth:`shell.Command.refusal`."""
        ran = self.run(*arguments)
        assert (ran.returncode, ran.stdout) == (1, ""), ran
        assert ran.stderr.startswith("claudemax: ") and ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr.removeprefix("claudemax: ").rstrip()


@pytest.fixture
def inside(
    fakes: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Inside:
    return Inside(environment(fakes, **command.variables), monkeypatch, capsys)


def calls(home: Path) -> list[str]:
    """What was run since the last look, but for questions."""
    path = home / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    asks = ("show-environment", "is-active", "show-user", "launchctl print")
    return [call for call in found if not any(ask in call for ask in asks)]


def left(home: Path) -> set[str]:
    """The files in ``home``, without what the fakes keep."""
    own = {"calls", "active", "fails", "linger"}
    return {
        str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()
    } - own  # fmt: skip


def refuses(home: Path, act: Callable[[], object]) -> str:
    """The one line with which it ends; nothing is written, nothing started or stopped."""
    before = {path: (home / path).read_bytes() for path in left(home)}
    with pytest.raises(click.ClickException) as caught:
        act()
    assert {path: (home / path).read_bytes() for path in left(home)} == before
    assert "\n" not in caught.value.message
    return caught.value.message


QUIET = ["--port", "systemd:domain=INET:name=claudemax"]
"""Nothing can be asked there, so that nobody waits for an answer."""

UNIT = ".config/systemd/user/claudemax.service"
CONFIG = ".config/claudemax/config.toml"
AGENT = f"Library/LaunchAgents/{LABEL}.plist"


# -- Linux --


def test_a_user_service_comes_and_goes(fakes: Path, command: Command) -> None:
    ran = command.run("install", *QUIET, "--warm", "1", "--model-alias", "a=opus", "--no-store")
    assert ran.returncode == 0, ran.stderr
    assert calls(fakes) == [
        "systemctl --user daemon-reload",
        "systemctl --user enable claudemax.service",
        "systemctl --user start claudemax.service",
    ]
    assert left(fakes) == {UNIT, CONFIG}
    settings = load({}, {"HOME": str(fakes)})
    assert (settings.warm, settings.no_store, settings.model_alias, settings.port) == (
        1, True, (("a", "opus"),), (QUIET[1],),
    )  # fmt: skip
    assert "loginctl enable-linger" in ran.stdout

    assert "runs already" in command.run("start").stdout
    assert command.run("stop").returncode == 0
    assert "does not run" in command.run("stop").stdout
    assert command.run("start").returncode == 0
    assert command.run("restart").returncode == 0
    assert command.run("logs", "-n", "7", "-f").stdout == "a line of the log\n"
    assert calls(fakes) == [
        "systemctl --user stop claudemax.service",
        "systemctl --user start claudemax.service",
        "systemctl --user restart claudemax.service",
        "journalctl --user --unit claudemax.service --lines 7 --follow",
    ]

    assert command.run("uninstall").returncode == 0
    assert calls(fakes) == [
        "systemctl --user disable --now claudemax.service",
        "systemctl --user daemon-reload",
    ]
    assert left(fakes) == set()


def test_a_dry_run_shows_all_and_does_nothing(fakes: Path, inside: Inside) -> None:
    ran = inside.run("install", "--dry-run", *QUIET, "--warm", "1")
    assert ran.returncode == 0, ran.stderr
    assert (left(fakes), calls(fakes)) == (set(), [])
    assert "warm = 1" in ran.stdout
    assert inside.run("install", *QUIET, "--warm", "1").returncode == 0
    for line in (fakes / UNIT).read_text().splitlines():
        assert line in ran.stdout
    for call in calls(fakes):
        assert f"would run {call}" in ran.stdout
    before = left(fakes)
    shown = inside.run("uninstall", "--dry-run").stdout
    assert f"would remove {fakes / UNIT}" in shown
    assert (left(fakes), calls(fakes)) == (before, [])


def test_installed_again_it_takes_the_new_options(fakes: Path, inside: Inside) -> None:
    inside.run("install", *QUIET, "--warm", "1", "--keep", "2")
    calls(fakes)
    assert inside.run("install", *QUIET, "--warm", "3").returncode == 0
    settings = load({}, {"HOME": str(fakes)})
    assert (settings.warm, settings.keep) == (3, 2)
    assert [call.split()[2] for call in calls(fakes)] == [
        "stop",
        "daemon-reload",
        "enable",
        "start",
    ]


def test_its_user_is_not_told_to_linger_twice(fakes: Path, inside: Inside) -> None:
    (fakes / "linger").write_text("yes\n")
    assert "linger" not in inside.run("install", *QUIET).stdout


def test_state_is_removed_on_request(fakes: Path, inside: Inside) -> None:
    kept = fakes / ".local" / "state" / "claudemax" / "quota.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    own = fakes / ".config" / "claudemax" / "service.env"
    own.parent.mkdir(parents=True)
    own.write_text("TZ=UTC\n")
    inside.run("install", *QUIET)
    assert str(kept.parent) in inside.run("uninstall").stdout
    assert kept.exists()
    inside.run("install", *QUIET)
    assert inside.run("uninstall", "--state").returncode == 0
    assert left(fakes) == {".config/claudemax/service.env"}


def test_what_a_command_refuses_leaves_nothing(fakes: Path, inside: Inside) -> None:
    (fakes / "fails").write_text("start claudemax\n")
    said = inside.refusal("install", *QUIET)
    assert said == (
        "`systemctl --user start claudemax.service` failed: no way; what was done before is undone"
    )
    assert left(fakes) == set()
    assert calls(fakes)[-1] == "systemctl --user disable claudemax.service"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--wram", "1"], 'option --wram not recognized (did you mean "warm"?)'),
        (["--warm", "many"], "--warm: must be"),
        (["--claude", "/nowhere"], "there is no Claude CLI at /nowhere"),
        (["--config", "x.toml"], "--config is for a daemon of your own"),
    ],
)
def test_bad_options_write_nothing(
    fakes: Path, inside: Inside, arguments: list[str], says: str
) -> None:
    assert says in inside.refusal("install", *QUIET, *arguments)
    assert (left(fakes), calls(fakes)) == (set(), [])


def test_a_port_that_is_taken(fakes: Path, inside: Inside) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        assert f"port {port} is taken by" in inside.refusal("install", "--port", str(port))
    assert (left(fakes), calls(fakes)) == (set(), [])


def test_a_users_own_line_is_not_changed(fakes: Path, inside: Inside) -> None:
    path = fakes / CONFIG
    path.parent.mkdir(parents=True)
    path.write_text("# mine\nwarm = 2\n")
    said = inside.refusal("install", *QUIET, "--warm", "1")
    assert said == f"{path} has a line for warm already; change it there, or leave --warm out"
    assert path.read_text() == "# mine\nwarm = 2\n"
    assert inside.run("install", *QUIET, "--warm", "2").returncode == 0
    inside.run("uninstall")
    assert path.read_text() == "# mine\nwarm = 2\n"


def test_without_a_session_of_the_user(fakes: Path, inside: Inside) -> None:
    (fakes / "fails").write_text("show-environment\n")
    assert "systemd has no session of" in inside.refusal("install")


def test_without_systemd(fakes: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    said = refused("install", PATH=str(tmp_path / "empty"))
    assert said.startswith("there is no systemd here")


@pytest.mark.parametrize("name", ["start", "stop", "restart", "logs", "uninstall"])
def test_where_there_is_no_service(fakes: Path, inside: Inside, name: str) -> None:
    assert inside.refusal(name) == (
        "there is no service of claudemax; `claudemax install` makes one"
    )
    assert calls(fakes) == []


def test_sudo_is_refused(fakes: Path, command: Command) -> None:
    machine = Machine(
        fakes, "root", 0, "linux", {**environment(fakes, **command.variables), "SUDO_USER": "ada"}
    )
    said = refuses(
        fakes, lambda: set_up(machine, [], system=True, dry_run=False, yes=True)
    )  # fmt: skip
    assert said.startswith("without sudo, please")


def test_a_system_service_is_done_by_sudo(
    fakes: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(systemd, "SYSTEM", tmp_path)
    sudo = Path(command.variables["PATH"].split(":")[0], "sudo")
    sudo.write_text(f'{RECORD}\nexec "$@"\n')
    sudo.chmod(0o755)
    machine = Machine(fakes, "ada", 1000, "linux", environment(fakes, **command.variables))
    set_up(machine, QUIET, system=True, dry_run=False, yes=False)
    unit = tmp_path / "claudemax@ada.service"
    assert unit.read_text() == Systemd(machine, True).description()
    assert [call for call in calls(fakes) if call.startswith("sudo")] == [
        f"sudo tee {unit}",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable claudemax@ada.service",
        "sudo systemctl start claudemax@ada.service",
    ]
    assert installed(machine).title == "systemd's system service claudemax@ada.service"
    take_away(machine, with_state=False, dry_run=False)
    assert not unit.exists()
    assert left(fakes) == set()


ODD = '/home/a b%c$d"e'
"""A home that has all that systemd reads in its own way."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("home", ["/home/ada", ODD])
def test_systemd_understands_its_units(system: bool, home: str, tmp_path: Path) -> None:
    machine = Machine(Path(home), "root", 1000, "linux", {"HOME": home, "PATH": "/usr/bin"})
    service = Systemd(machine, system)
    unit = tmp_path / service.unit
    unit.write_text(service.description())
    ran = subprocess.run(
        ["systemd-analyze", "verify", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = [line for line in ran.stderr.splitlines() if "claudemax" in line]
    assert (ran.returncode, ours) == (0, [])
    if not system:
        return
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unrecognized option" in ran.stderr:
        pytest.skip("this systemd cannot judge a file")
    score = re.search(r"exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert score is not None
    assert float(score[1]) <= 2.0


@pytest.mark.parametrize("system", [False, True])
def test_systemd_waits_for_the_drain(system: bool) -> None:
    machine = Machine(Path("/home/ada"), "ada", 1000, "linux", {"HOME": "/home/ada"})
    text = Systemd(machine, system).description()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert GOODBYE < float(found[1]) < GOODBYE + 15
    assert "\nKillMode=mixed\n" in text
    assert ("\nUser=%i\n" in text) is system
    assert "EnvironmentFile=-/home/ada/.config/claudemax/service.env\n" in text


def test_the_service_finds_what_its_user_has(fakes: Path, command: Command) -> None:
    variables = {**command.variables, "CLAUDE_CONFIG_DIR": "/c", "ANTHROPIC_API_KEY": "k"}
    machine = Machine(fakes, "ada", 1000, "linux", environment(fakes, **variables))
    found = machine.service_environ()
    assert set(found) == {"PATH", "CLAUDE_CONFIG_DIR"}
    assert found["PATH"].startswith(f"{variables['PATH'].split(':')[0]}:{fakes}/.local/bin:")


@pytest.mark.cli
def test_what_the_unit_runs_serves(fakes: Path, command: Command) -> None:
    """As systemd would run it: its command and its variables, and nothing else."""
    from harness import newest_cli

    systemctl = Path(command.variables["PATH"].split(":")[0], "systemctl")
    systemctl.write_text(
        f"""{RECORD}{SYSTEMCTL}
unit="$HOME/{UNIT}"
for word in "$@"; do case $word in
  start) (exec > "$HOME/log" 2>&1
          eval "exec env -i HOME=$HOME PYTHONPATH=$PYTHONPATH \\
                $(sed -n 's/^Environment=//p' "$unit") $(sed -n 's/^ExecStart=//p' "$unit")") &
         echo $! > "$HOME/pid";;
  stop|disable) kill "$(cat "$HOME/pid")";;
esac; done
"""
    )
    port = str(free_port())
    options = ["--demo", "--warm", "1", "--port", port, "--claude", newest_cli()]
    ran = command.run("install", *options)
    try:
        assert ran.returncode == 0, ran.stderr
        assert f"at http://localhost:{port}" in ran.stdout
        told = json.loads(command.run("status", "--json").stdout)
        assert "demo" in json.dumps(told)
    finally:
        command.run("uninstall")
    assert not (fakes / UNIT).exists()


# -- macOS --


def test_an_agent_comes_and_goes(fakes: Path, mac: Machine) -> None:
    set_up(mac, QUIET, system=False, dry_run=False, yes=False)
    path = fakes / AGENT
    assert calls(fakes) == [
        f"launchctl enable gui/501/{LABEL}",
        f"launchctl bootstrap gui/501 {path}",
    ]
    assert left(fakes) == {AGENT, CONFIG}
    service = installed(mac)
    carry_out(service.restart(), mac)
    assert [call.split()[1] for call in calls(fakes)] == ["bootout", "enable", "bootstrap"]
    carry_out(service.stop(), mac)
    assert not service.is_active()
    log = fakes / "Library" / "Logs" / "claudemax.log"
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    assert service.log(5, True) == ("tail", "-n", "5", "-F", str(log))
    take_away(mac, with_state=True, dry_run=False)
    assert left(fakes) == set()


def test_what_the_agent_says(fakes: Path, mac: Machine) -> None:
    agent = plistlib.loads(Launchd(mac).description().encode())
    assert agent["Label"] == LABEL
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert GOODBYE < agent["ExitTimeOut"] < GOODBYE + 15
    assert agent["Umask"] == 0o077
    assert agent["HardResourceLimits"] == {"Core": 0}
    assert agent["EnvironmentVariables"] == mac.service_environ()
    command = agent["ProgramArguments"][5:]
    assert command == [
        str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "--reactor", "kqueue",
        "--logfile", f"{fakes}/Library/Logs/claudemax.log", "claudemax",
    ]  # fmt: skip


def test_the_agent_reads_the_token_and_runs_nothing_in_it(fakes: Path) -> None:
    file = fakes / "service.env"
    run = ["/bin/sh", "-c", SCRIPT, "claudemax", str(file), "env"]
    seen = subprocess.check_output(run, env={"A": "1"}, text=True)
    assert "A=1\n" in seen
    file.write_text("# a=b\nTOKEN=x$(touch ran)`touch ran`;touch ran\nlast=one")
    seen = subprocess.check_output(run, env={"A": "1"}, text=True, cwd=fakes)
    assert {"TOKEN=x$(touch ran)`touch ran`;touch ran", "last=one"} < set(seen.splitlines())
    assert not (fakes / "ran").exists()


def test_the_npm_agent_is_replaced_only_on_consent(
    fakes: Path, mac: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fakes / AGENT
    path.parent.mkdir(parents=True)
    before = plistlib.dumps(NPM)
    path.write_bytes(before)
    (fakes / "active").touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def install(yes: bool) -> None:
        set_up(mac, QUIET, system=False, dry_run=False, yes=yes)

    said = refuses(fakes, lambda: install(False))
    assert said.startswith("there is no terminal to ask on; nothing was written")
    assert "/usr/local/bin/node /opt/claude-max-api-proxy/standalone.js" in capsys.readouterr().out
    assert calls(fakes) == []
    with pytest.raises(click.ClickException):
        installed(mac)

    install(True)
    assert [call.split()[1] for call in calls(fakes)] == ["bootout", "enable", "bootstrap"]
    assert left(fakes) == {AGENT, AGENT + ".replaced", CONFIG}
    install(False)  # it is ours now
    calls(fakes)

    take_away(mac, with_state=False, dry_run=False)
    assert path.read_bytes() == before
    assert left(fakes) == {AGENT}
    assert [call.split()[1] for call in calls(fakes)] == ["bootout", "enable", "bootstrap"]


def test_a_replacement_that_fails_brings_the_npm_agent_back(fakes: Path, mac: Machine) -> None:
    path = fakes / AGENT
    path.parent.mkdir(parents=True)
    path.write_bytes(plistlib.dumps(NPM))
    (fakes / "active").touch()
    (fakes / "fails").write_text("enable\n")
    said = refuses(
        fakes, lambda: set_up(mac, QUIET, system=False, dry_run=False, yes=True)
    )  # fmt: skip
    assert "failed: no way" in said
    assert calls(fakes)[-1] == f"launchctl bootstrap gui/501 {path}"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"<plist><dict>", plistlib.dumps([1])])
def test_an_agent_that_nobody_can_read_is_another_program_s(
    fakes: Path, mac: Machine, content: bytes
) -> None:
    path = fakes / AGENT
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    refuses(fakes, lambda: set_up(mac, QUIET, system=False, dry_run=False, yes=False))
    set_up(mac, QUIET, system=False, dry_run=False, yes=True)
    take_away(mac, with_state=False, dry_run=False)
    assert path.read_bytes() == content


def test_a_mac_without_a_screen(fakes: Path, mac: Machine) -> None:
    (fakes / "fails").write_text("print gui/501$\n")
    said = refuses(
        fakes, lambda: set_up(mac, QUIET, system=False, dry_run=False, yes=False)
    )  # fmt: skip
    assert said == "launchd has no session of ada: log in on the Mac's screen"


def test_there_is_no_system_service_of_a_mac(fakes: Path, mac: Machine) -> None:
    said = refuses(fakes, lambda: set_up(mac, [], system=True, dry_run=False, yes=False))
    assert said.startswith("--system is for Linux")


# -- its parts --


TEXTS = ["", "# mine\n", "warm = 1\n", "# a\n\n[model-alias]  # b\nx = 'opus'\n", "warm = 1"]


@pytest.mark.parametrize("text", TEXTS)
def test_options_become_lines_and_go_again(text: str) -> None:
    options: Mapping[str, str | list[str]] = {"drain": "0.5", "demo": "true", "keep": "3"}
    new = with_options(text, dict(options))
    assert new.count(MARK) == 3
    found = load({}, {"HOME": "/"}, lambda path: __import__("tomlkit").parse(new).unwrap())
    assert (found.drain, found.demo, found.keep) == (0.5, True, 3)
    assert with_options(new, dict(options)) == new
    assert without_options(new) == text


def test_a_line_of_ones_own_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        with_options("keep = 1\n", {"keep": "2"})
    assert with_options("keep = 2\n", {"keep": "2"}) == "keep = 2\n"


def test_steps_are_taken_back_in_reverse(fakes: Path, mac: Machine) -> None:
    file, new = fakes / "old", fakes / "new"
    file.write_text("before")
    file.chmod(0o640)
    steps = [Write(file, "after"), Write(new, "x"), Run(("false",))]
    assert refuses(fakes, lambda: carry_out(steps, mac)).startswith("`false` failed: status 1")
    assert file.stat().st_mode & 0o777 == 0o640


@frozen
class Interrupted:
    """A step during which somebody presses Ctrl-C."""

    def told(self) -> Iterator[str]:
        yield "nothing"

    def do(self, machine: Machine) -> Callable[[], object]:
        raise KeyboardInterrupt


def test_ctrl_c_takes_them_back_too(fakes: Path, mac: Machine) -> None:
    steps = [Write(fakes / "new", "x"), Interrupted()]
    with pytest.raises(KeyboardInterrupt):
        carry_out(steps, mac)
    assert left(fakes) == set()


def test_paths_are_made_absolute(fakes: Path, inside: Inside) -> None:
    """A service starts in another directory."""
    paths = ["--claude", "bin/claude", "--api-key-file", "key", "--record", "kept"]
    (fakes / "bin").mkdir()
    (fakes / "bin" / "claude").write_text("#!/bin/sh\n")
    (fakes / "bin" / "claude").chmod(0o755)
    with inside.patch.context() as patch:
        patch.chdir(fakes)
        ran = inside.run("install", "--dry-run", *QUIET, *paths)
    for name, path in (("claude", "bin/claude"), ("api-key-file", "key"), ("record", "kept")):
        assert f'{name} = "{fakes / path}"' in ran.stdout, ran


def test_a_file_that_cannot_be_written(fakes: Path, mac: Machine) -> None:
    (fakes / "file").write_text("")
    said = refuses(fakes, lambda: carry_out([Write(fakes / "file" / "x", "x")], mac))
    assert said.startswith(f"{fakes / 'file'}: ")


def test_failed_is_told_in_one_line(fakes: Path, mac: Machine) -> None:
    with pytest.raises(Failed, match="status 3"):
        Run(("sh", "-c", "exit 3")).do(mac)
