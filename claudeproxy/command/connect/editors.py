"""Editors, and what is added to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import json5_text, yaml_text
from .change import Change, Item
from .client import KEY_VARIABLE, NAME, Client, Daemon, Told

ZED_PROVIDER = "claude-max"
"""Zed makes the name of the variable of it, ``CLAUDE_MAX_API_KEY``."""


def _continue(daemon: Daemon, current: Any) -> Sequence[Change]:
    changes = []
    if not current:
        changes.append(Change((), {"name": "My config", "version": "0.0.1", "schema": "v1"}))
    for model in daemon.models:
        name = f"{NAME} {model.id}"  # by which it is found again
        settings = {
            "name": name,
            "provider": "openai",
            "model": model.id,
            "apiBase": daemon.base,
            "apiKey": daemon.any_key,
            "capabilities": ["tool_use", "image_input"],
        }
        changes.append(Change(("models", Item("name", name)), settings))
    return changes


def _zed(daemon: Daemon, current: Any) -> Sequence[Change]:
    models = [
        {
            "name": model.id,
            "display_name": model.title,
            "max_tokens": model.context,
            "max_output_tokens": model.output,
            "capabilities": {
                "tools": True,
                "images": True,
                "parallel_tool_calls": True,
                "prompt_cache_key": False,
            },
        }
        for model in daemon.models
    ]
    return [
        Change(
            ("language_models", "openai_compatible", ZED_PROVIDER),
            {"api_url": daemon.base, "available_models": models},
        ),
        Change(
            ("agent", "default_model"), {"provider": ZED_PROVIDER, "model": daemon.models[0].id}
        ),
    ]


def _zed_then(daemon: Daemon) -> Sequence[str]:
    key = "the key" if daemon.key else "any word as the key (Zed insists on one)"
    return [f"Give Zed {key}: Agent settings, LLM Providers, {ZED_PROVIDER}; or {KEY_VARIABLE}."]


def _vs_code(daemon: Daemon, current: Any) -> Sequence[Change]:
    group = {
        "name": NAME,
        "vendor": "customendpoint",
        "apiKey": daemon.any_key,
        "apiType": "chat-completions",
        "models": [
            {
                "id": model.id,
                "name": model.title,
                "url": f"{daemon.base}/chat/completions",
                "toolCalling": True,
                "vision": True,
                "maxInputTokens": model.context - model.output,
                "maxOutputTokens": model.output,
            }
            for model in daemon.models
        ],
    }
    return [Change((Item("name", NAME),), group)]


def _vs_code_then(daemon: Daemon) -> Sequence[str]:
    return ["Reload VS Code (1.122 or newer) and choose the model in its chat."]


def _cline(daemon: Daemon) -> Sequence[str]:
    return [
        "Cline in an editor keeps its settings in the editor's own store. Choose there:",
        "    API Provider   OpenAI Compatible",
        f"    Base URL       {daemon.base}",
        f"    API Key        {daemon.shown_key}",
        f"    Model ID       {daemon.models[0].id}",
        f"    Context window {daemon.models[0].context}, with image support",
        "Cline on the command line:",
        f"    cline auth -p openai -k {daemon.shown_key} -b {daemon.base} -m {daemon.models[0].id}",
    ]


CONTINUE = Client(
    "Continue",
    lambda machine: (
        machine.named("CONTINUE_GLOBAL_DIR", machine.home / ".continue") / "config.yaml"
    ),
    yaml_text,
    _continue,
)
ZED = Client(
    "Zed",
    # On macOS, too, and there whatever XDG_CONFIG_HOME says.
    lambda machine: (
        machine.home / ".config" / "zed" / "settings.json"
        if machine.darwin
        else machine.config("zed", "settings.json")
    ),
    json5_text,
    _zed,
    _zed_then,
)
VS_CODE = Client(
    "VS Code",
    lambda machine: machine.application("Code", "User", "chatLanguageModels.json"),
    json5_text,
    _vs_code,
    _vs_code_then,
)
CLINE = Told("Cline", _cline)
