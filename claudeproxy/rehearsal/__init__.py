"""A subscription on loopback with a made-up login, in place of the real one.

The unmodified CLI is led there by ``HTTPS_PROXY`` and ``NODE_EXTRA_CA_CERTS``: it believes that it
talks to Anthropic's own hosts, and nothing leaves the machine. With ``ANTHROPIC_BASE_URL`` the CLI
behaves differently, so only this can test what a login does.

Refusals and their wording come from public reports and from the CLI itself. What Anthropic really
does with a request cannot be rehearsed.
"""
