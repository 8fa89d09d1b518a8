"""Asks the CLI whose login it finds, before there is a reactor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from . import launch
from .control import control_request
from .login import LoginStatus, parse_account, renewing
from .process import GRACE_LOGIN
from .setup import Setup

PATIENCE = 20.0
"""Seconds that it has to say it."""

_LOOK = 0.05


def ask(executable: str, environment: Mapping[str, str], directory: str) -> LoginStatus | None:
    """Ask a process of the CLI whose login it finds (about a second, no quota, blocking); ``None``
    if it does not say. The process may be renewing the login, so it is left to exit by itself,
    unless it hangs.

    :raises OSError: when it does not start.
    """
    command = launch.command(executable, directory)
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(control_request("whose", Setup().control_request()).data)
        process.stdin.flush()
        late = threading.Timer(PATIENCE, lambda: _end(process, environment))
        late.start()
        try:
            status = _status(process.stdout)
            _let_renew(environment)
            process.communicate()  # closes its input, which is its sign to exit
        finally:
            late.cancel()
    return status


def _end(process: subprocess.Popen[bytes], environment: Mapping[str, str]) -> None:
    _let_renew(environment)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the launcher has made it a group of its own


def _let_renew(environment: Mapping[str, str]) -> None:
    until = time.monotonic() + GRACE_LOGIN
    while renewing(environment, time.time()) and time.monotonic() < until:
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
