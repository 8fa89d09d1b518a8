"""Settings by values: who wins, what is refused and with which words."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from claudeproxy.engine import memory
from claudeproxy.options import ConfigError, Settings, load, read_toml, table, written
from claudeproxy.service import _limits
from claudeproxy.tap import Options

FILE = "/etc/claudemax.toml"


def settings(
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a command line, an environment and the content of a file."""
    given = {**(options or {}), **({} if file is None else {"config": FILE})}
    return load(given, environ or {}, {FILE: file}.__getitem__)


def refusal(*args: Any, **kwargs: Any) -> str:
    """The words with which `settings` refuses its arguments."""
    with pytest.raises(ConfigError) as caught:
        settings(*args, **kwargs)
    return str(caught.value)


def hinted(text: str, hint: str) -> str:
    """How a port is refused of which it is known what was meant."""
    return PORT.format(text).replace(" (got", f"; {hint} (got")


def test_defaults() -> None:
    assert settings() == Settings()
    assert attrs.asdict(Settings()) == {
        "port": ("tcp:3456:interface=127.0.0.1",),
        "claude": None,
        "upstream": None,
        "upstream_key": "any",
        "demo": False,
        "processes": None,
        "concurrency": 8,
        "queue": 64,
        "max_body": 67108864,
        "first_token_timeout": 120.0,
        "idle_timeout": 120.0,
        "turn_timeout": 1800.0,
        "drain": 20.0,
        "drain_notice": 0.0,
        "park": 900.0,
        "keep_seconds": 600.0,
        "keep": None,
        "warm": None,
        "allow_host": (),
        "allow_origin": (),
        "model_alias": (),
        "extra_usage": False,
        "reserve": (),
        "plain_tool_names": False,
        "no_repair": False,
        "store": None,
        "no_store": False,
        "no_ledger": False,
        "record": None,
        "otlp": None,
        "log_format": "auto",
        "api_key_file": None,
    }


def test_command_line_before_environment_before_file_before_default() -> None:
    options, environ, file = {"queue": "1"}, {"CLAUDEMAX_QUEUE": "3"}, {"queue": 5}
    assert settings(options, environ, file).queue == 1
    assert settings({}, environ, file).queue == 3
    assert settings({}, {}, file).queue == 5
    assert settings().queue == 64


def test_the_winner_of_a_repeatable_option_replaces_the_others() -> None:
    environ, file = {"CLAUDEMAX_ALLOW_HOST": "a.lan, b.lan:80"}, {"allow-host": ["c.lan"]}
    assert settings({"allow-host": ["d.lan"]}, environ, file).allow_host == ("d.lan",)
    assert settings({}, environ, file).allow_host == ("a.lan", "b.lan:80")
    assert settings({}, {}, file).allow_host == ("c.lan",)


def test_an_empty_variable_is_an_unset_one() -> None:
    environ = {"CLAUDEMAX_WARM": "", "CLAUDEMAX_UPSTREAM_KEY": "", "CLAUDEMAX_CONFIG": ""}
    assert settings({}, environ) == Settings()


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("off", False)]
)
def test_a_flag_in_the_environment(word: str, value: bool) -> None:
    assert settings({}, {"CLAUDEMAX_DEMO": word}, {"demo": not value}).demo is value


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("port", "0", "tcp:0:interface=127.0.0.1"),
        ("port", "65535", "tcp:65535:interface=127.0.0.1"),
        ("port", "unix:/run/c.sock:mode=660", "unix:/run/c.sock:mode=660"),
        ("port", "tcp:80:interface=\\:\\:1", "tcp:80:interface=\\:\\:1"),
        ("allow-host", "Host.Docker.Internal", "host.docker.internal"),
        ("allow-host", "[::1]:3456", "[::1]:3456"),
        ("allow-origin", "https://Chat.example.com", "https://chat.example.com"),
        ("allow-origin", "app://obsidian.md", "app://obsidian.md"),
        ("model-alias", "gpt-4=opus", ("gpt-4", "opus")),
        ("model-alias", "a=b=c", ("a", "b=c")),
        ("reserve", "five_hour=20", ("five_hour", 0.2)),
        ("reserve", "seven_day_opus=12.5%", ("seven_day_opus", 0.125)),
        ("reserve", "seven_day=0", ("seven_day", 0.0)),
        ("reserve", "seven_day=100", ("seven_day", 1.0)),
    ],
)
def test_values_of_repeatable_options(option: str, text: str, value: object) -> None:
    assert getattr(settings({option: [text]}), option.replace("-", "_")) == (value,)


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("upstream", "http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("upstream", "https://api.example.com/base", "https://api.example.com/base"),
        ("max-body", "1", 1),
        ("idle-timeout", "0.5", 0.5),
        ("drain", "0", 0.0),
        ("processes", "1", 1),
        ("keep", "0", 0),
        ("claude", "/opt/bin/../claude", "/opt/claude"),
    ],
)
def test_values(option: str, text: str, value: object) -> None:
    assert getattr(settings({option: text}), option.replace("-", "_")) == value


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert settings({"claude": "bin/claude"}).claude == f"{tmp_path}/bin/claude"
    assert settings({"api-key-file": "~/keys"}).api_key_file == "/home/me/keys"


WHOLE = 'must be an integer, {} or more (got "{}")'
HOST = 'must be a host name such as claude.example.com, with or without a port (got "{}")'
ORIGIN = 'must be an origin such as https://chat.example.com, without a path (got "{}")'
URL = "must be an http or https URL without user, password or query"
SHARE = 'must be WINDOW=PERCENT, such as five_hour=20 or seven_day_opus=50 (got "{}")'
PORT = (
    'must be a port number up to 65535 or an endpoint such as unix:/run/claudemax.sock (got "{}")'
)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("warm", "x", WHOLE.format(0, "x")),
        ("warm", "-1", WHOLE.format(0, "-1")),
        ("warm", "1.5", WHOLE.format(0, "1.5")),
        ("warm", "٣", WHOLE.format(0, "٣")),
        ("queue", "", WHOLE.format(0, "")),
        ("keep", "9" * 5000, WHOLE.format(0, "9" * 5000)),
        ("concurrency", "0", WHOLE.format(1, "0")),
        (
            "otlp",
            "http://localhost:4318/v1/traces",
            'must be the URL as it is before /v1/traces (got "http://localhost:4318/v1/traces")',
        ),
        ("processes", "0", WHOLE.format(1, "0")),
        ("max-body", "64M", WHOLE.format(1, "64M")),
        ("first-token-timeout", "0", 'must be a number of seconds, more than 0 (got "0")'),
        ("idle-timeout", "nan", 'must be a number of seconds, more than 0 (got "nan")'),
        ("turn-timeout", "1h", 'must be a number of seconds, more than 0 (got "1h")'),
        ("drain", "-1", 'must be a number of seconds, 0 or more (got "-1")'),
        ("park", "inf", 'must be a number of seconds, 0 or more (got "inf")'),
        ("keep-seconds", "1e3", 'must be a number of seconds, 0 or more (got "1e3")'),
        ("demo", "maybe", 'must be true or false (got "maybe")'),
        ("port", "65536", PORT.format("65536")),
        ("port", "abc", PORT.format("abc")),
        ("port", "127.0.0.1:80", hinted("127.0.0.1:80", "80 alone is that port on 127.0.0.1")),
        ("port", "localhost:80", hinted("localhost:80", "80 alone is that port on 127.0.0.1")),
        (
            "port",
            "10.1.2.3:80",
            hinted("10.1.2.3:80", "for one address write tcp:80:interface=10.1.2.3"),
        ),
        ("port", "::1", hinted("::1", r"for ::1 write tcp6:3456:interface=\:\:1")),
        ("port", "[::1]:80", hinted("[::1]:80", r"for ::1 write tcp6:80:interface=\:\:1")),
        (
            "port",
            "tcp6:80:interface=::1",
            hinted("tcp6:80:interface=::1", r"for ::1 write tcp6:80:interface=\:\:1"),
        ),
        (
            "log-format",
            "jsno",
            'must be one of auto, text, json (did you mean "json"?) (got "jsno")',
        ),
        ("claude", "", 'must be a path (got "")'),
        ("upstream", "ftp://example.com", f'{URL} (got "ftp://example.com")'),
        ("upstream", "example.com", f'{URL} (got "example.com")'),
        ("upstream", "http://", f'{URL} (got "http://")'),
        ("upstream", "http://[x", f'{URL} (got "http://[x")'),
        ("upstream", "http://h:99999", f'{URL} (got "http://h:99999")'),
        ("upstream", "http://user:secret@example.com", URL),
        ("allow-host", "*", HOST.format("*")),
        ("allow-host", "http://a.lan", HOST.format("http://a.lan")),
        ("allow-origin", "*", ORIGIN.format("*")),
        ("allow-origin", "https://a.lan/chat", ORIGIN.format("https://a.lan/chat")),
        ("model-alias", "gpt-4", 'must be NAME=MODEL (got "gpt-4")'),
        ("model-alias", "=opus", 'must be NAME=MODEL (got "=opus")'),
        ("reserve", "five_hour", SHARE.format("five_hour")),
        ("reserve", "five_hour=", SHARE.format("five_hour=")),
        ("reserve", "=20", SHARE.format("=20")),
        ("reserve", "five_hour=101", SHARE.format("five_hour=101")),
        ("reserve", "five_hour=-1", SHARE.format("five_hour=-1")),
        ("reserve", "five_hour=a fifth", SHARE.format("five_hour=a fifth")),
        ("reserve", "five_hour=nan", SHARE.format("five_hour=nan")),
        ("reserve", "five_hour=٣", SHARE.format("five_hour=٣")),
        ("reserve", "five hour=20", SHARE.format("five hour=20")),
        ("reserve", "five_hours=20", SHARE.format("five_hours=20")),
        ("extra-usage", "maybe", 'must be true or false (got "maybe")'),
        ("plain-tool-names", "maybe", 'must be true or false (got "maybe")'),
    ],
)
def test_refusals(option: str, text: str, words: str) -> None:
    assert refusal({option: text}) == f"--{option}: {words}"


def test_a_refusal_names_its_source() -> None:
    words = 'must be an integer, 0 or more (got "x")'
    assert refusal({"warm": "x"}) == f"--warm: {words}"
    assert refusal({}, {"CLAUDEMAX_WARM": "x"}) == f"CLAUDEMAX_WARM: {words}"
    assert refusal({}, {}, {"warm": "x"}) == f"{FILE}: warm: {words}"


def test_demo_and_upstream_exclude_each_other() -> None:
    assert (
        refusal({"demo": "true", "upstream": "http://a.lan"})
        == "--demo and --upstream exclude each other"
    )
    assert (
        refusal({}, {"CLAUDEMAX_UPSTREAM": "http://a.lan"}, {"demo": True})
        == f"{FILE}: demo and CLAUDEMAX_UPSTREAM exclude each other"
    )


def test_an_alias_has_one_meaning() -> None:
    words = '--model-alias: "a" is given more than once'
    assert refusal({"model-alias": ["a=b", "a=c"]}) == words


def test_a_window_has_one_reserve() -> None:
    words = '--reserve: "five_hour" is given more than once'
    assert refusal({"reserve": ["five_hour=20", "seven_day=15", "five_hour=30"]}) == words


def test_reserves_in_the_environment() -> None:
    found = settings({}, {"CLAUDEMAX_RESERVE": "five_hour=20, seven_day=15"})
    assert found.reserve == (("five_hour", 0.2), ("seven_day", 0.15))


def test_the_upstream_key_is_in_the_environment_only_and_never_shown() -> None:
    found = settings({}, {"CLAUDEMAX_UPSTREAM_KEY": "sk-secret"})
    assert found.upstream_key == "sk-secret"
    assert "sk-secret" not in repr(found)
    assert refusal({}, {}, {"upstream-key": "x"}) == (
        f'{FILE}: there is no option "upstream-key": it is the variable CLAUDEMAX_UPSTREAM_KEY'
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CLAUDEMAX_API_KEYFILE", ' (did you mean "CLAUDEMAX_API_KEY_FILE"?)'),
        ("CLAUDEMAX_UPSTREAMKEY", ' (did you mean "CLAUDEMAX_UPSTREAM_KEY"?)'),
        ("CLAUDEMAX_XYZZY", ""),
    ],
)
def test_a_variable_that_is_none_is_refused(name: str, meant: str) -> None:
    """Who sets it believes that it counts: that there is a key, for instance."""
    assert refusal({}, {name: "x"}) == f"there is no variable {name}{meant}"
    assert settings({}, {name: ""}) == Settings()


def toml(tmp_path: Path, text: str) -> Settings:
    """Settings of a real file."""
    file = tmp_path / "claudemax.toml"
    file.write_text(text)
    return load({"config": str(file)}, {})


def test_toml(tmp_path: Path) -> None:
    found = toml(
        tmp_path,
        """
        port = [3456, "unix:/run/c.sock"]
        demo = true
        idle-timeout = 1.5
        max-body = 1_000
        allow-origin = "https://chat.example.com"
        [model-alias]
        gpt-4 = "opus"
        "gpt-3.5" = "haiku"
        """,
    )
    assert found == Settings(
        port=("tcp:3456:interface=127.0.0.1", "unix:/run/c.sock"),
        demo=True,
        idle_timeout=1.5,
        max_body=1000,
        allow_origin=("https://chat.example.com",),
        model_alias=(("gpt-4", "opus"), ("gpt-3.5", "haiku")),
    )
    assert toml(tmp_path, 'model-alias = ["a=b"]').model_alias == (("a", "b"),)


def test_reserves_in_toml(tmp_path: Path) -> None:
    shares = (("five_hour", 0.2), ("seven_day", 0.125))
    assert toml(tmp_path, "[reserve]\nfive_hour = 20\nseven_day = 12.5").reserve == shares
    assert toml(tmp_path, '[reserve]\nfive_hour = "20"\nseven_day = "12.5%"').reserve == shares
    assert toml(tmp_path, 'reserve = ["five_hour=20", "seven_day=12.5"]').reserve == shares


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("warn = 1", 'there is no option "warn" (did you mean "warm"?)'),
        ("max_body = 1", 'there is no option "max_body" (did you mean "max-body"?)'),
        ('config = "/x"', 'there is no option "config"'),
        ("warm = [1]", 'warm: must be a single value (got "[1]")'),
        ("warm = true", 'warm: must be an integer, 0 or more (got "true")'),
        ("warm = 2.0", 'warm: must be an integer, 0 or more (got "2.0")'),
        ("demo = 2", 'demo: must be true or false (got "2")'),
        ("[model-alias]\na = [1]", 'model-alias: must be a single value (got "[1]")'),
        ("[reserve]\nfive_hour = true", f"reserve: {SHARE.format('five_hour=True')}"),
        ("[reserve]\nfive_hour = [20]", 'reserve: must be a single value (got "[20]")'),
        ("reserve = 20", f"reserve: {SHARE.format('20')}"),
        ("[port]\na = 1", "port: must be a single value (got \"{'a': 1}\")"),
    ],
)
def test_toml_refusals(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        toml(tmp_path, text)
    assert str(caught.value) == f"{tmp_path}/claudemax.toml: {words}"


@pytest.mark.parametrize("content", [b"warm = ", b"\xff"])
def test_what_is_not_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml: is not TOML: "):
        read_toml(str(file))


def test_which_file() -> None:
    read = []

    def absent(path: str) -> Mapping[str, Any]:
        read.append(path)
        raise FileNotFoundError(2, "No such file or directory")

    home = {"HOME": "/home/me"}
    assert load({}, {}, absent) == Settings()
    assert load({}, home, absent) == Settings()
    assert load({}, {**home, "XDG_CONFIG_HOME": "/xdg"}, absent) == Settings()
    with pytest.raises(ConfigError, match=r"^/env: cannot be read: No such file or directory$"):
        load({}, {**home, "CLAUDEMAX_CONFIG": "/env"}, absent)
    with pytest.raises(ConfigError, match=r"^/line: cannot be read: No such file or directory$"):
        load({"config": "/line"}, {**home, "CLAUDEMAX_CONFIG": "/env"}, absent)
    assert read == [
        "/home/me/.config/claudemax/config.toml",
        "/xdg/claudemax/config.toml",
        "/env",
        "/line",
    ]


def test_a_file_that_is_there_and_cannot_be_read_is_not_passed_over() -> None:
    def locked(path: str) -> Mapping[str, Any]:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read: Permission denied$"):
        load({}, {"HOME": "/home/me"}, locked)


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings."""
    for field, _ in table():
        monkeypatch.delenv(f"CLAUDEMAX_{field.upper()}", raising=False)
    monkeypatch.delenv("CLAUDEMAX_CONFIG", raising=False)
    monkeypatch.delenv("CLAUDEMAX_UPSTREAM_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.usefixtures("nothing_set")
def test_command_line() -> None:
    options = Options()
    options.parseOptions(
        "--port 1 --port unix:/s --demo --max-body 9 --model-alias a=b --allow-host=h "
        "--extra-usage --plain-tool-names --reserve five_hour=20 --reserve seven_day=15".split()
    )
    assert options.settings == Settings(
        port=("tcp:1:interface=127.0.0.1", "unix:/s"),
        demo=True,
        max_body=9,
        model_alias=(("a", "b"),),
        allow_host=("h",),
        extra_usage=True,
        plain_tool_names=True,
        reserve=(("five_hour", 0.2), ("seven_day", 0.15)),
    )


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--warm x", 'claudemax: --warm: must be an integer, 0 or more (got "x")'),
        ("--wram 1", 'claudemax: option --wram not recognized (did you mean "warm"?)'),
        ("--nonsense", "claudemax: option --nonsense not recognized"),
        ("--warm", "claudemax: option --warm requires argument"),
        ("--demo=1", "claudemax: option --demo must not have an argument"),
        ("warm", "claudemax: there are only options, and 'warm' is none"),
    ],
)
def test_a_wrong_command_line_is_one_line(line: str, words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(line.split())
    assert caught.value.code == words


def test_help_shows_every_option_with_its_default() -> None:
    text = " ".join(Options().getUsage(width=100).split())
    for field, option in table():
        shown = f"--{field.replace('_', '-')}{'' if option.is_flag else '='} {option.help} ("
        assert shown in text
        rest = text[text.index(shown) + len(shown) :]
        assert f"default: {option.default}" in rest[: rest.index(")")]
    assert "--config= The TOML file." in text


@pytest.mark.usefixtures("nothing_set")
def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("claudemax ")


def test_importing_installs_no_reactor() -> None:
    code = (
        "import sys, claudeproxy, claudeproxy.options, claudeproxy.tap\n"
        "import twisted.plugins.claudemax_plugin\n"
        "sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({"processes": "3"}, 3),
        ({"processes": "3", "warm": "9", "keep": "9"}, 3),
        ({"warm": "4", "keep": "9"}, 13),
        ({"warm": "12"}, 12),
        ({"keep": "12"}, 12),
        ({"warm": "0"}, 8),
        ({"warm": "1", "keep": "2", "concurrency": "6"}, 6),
        ({}, memory.processes()),
    ],
)
def test_how_many_processes(options: dict[str, str], processes: int) -> None:
    assert _limits(settings(options)).processes == processes


def test_settings_as_one_writes_them() -> None:
    told = {name: (value, is_set) for name, _, value, is_set in written(Settings())}
    assert set(told) == {field.replace("_", "-") for field, _ in table()}
    assert not any(is_set for _, is_set in told.values())
    assert told["port"][0] == "tcp:3456:interface=127.0.0.1" and told["demo"][0] == "off"
    assert told["drain"][0] == "20" and told["allow-host"][0] == "none"
    chosen = settings(
        {
            "port": ["3456", "unix:/x"], "upstream": "https://proxy.example:8080/v1",
            "model-alias": ["gpt-4=opus", "o1=haiku"], "reserve": ["five_hour=12.5"],
            "drain": "2.5", "no-store": "true", "max-body": "1000000",
        },
        {"CLAUDEMAX_UPSTREAM_KEY": "upstr3am"},
    )  # fmt: skip
    told = {name: (value, is_set) for name, _, value, is_set in written(chosen)}
    assert told["port"] == ("tcp:3456:interface=127.0.0.1, unix:/x", True)
    assert told["upstream"] == ("https://proxy.example:8080/v1", True)
    assert told["model-alias"] == ("gpt-4=opus, o1=haiku", True)
    assert told["reserve"] == ("five_hour=12.5", True)
    assert (told["drain"], told["no-store"], told["max-body"]) == (
        ("2.5", True), ("on", True), ("1000000", True),
    )  # fmt: skip
    assert "upstr3am" not in str(told)


SECRET = "postgresql://me:a-secret@db.lan,db2.lan:5433/claudemax?sslmode=require&password=a-secret"


def test_the_password_of_the_store_is_never_told() -> None:
    found = settings({"store": SECRET})
    assert found.store == SECRET
    told = {name: value for name, _, value, _ in written(found)}
    assert told["store"] == (
        "postgresql://me:***@db.lan,db2.lan:5433/claudemax?sslmode=require&password=***"
    )
    assert "a-secret" not in repr(found)
    for url in (
        "mysql://me:a-secret@h/d",
        "host=h password=a-secret",
        "postgresql://me:a secret@h",
        "postgresql://me:a-secret@h:x/d",
        "postgresql://me:a-secret/@h/d",
    ):
        why = refusal({"store": url})
        assert why.startswith("--store: must be a URL such as postgresql://user@host/database")
        assert "secret" not in why
    for url in ("postgresql:///d?host=/run/pg", "postgres://", "postgresql://a@[::1]:5,h/d"):
        assert settings({"store": url}).store == url
