"""The command line itself: which commands there are, and what is said of one that is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from claudeproxy.command.main import COMMANDS, main
from claudeproxy.options import table

Say = Callable[..., str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Say:
    """What a command prints that ends well."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        return capsys.readouterr().out

    return run


def test_help_lists_every_command(said: Say) -> None:
    words = " ".join(said("--help").split())
    assert all(f"{name} {told}" in words for name, (_, told) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(said: Say, name: str) -> None:
    assert said(name, "--help").startswith(f"Usage: claudemax {name} ")


def test_serve_has_every_option_of_the_daemon(said: Say) -> None:
    """Of one list: twistd's options class."""
    words = said("serve", "--help")
    assert all(f"--{field.replace('_', '-')}" in words for field, _ in table())


def test_help_loads_no_twisted() -> None:
    program = (
        "import sys; from claudeproxy.command.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('twisted' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], 'there is no command \'statsu\' (did you mean "status"?)'),
        (["xyzzy"], "there is no command 'xyzzy'"),
        (["doctor", "--jsno"], "No such option '--jsno'. Did you mean '--json'?"),
        (["--port", "0x"], "--port: must be a port number"),
        (["serve", "--port", "0x"], "--port: must be a port number"),
        (["--prot", "4000"], 'option --prot not recognized (did you mean "port"?)'),
        (
            ["serve", "--alow-host=x"],
            'option --alow-host not recognized (did you mean "allow-host"?)',
        ),
        (["serve", "extra"], "there are only options, and 'extra' is none"),
        (["serve", "4000"], "there are only options, and '4000' is none; a port is --port 4000"),
        (["4000"], "there is no command '4000': a port is --port 4000"),
        (["status", "--port", "0x"], "--port: must be a port number up to 65535 or an endpoint"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(refused: Say, arguments: list[str], words: str) -> None:
    assert refused(*arguments).startswith(words)


@pytest.mark.parametrize("arguments", [[], ["status"], ["usage"]])
def test_a_variable_that_is_none_is_refused(refused: Say, arguments: list[str]) -> None:
    """Somebody believes that there is a key."""
    assert refused(*arguments, CLAUDEMAX_API_KEYFILE="/etc/key") == (
        'there is no variable CLAUDEMAX_API_KEYFILE (did you mean "CLAUDEMAX_API_KEY_FILE"?)'
    )


def test_version(said: Say) -> None:
    assert said("--version").startswith("claudemax ")
