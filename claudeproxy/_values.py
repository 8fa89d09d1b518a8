"""Parsers of option values: one function per kind, from text to value.

Each raises a ValueError whose text completes "must be ...".
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit


def integer_from(least: int) -> Callable[[str], int]:
    """Integers from `least` on."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) and int(text) >= least:
            return int(text)
        raise ValueError(f"an integer, {least} or more")

    return parse


def seconds(text: str) -> float:
    """A time in seconds, which may be 0."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text):
        return float(text)
    raise ValueError("a number of seconds, 0 or more")


def deadline(text: str) -> float:
    """A time in seconds, more than 0."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) and float(text) > 0:
        return float(text)
    raise ValueError("a number of seconds, more than 0")


def flag(text: str) -> bool:
    """A boolean, in the words of TOML and of environment files."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("true or false")


def choice(*words: str) -> Callable[[str], str]:
    """One of `words`."""

    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"one of {', '.join(words)}{nearest(text, words)}")

    return parse


def nearest(text: str, names: Iterable[str], prefix: str = "") -> str:
    """What is likely meant by `text`, as a question to add to an error; empty if nothing is.

    `prefix`: what all of them begin with, which makes none of them alike.
    """
    bare = [name.removeprefix(prefix) for name in names]
    found = difflib.get_close_matches(text.removeprefix(prefix), bare, 1)
    return f' (did you mean "{prefix}{found[0]}"?)' if found else ""


def endpoint(text: str) -> str:
    """A Twisted endpoint string; digits are a TCP port on loopback."""
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535:
        return f"tcp:{text}:interface=127.0.0.1"
    number = re.search(r"(?:^tcp6?|[\w.]\]?):([0-9]{2,5})\b", text)
    port = number[1] if number else "3456"
    hint = ""
    if "::1" in text:
        hint = rf"; for ::1 write tcp6:{port}:interface=\:\:1"
    elif re.fullmatch(r"(localhost|127\.0\.0\.1):[0-9]+", text):
        hint = f"; {port} alone is that port on 127.0.0.1"
    elif re.fullmatch(r"[\w-]*\.[\w.-]*:[0-9]+", text):
        hint = f"; for one address write tcp:{port}:interface={text.partition(':')[0]}"
    elif re.match(r"[A-Za-z]\w*:.", text):
        return text
    raise ValueError(
        f"a port number up to 65535 or an endpoint such as unix:/run/claudemax.sock{hint}"
    )


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


def collector(text: str) -> str:
    """The base URL of an OTLP collector."""
    if re.search(r"/v1/(traces|metrics|logs)/?$", text):
        raise ValueError("the URL as it is before /v1/traces")
    return url(text)


def database(text: str) -> str:
    """The URL of a PostgreSQL database, as libpq takes it."""
    found = re.fullmatch(r"postgres(?:ql)?://(?:[^\s/?#]*@)?([^\s/?#@]*)([/?]\S*)?", text)
    hosts = found[1].split(",") if found else [":"]
    if all(re.search(r"^(\[[^\]]*\]|[^:\[\]]*)(:[0-9]{1,5})?$", host) for host in hosts):
        return text
    raise ValueError(
        "a URL such as postgresql://user@host/database, the password in PGPASSWORD or ~/.pgpass"
    )


def without_password(text: str) -> str:
    """The same URL, fit to be shown."""
    text = re.sub(r"(?<=://)([^/?#]*?):[^/?#]*@", r"\1:***@", text)
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", text)


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


_WINDOW = r"(five_hour|seven_day)(_[a-z0-9]+)*"
"""Of the names that Anthropic gives its windows, what does not change with the models."""


def share(text: str) -> tuple[str, float]:
    """(window, share from 0 to 1) of ``WINDOW=PERCENT``."""
    window, _, percent = text.partition("=")
    number = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)%?", percent)
    if re.fullmatch(_WINDOW, window) and number and float(number[1]) <= 100:
        return window, float(number[1]) / 100
    raise ValueError("WINDOW=PERCENT, such as five_hour=20 or seven_day_opus=50")
