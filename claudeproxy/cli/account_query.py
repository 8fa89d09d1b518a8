"""Asks the CLI whose login it finds, before there is a reactor."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping

from . import launch
from .control import control_request
from .login import LoginStatus, parse_account, renewing
from .process import GRACE_LOGIN
from .setup import Setup

_LOOK = 0.05


def ask(executable: str, environment: Mapping[str, str], directory: str) -> LoginStatus | None:
    """Ask a process of the CLI whose login it finds (about a second, no quota, blocking); ``None``
    if it does not say. The process may be renewing the login, so it is left to exit by itself.

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
        status = _status(process.stdout)
        until = time.monotonic() + GRACE_LOGIN
        while renewing(environment, time.time()) and time.monotonic() < until:
            time.sleep(_LOOK)
    return status


def _status(lines: Iterable[bytes]) -> LoginStatus | None:
    for line in lines:
        try:
            response = json.loads(line)["response"]
            if response["request_id"] == "whose":
                return parse_account(response["response"]["account"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
