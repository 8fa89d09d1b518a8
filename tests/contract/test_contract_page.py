"""``docs/cli-protocol.rst`` and the contract tests name the same facts."""

import re
from pathlib import Path

HERE = Path(__file__).parent
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
