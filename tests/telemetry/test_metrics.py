"""``GET /metrics``: exact counts over the real CLI, formats, and who may read it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from pytest_twisted import ensureDeferred
from scraping import by, samples, scrape, user, value
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from claudeproxy.cli.states import State
from claudeproxy.ledger.record import TurnRecord
from claudeproxy.testing import fake_cli

QUOTA = "claudemax_key_quota_used_ratio"

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": user("Hello")}),
    "messages": ("/v1/messages", {"messages": user("Hello"), "max_tokens": 50}),
    "responses": ("/v1/responses", {"input": "Hello"}),
    "completions": ("/v1/completions", {"prompt": "Hello"}),
}


async def ask(daemon: Daemon, dialect: str, status: int = 200, **fields: Any) -> Any:
    """A turn's reply."""
    path, body = BODIES[dialect]
    response = await daemon.post(path, {"model": "sonnet", **body, **fields})
    told = await treq.json_content(response)
    assert response.code == status, told
    return told


async def ask_as(daemon: Daemon, key: str) -> None:
    """A turn of the holder of ``key``, until all of it is known."""
    seen: list[Any] = []
    daemon.api.journal.observers.append(seen.append)
    path, body = BODIES["chat"]
    sent = {"authorization": f"Bearer {key}"}
    response = await daemon.post(path, {"model": "sonnet", **body}, **sent)
    assert response.code == 200, await treq.content(response)
    await treq.content(response)
    await until(lambda: seen)


async def leave(daemon: Daemon) -> None:
    """A client that is gone while its answer is written."""
    path, body = BODIES["chat"]
    text = json.dumps({"model": "sonnet", **body, "messages": user("[[hang]]"), "stream": True})
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.port[0].getHost().port)
    client: Any = await connectProtocol(endpoint, Protocol())
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    client.transport.write(f"{head}content-length: {len(text)}\r\n\r\n{text}".encode())
    await until(lambda: any(p.state is State.ANSWERING for p in daemon.api.engine.processes))
    client.transport.abortConnection()


@ensureDeferred
async def test_turns_and_tokens_are_counted_exactly(make_daemon: Any) -> None:
    daemon: Daemon = await make_daemon(processes=2)
    engine = daemon.api.engine
    seen: list[TurnRecord] = []
    daemon.api.journal.observers.append(seen.append)
    told = [await ask(daemon, dialect) for dialect in BODIES]
    told += [await ask(daemon, "chat"), await ask(daemon, "chat", n=2)]
    error = user("[[error 529 no room]]")
    await ask(daemon, "messages", 529, messages=error)
    await ask(daemon, "chat", 400, messages="no list")  # a mistake is no turn
    await ask(daemon, "chat", 404, model="no-such-model")
    await leave(daemon)
    total = len(told) + 2
    await until(lambda: len(seen) == total)  # a moment after its end, a turn is known
    text = await scrape(daemon)
    sonnet = engine.catalogue.resolve("sonnet").resolved
    turns = {
        tuple(dict(labels)[name] for name in ("dialect", "model", "outcome")): number
        for (name, labels), number in samples(text).items()
        if name == "claudemax_turns_total"
    }
    assert turns == {
        ("chat", sonnet, "ok"): 3,
        ("messages", sonnet, "ok"): 1,
        ("responses", sonnet, "ok"): 1,
        ("completions", sonnet, "ok"): 1,
        ("messages", sonnet, "overloaded"): 1,
        ("chat", sonnet, "client_left"): 1,
    }
    assert value(text, "claudemax_turn_seconds_count", model=sonnet) == len(told)
    assert value(text, "claudemax_turn_first_token_seconds_count", model=sonnet) >= len(told)
    assert value(text, "claudemax_turn_queue_seconds_count") == len(told)
    spent = [each["usage"] for each in told]
    written = sum(u.get("output_tokens", u.get("completion_tokens", 0)) for u in spent)
    (left,) = (each for each in seen if each.outcome == "client left")
    written += left.usage.output_tokens  # a few, if its answer had begun
    assert value(text, "claudemax_tokens_total", model=sonnet, kind="output") == written
    kinds = by(text, "claudemax_tokens_total", "kind")
    for kind in ("input", "cache_read", "cache_write", "output"):
        assert kinds.pop(kind) == sum(getattr(each.usage, f"{kind}_tokens") for each in seen)
    assert not kinds
    assert sum(by(text, "claudemax_turn_placements_total", "placement").values()) == total
    assert value(text, "claudemax_process_starts_total") == engine.started >= 1
    assert value(text, "claudemax_process_rewinds_total") >= 4


@ensureDeferred
async def test_what_processes_did_is_counted_when_they_are_gone(make_daemon: Any) -> None:
    daemon: Daemon = await make_daemon(processes=1)
    for _ in range(3):
        await ask(daemon, "chat")
    await daemon.at_rest()
    text = await scrape(daemon)
    rewinds, starts = (
        value(text, f"claudemax_process_{name}_total") for name in ("rewinds", "starts")
    )
    assert (rewinds, starts) == (2, 1)
    assert sum(by(text, "claudemax_processes", "state").values()) == 1
    assert value(text, "claudemax_processes_resident_memory_bytes") > 50e6
    daemon.api.engine.renew()
    await until(lambda: daemon.api.engine.started == 2 and len(daemon.api.engine.processes) == 1)
    text = await scrape(daemon)
    assert value(text, "claudemax_process_rewinds_total") == rewinds
    assert value(text, "claudemax_process_starts_total") == 2


@ensureDeferred
async def test_it_speaks_the_format_that_is_asked_for(make_daemon: Any, tmp_path: Path) -> None:
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    await ask(daemon, "chat")
    plain = await treq.get(daemon.url + "/metrics")
    (kind,) = plain.headers.getRawHeaders("content-type")
    assert kind.startswith("text/plain; version=0.0.4")
    text = await treq.text_content(plain)
    assert value(text, "process_resident_memory_bytes") > 20e6
    assert value(text, "process_open_fds") > 5
    assert value(text, "process_cpu_seconds_total") > 0
    assert "_created" not in text
    asked = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    opened = await treq.get(daemon.url + "/metrics", headers=asked)
    (kind,) = opened.headers.getRawHeaders("content-type")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in open_metrics(await treq.text_content(opened))}
    assert {"claudemax_turns", "claudemax_processes", "claudemax_build_info"} <= names
    asked = {"accept": "application/openmetrics-text;version=evil"}
    odd = await treq.get(daemon.url + "/metrics", headers=asked)
    assert odd.code == 200
    assert samples(await treq.text_content(odd))


@ensureDeferred
async def test_the_key_is_needed(
    make_daemon: Any, tmp_path: Path, request_lines: list[dict[str, Any]]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("prometheus: s3cret\napp: other requests=4/day tokens=1000/day\n")
    keys.chmod(0o600)
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    refused = await treq.get(daemon.url + "/metrics")
    assert refused.code == 401
    assert b"claudemax_" not in await treq.content(refused)
    await ask_as(daemon, "other")
    rules = daemon.api.gate.keys.rules["app"]
    # A turn is counted in the database's thread, while its reply is on its way.
    await until(lambda: all(quota.used for quota in daemon.api.quotas.of("app", rules)))
    quotas = by(await scrape(daemon, authorization="Bearer s3cret"), QUOTA, "quota")
    assert quotas["requests/day"] == 0.25 and 0 < quotas["tokens/day"] < 1
    elsewhere = await treq.get(daemon.url + "/metrics", headers={"host": "evil.example"})
    assert elsewhere.code == 403
    await treq.content(elsewhere)
    # A good scrape is no line of the log: it comes every few seconds.
    assert [(line["path"], line["status"]) for line in request_lines] == [
        ("/metrics", 401), ("/v1/chat/completions", 200), ("/metrics", 403)
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
@ensureDeferred
async def test_promtool_has_nothing_to_say(make_daemon: Any, tmp_path: Path) -> None:
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    await ask(daemon, "chat")
    ran = subprocess.run(
        ["promtool", "check", "metrics"], input=await scrape(daemon), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@ensureDeferred
async def test_who_does_not_ask_for_opentelemetry_gets_no_thread_of_it(
    make_daemon: Any, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    daemon: Daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_ledger=True)
    await ask(daemon, "chat")
    new = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in new if "otel" in name.lower() or "otlp" in name.lower()]
    assert daemon.api.journal.tracers == []


def test_who_does_not_ask_for_opentelemetry_does_not_import_it() -> None:
    code = "import claudeproxy.service, sys; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    modules = ran.stdout.split()
    assert "claudeproxy.telemetry.metrics" in modules
    assert not [name for name in modules if name.startswith(("opentelemetry", "google.protobuf"))]
