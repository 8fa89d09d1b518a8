"""Where an endpoint is reached."""

import pytest

from claudeproxy.command.places import address


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("tcp:3456:interface=127.0.0.1", "http://localhost:3456"),
        (r"tcp6:3456:interface=\:\:1", "http://[::1]:3456"),
        ("tcp:3456", "http://localhost:3456"),
        ("tcp:3456:interface=0.0.0.0", "http://localhost:3456"),
        (r"tcp6:3456:interface=\:\:", "http://localhost:3456"),
        ("tcp:port=3456:interface=10.1.2.3", "http://10.1.2.3:3456"),
        ("ssl:3456:privateKey=server.pem", "https://localhost:3456"),
        ("unix:/run/user/1/claudemax.sock:mode=600", "unix:/run/user/1/claudemax.sock"),
        ("unix:address=/run/a", "unix:/run/a"),
    ],
)
def test_it_is_told_from_the_endpoint(endpoint: str, url: str) -> None:
    place = address(endpoint)
    assert place is not None and place.url == url


@pytest.mark.parametrize("endpoint", ["systemd:domain=INET:name=claudemax", "tcp:http", "fd:3"])
def test_some_endpoints_do_not_tell(endpoint: str) -> None:
    assert address(endpoint) is None
