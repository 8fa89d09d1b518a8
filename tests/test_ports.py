"""Ports that are taken: by whom, and which is not."""

import os
import re
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from twisted.internet import reactor

from claudeproxy.endpoints import ListeningService
from claudeproxy.options import ConfigError
from claudeproxy.ports import holder, is_free, next_free

LISTEN = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "print(s.getsockname()[1], flush=True); input()"
)


def test_a_port_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        found = holder(port)
        assert found is not None and found.pid == os.getpid()
        assert not is_free(port)
        free = next_free(port)
        assert free is not None and free > port and is_free(free)
    assert holder(port) is None
    assert is_free(port)


def test_a_script_is_called_by_its_name(tmp_path: object) -> None:
    script = f"{tmp_path}/listener.py"
    with open(script, "w") as file:
        file.write(LISTEN)
    with subprocess.Popen(
        [sys.executable, script, "-c", "conf.yml"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = holder(port)
        process.communicate("\n")
    assert found is not None
    assert str(found) == f"listener.py (process {process.pid})"


def test_a_program_on_the_command_line_is_not_shown() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = holder(int(process.stdout.readline()))
        process.communicate("\n")
    assert found is not None
    assert re.fullmatch(rf"python[\d.]* \(process {process.pid}\)", str(found))


def test_there_is_none_above_the_last() -> None:
    assert next_free(65535) is None


def test_an_address_that_is_not_this_machines() -> None:
    listener = ListeningService("tcp:3456:interface=203.0.113.1", None, reactor)
    with pytest.raises(ConfigError, match=r"no address 203\.0\.113\.1: --port 3456 listens on"):
        listener.privilegedStartService()


def test_a_port_of_the_systems() -> None:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", 79))
        except PermissionError:
            pass
        else:
            pytest.skip("this user may listen there")
    listener = ListeningService("tcp:79:interface=127.0.0.1", None, reactor)
    with pytest.raises(ConfigError, match="ports below 1024 are the system's"):
        listener.privilegedStartService()
