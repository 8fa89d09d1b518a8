"""claudemax: an OpenAI-compatible API in front of your own `claude` CLI."""

__version__ = "0.1.0"
