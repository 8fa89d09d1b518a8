"""``docs/options.rst`` is the table of options that the code has.

Write it anew with ``CLAUDEMAX_WRITE_DOCS=1 make test ARGS=tests/test_options_page.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from claudeproxy.options import Option, table

PAGE = Path(__file__).parents[1] / "docs" / "options.rst"
TOP = """\
Options
#######

Each option can be given in three places: on the command line (``--max-body 1000000``), as a
variable of the environment (``CLAUDEMAX_MAX_BODY=1000000``, with commas between several values),
and in a TOML file (``max-body = 1000000``, with an array of several). The command line wins over
the environment, and the environment over the file. The file is
``~/.config/claudemax/config.toml``; ``--config`` or ``CLAUDEMAX_CONFIG`` names another one. The key
of an ``--upstream`` is never on a command line: it is the variable ``CLAUDEMAX_UPSTREAM_KEY``.

*Repeatable* options take several values. This page is generated from the code.

.. list-table::
   :header-rows: 1
   :widths: 30 50 20

   * - Option
     - What it does
     - Default
"""


def row(field: str, option: Option) -> str:
    name = f"--{field.replace('_', '-')} {option.unit}".rstrip()
    notes = " Repeatable." if option.repeatable else ""
    return f"   * - ``{name}``\n     - {option.help}{notes}\n     - {option.default}\n"


def page() -> str:
    return TOP + "".join(row(field, option) for field, option in table())


def test_the_page_is_what_the_code_says() -> None:
    if os.environ.get("CLAUDEMAX_WRITE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "run this test with CLAUDEMAX_WRITE_DOCS=1"
