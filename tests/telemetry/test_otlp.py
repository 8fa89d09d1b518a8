"""``--otlp`` with a real collector, over the real CLI."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, start_daemon, stop_daemon, until
from otlp_collector import Collector, attributes, collecting
from pytest_twisted import ensureDeferred
from scraping import user
from twisted.logger import formatEvent, globalLogPublisher

from claudeproxy.options import ConfigError
from claudeproxy.telemetry.otlp import FLUSH
from claudeproxy.testing import fake_cli

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=home")
    with collecting() as running:
        yield running


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the module logs."""
    seen: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if str(event.get("log_namespace")).startswith("claudeproxy.telemetry"):
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


async def ask(daemon: Daemon, text: str, status: int = 200, **headers: str) -> Any:
    body = {"model": "sonnet", "messages": user(text), "max_tokens": 50}
    response = await daemon.post("/v1/messages", body, **headers)
    assert response.code == status
    return await treq.json_content(response), response


@ensureDeferred
async def test_a_span_and_metrics_of_each_turn(collector: Collector, make_daemon: Any) -> None:
    daemon: Daemon = await make_daemon(otlp=collector.url, processes=1)
    sonnet = daemon.api.engine.catalogue.resolve
    began = time.time()
    context = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "x=client", "baggage": "a=b"}
    answer, response = await ask(daemon, "Hello", **context)
    await ask(daemon, "[[error 529 no room]]", 529)
    prompt = {"model": "sonnet", "prompt": "Hello"}
    await treq.content(await daemon.post("/v1/completions", prompt))
    await until(lambda: len(collector.spans()) == 3)

    good, bad, legacy = sorted(collector.spans(), key=lambda span: span.start_time_unix_nano)
    model = sonnet("sonnet").resolved
    assert [span.name for span in (good, bad, legacy)] == [
        f"chat {model}", f"chat {model}", f"text_completion {model}"
    ]  # fmt: skip
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (TRACE, PARENT)
    assert bad.trace_id.hex() != TRACE and not bad.parent_span_id
    assert not good.trace_state  # the client's words
    told = attributes(good)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["gen_ai.request.model"] == "sonnet"
    assert told["gen_ai.response.model"] == model
    assert told["gen_ai.usage.input_tokens"] == answer["usage"]["input_tokens"]
    assert told["gen_ai.usage.output_tokens"] == answer["usage"]["output_tokens"]
    assert told["http.response.status_code"] == 200
    assert told["claudemax.request_id"] == response.headers.getRawHeaders("x-request-id")[0]
    assert told["claudemax.outcome"] == "ok" and "error.type" not in told
    took = (good.end_time_unix_nano - good.start_time_unix_nano) / 1e9
    assert began - 1 < good.start_time_unix_nano / 1e9 < time.time()
    assert 0 < told["gen_ai.response.time_to_first_chunk"] <= took < time.time() - began
    assert attributes(bad)["error.type"] == "overloaded"
    assert attributes(bad)["http.response.status_code"] == 529
    assert (good.status.code, bad.status.code) == (0, 2)  # unset, error
    assert not good.events and not good.links

    resource = collector.resource()
    assert resource["service.name"] == "claudemax"
    assert resource["deployment.environment"] == "home"
    assert {headers["api-key"] for _, headers, _ in collector.received} == {"s3cret"}

    def durations() -> list[tuple[dict[str, Any], Any]]:
        return collector.metrics().get("gen_ai.server.request.duration", [])

    await until(lambda: sum(point.count for _, point in durations()) == 3)
    failed = [(labels, point) for labels, point in durations() if "error.type" in labels]
    ((labels, point),) = failed
    assert (labels["error.type"], labels["gen_ai.request.model"]) == ("overloaded", model)
    assert point.count == 1
    first = collector.metrics()["gen_ai.server.time_to_first_token"]
    assert sum(point.count for _, point in first) == 2
    tokens = [
        (labels, point)
        for labels, point in collector.metrics()["gen_ai.client.token.usage"]
        if labels["gen_ai.operation.name"] == "chat"
    ]
    assert {labels["gen_ai.token.type"]: point.sum for labels, point in tokens} == {
        "input": answer["usage"]["input_tokens"], "output": answer["usage"]["output_tokens"]
    }  # fmt: skip
    assert list(tokens[0][1].explicit_bounds) == [4**n for n in range(14)]


@pytest.mark.cli
@ensureDeferred
async def test_the_last_turns_are_sent_when_it_stops(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_METRIC_EXPORT_INTERVAL"):
        monkeypatch.setenv(name, "3600000")
    claude = fake_cli(tmp_path / "cli")
    daemon = await start_daemon(tmp_path / "home", claude=claude, otlp=collector.url)
    await ask(daemon, "Hello")
    await until(lambda: not daemon.api.journal.running)
    assert collector.received == []
    await stop_daemon(daemon)
    assert len(collector.spans()) == 1
    assert "gen_ai.server.request.duration" in collector.metrics()


@ensureDeferred
async def test_a_client_does_not_decide_what_is_a_trace(
    collector: Collector, make_daemon: Any, tmp_path: Path
) -> None:
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), otlp=collector.url)
    for odd in ("", "x", f"00-{TRACE}-{PARENT}", f"00-{'0' * 32}-{PARENT}-01", "00-" + "é" * 50):
        await ask(daemon, "Hello", traceparent=odd)
    await until(lambda: len(collector.spans()) == 5)
    assert not any(span.parent_span_id for span in collector.spans())
    # A client that does not sample is heeded.
    await ask(daemon, "Hello", traceparent=f"00-{TRACE}-{PARENT}-00")
    await ask(daemon, "Hello")
    await until(lambda: len(collector.spans()) == 6)
    assert not any(span.trace_id.hex() == TRACE for span in collector.spans())


@pytest.mark.alone
@pytest.mark.cli
@ensureDeferred
async def test_a_collector_that_is_not_there_costs_a_line_of_the_log(
    tmp_path: Path, collector: Collector, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.socket() as nobody:  # bound, but it does not listen
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        claude = fake_cli(tmp_path / "cli")
        daemon = await start_daemon(tmp_path / "home", claude=claude, otlp=url)
        for _ in range(5):
            await ask(daemon, "Hello")
        await until(lambda: lines)
        before = time.monotonic()
        await stop_daemon(daemon)
        assert time.monotonic() - before < FLUSH + 5
    (line,) = lines
    assert line.startswith(f"the OpenTelemetry collector at {url} takes nothing: ")


@pytest.mark.cli
def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted.internet import reactor

    from claudeproxy.options import Settings
    from claudeproxy.service import Claudemax

    monkeypatch.delitem(sys.modules, "claudeproxy.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = Settings(claude=fake_cli(tmp_path / "cli"), otlp="http://localhost:4318")
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    with pytest.raises(ConfigError) as caught:
        Claudemax(reactor, settings, environ)  # type: ignore[arg-type]
    assert str(caught.value).startswith("--otlp needs what is not installed (")
    assert str(caught.value).endswith("[otel]'")
