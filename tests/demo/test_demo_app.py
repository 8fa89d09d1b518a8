"""The stand-in over real HTTP, with treq and with the official SDK."""

import json

import anthropic
import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed

from claudeproxy.demo.app import DemoUpstream, listen
from claudeproxy.demo.steps import ApiError, Header

HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01"}


class Site:
    """A listening stand-in and a client for it."""

    def __init__(self, demo, url, pool):
        self.demo = demo
        self.url = url
        self._treq = treq.client.HTTPClient(Agent(reactor, pool=pool))

    def body(self, text, **fields):
        return {
            "model": "claude-sonnet-4-5",
            "max_tokens": 1000,
            "stream": True,
            "messages": [{"role": "user", "content": text}],
            **fields,
        }

    def post(self, text, *, path="/v1/messages?beta=true", headers=HEADERS, **fields):
        return self._treq.post(self.url + path, json=self.body(text, **fields), headers=headers)

    def send(self, method, path, **options):
        return self._treq.request(method, self.url + path, **options)


@pytest.fixture
def site():
    demo = DemoUpstream(reactor, context_window=50_000)
    port, url = pytest_twisted.blockon(listen(reactor, demo))
    pool = HTTPConnectionPool(reactor, persistent=False)
    yield Site(demo, url, pool)
    pytest_twisted.blockon(pool.closeCachedConnections())
    pytest_twisted.blockon(port.stopListening())


def events(stream):
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]


def said(stream):
    deltas = [event["delta"] for event in events(stream) if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


@pytest_twisted.ensureDeferred
async def test_a_streamed_answer(site):
    response = await site.post("hello")
    stream = await response.text()
    assert response.code == 200
    content_type = "text/event-stream; charset=utf-8"
    assert response.headers.getRawHeaders("content-type") == [content_type]
    assert response.headers.getRawHeaders("request-id")[0].startswith("req_")
    assert stream.startswith("event: message_start\ndata: {")
    assert said(stream) == "You said: hello"
    assert events(stream)[-1] == {"type": "message_stop"}


@pytest_twisted.ensureDeferred
async def test_a_whole_answer(site):
    response = await site.post("hello", stream=False)
    reply = await response.json()
    assert reply["content"] == [{"type": "text", "text": "You said: hello"}]
    assert (reply["role"], reply["stop_reason"]) == ("assistant", "end_turn")


@pytest_twisted.ensureDeferred
async def test_every_message_has_an_id_of_its_own(site):
    replies = [await (await site.post("x", stream=False)).json() for _ in range(2)]
    assert replies[0]["id"] != replies[1]["id"]


@pytest_twisted.ensureDeferred
async def test_requests_are_kept_as_they_came(site):
    await treq.content(await site.post("hello"))
    await treq.content(await site.post("hello", temperature=7))
    good, bad = site.demo.requests
    assert (good.method, good.path) == ("POST", "/v1/messages?beta=true")
    assert good.headers["x-api-key"] == "any"
    assert good.body == site.body("hello")
    assert good.size == int(good.headers["content-length"])
    assert good.at <= bad.at
    assert good.refused is None
    assert bad.refused.message == "temperature: Input should be less than or equal to 1"


@pytest_twisted.ensureDeferred
async def test_a_refusal_has_the_shape_of_the_api(site):
    response = await site.post("hello", headers={"anthropic-version": "2023-06-01"})
    request_id = response.headers.getRawHeaders("request-id")[0]
    assert response.code == 401
    assert await response.json() == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "x-api-key header is required"},
        "request_id": request_id,
    }


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff"])
@pytest_twisted.ensureDeferred
async def test_what_is_no_json_object_is_refused(site, data):
    response = await site.send("POST", "/v1/messages", data=data, headers=HEADERS)
    assert response.code == 400
    assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest_twisted.ensureDeferred
async def test_a_large_body(site):
    response = await site.post("word" * 100_000)
    message = (await response.json())["error"]["message"]
    assert message == "prompt is too long: 100003 tokens > 50000 maximum"


@pytest_twisted.ensureDeferred
async def test_a_bad_order_is_told(site):
    response = await site.post("[[chunk x]]")
    assert response.code == 400
    assert "bad order [[chunk x]]" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_ordered_error_with_its_headers(site, stream):
    order = "[[wait 0.01]][[header retry-after: 7]][[error 529 busy]]"
    response = await site.post(order, stream=stream)
    assert response.code == 529
    assert response.headers.getRawHeaders("retry-after") == ["7"]
    error = (await response.json())["error"]
    assert error == {"type": "overloaded_error", "message": "busy"}


@pytest_twisted.ensureDeferred
async def test_an_error_in_mid_stream(site):
    response = await site.post("[[say a]][[error-mid 529 busy]]")
    last = events(await response.text())[-1]
    assert response.code == 200
    assert last == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "busy"},
        "request_id": response.headers.getRawHeaders("request-id")[0],
    }


@pytest_twisted.ensureDeferred
async def test_a_dropped_connection(site):
    response = await site.post("[[say a]][[drop]]")
    received = []
    with pytest.raises(ResponseFailed):
        await treq.collect(response, received.append)
    assert said(b"".join(received).decode()) == "a"


@pytest_twisted.ensureDeferred
async def test_a_wait_holds_the_headers(site):
    began = reactor.seconds()
    response = await site.post("[[wait 0.05]]hello")
    assert reactor.seconds() - began >= 0.05
    assert said(await response.text()) == "You said: hello"


@pytest_twisted.ensureDeferred
async def test_a_pause_comes_between_the_deltas(site):
    response = await site.post("[[pause 0.02]][[say a b c]]")
    writes = []
    await treq.collect(response, lambda data: writes.append(reactor.seconds()))
    assert writes[-1] - writes[0] >= 0.04


@pytest_twisted.ensureDeferred
async def test_all_between_two_waits_is_one_write(site):
    response = await site.post("[[repeat 100 word]]")
    writes = []
    await treq.collect(response, writes.append)
    assert len(writes) == 1


@pytest_twisted.ensureDeferred
async def test_counting_tokens(site):
    counted = site.body("hello" * 40)
    del counted["max_tokens"], counted["stream"]
    path = "/v1/messages/count_tokens"
    response = await site.send("POST", path, json=counted, headers=HEADERS)
    assert await response.json() == {"input_tokens": 53}
    response = await site.send("POST", path, json={"model": "claude-x"}, headers=HEADERS)
    assert response.code == 400


@pytest_twisted.ensureDeferred
async def test_probes_are_answered_and_not_kept(site):
    for method in ("GET", "HEAD"):
        assert (await site.send(method, "/")).code == 200
    assert not site.demo.requests


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("GET", "/v1/messages")])
@pytest_twisted.ensureDeferred
async def test_anything_else_is_not_found(site, method, path):
    response = await site.send(method, path)
    assert response.code == 404
    assert (await response.json())["error"]["type"] == "not_found_error"
    assert [request.path for request in site.demo.requests] == [path]


@pytest_twisted.ensureDeferred
async def test_a_scripted_answer(site):
    answers = iter([ApiError(429, "slow down"), [Header("a", "b"), {"type": "odd"}], None])
    site.demo.answer = lambda received: next(answers)
    assert (await site.post("x")).code == 429
    response = await site.post("x")
    assert response.headers.getRawHeaders("a") == ["b"]
    assert events(await response.text()) == [{"type": "odd"}]
    assert said(await (await site.post("x")).text()) == "You said: x"


@pytest_twisted.ensureDeferred
async def test_a_refused_request_never_reaches_the_script(site):
    site.demo.answer = lambda received: pytest.fail("asked")
    assert (await site.post("x", temperature=7)).code == 400


class Deaf(Protocol):
    """A client that sends a request and reads nothing."""

    def __init__(self, request):
        self.request = request
        self.lost = Deferred()

    def connectionMade(self):
        self.transport.pauseProducing()
        self.transport.write(self.request)

    def connectionLost(self, reason):
        self.lost.callback(None)


async def deaf(site, text):
    """A connected client that asks and reads nothing."""
    data = json.dumps(site.body(text)).encode()
    head = "POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: a\r\nanthropic-version: a\r\n"
    request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", int(site.url.rpartition(":")[2]))
    return await connectProtocol(endpoint, Deaf(request))


async def until(true):
    while not true():
        await deferLater(reactor, 0.01)


@pytest_twisted.ensureDeferred
async def test_an_endless_answer_waits_for_its_client(site):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield {"type": "ping", "filler": "x" * 10_000}

    site.demo.answer = lambda received: endless()
    client = await deaf(site, "x")
    before = -1
    while before != taken or not taken:  # for ever, if nothing stops it
        before = taken
        await deferLater(reactor, 0.1)
    assert taken < 10_000  # 100 MB: what fits into the sockets' buffers is far less
    client.transport.abortConnection()
    await client.lost


@pytest.mark.parametrize("order", ["[[wait 3600]]x", "[[pause 3600]][[say a b]]"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_ends_the_wait(site, order):
    def waits():
        return [c for c in reactor.getDelayedCalls() if c.getTime() > reactor.seconds() + 3000]

    client = await deaf(site, order)
    await until(waits)
    client.transport.abortConnection()
    await client.lost
    await until(lambda: not waits())


def sdk(site):
    return anthropic.Anthropic(base_url=site.url, api_key="any", max_retries=0)


ASK = {
    "model": "claude-sonnet-5",
    "max_tokens": 1000,
    "tools": [
        {
            "name": "add",
            "description": "Add two numbers",
            "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
        }
    ],
}


@pytest_twisted.ensureDeferred
async def test_the_sdk_streams_and_uses_tools(site):
    def talk():
        client = sdk(site)
        messages = [{"role": "user", "content": '[[say go]][[call add {"a": 1}]]'}]
        with client.messages.stream(messages=messages, **ASK) as stream:
            first = stream.get_final_message()
        result = {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "3"}
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        return first, client.messages.create(messages=messages, **ASK)

    first, second = await deferToThread(talk)
    assert [block.type for block in first.content] == ["text", "tool_use"]
    assert (first.content[1].input, first.stop_reason) == ({"a": 1}, "tool_use")
    assert second.content[0].text == "The tool said: 3"
    assert not any(request.refused for request in site.demo.requests)


@pytest_twisted.ensureDeferred
async def test_the_sdk_gets_thinking(site):
    def talk():
        with sdk(site).messages.stream(
            model="claude-opus-5-5",
            max_tokens=100,
            thinking={"type": "adaptive"},
            messages=[{"role": "user", "content": "[[think hm]][[say x]]"}],
        ) as stream:
            return stream.get_final_message()

    reply = await deferToThread(talk)
    assert (reply.content[0].thinking, reply.content[1].text) == ("hm", "x")
    assert reply.usage.output_tokens_details.thinking_tokens == 1


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ("[[error 429]]", anthropic.RateLimitError),
        ("[[error-mid 529 busy]]", anthropic.APIStatusError),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_sdk_raises(site, order, error):
    def talk():
        messages = [{"role": "user", "content": order}]
        with sdk(site).messages.stream(messages=messages, **ASK) as stream:
            stream.get_final_message()

    with pytest.raises(error):
        await deferToThread(talk)


@pytest_twisted.ensureDeferred
async def test_the_sdk_is_told_what_is_wrong(site):
    def talk():
        sdk(site).messages.create(messages=[{"role": "user", "content": " "}], **ASK)

    with pytest.raises(anthropic.BadRequestError, match="must contain non-whitespace text"):
        await deferToThread(talk)
