"""Agents: OpenClaw, and those that work in a directory of code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import json5_text, toml_text, yaml_text
from .change import Change
from .client import KEY_VARIABLE, NAME, Client, Daemon, Machine


def _openclaw_place(machine: Machine) -> Path:
    state = machine.named("OPENCLAW_STATE_DIR", machine.home / ".openclaw")
    return machine.named("OPENCLAW_CONFIG_PATH", state / "openclaw.json")


def _openclaw(daemon: Daemon, current: Any) -> Sequence[Change]:
    models = [
        {
            "id": model.id,
            "name": model.title,
            "reasoning": True,
            "input": ["text", "image"],
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
            "contextWindow": model.context,
            "maxTokens": model.output,
        }
        for model in daemon.models
    ]
    provider = {
        "baseUrl": daemon.base,
        "apiKey": daemon.any_key,
        "api": "openai-completions",
        "models": models,
    }
    primary = {"primary": f"{NAME}/{daemon.models[0].id}"}
    changes = [
        Change(("models", "providers", NAME), provider),
        Change(("agents", "defaults", "model"), primary),
    ]
    if _below(current, "agents", "defaults", "models"):  # then only those are allowed
        allowed: dict[str, Any] = {f"{NAME}/{model.id}": {} for model in daemon.models}
        changes.append(Change(("agents", "defaults", "models"), allowed))
    return changes


def _below(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _codex(daemon: Daemon, current: Any) -> Sequence[Change]:
    provider = {"name": NAME, "base_url": daemon.base, "wire_api": "responses"}
    if daemon.key:
        provider["env_key"] = KEY_VARIABLE
    return [
        Change((), {"model": daemon.models[0].id, "model_provider": NAME}),
        Change(("model_providers", NAME), provider),
    ]


def _codex_then(daemon: Daemon) -> Sequence[str]:
    return [f"Codex reads the key from {KEY_VARIABLE}: export it."] if daemon.key else []


def _opencode_place(machine: Machine) -> Path:
    named = machine.environ.get("OPENCODE_CONFIG")
    if named:
        return Path(named)
    plain = machine.config("opencode", "opencode.json")
    commented = plain.with_suffix(".jsonc")
    return commented if os.path.exists(commented) else plain


def _opencode(daemon: Daemon, current: Any) -> Sequence[Change]:
    models = {
        model.id: {
            "name": model.title,
            "attachment": True,
            "reasoning": True,
            "tool_call": True,
            "limit": {"context": model.context, "output": model.output},
        }
        for model in daemon.models
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": NAME,
        "options": {"baseURL": daemon.base, "apiKey": daemon.any_key},
        "models": models,
    }
    return [
        Change(("provider", NAME), provider),
        Change(("model",), f"{NAME}/{daemon.models[0].id}"),
    ]


def _aider(daemon: Daemon, current: Any) -> Sequence[Change]:
    settings = {
        "model": f"openai/{daemon.models[0].id}",
        "openai-api-base": daemon.base,
        "openai-api-key": daemon.any_key,
        "show-model-warnings": False,  # it knows no sizes and prices of this model, and asks
    }
    return [Change((), settings)]


OPENCLAW = Client("OpenClaw", _openclaw_place, json5_text, _openclaw)
CODEX = Client(
    "Codex CLI",
    lambda machine: machine.named("CODEX_HOME", machine.home / ".codex") / "config.toml",
    toml_text,
    _codex,
    _codex_then,
)
OPENCODE = Client("opencode", _opencode_place, json5_text, _opencode)
AIDER = Client("aider", lambda machine: machine.home / ".aider.conf.yml", yaml_text, _aider)
