"""Tells twistd that there is a ``claudemax``. Nothing is imported until it is asked for."""

from twisted.application.service import ServiceMaker

claudemax = ServiceMaker(
    "claudemax",
    "claudeproxy.tap",
    "Your own logged-in claude CLI as an OpenAI-compatible API.",
    "claudemax",
)
