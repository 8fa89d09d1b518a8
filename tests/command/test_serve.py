"""The daemon in the foreground: what a terminal shows, and what a pipe gets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from harness import newest_cli
from shell import COMMAND, Command, environment, free_port

pytestmark = pytest.mark.cli


def ask(port: int, key: str = "", **fields: Any) -> Any:
    """The status of a chat completion."""
    body = {"model": "sonnet", "messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"content-type": "application/json", "x-api-key": key}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=30) as response:
            response.read()
            return response.status
    except HTTPError as error:
        return error.code


def test_a_terminal_is_told_what_is_served_and_gets_a_line_for_each_turn(command: Command) -> None:
    port = free_port()
    keys = command.home / "keys"
    keys.write_text("laptop: s3cret\n")
    keys.chmod(0o600)
    shown = command.terminal(
        "--demo", "--port", str(port), "--claude", newest_cli(), "--api-key-file", str(keys),
        "--model-alias", "gpt-4=opsu",
    )  # fmt: skip
    shown.until("Ctrl-C")
    assert f"http://localhost:{port}/v1" in shown.text
    assert re.search(rf"CLI +claude 2\.1\.\d+ +{newest_cli()}", shown.text)
    assert re.search(r"Upstream +demo: no model", shown.text)
    assert re.search(r"Key +clients must send it", shown.text)
    assert "there is no model for --model-alias gpt-4=opsu (did you mean opus?)" in shown.text
    assert ask(port, "s3cret") == 200
    shown.until("ok")
    assert ask(port, "s3cret", messages=[{"role": "user", "content": "[[error 529 busy]]"}]) == 529
    shown.until("the upstream answered 529")
    assert ask(port, "wrong") == 401
    shown.until("invalid_api_key")
    *_, good, bad, stranger = [line for line in shown.lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  laptop +claude-sonnet-\S+ +[1-9]\d* in +0 cached +4 out  "
        r"first \d\.\d\d s +\d\.\d\d s  ok",
        good,
    )
    assert re.search(r"laptop +sonnet +\d\.\d\d s  529 overloaded: the upstream answered", bad)
    assert "s3cret" not in shown.text and "laptop" not in stranger
    assert b"\x1b[" in shown.raw  # colours
    shown.child.sendintr()
    shown.until("stopping")
    assert shown.end() in (0, -signal.SIGINT)


def test_who_is_not_logged_in_is_told_the_command(command: Command) -> None:
    shown = command.terminal("--port", str(free_port()), "--claude", newest_cli())
    shown.until("Ctrl-C")
    assert re.search(r"Login +NOT LOGGED IN", shown.text)
    assert f"claudemax login --claude {newest_cli()}" in shown.text
    assert re.search(r"Key +none", shown.text)
    shown.child.sendintr()
    assert shown.end() in (0, -signal.SIGINT)


def test_no_colour_where_none_is_wanted(command: Command) -> None:
    command.variables["NO_COLOR"] = "1"
    shown = command.terminal("--demo", "--port", str(free_port()), "--claude", newest_cli())
    shown.until("Ctrl-C")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown.raw)


def piped(command: Command, *options: str) -> str:
    """What a daemon without a terminal logs of a turn."""
    port = free_port()
    arguments = ["--demo", "--port", str(port), "--claude", newest_cli(), *options]
    log = command.home / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "npm" if not options else "main", *arguments],
            env=environment(command.home), cwd=command.home, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while True:
            try:
                assert ask(port) == 200
                break
            except OSError:
                assert time.monotonic() < until and process.poll() is None, log.read_text()
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert not list(command.home.glob("*.pid"))
    return log.read_text()


def test_a_pipe_gets_the_log_of_a_service(command: Command) -> None:
    said = piped(command)
    assert "\x1b" not in said and "is listening" not in said
    assert re.search(
        r"^\S+ \[claudeproxy\.web\.access_log#info\] req_\w+ POST /v1/chat/completions 200 ok "
        r"sonnet=claude-sonnet-[\w-]+ \w+ \d\.\d\ds$",
        said,
        re.M,
    )


def test_json_for_machines(command: Command) -> None:
    lines = [json.loads(line) for line in piped(command, "--log-format", "json").splitlines()]
    (turn,) = [line for line in lines if line["from"] == "claudeproxy.web.access_log"]
    assert turn["level"] == "info" and turn["outcome"] == "ok" and turn["status"] == 200
    assert turn["answered_by"].startswith("claude-sonnet-") and turn["model"] == "sonnet"
    assert turn["input_tokens"] > 0 and turn["cached_tokens"] == 0 and turn["output_tokens"] == 4
    assert 0 < turn["first_token"] <= turn["seconds"]


def test_npms_command_takes_a_port(command: Command) -> None:
    """The port that it was given is the one that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ran = command.run(str(port), "--demo", "--claude", newest_cli(), entry="npm")
    assert ran.returncode == 1
    assert f"--port tcp:{port}:interface=127.0.0.1: Address already in use" in ran.stderr


def test_a_port_in_use_is_one_line_that_says_by_whom(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ran = command.run("--demo", "--port", str(port), "--claude", newest_cli())
    (line,) = ran.stderr.splitlines()
    found = re.fullmatch(
        rf"claudemax: --port tcp:{port}:interface=127\.0\.0\.1: Address already in use by .+ "
        rf"\(process {os.getpid()}\); --port (\d+) is free",
        line,
    )
    assert found and int(found[1]) > port


def test_an_old_cli_beside_the_bundled_one(command: Command, cli_script: Any) -> None:
    old = cli_script("echo '2.1.100 (Claude Code)'")
    command.variables["PATH"] = f"{Path(old).parent}:/usr/bin:/bin"
    said = command.refusal("--demo")
    assert said == (
        f"the Claude CLI at {old} is 2.1.100, older than 2.1.290: run `claude update`; "
        f"or use the one that came with claudemax: --claude {newest_cli()}"
    )


def test_a_state_directory_that_cannot_be(command: Command) -> None:
    (command.home / "file").touch()
    command.variables["XDG_STATE_HOME"] = str(command.home / "file")
    said = command.refusal("--demo", "--claude", newest_cli())
    assert said.endswith("Not a directory (XDG_STATE_HOME names another place)")


def test_it_is_the_same_as_twistds(command: Command) -> None:
    """The same options, refused alike."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    for options in (["--warm", "x"], ["--demo", "--upstream", "http://localhost"]):
        ran = subprocess.run(
            [twistd, "-n", "--pidfile=", "claudemax", *options],
            env=environment(command.home), cwd=command.home, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert ran.stderr == command.run(*options).stderr
