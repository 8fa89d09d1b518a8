"""Values set in a client's text: right for its parser, and not a character changed elsewhere."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any

import pytest

from claudeproxy.command.connect import json5_text, toml_text, yaml_text
from claudeproxy.command.connect.change import Change, Item, Unfit, merged

JSON = [
    Change(("models", "providers", "ours"), {"baseUrl": "u", "models": [{"id": "sonnet"}]}),
    Change(("agents", "defaults", "model"), {"primary": "ours/sonnet"}),
]
JSON_LIST = [Change((Item("name", "ours"),), {"name": "ours", "models": [{"id": "sonnet"}]})]
YAML = [
    Change(("models", Item("name", "ours")), {"name": "ours", "model": "sonnet", "with": ["a"]}),
    Change(("model",), "ours/sonnet"),
]
YAML_LIST = [Change((Item("id", "ours"),), {"id": "ours", "base": "u"})]
TOML = [
    Change((), {"model": "sonnet", "model_provider": "ours"}),
    Change(("model_providers", "ours"), {"name": "ours", "base_url": "u"}),
]

TEXTS: list[tuple[ModuleType, list[Change], str]] = [
    *((json5_text, JSON, text) for text in [
        "",
        "\n// nothing yet\n",
        "{}",
        "{ // mine\n}",
        "{ /* a } in a comment */ }\n",
        """{
  // "models": {} is not here
  gateway: { port: 18789, 'bind': 'loopback', }, // x: {
  "agents": { "defaults": { "model": { "primary": "other/one" } } },
  // the end
}
""",
        '{\n\t"models": {\n\t\t"providers": {\n\t\t\t"x": 1 // one\n\t\t\t// two\n\t\t}\n\t}\n}\n',
        '{"models": {"providers": {"x": {"baseUrl": "q"}}}}',
        '{ "agents": null, "models": { "mode": "merge" } /* end */ }',
        '{\n  "agents": { "defaults": { "model": "other/one" } },\n  "a": "}\\"{,"\n}',
        '{\n  "models": { "providers": { "ours": { "baseUrl": "old", /* why */ "x": 1 } } }\n}\n',
        "{models: {providers: {}}, x: [1, +2, .5, 0xF, Infinity]}",
    ]),
    *((json5_text, JSON_LIST, text) for text in [
        "[]",
        '[\n\t{ "name": "theirs" } // x\n]',
        '[\n  {\n    "name": "ours",\n    "models": [], // none\n    "extra": true\n  },\n]\n',
    ]),
    *((yaml_text, YAML, text) for text in [
        "",
        "# only\n#models: x\n",
        "---\nname: x\n",
        "models: # mine\nname: x\n",
        "models: [] # none\nname: x",
        "models: [{name: a}]\n",
        "name: x\nmodels:\n    # first\n    - name: a   # note\n      roles: [chat,edit]\n\n"
        "# rules\nrules:\n    - 'x'\n",
        "models:\n- name: a\n  b: |\n    hi\n\n- name: ours\n  model: x # why\n  key: k\n# end",
        "model: gpt # old\nmodels:\n  - name: ours",
        'model: "quoted: x"\nmodels:\n  - {name: ours, model: x} # flow\n',
        "models:\n  - name: a\n    prompt: >-\n      folded\n      text\n",
    ]),
    *((yaml_text, YAML_LIST, text) for text in [
        "# mine\n",
        "[]\n",
        "- id: x\n  base: b # c\n  # d\n",
        "-   id: x\n    base: b\n\n\n# end\n",
        "- id: ours\n  base: old\n  headers:\n    a: b\n- id: z\n",
    ]),
    *((toml_text, TOML, text) for text in [
        "",
        "# mine\n",
        '# top\nmodel = "gpt" # why\n\n[projects."/a"]\ntrust = "x"\n\n# prov\n'
        '[model_providers.theirs]\nname = "o"\n\n# mcp\n[mcp_servers.x]\ncommand = "y"\n',
        "[tui]\nx = 1",
        "[model_providers]\ntheirs = {name = 'x'}\n",
        "[model_providers.ours]\nbase_url = 'old' # here\nname   =   'ours'\nenv_key = 'K'\n",
        "# top\n\n# of the table\n[tui]\nx = 1\n",
        "x = [\n[1],\n]\n[tui]\nx = 1\n",
        "model_providers.theirs.name = 'o'\nmodel = '''gpt'''\n",
    ]),
]  # fmt: skip


def lost(before: str, after: str) -> list[str]:
    """The lines of ``before`` that ``after`` has not."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[2:] for line in lines if line.startswith("- ")]


@pytest.mark.parametrize(("module", "changes", "text"), TEXTS)
def test_what_is_set_and_nothing_else(module: ModuleType, changes: list[Change], text: str) -> None:
    after = module.changed(text, changes)
    assert module.load(after) == merged(module.load(text), changes)
    assert module.changed(after, changes) == after, "a second time changes nothing"
    for mark in ("//", "/*", "#"):
        for note in (line[line.index(mark) :] for line in text.splitlines() if mark in line):
            assert note.rstrip("}] \n") in after, "a comment was lost"
    assert len(lost(text, after)) <= 3, "lines of others were rewritten"


def test_a_new_entry_stands_with_its_like() -> None:
    """And not behind the comment of what follows."""
    text = "models:\n    - name: a   # note\n\n# rules\nrules:\n    - x\n"
    assert yaml_text.changed(text, YAML[:1]) == (
        "models:\n    - name: a   # note\n    - name: ours\n      model: sonnet\n      with:\n"
        "        - a\n\n# rules\nrules:\n    - x\n"
    )
    text = '{\n\t"a": 1, // note\n\t// last\n}'
    assert json5_text.changed(text, [Change(("b",), "c")]) == (
        '{\n\t"a": 1, // note\n\t"b": "c",\n\t// last\n}'
    )
    text = '# top\nmodel = "x" # why\n\n# mcp\n[mcp.x]\ncommand = "y"\n'
    assert toml_text.changed(text, TOML) == (
        '# top\nmodel = "sonnet" # why\nmodel_provider = "ours"\n\n# mcp\n[mcp.x]\n'
        'command = "y"\n\n[model_providers.ours]\nname = "ours"\nbase_url = "u"\n'
    )
    assert toml_text.changed("# top\n\n# of the table\n[tui]\nx = 1\n", TOML[:1]) == (
        '# top\n\nmodel = "sonnet"\nmodel_provider = "ours"\n\n# of the table\n[tui]\nx = 1\n'
    )


@pytest.mark.parametrize(
    ("module", "text", "changes", "words"),
    [
        (json5_text, '{"models": []}', JSON, "models is not a mapping"),
        (json5_text, '{"agents": {"defaults": 1}}', JSON, "agents.defaults is not a mapping"),
        (json5_text, "[]", JSON, "all of it is not a mapping"),
        (json5_text, "{}", JSON_LIST, "all of it is not a list"),
        (yaml_text, "models: {a: b}", YAML, "models is not a list"),
        (yaml_text, "just words", YAML, "all of it is not a mapping"),
        (toml_text, "model_providers = 1", TOML, "model_providers is not a "),
    ],
)
def test_another_shape_is_refused(
    module: ModuleType, text: str, changes: list[Change], words: str
) -> None:
    for attempt in (
        lambda: merged(module.load(text), changes),
        lambda: module.changed(text, changes),
    ):
        with pytest.raises(Unfit, match=words):
            attempt()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (json5_text, "{"),
        (json5_text, '{"a": 1 "b": 2}'),
        (json5_text, '{"a": "b\n}'),
        (json5_text, "[" * 5000),
        (yaml_text, "a: b: c"),
        (yaml_text, "a: [1"),
        (yaml_text, "a: \0"),
        (yaml_text, "a: 1\n---\nb: 2\n"),
        (toml_text, "a = "),
        (toml_text, "[a]\n[a]\n"),
    ],
)
def test_a_broken_text_is_said_to_be_so(module: ModuleType, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        module.load(text)
    assert str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["models: &all\n  - name: x\n", "{name: x, models: []}\n"])
def test_yaml_that_cannot_be_changed_is_said_to_be_so(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be changed safely"):
        yaml_text.changed(text, YAML)


def test_duplicate_keys_are_read_as_clients_do() -> None:
    """The last one holds, so that is the one to be set."""
    text = '{"b": 1, "b": 2}'
    assert json5_text.changed(text, [Change(("b",), 3)]) == '{"b": 1, "b": 3}'


def test_merging_keeps_what_is_not_ours() -> None:
    data: dict[str, Any] = {"a": {"x": 1, "y": [1]}, "z": None}
    assert merged(data, [Change(("a",), {"y": [2]}), Change(("z", "q"), 1)]) == {
        "a": {"x": 1, "y": [2]},
        "z": {"q": 1},
    }
    assert data == {"a": {"x": 1, "y": [1]}, "z": None}
