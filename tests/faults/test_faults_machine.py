"""The machine fails, or the daemon itself is ended: daemons of their own, under twistd."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from harness import in_thread, newest_cli
from matrix import fault
from pytest_twisted import ensureDeferred
from subdaemon import Twistd, said, wait
from twisted.internet import reactor
from twisted.internet.task import deferLater

from claudeproxy.demo.app import DemoUpstream, listen
from claudeproxy.testing import journal

Make = Callable[..., Twistd]


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Make]:
    made: list[Twistd] = []

    def make(*options: str, **more: Any) -> Twistd:
        home = tmp_path / f"d{len(made)}"  # short: a socket's path has 108 bytes
        home.mkdir()
        made.append(Twistd(home, *options, **more))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.wait()
        wait(lambda daemon=daemon: not daemon.children, 5.0)


# -- the end --


@fault("daemon", "gets SIGTERM at rest", "exit 0; no process, no scratch directory is left")
def test_term_at_rest(twistd: Make) -> None:
    daemon = twistd().up()
    assert daemon.say("x") == "You said: x"
    assert daemon.stop() == 0
    assert not daemon.children
    assert not list(daemon.log.parent.glob("claudemax-*"))


@fault("daemon", "gets SIGTERM while turns run", "they end within --drain; exit 0")
def test_term_while_turns_run(twistd: Make) -> None:
    daemon = twistd("--drain", "10").up()
    answer = daemon.start("x[[deltas 20]][[pause 0.05]]")
    daemon.process.terminate()
    assert said(answer) == "You said: x" + "x" * 19
    assert daemon.process.wait(10) == 0
    assert not daemon.children


@fault("daemon", "gets SIGTERM while a turn outlasts --drain", "an error event; exit 0")
def test_term_and_a_long_turn(twistd: Make) -> None:
    daemon = twistd("--drain", "0.3").up()
    answer = daemon.start("x[[deltas 1000]][[pause 0.05]]")
    began = time.monotonic()
    daemon.process.terminate()
    assert said(answer) == "the daemon is stopping"
    assert daemon.process.wait(10) == 0
    assert time.monotonic() - began < 5.0
    assert not daemon.children


@fault("daemon", "gets SIGTERM while a CLI ignores it", "exit 0; it is killed")
def test_term_and_a_stubborn_cli(twistd: Make) -> None:
    daemon = twistd("--drain", "0.3").up()
    daemon.start("x[[middle stubborn]][[deltas 1000]][[pause 0.05]]")
    assert daemon.stop() == 0
    assert not daemon.children


@fault("daemon", "gets SIGTERM while turns wait in the queue", "503 for them; exit 0")
def test_term_and_a_queue(twistd: Make) -> None:
    daemon = twistd("--concurrency", "1", "--drain", "5").up()
    first = daemon.start("x[[deltas 10]][[pause 0.05]]")
    second = HTTPConnection("localhost")
    second.sock = daemon.connect()
    body = {"model": "sonnet", "messages": [{"role": "user", "content": "y"}]}
    second.request("POST", "/v1/chat/completions", json.dumps(body),
                   {"content-type": "application/json"})  # fmt: skip
    wait(lambda: json.load(daemon.get("/health"))["turns"]["waiting"])
    daemon.process.terminate()
    assert second.getresponse().status == 503
    assert said(first) == "You said: x" + "x" * 9
    assert daemon.process.wait(10) == 0


@fault("daemon", "is killed at rest", "every CLI is gone within a second")
def test_kill_at_rest(twistd: Make) -> None:
    daemon = twistd().up()
    daemon.say("x")
    wait(lambda: len(daemon.children) >= 2)
    daemon.process.kill()
    daemon.process.wait()
    wait(lambda: not daemon.children, 1.0)


@fault("daemon", "is killed while turns run", "every CLI is gone within a second")
def test_kill_while_turns_run(twistd: Make) -> None:
    daemon = twistd().up()
    daemon.start("x[[deltas 1000]][[pause 0.05]]")
    daemon.process.kill()
    daemon.process.wait()
    wait(lambda: not daemon.children, 1.0)


@fault("daemon", "is killed while a tool call waits",
       "the CLI is gone within a second, and sends nothing more")  # fmt: skip
def test_kill_while_a_call_waits(twistd: Make) -> None:
    daemon = twistd().up()
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    said(daemon.start("x[[call look {}]]", tools=tools))
    assert json.load(daemon.get("/health"))["processes"]["kept"] == 1
    daemon.process.kill()
    daemon.process.wait()
    wait(lambda: not daemon.children, 1.0)
    assert "went on" not in journal(daemon.claude)


@fault("daemon", "is killed while the real CLI's tool call waits",
       "it is gone within a second, and nothing more reaches the upstream")  # fmt: skip
@ensureDeferred
async def test_kill_while_a_real_call_waits(twistd: Make) -> None:
    upstream = DemoUpstream(reactor)
    port, url = await listen(reactor, upstream)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    daemon = twistd("--claude", newest_cli(), "--upstream", url)
    for _ in range(3):
        await in_thread(lambda: said(daemon.up().start("x[[call look {}]]", tools=tools)))
    sent = len(upstream.requests)
    daemon.process.kill()
    await in_thread(lambda: wait(lambda: not daemon.children, 1.0))
    await deferLater(reactor, 1.0, lambda: None)
    assert len(upstream.requests) == sent
    await port.stopListening()


# -- the machine --


def descriptors(soft: int, hard: int) -> Callable[[], None]:
    """What a daemon may open."""
    return partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def crowd_of(daemon: Twistd) -> list[socket.socket]:
    """Connections that leave a daemon of 48 descriptors without any."""
    crowd: list[socket.socket] = []
    with suppress(OSError):
        for _ in range(60):
            crowd.append(daemon.connect())
    wait(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) >= 46)
    return crowd


@fault("machine", "has no descriptors left", "clients wait, or are told 503; all is well after")
def test_no_descriptors(twistd: Make) -> None:
    daemon = twistd("--warm", "0", "--keep", "0", preexec_fn=descriptors(48, 48)).up()
    crowd = crowd_of(daemon)
    assert daemon.process.poll() is None
    for client in crowd:
        client.close()
    assert wait(lambda: daemon.say("x")) == "You said: x"
    assert daemon.stop() == 0


@fault("machine", "grants few descriptors at first", "the daemon takes what it may have")
def test_few_descriptors_at_first(twistd: Make) -> None:
    daemon = twistd(preexec_fn=descriptors(256, 4096)).up()
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(r"Max open files +4096 +4096 ", limits), limits
    assert re.search(r"Max core file size +0 +0 ", limits), limits
    assert daemon.stop() == 0


@fault("machine", "has no descriptors left for a CLI", "503; all is well after")
def test_no_descriptors_for_a_process(twistd: Make) -> None:
    daemon = twistd("--warm", "0", "--keep", "0", preexec_fn=descriptors(48, 48)).up()
    assert daemon.say("x") == "You said: x"  # all modules are imported: that takes files, too
    held = daemon.connect()
    crowd = crowd_of(daemon)
    held.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                 b"Content-Type: application/json\r\nContent-Length: 61\r\n\r\n"
                 b'{"model":"sonnet","messages":[{"role":"user","content":"x"}]}')  # fmt: skip
    assert held.recv(1000).startswith(b"HTTP/1.1 503")
    for client in crowd:
        client.close()
    assert wait(lambda: daemon.say("x")) == "You said: x"
    assert daemon.stop() == 0


@fault("machine", "has no space for any file", "turns go on; the log loses lines")
def test_no_space(twistd: Make) -> None:
    def none() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    daemon = twistd("--no-store", preexec_fn=none).up()
    answers = [daemon.say(f"number {n}[[deltas 1000]][[size 100]]") for n in range(30)]
    assert all(answer.startswith(f"You said: number {n}") for n, answer in enumerate(answers))
    assert daemon.log.stat().st_size <= 8192
    assert daemon.stop() == 0


@fault("machine", "has a full disk under the log", "turns go on")
def test_a_full_log(twistd: Make) -> None:
    daemon = twistd(logfile="/dev/full").up()
    assert daemon.say("x") == "You said: x"
    assert daemon.stop() == 0


@fault("machine", "has a home that cannot be written", "the daemon does not start: one line")
def test_no_home(twistd: Make) -> None:
    daemon = twistd(environ={"HOME": "/proc"})
    assert daemon.process.wait(20) == 1
    stderr = daemon.process.stderr.read().decode()  # type: ignore[union-attr]
    assert stderr.startswith("claudemax: ") and stderr.count("\n") == 1, stderr


@fault("machine", "cannot hold stored responses", "the daemon does not start: one line")
def test_no_place_for_responses(twistd: Make, tmp_path: Path) -> None:
    (tmp_path / "claudemax/responses.sqlite").mkdir(parents=True)
    daemon = twistd(environ={"XDG_STATE_HOME": str(tmp_path)})
    assert daemon.process.wait(20) == 1
    stderr = daemon.process.stderr.read().decode()  # type: ignore[union-attr]
    assert stderr.startswith("claudemax: cannot make ") and stderr.count("\n") == 1, stderr


@fault("machine", "loses the CLI's working directory", "it is made again")
def test_the_working_directory_is_gone(twistd: Make) -> None:
    daemon = twistd("--warm", "0", "--keep", "0").up()
    assert daemon.say("x") == "You said: x"
    empty = daemon.log.parent / ".local/state/claudemax/empty"
    empty.rmdir()
    assert daemon.say("x") == "You said: x"
    assert empty.is_dir()
    assert daemon.stop() == 0


@fault("machine", "has the port in use", "the daemon does not start: exit 1")
def test_port_in_use(twistd: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = twistd("--port", str(taken.getsockname()[1]))
        assert daemon.process.wait(20) == 1
    assert not daemon.children


JUMPING = """
import os
_time = time.time
def _jumping():
    try:
        with open(os.environ["HOME"] + "/jump") as file:
            return _time() + float(file.read())
    except (OSError, ValueError):
        return _time()
time.time = _jumping
"""


@pytest.mark.parametrize("seconds", [86_400, -86_400], ids=["forward", "backward"])
@fault("machine", "sets its clock a day forward or backward",
       "no deadline notices, neither too early nor too late")  # fmt: skip
def test_clock_jump(twistd: Make, seconds: int) -> None:
    daemon = twistd("--idle-timeout", "0.5", before=JUMPING).up()
    answer = daemon.start("x[[deltas 20]][[pause 0.05]]")
    (daemon.log.parent / "jump").write_text(str(seconds))
    assert said(answer) == "You said: x" + "x" * 19
    assert daemon.say("x[[middle silence]]") == "the model was silent for 0.5 seconds"
    assert daemon.say("x") == "You said: x"
    assert daemon.stop() == 0
