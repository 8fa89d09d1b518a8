"""The whole server from the bytes of a request to those of the reply: on a clock, without sockets
and without a CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from machine import Machine, begun, said
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher

from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import Limits
from claudeproxy.ledger.counts import Counts, in_memory
from claudeproxy.messages import Failure, Kind
from claudeproxy.testing import transcripts as cli
from claudeproxy.web.gate import EXPOSED, Gate
from claudeproxy.web.keys import Keys
from claudeproxy.web.pages import Status
from claudeproxy.web.recorder import Recorder
from claudeproxy.web.routes import API
from claudeproxy.web.site import BODY_SECONDS, HEADER_SECONDS, IDLE_SECONDS, LimitedSite
from claudeproxy.web.sse import KEEP_ALIVE, STALL

PAGE = "https://chat.example.com"
CHAT = "/v1/chat/completions"
ASKS = {"model": "opus", "messages": [{"role": "user", "content": "Hello"}]}
STREAMS = {**ASKS, "stream": True}


class Transport(StringTransport):
    """A socket that is nobody's; ``aborted``: it was cut."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def unregisterProducer(self) -> None:
        """As a socket has it: once too often is no error."""
        self.producer = None


@define
class Reply:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def no_metrics(accept: str) -> tuple[str, bytes]:
    return "text/plain", b""


class Client:
    """One connection to a server of its own."""

    def __init__(
        self,
        *script: bytes,
        limits: Limits | None = None,
        gate: Gate | None = None,
        record: Path | None = None,
    ) -> None:
        self.machine = Machine(list(script), limits or Limits(processes=4))
        gate = gate or Gate.make([], [], 1000)
        clock = self.machine.clock
        recorder = None if record is None else Recorder(clock, record)
        admission = self.machine.engine.admission
        api = API(
            clock,
            self.machine.engine,
            gate,
            lambda: Status("2", "none", draining=admission.closed is not None),
            no_metrics,
            counts=Counts(in_memory()),  # of keys with quotas, and there are none
            turns=lambda record, plan: None,
            recorder=recorder,
        )
        self.site = LimitedSite(clock, api.resource(), gate, api.refused)
        self.connect()

    def connect(self) -> None:
        self.transport = Transport()
        self.channel: Any = self.site.buildProtocol(None)  # type: ignore[arg-type]
        self.channel.callLater = self.machine.clock.callLater
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)
        self.machine.run()

    def post(self, body: Any, path: str = CHAT, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", "content-length": str(len(data)), **headers}
        self.send(head("POST", path, **sent) + data)

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        self.send(head(method, path, **headers))
        return self.reply()

    def reply(self) -> Reply:
        """The reply so far; a chunked body as its data."""
        top, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.transport.clear()
        first, *lines = top.decode().split("\r\n")
        _, status, reason = first.split(" ", 2)
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = dechunked(body)
        return Reply(int(status), reason, headers, body)

    def more(self) -> bytes:
        """What of a streamed body has come since."""
        data = dechunked(self.transport.value())
        self.transport.clear()
        return data

    @property
    def busy(self) -> Any:
        (claude,) = [claude for claude in self.machine.clis if claude.asked]
        return claude


def head(method: str, path: str, **headers: str) -> bytes:
    fields = {"host": "localhost", **{n.replace("_", "-"): v for n, v in headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def dechunked(data: bytes) -> bytes:
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        parts.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(parts)


# -- answers --


def test_a_whole_answer() -> None:
    client = Client(said("Good day"))
    client.post(ASKS)
    reply = client.reply()
    assert (reply.status, reply.reason) == (200, "OK")
    assert reply.json["choices"][0]["message"]["content"] == "Good day"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["x-request-id"] == reply.headers["request-id"]
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-claudemax-process"] == "warm"
    assert reply.headers["x-claudemax-queue-ms"] == "0"
    assert "access-control-allow-origin" not in reply.headers
    assert client.get("/v1/models").headers["x-request-id"] != reply.headers["x-request-id"]


def test_what_a_reply_tells_of_its_turn_and_of_the_plan() -> None:
    client = Client(begun("a"), said("b"), limits=Limits(processes=4, concurrency=1))
    told = {"overageStatus": "rejected", "unifiedWindows": {}}
    told["unifiedWindows"] = {"five_hour": {"utilization": 0.25, "resetsAt": 5000}}
    client.machine.engine.quota.hear(told)
    client.post(ASKS)
    busy, first, channel = client.busy, client.transport, client.channel
    client.connect()
    odd = {**ASKS, "temperature": 0.5, "top_p": 0.5, "logit_bias": {"1": 1}}
    client.post(odd)
    client.machine.run(2.5)
    busy.say(cli.closing() + cli.result("a"))
    client.machine.run()
    reply = client.reply()
    assert reply.headers["x-claudemax-queue-ms"] == "2500"
    ignored = reply.headers["x-claudemax-ignored"].split(", ")
    assert "logit_bias" in ignored and "top_p" in ignored
    utilization = "anthropic-ratelimit-unified-5h-utilization"
    assert utilization not in reply.headers  # it is another upstream
    client.transport, client.channel = first, channel
    assert "x-claudemax-ignored" not in client.reply().headers
    client.machine.engine.quota.applies = True
    client.machine.script.append(said("c"))
    client.post(ASKS)
    assert client.reply().headers[utilization] == "0.25"


def test_several_whole_answers_in_order() -> None:
    client = Client(said("a"), said("b"), limits=Limits(processes=4))
    client.post({**ASKS, "n": 2})
    choices = client.reply().json["choices"]
    assert [(c["index"], c["message"]["content"]) for c in choices] == [(0, "a"), (1, "b")]


def test_a_stream_is_kept_by_nobody_on_the_way() -> None:
    client = Client(begun("Good ", "day"))
    client.post(STREAMS)
    reply = client.reply()
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache, no-transform"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-claudemax-process"] == "warm"
    assert b"Good " in reply.body and b"[DONE]" not in reply.body
    client.busy.say(cli.closing())
    assert client.more().endswith(b"data: [DONE]\n\n")


def test_a_model_that_thinks_for_long_keeps_the_connection_alive() -> None:
    client = Client(cli.requesting())
    client.post(STREAMS)
    client.machine.run(KEEP_ALIVE - 1)
    assert client.transport.value() == b""
    client.machine.run(1)
    reply = client.reply()
    assert (reply.status, reply.body) == (200, b": keep-alive\n\n")
    assert reply.headers["x-accel-buffering"] == "no"
    client.machine.run(KEEP_ALIVE)
    assert client.more() == b": keep-alive\n\n"
    client.machine.run(KEEP_ALIVE - 1)
    client.busy.say(cli.opening() + b"".join(cli.text_block(["a"])))
    assert b'"a"' in client.more()
    client.machine.run(KEEP_ALIVE - 1)
    assert client.more() == b""  # it counts from the last event
    client.machine.run(1)
    assert client.more() == b": keep-alive\n\n"
    client.busy.say(cli.closing())
    client.more()
    client.machine.run(10 * KEEP_ALIVE)
    assert client.transport.value() == b""


def test_a_stream_that_fails_before_it_begins_has_its_own_status() -> None:
    client = Client(cli.requesting() + cli.result("no", is_error=True, api_error_status=529))
    client.post(STREAMS)
    reply = client.reply()
    assert (reply.status, reply.reason) == (529, "Overloaded")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["error"]["message"] == "no"


def test_a_stream_that_fails_later_says_so_and_ends() -> None:
    client = Client(begun("a"))
    client.post(STREAMS)
    client.reply()
    client.busy.die()
    client.machine.run()
    rest = client.more()
    assert b'"error"' in rest
    assert client.machine.engine.admission.running == 0
    assert client.get("/health").status == 200  # the connection is fine


def test_a_client_that_leaves_ends_its_turn() -> None:
    client = Client(begun("a"))
    client.post(STREAMS)
    busy = client.busy
    client.channel.connectionLost()
    client.machine.run()
    assert (busy.rewinds, client.machine.engine.admission.running) == (1, 0)
    assert client.site.channels == set()


def test_a_full_socket_stops_the_process_and_is_cut_in_the_end() -> None:
    client = Client(begun("a"))
    client.post(STREAMS)
    producer = client.transport.producer
    producer.pauseProducing()
    assert client.busy.paused
    client.machine.run(STALL - 1)
    producer.resumeProducing()
    assert not client.busy.paused
    client.machine.run(STALL)
    assert not client.transport.aborted
    producer.pauseProducing()
    client.machine.run(STALL / 2)
    producer.pauseProducing()  # it has been full all the time
    client.machine.run(STALL / 2)
    assert client.transport.aborted


def test_a_socket_that_is_full_at_the_end_is_not_cut() -> None:
    client = Client(begun("a"))
    client.post(STREAMS)
    client.transport.producer.pauseProducing()
    client.busy.say(cli.closing())
    client.machine.run(2 * STALL)
    assert not client.transport.aborted


# -- refusals --


@pytest.mark.parametrize(
    ("failure", "after", "again"),
    [
        (Failure(Kind.RATE_LIMIT, "", 429, retry_after=2.2), "3", None),
        (Failure(Kind.RATE_LIMIT, "", 429), None, None),
        (Failure(Kind.RATE_LIMIT, "", 429, retry_after=120.0), "120", None),
        (Failure(Kind.RATE_LIMIT, "", 429, retry_after=121.0), "121", "false"),
        (Failure(Kind.PLAN_LIMIT, "", 429, retry_after=5.0), "5", "false"),
        (Failure(Kind.UNAVAILABLE, "", 503, retry_after=1.0), "1", None),
        (Failure(Kind.UPSTREAM, "", 502), None, None),
        (Failure(Kind.UPSTREAM, "", 502, spent=True), None, "false"),
        (Failure(Kind.INVALID, "", 400), None, "false"),
        (Failure(Kind.TIMEOUT, "", 408), None, None),
    ],
)
def test_whether_it_is_worth_another_try(
    failure: Failure, after: str | None, again: str | None
) -> None:
    client = Client()
    client.machine.engine.admission.close(failure)
    client.post(ASKS)
    reply = client.reply()
    assert reply.status == failure.status
    assert reply.headers.get("retry-after") == after
    assert reply.headers.get("x-should-retry") == again


@pytest.mark.parametrize("path", ["/v1/messages", "/messages", "/v1/messages/count_tokens"])
def test_a_refusal_is_worded_as_its_path_has_it(path: str) -> None:
    client = Client()
    client.post(b"[", path)
    reply = client.reply()
    assert (reply.status, reply.json["type"]) == (400, "error")
    assert reply.json["request_id"] == reply.headers["request-id"]
    client.post(b"[")
    reply = client.reply()
    assert (reply.status, set(reply.json)) == (400, {"error"})


def test_what_is_not_there() -> None:
    client = Client()
    reply = client.get("/v1/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "unknown_url")
    assert CHAT in reply.json["error"]["message"]
    reply = client.get("/v1/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = client.get("//health/")
    assert (reply.status, reply.json["status"]) == (200, "ok")
    reply = client.get("/v1/models/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "model_not_found")
    reply = client.get(CHAT, upgrade="websocket", connection="upgrade")
    assert (reply.status, reply.headers["upgrade"]) == (426, "HTTP/1.1")


def test_what_is_let_in_over_http() -> None:
    client = Client()
    assert client.get("/health", host="evil.example").status == 403
    client.connect()
    client.post(ASKS, **{"content-type": "text/plain"})
    assert client.reply().status == 415
    client.connect()
    client.post(b" " * 1001)
    reply = client.reply()
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    client.connect()
    client.post(b" " * 1001, "/v1/messages")
    reply = client.reply()
    assert reply.json["request_id"] == reply.headers["request-id"]
    client.connect()
    reply = client.get("/health", "HEAD", host="evil.example")
    assert (reply.status, reply.body) == (403, b"")
    assert int(reply.headers["content-length"]) > 0
    assert not any(claude.asked for claude in client.machine.clis)


def test_a_chunked_body_is_bounded_too() -> None:
    client = Client(said("a"))
    asked = head("POST", CHAT, content_type="application/json", transfer_encoding="chunked")
    body = json.dumps(ASKS).encode()
    client.send(asked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert client.reply().status == 200
    client.send(asked)
    for _ in range(2):
        client.send(b"1f4\r\n" + b" " * 500 + b"\r\n")
    assert client.transport.value() == b""
    client.send(b"1\r\n \r\n")
    assert client.reply().status == 413
    assert client.site.arriving == 0


KEYED = Gate.make([], [PAGE], 1000, lambda: Keys({"laptop": "s3cret"}))


def test_keys_over_http() -> None:
    client = Client(said("a"), gate=KEYED)
    assert client.get("/health").json == {"status": "ok"}
    keyed = client.get("/health", authorization="Bearer s3cret").json
    assert (keyed["cli_version"], keyed["upstream"]) == ("2", "none")
    client.post(ASKS, authorization="Bearer s3cret")
    assert client.reply().status == 200
    for refused in (
        head("POST", CHAT, content_type="application/json", content_length="9"),
        head("GET", "/v1/models"),
        head("POST", "/health", content_length="0"),
        head("GET", "/health", content_length="5"),
        head("GET", "/health", x_api_key="wrong"),
    ):
        client.connect()
        client.send(refused)
        reply = client.reply()
        assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")


def test_pages_of_allowed_origins_can_read_replies_and_no_others() -> None:
    client = Client(begun("a"), gate=KEYED)
    asks = client.get(CHAT, "OPTIONS", origin=PAGE, access_control_request_method="POST")
    assert (asks.status, asks.body) == (204, b"")
    assert asks.headers["access-control-allow-origin"] == PAGE
    assert asks.headers["access-control-allow-methods"] == "POST"
    refused = client.get("/v1/models/x", origin=PAGE, authorization="Bearer s3cret")
    assert refused.status == 404
    client.post(STREAMS, origin=PAGE, authorization="Bearer s3cret")
    for reply in (refused, client.reply()):
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert reply.headers["access-control-expose-headers"] == EXPOSED
        assert reply.headers["vary"] == "Origin"
    client.connect()
    evil = client.get("/health", origin="https://evil.example")
    assert evil.status == 403
    assert not any(name.startswith("access-control") for name in evil.headers)


# -- connections --


def test_a_head_and_a_body_have_their_time() -> None:
    client = Client()
    for _ in range(int(HEADER_SECONDS) - 1):
        client.send(b"" if client.transport.value() else b"G")
        client.machine.run(1.0)
    assert client.transport.value() == b""
    client.machine.run(2.0)
    assert client.reply().status == 408
    client.connect()
    client.send(head("POST", CHAT, content_type="application/json", content_length="99"))
    for _ in range(int(BODY_SECONDS) - 1):
        client.machine.run(1.0)
        client.send(b" " if len(client.channel.requests) and client.site.arriving < 90 else b"")
    assert client.transport.value() == b""
    client.machine.run(2.0)
    assert (client.reply().status, client.site.arriving) == (408, 90)
    client.channel.connectionLost()
    assert client.site.arriving == 0


def test_an_idle_connection_is_closed() -> None:
    client = Client()
    assert client.get("/health").status == 200
    client.machine.run(IDLE_SECONDS - 1)
    assert not client.transport.disconnecting
    client.machine.run(2.0)
    assert client.transport.disconnecting


def test_drained_idle_connections_are_closed_and_the_others_after_their_reply() -> None:
    client = Client(begun("a"))
    client.get("/health")
    idle, idle_channel = client.transport, client.channel
    client.connect()
    client.post(ASKS)
    drained = client.site.drain()
    assert (idle.disconnecting, client.transport.disconnecting) == (True, False)
    client.busy.say(cli.closing() + cli.result("a"))
    client.machine.run()
    assert client.reply().status == 200
    assert client.transport.disconnecting
    client.channel.connectionLost()
    assert not drained.called
    idle_channel.connectionLost()
    assert drained.called


def test_a_request_under_way_as_the_drain_begins_is_replied_to() -> None:
    client = Client()
    new, _ = client.transport, client.connect()
    assert client.get("/health").status == 200
    idle, _ = client.transport, client.connect()
    client.send(b"GET /hea")
    client.machine.engine.close()
    client.site.wind_down()
    assert (new.disconnecting, idle.disconnecting) == (False, True)
    client.send(b"lth HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert client.reply().status == 503
    assert client.transport.disconnecting
    assert not new.disconnecting
    client.site.drain()
    assert new.disconnecting


def test_connections_of_a_draining_server_are_closed_after_their_reply() -> None:
    client = Client(begun("a"))
    client.post(ASKS)
    client.machine.engine.close()
    client.site.wind_down()
    running = client.busy
    working, client.transport = client.transport, Transport()
    client.connect()
    told = client.get("/health")
    assert (told.status, told.json["status"], told.headers["connection"]) == (
        503, "draining", "close",
    )  # fmt: skip
    assert client.transport.disconnecting
    client.connect()
    client.post(ASKS)
    refused = client.reply()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["connection"] == "close"
    running.say(cli.closing() + cli.result("a"))
    client.machine.run()
    client.transport = working
    assert client.reply().status == 200


@pytest.mark.parametrize("body", [ASKS, STREAMS])
@pytest.mark.parametrize(
    ("sent", "good"),
    [
        ("my-conversation_1.2:~+/=@", True), ("x" * 128, True), ("x" * 129, False), ("", False),
        ("a b", False), ('"a"', False), ("a,b", False), ("caf\xe9", False),
    ],
)  # fmt: skip
def test_a_reply_names_its_conversation(body: Any, sent: str, good: bool) -> None:
    client = Client(said("a"))
    client.post(body, x_claudemax_conversation=sent)
    headers = client.reply().headers
    named, ignored = headers["x-claudemax-conversation"], headers.get("x-claudemax-ignored")
    assert (named == sent) is good
    assert ignored == (None if good else "x-claudemax-conversation")
    assert good or len(named) == 32


def test_a_conversation_gets_a_name() -> None:
    client = Client(said("a"), said("b"))
    names = set()
    for body in (ASKS, {**ASKS, "model": "gpt-unknown"}, STREAMS):
        client.post(body)
        reply = client.reply()
        names.add(reply.headers["x-claudemax-conversation"])
        assert "x-claudemax-ignored" not in reply.headers
    assert len(names) == 3
    assert "x-claudemax-conversation" not in client.get("/v1/models").headers


def test_a_silent_model_is_a_504() -> None:
    limits = Limits(deadlines=Deadlines(first_token=5.0))
    client = Client(cli.requesting(), limits=limits)
    client.post(ASKS)
    client.machine.run(5.1)
    reply = client.reply()
    assert (reply.status, reply.headers["x-should-retry"]) == (504, "false")


def test_every_request_has_a_line_in_the_log() -> None:
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_namespace") == "claudeproxy.web.access_log":
            lines.append(formatEvent(event).split(" ", 1)[1])

    globalLogPublisher.addObserver(observe)
    try:
        client = Client(said("a"), begun("b"), gate=KEYED)
        key = {"authorization": "Bearer s3cret"}
        client.post(ASKS, **key)
        client.get("/v1/nothing", **key)
        client.get("/health")
        client.post(STREAMS, **key)
        client.machine.run(1.5)
        client.channel.connectionLost()
        client.connect()
        client.post(ASKS, "/v1/messages?a=s3cret")
    finally:
        globalLogPublisher.removeObserver(observe)
    answered, missing, left, refused = lines
    assert answered.startswith(f"POST {CHAT} 200 ok") and answered.endswith("laptop")
    assert missing.startswith("GET /v1/nothing 404 not_found unknown_url")
    assert "client left" in left and " 1.50s" in left
    assert refused.startswith("POST /v1/messages 401 authentication")
    assert "s3cret" not in "".join(lines)
