"""Settings: one frozen class, filled from the command line, the environment and a TOML file.

The fields of `Settings` are the only table of options: their metadata makes the command line and
its help (`claudeproxy.tap`), the variables (``CLAUDEMAX_MAX_BODY``) and the keys of the file
(``max-body``). Where several name an option the first wins, whole: command line, environment,
file, default.

Why not a settings library: twistd demands a `twisted.python.usage.Options`, and none makes one.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import attrs

from claudeproxy import _values as values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(Exception):
    """A setting is wrong. The text is one line that names the option, its source and the remedy."""


@attrs.frozen
class Option:
    """How a field of `Settings` is written by a user."""

    help: str
    """One sentence."""
    parse: Callable[[str], Any]
    """Text to value; a ValueError completes "must be ..."."""
    unit: str
    """What the value is: ``SECONDS``, ``PATH``; empty for a flag."""
    default: str
    """What a user would write for the default, or what leaving the option out means."""
    repeatable: bool = False
    """The field is a tuple of values."""

    @property
    def is_flag(self) -> bool:
        """It takes no value on the command line."""
        return self.parse is values.flag


def _option(
    help: str,
    parse: Callable[[str], Any],
    unit: str = "",
    default: str | None = None,
    *,
    unset: str = "none",
    repeatable: bool = False,
) -> Any:
    """A field of `Settings`. `unset` says what it means that there is no `default`."""
    value = None if default is None else parse(default)
    if repeatable:
        value = () if default is None else (value,)
    option = Option(help, parse, unit, unset if default is None else default, repeatable)
    return attrs.field(default=value, metadata={"option": option})


@attrs.frozen(kw_only=True)
class Settings:
    """All settings, parsed. Seconds are floats, bytes and counts are ints."""

    port: tuple[str, ...] = _option(
        "Where to listen: digits are a port on 127.0.0.1, anything else is a Twisted endpoint.",
        values.endpoint, "PORT", "3456", repeatable=True,
    )  # fmt: skip
    claude: str | None = _option(
        "The claude CLI.", values.path, "PATH", unset="claude on PATH, else the bundled one"
    )
    upstream: str | None = _option(
        "A Messages API that the CLI talks to instead of the subscription, with the key in "
        "CLAUDEMAX_UPSTREAM_KEY.",
        values.url, "URL", unset="the subscription",
    )  # fmt: skip
    upstream_key: str = attrs.field(default="any", repr=False)
    demo: bool = _option(
        "Serve the embedded demo upstream: no login, no model.", values.flag, default="off"
    )
    warm: int = _option("Processes that wait for a first turn.", values.whole(0), "N", "2")
    concurrency: int = _option("Turns that may run at once.", values.whole(1), "N", "8")
    queue: int = _option("Turns that may wait; more are refused.", values.whole(0), "N", "64")
    max_body: int = _option("The largest request.", values.whole(1), "BYTES", str(64 << 20))
    first_token_timeout: float = _option(
        "How long an answer may take to begin.", values.deadline, "SECONDS", "120"
    )
    idle_timeout: float = _option(
        "How long an answer may pause once begun.", values.deadline, "SECONDS", "120"
    )
    turn_timeout: float = _option(
        "How long a turn may take in all.", values.deadline, "SECONDS", "1800"
    )
    drain: float = _option(
        "How long running turns may go on after a stop signal.", values.seconds, "SECONDS", "20"
    )
    park: float = _option(
        "How long a process waits for a client's tool result.", values.seconds, "SECONDS", "900"
    )
    keep: int = _option(
        "Processes that may be kept or parked between turns, 180 MB each.",
        values.whole(0), "N", "4",
    )  # fmt: skip
    keep_seconds: float = _option(
        "How long a process is kept for the next turn.", values.seconds, "SECONDS", "600"
    )
    allow_host: tuple[str, ...] = _option(
        "A Host header to accept besides the loopback names.", values.host, "HOST", repeatable=True
    )
    allow_origin: tuple[str, ...] = _option(
        "An origin whose web pages may call the API.", values.origin, "ORIGIN", repeatable=True
    )
    model_alias: tuple[tuple[str, str], ...] = _option(
        "Another name for a model.", values.alias, "NAME=MODEL", repeatable=True
    )
    no_store: bool = _option(
        "Keep no answers of the Responses API on disk.", values.flag, default="off"
    )
    api_key_file: str | None = _option(
        "A file with the key that clients must send, or lines of NAME: KEY.", values.path, "PATH"
    )


def table() -> Iterator[tuple[str, Option]]:
    """(field name, option) of every option, in the order of `Settings`."""
    for field in attrs.fields(Settings):
        if "option" in field.metadata:
            yield field.name, field.metadata["option"]


def read_toml(path: str) -> Mapping[str, Any]:
    """What the file at `path` says. OSError when it cannot be read, ConfigError when not TOML."""
    with open(path, "rb") as file:
        try:
            return cast(Mapping[str, Any], tomllib.load(file))
        except ValueError as error:
            raise ConfigError(f"{path}: is not TOML: {error}") from None


def load(
    options: Mapping[str, Any],
    environ: Mapping[str, str],
    read_toml: Callable[[str], Mapping[str, Any]] = read_toml,
) -> Settings:
    """The settings that a command line, an environment and the file they lead to add up to.

    `options` maps the options given (``max-body``, and ``config``) to their text, repeatable ones
    to a list of texts. Raises ConfigError.
    """
    path, file = _file(options, environ, read_toml)
    unknown = set(file) - {field.replace("_", "-") for field, _ in table()}
    if unknown:
        raise ConfigError(f'{path}: there is no option "{min(unknown)}"')
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for field, option in table():
        name, variable = field.replace("_", "-"), "CLAUDEMAX_" + field.upper()
        # An empty variable is an unset one: that is how service files and containers unset it.
        text = environ.get(variable)
        if name in options:
            source[field], raw = f"--{name}", options[name]
        elif text:
            source[field], raw = variable, text.split(",") if option.repeatable else text
        elif name in file:
            source[field], raw = f"{path}: {name}", file[name]
        else:
            continue
        found[field] = _value(option, raw, source[field])
    settings = Settings(**found, upstream_key=environ.get("CLAUDEMAX_UPSTREAM_KEY") or "any")
    if settings.demo and settings.upstream:
        raise ConfigError(f"{source['demo']} and {source['upstream']} exclude each other")
    names = [name for name, _ in settings.model_alias]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'{source["model_alias"]}: "{name}" is given more than once')
    return settings


def _file(
    options: Mapping[str, Any],
    environ: Mapping[str, str],
    read_toml: Callable[[str], Mapping[str, Any]],
) -> tuple[str, Mapping[str, Any]]:
    """The path and the content of the settings file; the content is empty when there is none."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    named = options.get("config") or environ.get("CLAUDEMAX_CONFIG")
    path = named or os.path.join(home, "claudemax", "config.toml")
    try:
        return path, read_toml(path) if named or os.path.isabs(path) else {}
    except OSError as error:
        if not named and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return path, {}
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _value(option: Option, raw: Any, source: str) -> Any:
    """What `raw` (text, a list of texts, or what TOML makes of a value) means."""
    if not option.repeatable:
        return _parsed(option, raw, source)
    if isinstance(raw, Mapping) and option.parse is values.alias:
        raw = [
            f"{name}={model}" if isinstance(model, str) else model for name, model in raw.items()
        ]
    return tuple(_parsed(option, one, source) for one in (raw if isinstance(raw, list) else [raw]))


def _parsed(option: Option, raw: Any, source: str) -> Any:
    text = str(raw).lower() if isinstance(raw, bool) else str(raw).strip()
    try:
        if isinstance(raw, (str, int, float)):
            return option.parse(text)
        raise ValueError("a single value")
    except ValueError as error:
        # Before an @ there may be a password.
        got = "" if "@" in text else f' (got "{text}")'
        raise ConfigError(f"{source}: must be {error}{got}") from None
