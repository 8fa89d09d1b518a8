"""``docs/cli-protocol.rst`` and the contract tests name the same facts."""

import re
from pathlib import Path

from claudeproxy.selftest.facts import FACTS

HERE = Path(__file__).parent
FACT = re.compile(r"^   \* - ``(\w+)``$", re.MULTILINE)
PAGE = HERE.parent.parent / "docs" / "cli-protocol.rst"


def test_the_page_names_every_contract_test_and_no_other():
    named = set(re.findall(r"``(test_\w+)``", PAGE.read_text()))
    sources = [path for path in HERE.glob("test_contract_*.py") if path != Path(__file__)]
    defined = {
        name
        for path in sources
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named == defined


def test_the_page_names_every_fact_of_the_self_test_and_no_other():
    assert FACT.findall(PAGE.read_text()) == [fact.name for fact in FACTS]


def test_what_the_page_says_is_pinned_by_the_self_test_is():
    named = re.findall(r"``(\w+)`` \(self-test\)", PAGE.read_text())
    assert set(named) <= {fact.name for fact in FACTS}
    assert named
