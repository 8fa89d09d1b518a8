"""Endpoints by their descriptions: which are local, which are none, and what is said of them."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory
from twisted.python.systemd import ListenFDs

from claudeproxy.endpoints import ListeningService, check, is_local
from claudeproxy.options import ConfigError


@pytest.mark.parametrize(
    ("description", "local"),
    [
        ("tcp:3456:interface=127.0.0.1", True),
        ("tcp:3456:interface=127.8.8.8:backlog=5", True),
        ("tcp:3456:interface=localhost", True),
        ("tcp:3456:interface=\\:\\:1", True),
        ("tcp6:3456:interface=\\:\\:1", True),
        ("unix:/run/claudemax.sock", True),
        ("unix:/run/claudemax.sock:mode=600:lockfile=0", True),
        ("tcp:3456", False),
        ("tcp:3456:interface=", False),
        ("tcp:3456:interface=0.0.0.0", False),
        ("tcp:3456:interface=192.168.1.5", False),
        ("tcp:3456:interface=claude.lan", False),
        ("tcp6:3456", False),
        ("tcp6:3456:interface=\\:\\:", False),
        ("tls:certificates:443:interface=127.0.0.1", False),
        ("haproxy:tcp:3456:interface=127.0.0.1", False),
        ("stdio:", False),
    ],
)
def test_which_endpoints_are_local(
    description: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "certificates").mkdir()
    assert is_local(description) is local
    assert list(tmp_path.iterdir()) == [tmp_path / "certificates"]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("foo:1", "Unknown endpoint type: 'foo'"),
        ("tcp:http", "a part of it must be a number"),
        ("tcp:3456:interfaces=127.0.0.1", "a part of it is missing, or one too many"),
        ("ssl:443:privateKey=/none.pem", "/none.pem: No such file or directory"),
        ("systemd:domain=INET:index=0", "there is no such socket from systemd"),
        ("systemd:domain=INET:name=x", "there is no such socket from systemd"),
    ],
)
def test_what_is_no_endpoint(description: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        is_local(description)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"^there is no usable key and certificate$"):
        is_local(f"ssl:443:privateKey={quoteStringArgument(str(path))}")


@pytest.mark.parametrize(
    ("interface", "local"), [("127.0.0.1", True), ("192.168.1.5", False), ("", False)]
)
def test_with_tls(interface: str, local: bool, tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("localhost")
    path = tmp_path / "server.pem"
    path.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    place = f"ssl:443:privateKey={quoteStringArgument(str(path))}:interface={interface}"
    assert is_local(place) is local


@pytest.mark.parametrize(
    ("interface", "local"), [("127.0.0.1", True), ("0.0.0.0", False), ("unix", True)]
)
def test_a_socket_from_systemd_is_judged_by_where_it_listens(
    interface: str, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unix = interface == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as inherited:
        inherited.bind(str(tmp_path / "s") if unix else (interface, 0))
        passed = ListenFDs([inherited.fileno()], ["claudemax"])
        monkeypatch.setattr("twisted.internet.endpoints._SystemdParser._sddaemon", passed)
        domain = "UNIX" if unix else "INET"
        assert is_local(f"systemd:domain={domain}:name=claudemax") is local
        assert inherited.getsockname()  # it is still open


def test_endpoints_that_others_reach_need_a_key() -> None:
    check(["tcp:1:interface=127.0.0.1", "unix:/x"], keyed=False)
    check(["tcp:1", "unix:/x"], keyed=True)
    with pytest.raises(ConfigError) as caught:
        check(["unix:/x", "tcp:1"], keyed=False)
    assert str(caught.value) == (
        "--port tcp:1 can be reached from other machines, which needs --api-key-file "
        "(`claudemax key` makes a key); without one only 127.0.0.1, ::1 and unix sockets are served"
    )
    with pytest.raises(ConfigError, match=r"^--port foo:1: Unknown endpoint type: 'foo'$"):
        check(["foo:1"], keyed=True)


def test_a_door_that_does_not_open_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        description = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        with pytest.raises(ConfigError) as caught:
            ListeningService(description, Factory(), reactor).privilegedStartService()
    assert re.fullmatch(
        rf"--port {description}: Address already in use by .+ \(process {os.getpid()}\); "
        r"--port \d+ is free",
        str(caught.value),
    )
    assert sys.tracebacklimit == 0


@ensureDeferred
async def test_a_socket_on_which_another_listens(tmp_path: Path) -> None:
    from twisted.internet import reactor

    place = f"unix:{tmp_path / 'socket'}"
    port = await serverFromString(reactor, place).listen(Factory())
    try:
        with pytest.raises(ConfigError, match=f"^--port {place}: another server listens there$"):
            ListeningService(place, Factory(), reactor).privilegedStartService()
    finally:
        await port.stopListening()
