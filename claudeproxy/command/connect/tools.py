"""What is neither agent nor editor: the command line's ``llm``, and servers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import yaml_text
from .change import Change, Item
from .client import NAME, Client, Daemon, Machine, Told


def _llm_place(machine: Machine) -> Path:
    directory = machine.named("LLM_USER_PATH", machine.application("io.datasette.llm"))
    return directory / "extra-openai-models.yaml"


def _llm(daemon: Daemon, current: Any) -> Sequence[Change]:
    changes = []
    for model in daemon.models:
        name = f"{NAME}/{model.id}"
        settings = {
            "model_id": name,
            "model_name": model.id,
            "api_base": daemon.base,
            "supports_tools": True,
            "supports_schema": True,
            "vision": True,
        }
        if daemon.key:
            settings["api_key_name"] = NAME
        changes.append(Change((Item("model_id", name),), settings))
    return changes


def _llm_then(daemon: Daemon) -> Sequence[str]:
    keep = [f"llm stores keys itself: `llm keys set {NAME}` asks for it."] if daemon.key else []
    return [*keep, f"Try it: llm -m {NAME}/{daemon.models[0].id} Hello"]


def _open_webui(daemon: Daemon) -> Sequence[str]:
    return [
        "Open WebUI keeps its settings in its database. For a new one, set before its first start:",
        f"    OPENAI_API_BASE_URL={daemon.base}",
        f"    OPENAI_API_KEY={daemon.shown_key}",
        "For one that runs: Admin settings, Connections, OpenAI API, the same two values.",
        *_elsewhere(daemon),
    ]


def _home_assistant(daemon: Daemon) -> Sequence[str]:
    return [
        "In Home Assistant: Settings, Devices & services, Add integration, Open Responses:",
        f"    URL     {daemon.base}",
        f"    API key {daemon.shown_key}",
        f"    Model   {daemon.models[0].id}",
        "It tries what you enter with one small request, which your plan is charged for.",
        *_elsewhere(daemon),
    ]


def _elsewhere(daemon: Daemon) -> Sequence[str]:
    if urlsplit(daemon.url).hostname not in ("127.0.0.1", "::1"):
        return []
    return [
        "From a container or another machine this address leads elsewhere. For those, the daemon",
        "has to listen on an address they can reach, with a key (`claudemax key` makes one).",
    ]


LLM = Client("llm", _llm_place, yaml_text, _llm, _llm_then)
OPEN_WEBUI = Told("Open WebUI", _open_webui)
HOME_ASSISTANT = Told("Home Assistant", _home_assistant)
