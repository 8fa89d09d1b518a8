"""What the text of an option may be: one function a kind, from text to value.

Each raises ValueError with a text that completes "must be ...".
"""

import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit


def whole(least: int) -> Callable[[str], int]:
    """Whole numbers from `least` on."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) and int(text) >= least:
            return int(text)
        raise ValueError(f"a whole number, {least} or more")

    return parse


def seconds(text: str) -> float:
    """A time that may be none at all."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text):
        return float(text)
    raise ValueError("a number of seconds, 0 or more")


def deadline(text: str) -> float:
    """A time in seconds that is not none."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) and float(text) > 0:
        return float(text)
    raise ValueError("a number of seconds, more than 0")


def flag(text: str) -> bool:
    """Yes or no, in the words of TOML and of environment files."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def endpoint(text: str) -> str:
    """A Twisted endpoint string; digits are a TCP port on loopback."""
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535:
        return f"tcp:{text}:interface=127.0.0.1"
    if re.match(r"[A-Za-z]\w*:.", text):
        return text
    raise ValueError("a port number up to 65535 or an endpoint such as unix:/run/claudemax.sock")


def path(text: str) -> str:
    """A path, made absolute: twistd changes its directory when it goes into the background."""
    if text and "\0" not in text:
        return os.path.abspath(os.path.expanduser(text))
    raise ValueError("a path")


def url(text: str) -> str:
    """The base URL of an HTTP API, without a slash at its end."""
    try:
        parts = urlsplit(text)
        extra = parts.query or parts.fragment or "@" in parts.netloc or re.search(r"\s", text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not extra:
            return text.rstrip("/")
    except ValueError:  # of urlsplit: brackets, the port
        pass
    raise ValueError("an http or https URL without user, password or query")


def host(text: str) -> str:
    """What a Host header may say, in lower case."""
    if re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", text):
        return text.lower()
    raise ValueError("a host name such as claude.example.com, with or without a port")


def origin(text: str) -> str:
    """What an Origin header may say, in lower case."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/*?#@]+", text):
        return text.lower()
    raise ValueError("an origin such as https://chat.example.com, without a path")


def alias(text: str) -> tuple[str, str]:
    """(name, model) of ``NAME=MODEL``."""
    name, _, model = text.partition("=")
    if re.fullmatch(r"\S+", name) and re.fullmatch(r"\S+", model):
        return name, model
    raise ValueError("NAME=MODEL")
