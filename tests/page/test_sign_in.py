"""Who may look at the page of a daemon with keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
import trustme
from harness import Daemon
from looking import HTML, Look, header, hello, key_file, look
from pytest_twisted import ensureDeferred
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from claudeproxy.page.sign_in import ADDRESSES, LIFETIME, SESSIONS, TRIES, TRY_SECONDS, Sessions
from claudeproxy.testing import fake_cli
from claudeproxy.web.gate import Gate
from claudeproxy.web.keys import Keys, parse

HERE = "127.0.0.1"

# -- by values --


class Changing(Keys):
    """Keys of which one has gone, or is another under the same name."""

    now: dict[str, bytes | None] = {}  # noqa: RUF012

    def fingerprint(self, name: str) -> bytes | None:
        return self.now.get(name, super().fingerprint(name))


def gate(keys: Keys, now: float = 0.0) -> Gate:
    return Gate.make([], [], 1000, lambda: keys, lambda: now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(gate(Keys({"laptop": "s3cret", "desk": "other"})), clock.seconds)


def test_a_session_is_that_of_its_key(sessions: Sessions) -> None:
    token, other = sessions.sign_in("s3cret", HERE), sessions.sign_in("other", HERE)
    assert token and other and token != other and len(token) >= 43
    assert (sessions.name_of(token), sessions.name_of(other)) == ("laptop", "desk")
    assert sessions.name_of("") is None and sessions.name_of(token + "x") is None
    sessions.sign_out(token)
    sessions.sign_out("nobody's")
    assert (sessions.name_of(token), sessions.name_of(other)) == (None, "desk")


def test_it_ends_in_time(sessions: Sessions, clock: Clock) -> None:
    token = sessions.sign_in("s3cret", HERE) or ""
    clock.advance(LIFETIME - 1)
    assert sessions.name_of(token) == "laptop"
    clock.advance(1)
    assert sessions.name_of(token) is None


@pytest.mark.parametrize("now", [None, b"another key"])
def test_it_ends_with_its_key(now: bytes | None, clock: Clock) -> None:
    keys = Changing({"laptop": "s3cret"})
    sessions = Sessions(gate(keys), clock.seconds)
    token = sessions.sign_in("s3cret", HERE) or ""
    assert sessions.name_of(token) == "laptop"
    Changing.now = {"laptop": now}
    try:
        assert sessions.name_of(token) is None
    finally:
        Changing.now = {}
    assert sessions.name_of(token) is None, "it does not come back with the key"


def test_a_key_that_has_expired_opens_nothing(clock: Clock) -> None:
    keys = parse("old: s3cret expires=2020-01-31\nnew: other expires=2999-01-31\n")
    sessions = Sessions(gate(keys, 1.7e9), clock.seconds)
    assert sessions.sign_in("s3cret", HERE) is None
    assert sessions.sign_in("other", HERE)


def test_wrong_keys_are_counted_by_address(sessions: Sessions, clock: Clock) -> None:
    for number in range(TRIES):
        assert sessions.wait(HERE) == 0
        assert sessions.sign_in(f"wrong{number}", HERE) is None
        clock.advance(1)
    assert sessions.wait(HERE) == TRY_SECONDS - TRIES
    assert sessions.wait("192.0.2.1") == 0
    clock.advance(TRY_SECONDS - TRIES)
    assert sessions.wait(HERE) == 0
    assert sessions.sign_in("s3cret", HERE)


def test_what_is_remembered_is_bounded(sessions: Sessions) -> None:
    first = sessions.sign_in("s3cret", HERE) or ""
    for _ in range(SESSIONS):
        last = sessions.sign_in("s3cret", HERE) or ""
    assert (sessions.name_of(first), sessions.name_of(last)) == (None, "laptop")
    for _ in range(TRIES):
        sessions.sign_in("wrong", HERE)
    for number in range(ADDRESSES):
        sessions.sign_in("wrong", f"address{number}")
    assert sessions.wait(HERE) == 0 and len(sessions._wrong) == ADDRESSES


# -- over HTTP --


@pytest_twisted.async_fixture
async def keyed(make_daemon: Any, tmp_path: Path) -> Daemon:
    made: Daemon = await make_daemon(
        claude=fake_cli(tmp_path / "cli"), api_key_file=key_file(tmp_path)
    )
    return made


async def send(daemon: Daemon, path: str, data: Any, **headers: str) -> Any:
    """A form, as a browser sends one of the daemon's own page."""
    sent = {"origin": daemon.url, "sec-fetch-site": "same-origin", **HTML, **headers}
    return await treq.post(
        daemon.url + path, data=data, headers=sent, allow_redirects=False, cookies={}
    )


async def cookie_of(daemon: Daemon, key: str = "s3cret") -> str:
    response = await send(daemon, "/page/sign-in", {"key": key})
    assert response.code == 303, await treq.text_content(response)
    return str(header(response, "set-cookie")).partition(";")[0]


@ensureDeferred
async def test_a_browser_signs_in_and_out(keyed: Daemon) -> None:
    asked = await look(keyed)
    assert "s3cret" not in asked.html and "sign-out" not in asked.html
    assert asked.root.find(".//section") is None
    _, field = asked.root.findall(".//input")
    assert (field.get("type"), field.get("name")) == ("password", "key")
    response = await send(keyed, "/page/sign-in", {"key": " s3cret "})
    assert (response.code, header(response, "location")) == (303, "/")
    port = keyed.port[0].getHost().port
    cookie, *flags = str(header(response, "set-cookie")).split("; ")
    assert cookie.startswith(f"claudemax-{port}=")
    assert {flag.lower() for flag in flags} == {
        f"max-age={LIFETIME:.0f}", "path=/", "httponly", "samesite=strict",
    }  # fmt: skip
    seen = await look(keyed, cookie=cookie)
    assert "laptop" in str(seen.html) and seen.root.find(".//section[@id='plan']") is not None
    await look(keyed, "/page/main", cookie=cookie)
    response = await send(keyed, "/page/sign-out", {}, cookie=cookie)
    assert response.code == 303
    assert "Max-Age=0" in str(header(response, "set-cookie"))
    assert (await look(keyed, cookie=cookie)).root.find(".//section") is None


@ensureDeferred
async def test_without_signing_in_nothing_is_seen(keyed: Daemon) -> None:
    for cookie in ({}, {"cookie": "claudemax-1=x"}, {"cookie": f"claudemax-{'9' * 5000}=\x7f"}):
        for path in ("/page/main", "/page/changes", "/page/tokens-24h-620.svg"):
            response = await treq.get(keyed.url + path, headers={**HTML, **cookie})
            assert response.code == 401, path
            assert await treq.content(response) == b"sign in first\n"
    for path in ("/page/page.css", "/page/page.js", "/page/icon.svg"):
        response = await treq.get(keyed.url + path)
        assert response.code == 200, path
        await treq.content(response)


@ensureDeferred
async def test_a_program_without_a_key_learns_that_it_runs(keyed: Daemon) -> None:
    response = await treq.get(keyed.url + "/")
    assert await treq.json_content(response) == {
        "status": "claudemax is running", "api": "/v1", "health": "/health",
    }  # fmt: skip


@ensureDeferred
async def test_the_cookie_is_no_key(keyed: Daemon) -> None:
    cookie = await cookie_of(keyed)
    for response in (
        await treq.get(keyed.url + "/v1/models", headers={"cookie": cookie}),
        await treq.get(keyed.url + "/v1/usage", headers={"cookie": cookie}),
        await keyed.post("/v1/chat/completions", hello(), cookie=cookie),
    ):
        assert (await treq.json_content(response))["error"]["code"] == "invalid_api_key"
        assert response.code == 401
    health = await treq.json_content(
        await treq.get(keyed.url + "/health", headers={"cookie": cookie})
    )
    assert health == {"status": "ok"}


@ensureDeferred
async def test_wrong_keys(keyed: Daemon) -> None:
    for _ in range(TRIES):
        response = await send(keyed, "/page/sign-in", {"key": "<wrong>"})
        assert response.code == 401 and header(response, "set-cookie") is None
        refused = Look(await treq.text_content(response))
        assert refused.root.find(".//*[@role='alert']") is not None
        assert "wrong>" not in refused.html
    for key in ("<wrong>", "s3cret"):
        response = await send(keyed, "/page/sign-in", {"key": key})
        assert response.code == 429
        assert 0 < int(str(header(response, "retry-after"))) <= TRY_SECONDS
        assert "Too many wrong keys" in await treq.text_content(response)
    # Programs with the key are not concerned.
    response = await keyed.post("/v1/chat/completions", hello(), **{"x-api-key": "s3cret"})
    assert response.code == 200, await treq.content(response)
    await treq.content(response)


@ensureDeferred
async def test_by_tls_the_cookie_goes_by_tls_alone(keyed: Daemon) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    pem = b"".join(part.bytes() for part in (made.private_key_pem, *made.cert_chain_pems))
    options = PrivateCertificate.loadPEM(pem).options()
    port = reactor.listenSSL(0, keyed.api.site, options, interface="127.0.0.1")
    trusted = trustRootFromCertificates([Certificate.loadPEM(authority.cert_pem.bytes())])
    agent = Agent(reactor, BrowserLikePolicyForHTTPS(trusted))
    url = f"https://localhost:{port.getHost().port}"
    response = await HTTPClient(agent).post(
        url + "/page/sign-in", data={"key": "s3cret"}, headers={"origin": url, **HTML},
        allow_redirects=False,
    )  # fmt: skip
    assert response.code == 303, await treq.content(response)
    assert "; Secure" in str(header(response, "set-cookie"))
    await port.stopListening()


@pytest.mark.parametrize("path", ["/page/sign-in", "/page/sign-out"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"content-type": "application/json"}, 415),
        ({"content-type": "text/plain"}, 415),
    ],
)
@ensureDeferred
async def test_forms_of_other_pages(
    keyed: Daemon, path: str, headers: dict[str, str], status: int
) -> None:
    cookie = await cookie_of(keyed)
    response = await send(keyed, path, b"key=s3cret", cookie=cookie, **{
        "content-type": "application/x-www-form-urlencoded", **headers,
    })  # fmt: skip
    assert response.code == status
    assert header(response, "set-cookie") is None
    await treq.content(response)
    assert (await look(keyed, cookie=cookie)).root.find(".//section") is not None


@ensureDeferred
async def test_forms_that_are_too_large(keyed: Daemon) -> None:
    for data in ({"key": "x" * 5000}, {"key": "s3cret", **{f"n{n}": "1" for n in range(20)}}):
        response = await send(keyed, "/page/sign-in", data)
        assert response.code == (413 if len(data) == 1 else 401)
        await treq.content(response)


@ensureDeferred
async def test_a_get_neither_signs_in_nor_out(keyed: Daemon) -> None:
    cookie = await cookie_of(keyed)
    for path in ("/page/sign-in?key=s3cret", "/page/sign-out"):
        response = await treq.get(keyed.url + path, headers={"cookie": cookie})
        assert response.code in (404, 405) and header(response, "set-cookie") is None
        await treq.content(response)
    response = await send(keyed, "/page/sign-in?key=s3cret", {"key": "wrong"})
    assert response.code == 401
    await treq.content(response)
    assert (await look(keyed, cookie=cookie)).root.find(".//section") is not None
