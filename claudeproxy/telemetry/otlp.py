"""Spans and metrics of turns for an OpenTelemetry collector, under the names of its conventions for
generative AI. Importing this module needs ``claudemax[otel]``.

The SDK's own threads send them. What it reads from the environment (``OTEL_EXPORTER_OTLP_HEADERS``,
``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER`` ...) holds here, too.
"""

from __future__ import annotations

import logging
from threading import Thread
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from claudeproxy._reactor import IDaemonReactor
from claudeproxy.ledger.record import TurnRecord

from .labels import ModelLabels, outcome

FLUSH = 3.0
"""Seconds that the last spans get to leave when the daemon stops."""

QUIET = 600.0
"""Seconds after a line about a collector that takes nothing without another one."""

_SDK = logging.getLogger("opentelemetry")
_TOKENS = [4.0**power for power in range(14)]
_DURATION = [0.01 * 2**power for power in range(14)]
_FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]  # fmt: skip


class OTLP(Service):
    """Tells a collector of every turn that is over."""

    def __init__(
        self, reactor: IDaemonReactor, endpoint: str, models: ModelLabels, version: str
    ) -> None:
        """``endpoint``: base URL of OTLP over HTTP."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._models = models
        self._version = version

    def startService(self) -> None:
        """Start the SDK's threads."""
        super().startService()
        self._complaints = _Complaints(self._reactor, self._endpoint)
        _SDK.addHandler(self._complaints)
        about = {"service.name": "claudemax", "service.version": self._version}
        resource = Resource.create(about).merge(OTELResourceDetector().detect())
        self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        traces = OTLPSpanExporter(endpoint=f"{self._endpoint}/v1/traces")
        self._spans.add_span_processor(BatchSpanProcessor(traces))
        self._tracer = self._spans.get_tracer("claudemax", self._version)
        metrics = OTLPMetricExporter(endpoint=f"{self._endpoint}/v1/metrics")
        self._metrics = MeterProvider(
            [PeriodicExportingMetricReader(metrics)], resource, shutdown_on_exit=False
        )
        meter = self._metrics.get_meter("claudemax", self._version)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._duration = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "Generative AI server request duration such as time-to-last byte or last output token.",
            explicit_bucket_boundaries_advisory=_DURATION,
        )
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "Time to generate first token for successful responses.",
            explicit_bucket_boundaries_advisory=_FIRST_TOKEN,
        )

    def observe(self, record: TurnRecord, traceparent: str | None) -> None:
        """Tell of a turn that is over. ``traceparent``: the header of its request (W3C)."""
        came_to = outcome(record)
        failed = {} if came_to in ("ok", "client_left") else {"error.type": came_to}
        model = self._models.of(record)
        common = {
            "gen_ai.operation.name": _operation(record),
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": model,
        }
        if record.answered_by is not None:
            common["gen_ai.response.model"] = model
        self._measure(record, common, failed)
        span = self._tracer.start_span(
            f"{_operation(record)} {model}",
            # No tracestate and no baggage: what stands there is the client's.
            TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""}),
            # The conventions speak of callers only. This is the one who is called.
            SpanKind.SERVER,
            {**common, **failed, **_told(record, came_to)},
            start_time=int(record.time * 1e9),
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(int(record.time * 1e9 + record.total_ms * 1e6))

    def _measure(self, record: TurnRecord, common: dict[str, str], failed: dict[str, str]) -> None:
        usage = record.usage
        for kind, tokens in ("input", usage.prompt_tokens), ("output", usage.output_tokens):
            if tokens:
                self._tokens.record(tokens, {**common, "gen_ai.token.type": kind})
        self._duration.record(record.total_ms / 1000, {**common, **failed})
        if record.first_token_ms is not None and not failed:
            self._first_token.record(record.first_token_ms / 1000, common)

    def stopService(self) -> Deferred[None]:
        """Send what is left; fires when it is sent, but after :data:`FLUSH` seconds at the
        latest."""
        super().stopService()
        stopped: Deferred[None] = Deferred()

        def over() -> None:
            if late.active():
                late.cancel()
            if not stopped.called:
                stopped.callback(None)

        def flush() -> None:
            self._spans.shutdown()
            self._metrics.shutdown()
            _SDK.removeHandler(self._complaints)
            self._reactor.callFromThread(over)

        late = self._reactor.callLater(FLUSH, over)
        # Not of the reactor's pool, whose threads the end of the program waits for.
        Thread(target=flush, name="otlp-flush", daemon=True).start()
        return stopped


def _operation(record: TurnRecord) -> str:
    return "text_completion" if record.dialect == "completions" else "chat"


def _told(record: TurnRecord, came_to: str) -> dict[str, Any]:
    """The attributes that only a span has. Those of the conventions that are content (messages,
    instructions, tools, stop sequences) are not known here."""
    usage = record.usage
    told: dict[str, Any] = {
        "gen_ai.request.model": record.model[:64],
        "claudemax.request_id": record.request_id,
        "claudemax.dialect": record.dialect,
        "claudemax.outcome": came_to,
        "claudemax.process": record.placement,
        "claudemax.queue_seconds": record.queue_ms / 1000,
        "claudemax.paid_by": record.paid_by,
        "http.response.status_code": record.status,
        "gen_ai.request.choice.count": record.answers if record.answers > 1 else None,
    }
    if record.first_token_ms is not None:
        told["gen_ai.response.time_to_first_chunk"] = record.first_token_ms / 1000
    if usage.prompt_tokens:
        told |= {
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    return {name: value for name, value in told.items() if value is not None}


class _Complaints(logging.Handler):
    """Passes on what the SDK reports as failed, one line for a while of it. Without a handler it
    would write every attempt to stderr."""

    log = Logger()

    def __init__(self, reactor: IDaemonReactor, endpoint: str) -> None:
        super().__init__(logging.ERROR)
        self._reactor = reactor
        self._endpoint = endpoint
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """In any thread."""
        self._reactor.callFromThread(self._tell, record.getMessage())

    def _tell(self, why: str) -> None:
        now = self._reactor.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            self.log.warn(
                "the OpenTelemetry collector at {endpoint} takes nothing: {why}",
                endpoint=self._endpoint,
                why=why[:300],
            )
