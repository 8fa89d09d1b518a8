"""Start, identity, leanness and end of a process."""

import os
import subprocess
from pathlib import Path

import pytest
import pytest_twisted
from driver import conversation, run, system_texts, text

from claudeproxy.cli import launch

CANARY = "CANARY"


def ask(claude, tmp_path, *arguments, **variables):
    """Run a subcommand the way the daemon does."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables}
    return subprocess.run(
        [claude, *arguments],
        env={**launch.environment(environ), **variables},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )


def plant(stage):
    """Everything by which a user or a project speaks to the CLI, each with a canary."""
    skill = f"---\nname: canary\ndescription: {CANARY}\n---\n{CANARY}\n"
    agent = f"---\nname: canary\ndescription: {CANARY}\n---\n{CANARY}\n"
    touch = {"type": "command", "command": f"touch {stage.home}/hooked; echo {CANARY}"}
    events = ("SessionStart", "UserPromptSubmit", "Stop", "Setup")
    hooks = "".join(
        f'"{event}": [{{"hooks": [{{"type": "command", "command": "{touch["command"]}"}}]}}],'
        for event in events
    ).rstrip(",")
    settings = (
        f'{{"hooks": {{{hooks}}}, "env": {{"ANTHROPIC_MODEL": "{CANARY}"}}, '
        f'"model": "{CANARY}", "outputStyle": "canary", "language": "{CANARY}"}}'
    )
    server = f'{{"mcpServers": {{"{CANARY}": {{"command": "touch", "args": ["hooked"]}}}}}}'
    memory = "projects/" + str(stage.cwd).replace("/", "-").replace(".", "-") + "/memory/MEMORY.md"
    for claude in (stage.home / ".claude", stage.config, stage.cwd.parent / ".claude"):
        for name, content in {
            "CLAUDE.md": CANARY,
            "rules/canary.md": CANARY,
            "settings.json": settings,
            "settings.local.json": settings,
            "skills/canary/SKILL.md": skill,
            "commands/canary.md": CANARY,
            "agents/canary.md": agent,
            "output-styles/canary.md": skill,
            memory: CANARY,
        }.items():
            file = claude / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    for folder in (stage.home, stage.cwd.parent):
        (folder / "CLAUDE.md").write_text(CANARY)
        (folder / "CLAUDE.local.md").write_text(CANARY)
        (folder / "AGENTS.md").write_text(CANARY)
        (folder / ".mcp.json").write_text(server)
    (stage.home / ".claude.json").write_text(server)


@pytest.fixture(scope="module", params=["key", "oauth"])
def hello(stage, request):
    """ "Hello" on a process with everything planted, ended at rest: login, stage, turn."""

    async def play():
        made = await stage(login=request.param, plant=plant)
        await made.begin()
        turn = await made.turn("Hello")
        made.cli.transport.closeStdin()
        await made.cli.ended
        return request.param, made, turn

    return run(play())


def test_version(claude, tmp_path):
    said = ask(claude, tmp_path, "--version").stdout.decode()
    assert said.endswith(" (Claude Code)\n")
    assert launch.parse_version(said, claude) == said.split()[0]


def test_hello_is_under_2500_bytes(hello, subscribed):
    """With a login, which adds the user's address, under 2,800."""
    _, _, turn = hello
    assert len(turn.requests) == 1
    assert turn.requests[0].size < (2800 if subscribed else 2500)


def test_no_tool_is_built_in(hello):
    _, _, turn = hello
    assert turn.body["tools"] == []


def test_the_system_prompt_is_the_billing_line_and_one_sentence(hello):
    """What the CLI adds when none is given, as the daemon gives none."""
    _, _, turn = hello
    billing, sentence = system_texts(turn.body)
    assert billing.startswith("x-anthropic-billing-header: ")
    assert sentence == "You are a Claude agent, built on Anthropic's Claude Agent SDK."


def test_the_environment_block_names_directory_model_and_date(hello):
    """The other thing the CLI adds; no flag was found that removes it."""
    _, made, turn = hello
    ((_, said),) = conversation(turn.body)
    assert said == [text("Hello")]
    *reminders, _ = turn.body["messages"][0]["content"]
    added = "".join(block["text"] for block in reminders)
    assert str(made.cwd) in added
    assert "claude-sonnet-4-5" in added
    assert "Today's date is" in added
    assert len(added) < 1500


def test_nothing_of_user_or_project_reaches_the_request(hello):
    """CLAUDE.md, rules, settings, hooks, skills, commands, agents, styles, memory, servers."""
    _, _, turn = hello
    assert CANARY not in str(turn.body)


def test_no_hook_and_no_server_of_the_user_is_run(hello):
    _, made, _ = hello
    assert [path for path in made.files() if path.name == "hooked"] == []


def test_the_login_is_sent_as_what_it_is(hello):
    login, _, turn = hello
    headers = turn.requests[0].headers
    if login == "key":
        assert headers["x-api-key"] == "any" and "authorization" not in headers
    else:
        assert headers["authorization"] == "Bearer any" and "x-api-key" not in headers


def test_the_system_prompt_is_cached_for_an_hour_on_a_login(hello):
    login, _, turn = hello
    control = turn.body["system"][-1]["cache_control"]
    assert control.get("ttl") == (None if login == "key" else "1h")


def test_closing_stdin_at_rest_ends_it_with_0(hello):
    _, made, _ = hello
    assert made.cli.exit == 0


def test_nothing_is_left_in_the_working_directory(hello):
    _, made, _ = hello
    assert list(made.cwd.iterdir()) == []


@pytest_twisted.ensureDeferred
async def test_closing_stdin_before_any_conversation_ends_it_with_0(stage):
    made = await stage()
    made.cli.transport.closeStdin()
    assert await made.cli.ended == 0
    assert made.requests == []


def test_the_environment_is_an_allow_list():
    stray = {
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_AUTH_TOKEN": "k",
        "ANTHROPIC_BASE_URL": "http://x",
        "ANTHROPIC_MODEL": "m",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_ENTRYPOINT": "x",
        "AWS_PROFILE": "p",
        "NODE_OPTIONS": "--x",
    }
    kept = {"HOME": "/h", "CLAUDE_CODE_OAUTH_TOKEN": "t", "LC_ALL": "C"}
    made = launch.environment({**stray, **kept})
    assert not stray.keys() & made.keys()
    assert kept.items() <= made.items()


def test_with_an_upstream_the_login_is_out_of_reach():
    upstream = launch.Upstream("http://u", "k", "/private")
    stray = {"CLAUDE_CODE_OAUTH_TOKEN": "t", "CLAUDE_CONFIG_DIR": "/mine"}
    made = launch.environment(stray, upstream)
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in made
    assert made["CLAUDE_CONFIG_DIR"] == "/private"
    assert made["ANTHROPIC_BASE_URL"] == "http://u"
    assert made["ANTHROPIC_API_KEY"] == "k"


def test_nothing_of_a_request_is_on_the_command_line():
    made = launch.command("/bin/claude", "/empty")
    assert made[-len(launch.ARGUMENTS) :] == list(launch.ARGUMENTS)
    assert Path(made[3]).name == "launcher.py"
