"""Asks the CLI whose login it finds, before there is a reactor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Timer

from . import launch
from .control import control_request
from .login import LoginStatus, parse_account, renewing
from .process import GRACE_LOGIN
from .setup import Setup

PATIENCE = 20.0
"""Seconds that it has to say it."""

_LOOK = 0.05
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def ask(executable: str, environment: Mapping[str, str], directory: str) -> LoginStatus | None:
    """Ask a process of the CLI whose login it finds (about a second, no quota, blocking); ``None``
    if it does not say. The process may be renewing the login, so it is left to exit by itself,
    unless it hangs: signals that would end this program wait for that. For the main thread alone.

    :raises OSError: when it does not start.
    """
    command = launch.command(executable, directory)
    with (
        _signals_wait(),
        subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
        _ended_within(process, environment, PATIENCE),
    ):
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # it has exited, and says nothing
            process.stdin.write(control_request("whose", Setup().control_request()).data)
            process.stdin.flush()
        status = _status(process.stdout)
        _let_renew(process, environment)
    return status


@contextmanager
def _signals_wait() -> Iterator[None]:
    """The first signal that comes meanwhile counts afterwards."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number in _ENDING:  # no SIG_IGN, which the CLI would inherit
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


@contextmanager
def _ended_within(
    process: subprocess.Popen[bytes], environment: Mapping[str, str], seconds: float
) -> Iterator[None]:
    """Let it end at the end of the context; kill it ``seconds`` from now, once it does not renew
    the login."""
    late = Timer(seconds, _kill, (process, environment))
    late.start()
    try:
        yield
    finally:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        late.cancel()


def _kill(process: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    _let_renew(process, environment)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the launcher has made it a group of its own


def _let_renew(process: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    until = time.monotonic() + GRACE_LOGIN
    while (
        renewing(environment, time.time()) and time.monotonic() < until and process.poll() is None
    ):
        time.sleep(_LOOK)


def _status(lines: Iterable[bytes]) -> LoginStatus | None:
    for line in lines:
        try:
            response = json.loads(line)["response"]
            if response["request_id"] == "whose":
                return parse_account(response["response"]["account"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
