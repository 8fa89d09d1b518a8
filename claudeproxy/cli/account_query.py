"""Asks the CLI whose login it finds, before there is a reactor."""

from __future__ import annotations

import json
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

_LOOK = 0.05
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def ask(executable: str, environment: Mapping[str, str], directory: str) -> LoginStatus | None:
    """Ask a process of the CLI whose login it finds (about a second, no quota, blocking); ``None``
    if it does not say. The process may be renewing the login, so it is left to exit by itself:
    signals that would end this program wait for that. For the main thread alone.

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
        _ended_within(process, GRACE_LOGIN),
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(control_request("whose", Setup().control_request()).data)
        process.stdin.flush()
        status = _status(process.stdout)
        while renewing(environment, time.time()) and process.poll() is None:
            time.sleep(_LOOK)
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
def _ended_within(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Let it end at the end of the context; kill it ``seconds`` from now."""
    late = Timer(seconds, process.kill)
    late.start()
    try:
        yield
    finally:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        late.cancel()


def _status(lines: Iterable[bytes]) -> LoginStatus | None:
    for line in lines:
        try:
            response = json.loads(line)["response"]
            if response["request_id"] == "whose":
                return parse_account(response["response"]["account"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
