"""Ollama's API, below ``/api``: the routes, and what they tell of models."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from claudeproxy.cli.models import ModelInfo, most_tokens
from claudeproxy.dialects import ollama
from claudeproxy.dialects.fields import Fields
from claudeproxy.dialects.ollama_answer import OllamaEnvelope
from claudeproxy.engine.catalogue import Entry
from claudeproxy.engine.engine import Engine
from claudeproxy.messages import Failure, Kind

from .bodies import read_json
from .fairness import TimeSlice, no_collector
from .gate import Gate
from .handler import TurnHandler
from .json_replies import json_bytes, refuse, reply
from .key_rules import check_model, usable
from .routing import make_app

VERSION = "0.13.0"
"""The version of Ollama whose API this is; some clients want at least 0.6.4."""

NOT_HERE = {
    "push": "models cannot be pushed",
    "create": "models cannot be created",
    "copy": "models cannot be copied; --model-alias gives one another name",
    "delete": "models cannot be deleted",
    "embed": "Claude has no embeddings",
    "embeddings": "Claude has no embeddings",
    "blobs": "files cannot be uploaded",
}
"""What Ollama can do and a Claude CLI cannot: the first segment below ``/api``, and why."""

_SINCE = "2023-11-14T22:13:20Z"
"""When every model was last changed: the CLI does not report it."""


_DETAILS = {
    "parent_model": "",
    "format": "",
    "family": "claude",
    "families": ["claude"],
    "parameter_size": "",
    "quantization_level": "",
}
"""What is told of a model's file: nothing, as there is none."""


class OllamaAPI:
    """The endpoints that Ollama's clients call, over one engine."""

    app = make_app()

    def __init__(
        self, reactor: IReactorTime, engine: Engine, gate: Gate, handler: TurnHandler
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._gate = gate
        self._handler = handler

    # -- turns --

    @app.route("/api/chat", methods=["POST"])
    async def chat(self, request: Request) -> bytes:
        """An answer to a conversation."""
        return await self._answer(request, ollama.read_chat, chat=True)

    @app.route("/api/generate", methods=["POST"])
    async def generate(self, request: Request) -> bytes:
        """An answer to a prompt."""
        return await self._answer(request, ollama.read_generate, chat=False)

    async def _answer(
        self,
        request: Request,
        read: Callable[[Any, Callable[[], float]], ollama.Ollama],
        chat: bool,
    ) -> bytes:
        time_slice = TimeSlice(self._reactor)
        body = read_json(request)
        await time_slice.give_way()
        loaded = ollama.loads(body, chat)
        if loaded is not None:
            return self._loaded(request, loaded, Fields(body))
        with no_collector():
            parsed = read(body, time.time)
        await time_slice.give_way()
        return await self._handler.serve(request, "ollama", parsed)

    def _loaded(self, request: Request, told: OllamaEnvelope, body: Fields) -> bytes:
        """Clients load a model before they use it, and unload it: there is nothing to do."""
        self._entry(request, told.model)
        unload = body.raw("keep_alive") in (0, "0", "0s")
        return reply(request, told.last(told.line(), "unload" if unload else "load"))

    # -- models --

    @app.route("/api/tags", methods=["GET"])
    def tags(self, request: Request) -> bytes:
        """The models that may be used."""
        return reply(request, {"models": [self._listed(entry) for entry in self._entries(request)]})

    @app.route("/api/ps", methods=["GET"])
    def running(self, request: Request) -> bytes:
        """The models that processes serve now."""
        used = {report.model: report for report in self._engine.keeper.reports() if report.model}
        known, found = self._engine.catalogue, []
        for entry in self._entries(request):
            model = known.resolve(entry.id)
            if model.name in used:
                ends = time.time() + self._engine.keeper.idle - (used[model.name].rest or 0)
                size = {"size_vram": 0, "context_length": known.context_tokens(model)}
                found.append({**self._listed(entry), "expires_at": _iso(ends), **size})
        return reply(request, {"models": found})

    @app.route("/api/show", methods=["POST"])
    def show(self, request: Request) -> bytes:
        """What a model can do."""
        entry, model = self._entry(request, ollama.model_name(Fields(read_json(request))))
        about = {
            "modelfile": f"FROM {entry.id}\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _DETAILS,
            "model_info": {
                "general.architecture": "claude",
                "general.basename": model.resolved,
                "claude.context_length": self._engine.catalogue.context_tokens(model),
                "claude.max_output_tokens": most_tokens(model.resolved),
            },
            "capabilities": ["completion", "tools", "vision", "thinking"],
            "modified_at": _SINCE,
        }
        return reply(request, about)

    @app.route("/api/pull", methods=["POST"])
    def pull(self, request: Request) -> bytes:
        """A known model is there at once."""
        body = Fields(read_json(request))
        self._entry(request, ollama.model_name(body))
        if not body.flag("stream", True):
            return reply(request, {"status": "success"})
        steps = ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")
        lines = b"".join(json_bytes({"status": step}) + b"\n" for step in steps)
        request.setHeader(b"content-type", b"application/x-ndjson")
        return lines

    @app.route("/api/version", methods=["GET"])
    def version(self, request: Request) -> bytes:
        """The version of the API."""
        return reply(request, {"version": VERSION})

    def _entries(self, request: Request) -> Sequence[Entry]:
        _, rules = self._gate.sender(request.requestHeaders)
        return usable(self._engine.catalogue, rules)

    def _entry(self, request: Request, name: str) -> tuple[Entry, ModelInfo]:
        known = self._engine.catalogue
        check_model(known, *self._gate.sender(request.requestHeaders), name)
        return known.entry(name), known.resolve(name)

    def _listed(self, entry: Entry) -> dict[str, Any]:
        name = entry.id if ":" in entry.id else f"{entry.id}:latest"
        return {
            "name": name,
            "model": name,
            "modified_at": _SINCE,
            "size": 0,
            "digest": hashlib.sha256(entry.id.encode()).hexdigest(),
            "details": _DETAILS,
        }

    # -- what there is not --

    @app.route(f"/api/<any({', '.join(NOT_HERE)}):what>", methods=["POST", "DELETE"])
    @app.route("/api/<any(blobs):what>/<rest>", methods=["HEAD", "POST"])
    def absent(self, request: Request, what: str, rest: str = "") -> bytes:
        """What cannot be done here."""
        why = f"{request.path.decode('latin-1')}: {NOT_HERE[what]}"
        return refuse(request, Failure(Kind.INVALID, why, 501))


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, timezone.utc).isoformat().replace("+00:00", "Z")
