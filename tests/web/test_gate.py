"""The gate by values: headers in, a refusal or none out."""

import pytest
from attrs import evolve
from twisted.web.http_headers import Headers

from claudeproxy.engine.windows import Window, Windows
from claudeproxy.messages import Kind
from claudeproxy.web.gate import EXPOSED, FORM_BYTES, Gate
from claudeproxy.web.keys import Keys

PAGE = "https://chat.example.com"
OPEN = Gate.make([], [], 1000)
WIDER = Gate.make(["Claude.lan", "b.lan:80", "host.docker.internal"], [PAGE + "/"], 1000)
KEYED = Gate.make([], [PAGE], 1000, lambda: Keys({"laptop": "s3cret", "desk": "other"}))


def headers(host: str | None = "localhost:3456", **fields: str | list[str]) -> Headers:
    found = Headers({} if host is None else {"host": [host]})
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        found.setRawHeaders(name.replace("_", "-"), values)
    return found


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:3456",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:3456",
        "localhost.:3456",
        "localhost:",
    ],
)
def test_loopback_names_are_let_in(host: str) -> None:
    assert OPEN.refusal(headers(host)) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "[::2]",
        "0.0.0.0",
        "localhost:x@evil.example",
        "localhost:80:80",
        "localhost..",
        "localhost..:3456",
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    failure = OPEN.refusal(headers(host))
    assert failure is not None
    assert (failure.kind, failure.status) == (Kind.PERMISSION, 403)
    assert "--allow-host" in failure.message


@pytest.mark.parametrize(
    ("coding", "status"), [("identity", None), ("gzip", 415), ("zstd", 415), (["br", "gzip"], 415)]
)
def test_bodies_are_not_compressed(coding: str | list[str], status: int | None) -> None:
    sent = headers(content_length="5", content_type="application/json", content_encoding=coding)
    failure = OPEN.refusal(sent)
    assert (failure and failure.status) == status


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"]])
def test_one_host_is_needed(hosts: list[str]) -> None:
    failure = OPEN.refusal(Headers({"host": hosts} if hosts else {}))
    assert failure is not None and failure.status == 403
    assert failure.message == "a request needs one Host header"


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("claude.lan", True),
        ("CLAUDE.LAN:3456", True),
        ("b.lan:80", True),
        ("b.lan:81", False),
        ("b.lan", False),
        ("host.docker.internal:3456", True),
    ],
)
def test_allowed_hosts(host: str, let_in: bool) -> None:
    assert (WIDER.refusal(headers(host)) is None) is let_in


@pytest.mark.parametrize("host", [None, "localhost", "d", "evil.example", "%2Frun%2Fc.sock"])
def test_over_a_unix_socket_any_host_will_do(host: str | None) -> None:
    assert OPEN.refusal(headers(host), unix=True) is None


def test_over_a_unix_socket_the_rest_is_checked() -> None:
    assert OPEN.refusal(headers(origin=PAGE), unix=True) is not None
    assert KEYED.refusal(headers(), unix=True) is not None


@pytest.mark.parametrize(
    ("origin", "let_in"),
    [
        (PAGE, True),
        (PAGE.upper(), True),
        (PAGE + ":8443", False),
        ("http://chat.example.com", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_allowed_origins(origin: str, let_in: bool) -> None:
    asked = headers(origin=origin, sec_fetch_site="cross-site")
    assert (WIDER.refusal(asked) is None) is let_in
    assert OPEN.refusal(asked) is not None


def test_two_origins_are_none() -> None:
    assert WIDER.refusal(headers(origin=[PAGE, PAGE])) is not None


@pytest.mark.parametrize(
    ("site", "let_in"),
    [("cross-site", False), ("same-site", True), ("same-origin", True), ("none", True)],
)
def test_sec_fetch_site(site: str, let_in: bool) -> None:
    assert (WIDER.refusal(headers(sec_fetch_site=site)) is None) is let_in


def test_what_node_sends_is_let_in() -> None:
    assert OPEN.refusal(headers(sec_fetch_mode="cors")) is None


@pytest.mark.parametrize(("length", "let_in"), [("1000", True), ("1001", False), ("9" * 30, False)])
def test_content_length(length: str, let_in: bool) -> None:
    failure = OPEN.refusal(headers(content_length=length, content_type="application/json"))
    assert (failure is None) is let_in
    assert failure is None or failure.status == 413


@pytest.mark.parametrize(
    ("fields", "let_in"),
    [
        ({}, True),
        ({"content_type": "application/x-www-form-urlencoded"}, True),
        ({"content_type": "text/plain"}, False),  # which a form can send, unescaped
        ({"content_type": "multipart/form-data"}, False),
        ({"origin": PAGE}, False),
        ({"sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "none"}, False),
    ],
)
def test_a_body_that_does_not_say_what_it_is(fields: dict[str, str], let_in: bool) -> None:
    sent = headers(**fields, content_length="2")
    failure = WIDER.refusal(sent, untyped=True)
    assert (failure is None) is let_in
    assert failure is None or failure.status == 415
    refused = WIDER.refusal(sent)
    assert refused is not None and refused.status == 415


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"authorization": "Bearer s3cret"}, "laptop"),
        ({"authorization": "bearer other"}, "desk"),
        ({"x_api_key": "s3cret"}, "laptop"),
        ({"x_api_key": "wrong", "authorization": "Bearer other"}, "desk"),
        ({"x_api_key": "other", "authorization": "Basic abc"}, "desk"),
        ({}, None),
        ({"authorization": "Bearer wrong"}, None),
        ({"authorization": "s3cret"}, None),
        ({"authorization": ["Bearer s3cret", "Bearer s3cret"]}, None),
        ({"x_api_key": "S3CRET"}, None),
    ],
)
def test_keys_at_the_gate(fields: dict[str, str | list[str]], name: str | None) -> None:
    asked = headers(**fields)
    assert KEYED.key_name(asked) == name
    assert KEYED.shows_all(asked) is (name is not None)
    failure = KEYED.refusal(asked)
    if name is not None:
        assert failure is None
        return
    assert failure is not None
    assert (failure.kind, failure.status) == (Kind.AUTHENTICATION, 401)
    assert failure.code == "invalid_api_key"
    assert "s3cret" not in failure.message


def test_what_is_there_without_a_key() -> None:
    assert KEYED.refusal(headers(), keyless=True) is None
    assert KEYED.refusal(headers(x_api_key="wrong"), keyless=True) is not None
    assert KEYED.refusal(headers(content_length="0"), keyless=True) is None
    for sent in ({"content_length": "1"}, {"transfer_encoding": "chunked"}):
        failure = KEYED.refusal(headers(content_type="application/json", **sent), keyless=True)
        assert failure is not None
        assert failure.status == 401
    assert OPEN.shows_all(headers())


def test_who_is_foreign_does_not_learn_whether_a_key_is_right() -> None:
    asked = {"authorization": "Bearer wrong"}
    for foreign in (headers("evil.example", **asked), headers(origin="https://e.example", **asked)):
        failure = KEYED.refusal(foreign)
        assert failure is not None
        assert failure.status == 403


def test_headers_for_a_page() -> None:
    assert WIDER.for_page(headers(origin=PAGE)) == {
        "access-control-allow-origin": PAGE,
        "access-control-expose-headers": EXPOSED,
        "vary": "Origin",
    }
    assert "x-request-id" in EXPOSED
    hour = Window(0.25, 3600.0, "allowed")
    windows = Windows({"five_hour": hour, "seven_day": hour}, extra_usage=True, claim="five_hour")
    assert len(windows.headers(0.0)) == 9
    assert set(windows.headers(0.0)) <= set(EXPOSED.split(", "))
    assert WIDER.for_page(headers()) == {}
    assert WIDER.for_page(headers(origin="https://evil.example")) == {}
    assert OPEN.for_page(headers(origin=PAGE)) == {}


def test_preflight() -> None:
    names = "authorization,content-type,x-stainless-lang"
    asked = headers(
        origin=PAGE,
        access_control_request_method="POST",
        access_control_request_headers=names,
    )
    assert KEYED.preflight(b"OPTIONS", asked) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": names,
        "access-control-max-age": "600",
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    assert KEYED.preflight(b"POST", asked) is None
    assert OPEN.preflight(b"OPTIONS", asked) is None


def test_what_is_no_preflight() -> None:
    assert WIDER.preflight(b"OPTIONS", headers(origin=PAGE)) is None
    assert WIDER.preflight(b"OPTIONS", headers(access_control_request_method="GET")) is None
    plain = headers(origin=PAGE, access_control_request_method="GET")
    found = WIDER.preflight(b"OPTIONS", plain)
    assert found is not None
    assert "access-control-allow-headers" not in found


# -- the page of the daemon's own --

PAGED = evolve(KEYED, pages=frozenset({b"", b"page"}), forms=frozenset({b"page/sign-in"}))


@pytest.mark.parametrize(
    ("method", "path", "keyless"),
    [
        (b"GET", b"health", True), (b"HEAD", b"health", True), (b"POST", b"health", False),
        (b"GET", b"", True), (b"GET", b"page/main", True), (b"GET", b"page", True),
        (b"POST", b"page/main", False), (b"POST", b"page/sign-in", False),
        (b"GET", b"pages", False), (b"GET", b"v1/page", False), (b"GET", b"health/x", False),
    ],
)  # fmt: skip
def test_what_needs_no_key(method: bytes, path: bytes, keyless: bool) -> None:
    assert PAGED.is_keyless(method, path, headers()) is keyless
    assert KEYED.is_keyless(method, path, headers()) is (keyless and path == b"health")


def test_where_forms_go() -> None:
    assert PAGED.is_form(b"POST", b"page/sign-in")
    assert not PAGED.is_form(b"GET", b"page/sign-in")
    assert not PAGED.is_form(b"POST", b"page/sign-in/x")
    assert not KEYED.is_form(b"POST", b"page/sign-in")


FORM: dict[str, str | list[str]] = {
    "content_type": "application/x-www-form-urlencoded; charset=utf-8", "content_length": "10",
}  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "http://localhost:3456"},
        {"origin": "https://LOCALHOST:3456", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "same-origin"},
        {},
    ],
)
def test_forms_of_our_own_page(fields: dict[str, str | list[str]]) -> None:
    assert PAGED.refusal(headers(**FORM, **fields), form=True) is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"origin": PAGE}, 403),  # though it may call the API
        ({"origin": "http://localhost:3457"}, 403),
        ({"origin": "http://localhost:3456.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ["http://localhost:3456", "http://localhost:3456"]}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"content_type": "application/json"}, 415),
        ({"content_type": []}, 415),
        ({"content_length": []}, 411),
        ({"content_length": ["1", "1"]}, 411),
        ({"transfer_encoding": "chunked"}, 411),
        ({"content_length": str(FORM_BYTES + 1)}, 413),
    ],
)
def test_forms_that_are_refused(fields: dict[str, str | list[str]], status: int) -> None:
    failure = PAGED.refusal(headers(**{**FORM, **fields}), form=True)
    assert failure is not None
    assert failure.status == status


def test_a_form_needs_the_right_host_as_all_do() -> None:
    asked = headers("evil.example", **FORM, origin="http://evil.example")
    failure = PAGED.refusal(asked, form=True)
    assert failure is not None
    assert "--allow-host" in failure.message
