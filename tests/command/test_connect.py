"""``claudemax connect``: a daemon that runs, clients' real files in a private HOME."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from harness import in_thread
from pytest_twisted import ensureDeferred
from shell import Command, Terminal, environment, free_port
from test_status import another_server

from claudeproxy.command.connect.change import merged
from claudeproxy.command.connect.client import KEY_VARIABLE, Client, Daemon, Machine, Model
from claudeproxy.command.connect.clients import CLIENTS
from claudeproxy.command.main import main
from claudeproxy.testing import fake_cli

FILES = {name: client for name, client in CLIENTS.items() if isinstance(client, Client)}

BEFORE = {
    "openclaw": """{
  // my gateway
  gateway: { port: 18789, mode: 'local' },
  agents: {
    defaults: {
      model: { primary: 'other/one' }, // was good
      models: { 'other/one': {} },
    },
  },
}
""",
    "codex": '# mine\nmodel = "gpt-5.5"  # why\n\n# trusted\n[projects."/src"]\nx = "y"\n',
    "opencode": '{\n\t// dark\n\t"theme": "system",\n}\n',
    "aider": "# mine\ndark-mode: true  # at night\n#model: x\n",
    "continue": """name: Mine
version: 1.0.0
schema: v1
models:
    - name: local   # stays
      provider: ollama
      model: llama
      roles: [chat,edit]

# how to answer
rules:
    - 'Be brief'
""",
    "zed": '// Zed settings\n{\n  "a": "One", // dark\n  "agent": {\n    "on": true\n  }\n}\n',
    "vscode": '[\n\t{\n\t\t"name": "Ollama",\n\t\t"vendor": "ollama"\n\t} // local\n]',
    "llm": "# mine\n- model_id: other\n  model_name: gpt\n  api_base: http://10.0.0.1/v1\n",
}
"""What somebody may have: comments, another style, and a last line without its end."""


@pytest_twisted.async_yield_fixture
async def url(make_daemon: Any, tmp_path: Path) -> Any:
    """Of a daemon without a key."""
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    yield daemon.url


def file_of(name: str, home: Path) -> Path:
    """Where the client has its file."""
    return FILES[name].place(Machine(home, {}, False))


@frozen
class Ran:
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """A command in this process, without a terminal."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment(command.home).items():
        monkeypatch.setenv(name, value)

    def ran(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        code, said = caught.value.code, capsys.readouterr()
        if isinstance(code, str):
            return Ran(1, said.out, said.err + code)
        return Ran(code or 0, said.out, said.err)

    return ran


def refusal(ran: Ran) -> str:
    """The one line with which it ended, and nothing else said."""
    assert (ran.returncode, ran.stdout) == (1, "") and "\n" not in ran.stderr
    assert ran.stderr.startswith("claudemax: ")
    return ran.stderr.removeprefix("claudemax: ")


def everything(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@ensureDeferred
async def test_there_and_back_with_every_client(url: str, command: Command, run: Run) -> None:
    def steps() -> None:
        for name, before in BEFORE.items():
            path = file_of(name, command.home)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(before)
            path.chmod(0o640)
            ran = run("connect", name, "--url", url, "--yes")
            assert (ran.returncode, ran.stderr) == (0, ""), ran
            after = path.read_text()
            load = FILES[name].format.load
            daemon = Daemon(url, None, [
                Model("sonnet", "Claude Sonnet", 1_000_000, 128_000),
                Model("opus", "Claude Opus", 1_000_000, 128_000),
                Model("haiku", "Claude Haiku", 1_000_000, 128_000),
            ])  # fmt: skip
            assert load(after) == merged(load(before), FILES[name].changes(daemon, load(before)))
            assert f"+++ {path}\n" in ran.stdout and url in ran.stdout
            for comment in re.findall(r"(?://|#) [a-z ]+", before):
                assert comment in after
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            files = everything(command.home)
            ran = run("connect", name, "--url", url)
            assert ran.stdout.startswith(f"{path} has it all already; nothing was changed.\n")
            assert (ran.returncode, everything(command.home)) == (0, files)
            ran = run("connect", name, "--restore", "--yes")
            assert (ran.returncode, ran.stderr) == (0, "")
            assert path.read_text() == before and set(everything(command.home)) == {str(path)}
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            path.unlink()

    assert set(BEFORE) == set(FILES)
    await in_thread(steps)


@pytest.mark.parametrize("name", FILES)
def test_what_a_new_file_says(name: str, tmp_path: Path) -> None:
    """With a key and another model, and again with what came of it."""
    client = FILES[name]
    for key in (None, "s3cret"):
        daemon = Daemon(
            "http://10.1.2.3:4000", key, [Model("opus", "Claude Opus", 200_000, 32_000)]
        )
        changes = client.changes(daemon, client.format.load(""))
        text = client.format.changed("", changes)
        assert client.format.load(text) == merged(client.format.load(""), changes)
        assert client.changes(daemon, client.format.load(text))
        assert "http://10.1.2.3:4000/v1" in text and "opus" in text
        by_variable = name in ("codex", "zed", "llm")
        assert ("s3cret" in text) == (key is not None and not by_variable)
        if by_variable and key:
            assert any(
                word in " ".join(client.then(daemon)) for word in (KEY_VARIABLE, "llm keys set")
            )


@pytest.mark.parametrize("darwin", [False, True])
def test_where_files_are(darwin: bool, tmp_path: Path) -> None:
    machine = Machine(tmp_path, {}, darwin)
    support = "Library/Application Support" if darwin else ".config"
    assert {name: str(FILES[name].place(machine).relative_to(tmp_path)) for name in FILES} == {
        "openclaw": ".openclaw/openclaw.json",
        "codex": ".codex/config.toml",
        "opencode": ".config/opencode/opencode.json",
        "aider": ".aider.conf.yml",
        "continue": ".continue/config.yaml",
        "zed": ".config/zed/settings.json",
        "vscode": f"{support}/Code/User/chatLanguageModels.json",
        "llm": f"{support}/io.datasette.llm/extra-openai-models.yaml",
    }


def test_clients_own_variables_move_their_files(tmp_path: Path) -> None:
    places = {
        "openclaw": {"OPENCLAW_CONFIG_PATH": "/a/x.json"},
        "codex": {"CODEX_HOME": "/a"},
        "opencode": {"OPENCODE_CONFIG": "/a/x.json"},
        "continue": {"CONTINUE_GLOBAL_DIR": "/a"},
        "zed": {"XDG_CONFIG_HOME": "/a"},
        "llm": {"LLM_USER_PATH": "/a"},
    }
    for name, variables in places.items():
        assert str(FILES[name].place(Machine(tmp_path, variables, False))).startswith("/a/")
    commented = tmp_path / ".config" / "opencode" / "opencode.jsonc"
    commented.parent.mkdir(parents=True)
    commented.touch()
    assert FILES["opencode"].place(Machine(tmp_path, {}, False)) == commented


@ensureDeferred
async def test_it_asks_on_a_terminal(url: str, command: Command) -> None:
    path = file_of("aider", command.home)
    path.write_text("dark-mode: true\n")

    def ask(answer: str, *arguments: str) -> tuple[Terminal, int]:
        terminal = command.terminal("connect", "aider", *arguments)
        terminal.until("[Y/n]: ")
        terminal.child.sendline(answer)
        return terminal, terminal.end()

    def steps() -> None:
        terminal, status = ask("n", "--url", url)
        assert status == 1 and "claudemax: nothing was written" in terminal.text
        assert b"\x1b[32m+model: openai/sonnet\x1b[0m" in terminal.raw
        assert everything(command.home) == {str(path): b"dark-mode: true\n"}
        terminal, status = ask("\x03", "--url", url)
        assert status == 130 and terminal.raw.endswith(b"\r\n"), (
            "the shell's prompt is on a new line"
        )
        assert everything(command.home) == {str(path): b"dark-mode: true\n"}
        terminal, status = ask("", "--url", url)
        assert status == 0 and f"As it was: {path}.claudemax-1.bak" in terminal.lines
        assert "openai-api-base" in path.read_text()
        terminal, status = ask("y", "--restore")
        assert status == 0 and f"{path} is as it was before." in terminal.text
        assert b"\x1b[31m-model: openai/sonnet\x1b[0m" in terminal.raw
        assert everything(command.home) == {str(path): b"dark-mode: true\n"}

    await in_thread(steps)


@ensureDeferred
async def test_a_new_file_and_its_end(url: str, command: Command, run: Run) -> None:
    path = file_of("openclaw", command.home)

    def steps() -> None:
        ran = run("connect", "openclaw", "--url", f"{url}/v1/", "--yes", "--model", "opus")
        assert ran.returncode == 0 and stat.S_IMODE(path.stat().st_mode) == 0o600
        told = json.loads(path.read_text())
        assert told["agents"]["defaults"]["model"]["primary"] == "claudemax/opus"
        assert [one["id"] for one in told["models"]["providers"]["claudemax"]["models"]] == ["opus"]
        assert run("connect", "openclaw", "--restore", "--yes").returncode == 0
        assert everything(command.home) == {}

    await in_thread(steps)


@ensureDeferred
async def test_print_writes_nothing(url: str, command: Command, run: Run) -> None:
    def steps() -> None:
        ran = run("connect", "continue", "--url", url, "--print")
        path = file_of("continue", command.home)
        assert ran.returncode == 0 and ran.stdout.startswith(f"In {path}:\n\nname: My config\n")
        assert f"    apiBase: {url}/v1\n" in ran.stdout
        for name in set(CLIENTS) - set(FILES):
            ran = run("connect", name, "--url", url)
            assert (ran.returncode, ran.stderr) == (0, "") and f"{url}/v1" in ran.stdout
        assert everything(command.home) == {}

    await in_thread(steps)


@ensureDeferred
async def test_a_daemon_with_a_key(
    make_daemon: Any, command: Command, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text('laptop: s3"cret\n')
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    path = file_of("opencode", command.home)

    def steps() -> None:
        plain = ("connect", "opencode", "--url", daemon.url)
        said = refusal(run(*plain))
        assert said == f"{daemon.url} wants a key; put it into {KEY_VARIABLE}"
        assert refusal(run(*plain, "--key", "x")) == f"{daemon.url} does not take that key"
        terminal = command.terminal(*plain)
        terminal.until(f"The key for {daemon.url}: ")
        terminal.child.sendline('s3"cret')
        terminal.until("[Y/n]: ")
        terminal.child.sendline("n")
        assert terminal.end() == 1 and b"s3" not in terminal.raw
        assert everything(command.home) == {}
        monkeypatch.setenv(KEY_VARIABLE, 's3"cret')
        for arguments in (["--print"], ["--yes"]):
            ran = run(*plain, *arguments)
            assert ran.returncode == 0 and "YOUR-KEY" in ran.stdout
            assert "cret" not in ran.stdout + ran.stderr
        options = json.loads(path.read_text())["provider"]["claudemax"]["options"]
        assert options == {"baseURL": f"{daemon.url}/v1", "apiKey": 's3"cret'}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "YOUR-KEY" in run("connect", "cline", "--url", daemon.url).stdout
        # As the settings have it.
        monkeypatch.delenv(KEY_VARIABLE)
        folder = command.home / ".config" / "claudemax"
        folder.mkdir()
        port = daemon.url.rpartition(":")[2]
        (folder / "config.toml").write_text(f'port = {port}\napi-key-file = "{keys}"\n')
        ran = run("connect", "opencode")
        assert "has it all already" in ran.stdout, ran

    await in_thread(steps)


BROKEN = {
    "openclaw": (b"{ models: ", "line 1: Unexpected end of input at column 11"),
    "codex": (b"model = \n", "Invalid value (at line 1, column 9)"),
    "continue": (b"models: [\n", "line 2: expected the node content"),
    "opencode": (b'{"theme": "system\n}', 'line 1: Unexpected "\\n" at column 18'),
    "zed": (b'{"language_models": []}', "language_models is not a mapping"),
    "vscode": (b"{}", "all of it is not a list"),
    "llm": (b"- &a {model_id: other}\n- *b\n", "line 2: found undefined alias 'b'"),
    "aider": (b"\xff\xfe", "it is not UTF-8"),
}


@ensureDeferred
async def test_a_broken_file_is_left_alone(url: str, command: Command, run: Run) -> None:
    def steps() -> None:
        for name, (content, words) in BROKEN.items():
            path = file_of(name, command.home)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            before = everything(command.home)
            said = refusal(run("connect", name, "--url", url, "--yes"))
            assert said.startswith(str(path)) and words in said
            assert everything(command.home) == before

    await in_thread(steps)


@ensureDeferred
async def test_what_is_refused(url: str, command: Command, run: Run) -> None:
    path = file_of("aider", command.home)
    path.write_text("a: 1\n")

    def steps() -> None:
        said = refusal(run("connect", "aider", "--url", url))
        assert said.startswith("there is no terminal to ask on; nothing was written")
        said = refusal(run("connect", "aider", "--url", url, "--yes", "--model", "sonet"))
        assert said == "--model: the daemon lists no 'sonet' (did you mean \"sonnet\"?)"
        for word in ("localhost:3456", "http://", "ftp://x", "http://x:y", "http://x/api"):
            said = refusal(run("connect", "aider", "--url", word, "--yes"))
            assert said == f"--url: must be like http://127.0.0.1:3456, not {word!r}"
        assert everything(command.home) == {str(path): b"a: 1\n"}

    await in_thread(steps)


def test_without_a_daemon(refused: Callable[..., str], tmp_path: Path) -> None:
    port = free_port()
    for name in ("aider", "cline"):
        assert refused("connect", name, "--url", f"http://127.0.0.1:{port}", "--yes") == (
            f"nothing answers at http://127.0.0.1:{port}; start it with `claudemax`"
        )
    assert refused("connect", "opnclaw") == (
        "there is no client 'opnclaw' (did you mean \"openclaw\"?); `claudemax connect` lists them"
    )
    path = tmp_path / ".aider.conf.yml"
    assert refused("connect", "aider", "--restore", "--yes") == (
        f"there is nothing to restore: no backup beside {path}"
    )
    assert refused("connect", "cline", "--restore") == "Cline has no file that could be restored"
    (tmp_path / ".aider.conf.yml.claudemax-1.bak").write_text("x")
    assert refused("connect", "aider", "--restore").startswith("there is no terminal to ask on")
    assert everything(tmp_path) == {f"{path}.claudemax-1.bak": b"x"}


def test_another_server_is_no_daemon(refused: Callable[..., str]) -> None:
    with another_server(b'{"data": [{"id": "sonnet"}]}') as port:
        said = refused("connect", "aider", "--url", f"http://127.0.0.1:{port}", "--yes")
    assert said == (
        f"what answers at http://127.0.0.1:{port} is not claudemax (200 at /health); "
        "is it the right port?"
    )


def test_a_socket_is_no_address_for_clients(refused: Callable[..., str], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    said = refused("connect", "aider", CLAUDEMAX_PORT=f"unix:{path}")
    assert said == f"clients need an address, and unix:{path} is none; give one with --url"


def test_without_a_client_it_lists_them(command: Command, run: Run) -> None:
    ran = run("connect")
    lines = {line.split()[0]: line for line in ran.stdout.splitlines()}
    assert ran.returncode == 0 and list(lines) == list(CLIENTS)
    assert str(file_of("zed", command.home)) in lines["zed"]
    assert "shows what to type" in lines["home-assistant"]


def test_a_path_is_shown_whole_on_a_narrow_terminal(command: Command) -> None:
    command.variables["COLUMNS"] = "60"
    terminal = command.terminal("connect")
    assert terminal.end() == 0
    shown = "".join(line[32:].strip() for line in terminal.lines)
    for name in FILES:
        assert str(file_of(name, command.home)) in shown


@pytest.mark.parametrize("option", ["--restore", "--print", "--yes", "--url=http://h"])
def test_an_option_wants_a_client(refused: Callable[..., str], option: str) -> None:
    assert refused("connect", option) == "which client? `claudemax connect` lists them"


@ensureDeferred
async def test_marks_and_line_ends_stay(url: str, command: Command, run: Run) -> None:
    path = file_of("zed", command.home)
    path.parent.mkdir(parents=True)
    before = b'\xef\xbb\xbf{\r\n  "theme": "One" // x\r\n}\r\n'
    path.write_bytes(before)

    def steps() -> None:
        assert run("connect", "zed", "--url", url, "--yes").returncode == 0
        after = path.read_bytes()
        assert after.startswith(b'\xef\xbb\xbf{\r\n  "theme": "One", // x\r\n  "language_models"')
        assert after.count(b"\n") == after.count(b"\r\n")

    await in_thread(steps)
