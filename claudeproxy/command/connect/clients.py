"""The clients by the names that are typed."""

from __future__ import annotations

from . import agents, editors, tools
from .client import Client, Told

CLIENTS: dict[str, Client | Told] = {
    "openclaw": agents.OPENCLAW,
    "codex": agents.CODEX,
    "opencode": agents.OPENCODE,
    "aider": agents.AIDER,
    "continue": editors.CONTINUE,
    "zed": editors.ZED,
    "vscode": editors.VS_CODE,
    "cline": editors.CLINE,
    "llm": tools.LLM,
    "open-webui": tools.OPEN_WEBUI,
    "home-assistant": tools.HOME_ASSISTANT,
}
