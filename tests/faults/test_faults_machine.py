"""The machine fails, or the daemon itself is ended: daemons of their own, under twistd."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import socket
import termios
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
from subdaemon import Twistd, line, said, wait
from twisted.internet import reactor
from twisted.internet.task import deferLater

from claudeproxy.cli.process import GRACE
from claudeproxy.demo.app import DemoUpstream, listen

Make = Callable[..., Twistd]

HANDSHAKE = b"""\
GET /v1/responses HTTP/1.1
Host: localhost
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==

""".replace(b"\n", b"\r\n")


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Make]:
    made: list[Twistd] = []

    def make(*options: str, **more: Any) -> Twistd:
        home = tmp_path / f"d{len(made)}"  # short: a socket's path has 108 bytes
        home.mkdir(exist_ok=True)
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
    reaper = daemon.reaper
    assert daemon.stop() == 0
    assert not daemon.children
    assert not line(reaper)
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
    daemon.process.terminate()
    assert said(answer) == "the daemon is stopping"  # else it would end with its 1,000th delta
    assert daemon.process.wait(30) == 0
    assert not daemon.children


@fault("daemon", "gets SIGTERM with --drain-notice, while a turn runs",
       "503 at /health; new turns are served until the port closes; the turn ends")  # fmt: skip
def test_term_with_notice(twistd: Make) -> None:
    daemon = twistd("--drain", "10", "--drain-notice", "1").up()
    answer = daemon.start("x[[deltas 60]][[pause 0.05]]")
    daemon.process.terminate()
    ended = time.monotonic()
    told = wait(lambda: (reply := daemon.get("/health")).status == 503 and json.load(reply))
    assert (told["status"], told["turns"]["running"]) == ("draining", 1)
    late = daemon.start("y")  # by a balancer that has not noticed yet
    assert (late.status, late.headers["connection"], said(late)) == (200, "close", "You said: y")
    with daemon.connect() as client:
        client.sendall(HANDSHAKE)
        assert client.recv(12) == b"HTTP/1.1 101"
    wait(lambda: not daemon.listens)
    assert time.monotonic() - ended > 1
    assert said(answer) == "You said: x" + "x" * 59
    assert daemon.process.wait(10) == 0
    assert not daemon.children


@fault("daemon", "gets a second signal while it stops", "it ends at once: an error event; exit 0")
def test_a_second_signal(twistd: Make) -> None:
    daemon = twistd("--drain", "60", "--drain-notice", "60").up()
    answer = daemon.start("x[[deltas 1000]][[pause 0.05]]")
    daemon.process.send_signal(signal.SIGINT)
    wait(lambda: daemon.get("/health").status == 503)
    daemon.process.send_signal(signal.SIGINT)
    assert said(answer) == "the daemon is stopping"
    assert daemon.process.wait(30) in (0, -signal.SIGINT)
    assert not daemon.children
    assert b"Traceback" not in daemon.log.read_bytes()


@fault("daemon", "gets SIGTERM while a CLI ignores everything", "exit 0; it is killed")
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


@fault("daemon", "gets SIGHUP at a terminal, or without a file to log to",
       "as SIGTERM: running turns end within --drain; exit 0")  # fmt: skip
def test_hangup_in_the_foreground(twistd: Make) -> None:
    daemon = twistd("--drain", "10", logfile=None).up()
    answer = daemon.start("x[[deltas 20]][[pause 0.05]]")
    daemon.process.send_signal(signal.SIGHUP)
    assert said(answer) == "You said: x" + "x" * 19
    assert daemon.process.wait(10) == 0
    assert not daemon.children


def test_hangup_at_a_terminal(twistd: Make, tmp_path: Path) -> None:
    """Its terminal is closed: nobody would see to it, even if it logs to a file."""
    ours, theirs = os.openpty()

    def become() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    daemon = twistd(preexec_fn=become, stdin=theirs, pass_fds=[theirs]).up()
    os.close(theirs)
    answer = daemon.start("x[[deltas 20]][[pause 0.05]]")
    os.close(ours)
    assert said(answer) == "You said: x" + "x" * 19
    assert daemon.process.wait(10) == 0


@fault("daemon", "gets SIGHUP with a log file and no terminal",
       "the log is opened anew, for logrotate; turns go on")  # fmt: skip
def test_hangup_reopens_the_log(twistd: Make) -> None:
    daemon = twistd(start_new_session=True).up()
    daemon.get("/first")
    moved = daemon.log.with_name("log.old")
    daemon.log.rename(moved)
    answer = daemon.start("x[[deltas 20]][[pause 0.05]]")
    daemon.process.send_signal(signal.SIGHUP)
    wait(daemon.log.exists)
    daemon.get("/second")
    assert said(answer) == "You said: x" + "x" * 19
    assert " GET /first 404 " in moved.read_text()
    assert " GET /second 404 " not in moved.read_text()
    assert " GET /second 404 " in daemon.log.read_text()
    daemon.log.unlink()
    daemon.log.mkdir()  # which nobody can write to
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.say("x") == "You said: x"
    daemon.log.rmdir()
    daemon.process.send_signal(signal.SIGUSR1)  # twistd's own
    assert daemon.stop() == 0


def test_a_hangup_that_is_ignored_stays_ignored(twistd: Make) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    daemon = twistd(preexec_fn=nohup, logfile=None).up()
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.say("x") == "You said: x"
    assert daemon.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
@fault("daemon", "is to become another user (twistd --uid)",
       "it does not start: one line, with the command to type")  # fmt: skip
def test_another_user(twistd: Make) -> None:
    for options in (["--uid", "1"], ["--gid", "1"], ["--uid", "1", "--gid", "1", "--euid"]):
        daemon = twistd(before=f"sys.argv[1:1] = {options}")
        assert daemon.process.wait(20) == 1
        stderr = daemon.process.stderr.read().decode()  # type: ignore[union-attr]
        assert stderr.startswith("claudemax: --uid and --gid ") and stderr.count("\n") == 1, stderr
        assert "sudo -iu " in stderr
    daemon = twistd(before="sys.argv[1:1] = ['--uid', '0', '--gid', '0']").up()
    assert daemon.stop() == 0


def test_a_log_that_cannot_be_opened(twistd: Make) -> None:
    daemon = twistd(logfile="/proc/none/log")
    assert daemon.process.wait(20) == 1
    stderr = daemon.process.stderr.read().decode()  # type: ignore[union-attr]
    assert stderr == "claudemax: --logfile: No such file or directory\n"


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def nothing_is_left(daemon: Twistd, reaper: int, seconds: float = 1.0) -> None:
    """Once the daemon is killed."""
    wait(lambda: not daemon.children, seconds)
    wait(lambda: not line(reaper), 2.0)


@fault("daemon", "is killed at rest", "every CLI ends by itself within a second")
def test_kill_at_rest(twistd: Make) -> None:
    daemon = twistd().up()
    daemon.say("x")
    wait(lambda: len(daemon.children) >= 2)
    reaper = daemon.reaper
    daemon.kill()
    nothing_is_left(daemon, reaper)


@fault("daemon", "is killed while turns run", "every CLI ends by itself within a second")
def test_kill_while_turns_run(twistd: Make) -> None:
    daemon = twistd().up()
    daemon.start("x[[deltas 1000]][[pause 0.05]]")
    reaper = daemon.reaper
    daemon.kill()
    nothing_is_left(daemon, reaper)


@fault("daemon", "is killed while a CLI ignores everything", "it is killed after the grace")
def test_kill_while_a_cli_ignores_everything(twistd: Make) -> None:
    daemon = twistd().up()
    assert daemon.say("x[[result stubborn]]") == "You said: x"
    wait(lambda: len(daemon.children) >= 2)
    reaper = daemon.reaper
    daemon.kill()
    began = time.monotonic()
    (stubborn,) = wait(lambda: len(daemon.children) == 1 and daemon.children)
    assert line(reaper)
    wait(lambda: not line(stubborn), GRACE + 2.0)
    assert time.monotonic() - began > GRACE / 2
    nothing_is_left(daemon, reaper)


def shim(daemon: Path) -> str:
    """A ``claude`` that is a shell script, and starts the CLI as a child of its own."""
    path = daemon / "shim"
    path.write_text(f'#!/bin/sh\n"{daemon}/cli/claude" "$@"\nexit $?\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("order", ["", "[[result stubborn]]"], ids=["by-itself", "killed"])
@fault("daemon", "is killed while the CLI runs behind a shell script", "both end")
def test_kill_while_the_cli_is_behind_a_script(twistd: Make, tmp_path: Path, order: str) -> None:
    (tmp_path / "d0").mkdir()
    daemon = twistd("--claude", shim(tmp_path / "d0"), "--processes", "1").up()
    assert daemon.say(f"x{order}") == "You said: x"
    assert len(daemon.children) == 2  # the kept one, and the script around it
    reaper = daemon.reaper
    daemon.kill()
    nothing_is_left(daemon, reaper, GRACE + 2.0)


@fault("daemon", "gets SIGTERM while the CLI runs behind a shell script", "both end; exit 0")
def test_term_while_the_cli_is_behind_a_script(twistd: Make, tmp_path: Path) -> None:
    (tmp_path / "d0").mkdir()
    daemon = twistd("--claude", shim(tmp_path / "d0")).up()
    assert daemon.say("x[[result stubborn]]") == "You said: x"
    reaper = daemon.reaper
    assert daemon.stop() == 0
    assert not daemon.children
    assert not line(reaper)


@fault("daemon", "is killed while a tool call waits", "the CLI ends by itself within a second")
def test_kill_while_a_call_waits(twistd: Make) -> None:
    daemon = twistd().up()
    said(daemon.start("x[[call look {}]]", tools=TOOLS))
    assert json.load(daemon.get("/health"))["processes"]["kept"] == 1
    reaper = daemon.reaper
    daemon.kill()
    nothing_is_left(daemon, reaper)


@fault("daemon", "is killed while the real CLI's tool call waits",
       "it is gone after the grace at the latest; nothing more reaches the upstream")  # fmt: skip
@ensureDeferred
async def test_kill_while_a_real_call_waits(twistd: Make) -> None:
    upstream = DemoUpstream(reactor)
    port, url = await listen(reactor, upstream)
    daemon = twistd("--claude", newest_cli(), "--upstream", url)
    for _ in range(3):
        await in_thread(lambda: said(daemon.up().start("x[[call look {}]]", tools=TOOLS)))
    sent = len(upstream.requests)
    reaper = daemon.reaper
    daemon.kill()
    await in_thread(lambda: nothing_is_left(daemon, reaper, GRACE + 2.0))
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


def answers(daemon: Twistd) -> bool:
    """Whether it does already: it may not have noticed yet that the crowd has left."""
    try:
        return daemon.say("x") == "You said: x"
    except ConnectionError:
        return False


@fault("machine", "has no descriptors left", "clients wait, or are told 503; all is well after")
def test_no_descriptors(twistd: Make) -> None:
    daemon = twistd("--processes", "1", preexec_fn=descriptors(48, 48)).up()
    crowd = crowd_of(daemon)
    assert daemon.process.poll() is None
    for client in crowd:
        client.close()
    wait(lambda: answers(daemon))
    assert daemon.stop() == 0


@fault("machine", "grants few descriptors at first", "the daemon takes what it may have")
def test_few_descriptors_at_first(twistd: Make) -> None:
    daemon = twistd(preexec_fn=descriptors(256, 4096)).up()
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(r"Max open files +4096 +4096 ", limits), limits
    assert re.search(r"Max core file size +0 +0 ", limits), limits
    assert daemon.stop() == 0


def asking(system: str) -> bytes:
    """A request that only a process of its own can serve."""
    said = [{"role": "system", "content": system}, {"role": "user", "content": "x"}]
    body = json.dumps({"model": "sonnet", "messages": said}).encode()
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            ) + body  # fmt: skip


@fault("machine", "has no descriptors left for a CLI",
       "those who need another CLI get 503; all is well after")  # fmt: skip
def test_no_descriptors_for_a_process(twistd: Make) -> None:
    daemon = twistd("--processes", "3", preexec_fn=descriptors(48, 48)).up()
    assert daemon.say("x") == "You said: x"  # all modules are imported: that takes files, too
    wait(lambda: json.load(daemon.get("/health"))["processes"]["warm"])
    held = daemon.connect(), daemon.connect()
    crowd = crowd_of(daemon)
    held[0].sendall(asking("One."))
    assert held[0].recv(1000).startswith(b"HTTP/1.1 200")  # by the one that waited
    held[1].sendall(asking("Two."))
    assert held[1].recv(1000).startswith(b"HTTP/1.1 503")
    for client in crowd:
        client.close()
    wait(lambda: answers(daemon))
    assert daemon.stop() == 0


@fault(
    "machine",
    "has no space for any file",
    "turns go on; the log loses lines, what was used is told by 503 (store_lost)",
)
def test_no_space(twistd: Make) -> None:
    def none() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    daemon = twistd("--no-store", preexec_fn=none).up()
    answers = [daemon.say(f"number {n}[[deltas 1000]][[size 100]]") for n in range(30)]
    assert all(answer.startswith(f"You said: number {n}") for n, answer in enumerate(answers))
    assert daemon.log.stat().st_size <= 8192
    usage = daemon.get("/v1/usage")
    assert usage.status == 503 and json.load(usage)["error"]["code"] == "store_lost"
    assert daemon.get("/health").status == 200
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
    daemon = twistd("--processes", "1").up()
    assert daemon.say("x") == "You said: x"
    empty = daemon.log.parent / ".local/state/claudemax/empty"
    empty.rmdir()
    other = [{"role": "system", "content": "Other."}, {"role": "user", "content": "x"}]
    assert said(daemon.start("", messages=other)) == "You said: x"  # by another process
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
