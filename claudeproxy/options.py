"""Settings: one frozen class, filled from the command line, the environment and a TOML file.

The fields of `Settings` are the only table of options: the command line and its help
(`claudeproxy.tap`), the variables (``CLAUDEMAX_MAX_BODY``) and the keys of the file (``max-body``)
are made from their metadata. The first source that has an option wins: command line, environment,
file, default. Lists are not merged.

There is no settings library because twistd requires a `twisted.python.usage.Options`.
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
    """A wrong setting. The text is one line that names the option, its source and the remedy."""


@attrs.frozen
class Option:
    """How users write a field of `Settings`."""

    help: str
    """One sentence."""
    parse: Callable[[str], Any]
    """From text to value. The text of a ValueError completes "must be ..."."""
    unit: str
    """The kind of value: ``SECONDS``, ``PATH``; empty for a flag."""
    default: str
    """The default as a user would write it, or what it means to leave the option out."""
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
    """A field of `Settings`. `unset`: what it means to leave out an option without a `default`."""
    value = None if default is None else parse(default)
    if repeatable:
        value = () if default is None else (value,)
    option = Option(help, parse, unit, unset if default is None else default, repeatable)
    hides = values.without_password if parse is values.database else None
    shown = True if hides is None else lambda value: repr(value and hides(value))
    return attrs.field(default=value, repr=shown, metadata={"option": option})


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
    processes: int | None = _option(
        "How many Claude CLIs may run, about 200 MB each.", values.integer_from(1), "N",
        unset="as many as a quarter of the memory holds, 2 to 16",
    )  # fmt: skip
    concurrency: int = _option("Turns that may run at once.", values.integer_from(1), "N", "8")
    queue: int = _option(
        "Turns that may wait; more are refused.", values.integer_from(0), "N", "64"
    )
    max_body: int = _option("The largest request.", values.integer_from(1), "BYTES", str(64 << 20))
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
    drain_notice: float = _option(
        "How long the port stays open after a stop signal, with a 503 at /health, so that a load "
        "balancer notices.",
        values.seconds, "SECONDS", "0",
    )  # fmt: skip
    park: float = _option(
        "How long a process waits for a client's tool result.", values.seconds, "SECONDS", "900"
    )
    keep_seconds: float = _option(
        "How long a process is kept that nobody uses.", values.seconds, "SECONDS", "600"
    )
    keep: int | None = _option(
        "Deprecated: where --processes is not set, it is the sum of --keep and --warm, and at "
        "least --concurrency.",
        values.integer_from(0), "N",
    )  # fmt: skip
    warm: int | None = _option("Deprecated: see --keep.", values.integer_from(0), "N")
    allow_host: tuple[str, ...] = _option(
        "A Host header to accept besides the loopback names.", values.host, "HOST", repeatable=True
    )
    allow_origin: tuple[str, ...] = _option(
        "An origin whose web pages may call the API.", values.origin, "ORIGIN", repeatable=True
    )
    model_alias: tuple[tuple[str, str], ...] = _option(
        "Another name for a model.", values.alias, "NAME=MODEL", repeatable=True
    )
    extra_usage: bool = _option(
        "Let turns be paid as extra usage, where the account has it switched on.",
        values.flag, default="off",
    )  # fmt: skip
    reserve: tuple[tuple[str, float], ...] = _option(
        "How much of a plan window to leave for the owner's own use: five_hour, seven_day ...",
        values.share, "WINDOW=PERCENT", repeatable=True,
    )  # fmt: skip
    plain_tool_names: bool = _option(
        "Send tools under the client's own names instead of mcp__server__name, for an upstream of "
        "one's own; other tools then take another process.",
        values.flag, default="off",
    )  # fmt: skip
    no_repair: bool = _option(
        "Do not ask once more for an answer that breaks its JSON schema.",
        values.flag, default="off",
    )  # fmt: skip
    store: str | None = _option(
        "A PostgreSQL database that several nodes share for what they store and record; the "
        "password in PGPASSWORD or ~/.pgpass.",
        values.database, "URL", unset="the files of this user",
    )  # fmt: skip
    no_store: bool = _option(
        "Keep no responses, conversations and chat completions.",
        values.flag,
        default="off",
    )
    no_ledger: bool = _option("Keep no record of what each turn used.", values.flag, default="off")
    record: str | None = _option(
        "Keep every exchange in this directory, prompts and answers included.", values.path, "DIR"
    )
    otlp: str | None = _option(
        "An OpenTelemetry collector (OTLP over HTTP, such as http://localhost:4318) that is sent a "
        "span and metrics of each turn, without content.",
        values.collector, "URL",
    )  # fmt: skip
    log_format: str = _option(
        "How the log is written: auto (lines for people on a terminal of `claudemax`, else text), "
        "text, or json (an object a line).",
        values.choice("auto", "text", "json"), "FORMAT", "auto",
    )  # fmt: skip
    api_key_file: str | None = _option(
        "A file with the key that clients must send, or lines of NAME: KEY.", values.path, "PATH"
    )


def table() -> Iterator[tuple[str, Option]]:
    """The (field name, option) pairs, in the order of `Settings`."""
    for field in attrs.fields(Settings):
        if "option" in field.metadata:
            yield field.name, field.metadata["option"]


def written(settings: Settings) -> Iterator[tuple[str, Option, str, bool]]:
    """Of each option its name, the option, its value as a user would write it, and whether that is
    another than the default. The upstream's key is no option: it is not told."""
    for field, option in table():
        value = getattr(settings, field)
        is_set = value != attrs.fields_dict(Settings)[field].default
        yield field.replace("_", "-"), option, _written(value, option), is_set


def _written(value: Any, option: Option) -> str:
    if value is None or value == ():
        return option.default
    if option.is_flag:
        return "on" if value else "off"
    if option.parse is values.database:
        return values.without_password(value)
    if option.parse is values.share:
        return ", ".join(f"{name}={share * 100:g}" for name, share in value)
    if option.parse is values.alias:
        return ", ".join(map("=".join, value))
    if option.repeatable:
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_toml(path: str) -> Mapping[str, Any]:
    """The content of the file at `path`.

    :raises OSError: when it cannot be read.
    :raises ConfigError: when it is not TOML.
    """
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
    """The settings from a command line, an environment and the file that these name.

    `options` maps the given options (``max-body``, and ``config``) to their text, repeatable ones
    to a list of texts.

    :raises ConfigError: when one of them is wrong.
    """
    path, file = _file(options, environ, read_toml)
    names = [field.replace("_", "-") for field, _ in table()]
    for name in sorted(set(file) - set(names)):
        hint = values.nearest(name, names)
        if name == "upstream-key":
            hint = ": it is the variable CLAUDEMAX_UPSTREAM_KEY"  # no secret in this file
        raise ConfigError(f'{path}: there is no option "{name}"{hint}')
    _check_variables(environ)
    found: dict[str, Any] = {}
    source: dict[str, str] = {}
    for field, option in table():
        name, variable = field.replace("_", "-"), PREFIX + field.upper()
        # An empty variable counts as unset: that is how service files and containers unset one.
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
    for field in ("model_alias", "reserve"):
        names = [name for name, _ in getattr(settings, field)]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f'{source[field]}: "{name}" is given more than once')
    return settings


PREFIX = "CLAUDEMAX_"

VARIABLES = ("CLAUDEMAX_CONFIG", "CLAUDEMAX_UPSTREAM_KEY")
"""Those that are no options."""


def _check_variables(environ: Mapping[str, str]) -> None:
    """A misspelled one is refused: who sets CLAUDEMAX_API_KEYFILE believes that there is a key."""
    known = [*VARIABLES, *(PREFIX + field.upper() for field, _ in table())]
    for name in sorted(environ):
        if name.startswith(PREFIX) and environ[name] and name not in known:
            raise ConfigError(f"there is no variable {name}{values.nearest(name, known, PREFIX)}")


def _file(
    options: Mapping[str, Any],
    environ: Mapping[str, str],
    read_toml: Callable[[str], Mapping[str, Any]],
) -> tuple[str, Mapping[str, Any]]:
    """The path and the content of the settings file; without a file, the content is empty."""
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
    """The value of `raw`: text, a list of texts, or a value of TOML."""
    if not option.repeatable:
        return _parsed(option, raw, source)
    if isinstance(raw, Mapping) and option.parse in (values.alias, values.share):
        raw = [
            f"{name}={value}" if isinstance(value, (str, int, float)) else value
            for name, value in raw.items()
        ]
    return tuple(_parsed(option, one, source) for one in (raw if isinstance(raw, list) else [raw]))


def _parsed(option: Option, raw: Any, source: str) -> Any:
    text = str(raw).lower() if isinstance(raw, bool) else str(raw).strip()
    try:
        if isinstance(raw, (str, int, float)):
            return option.parse(text)
        raise ValueError("a single value")
    except ValueError as error:
        # Before an @ there may be a password, or in a parameter.
        got = "" if "@" in text or "password" in text else f' (got "{text}")'
        raise ConfigError(f"{source}: must be {error}{got}") from None
