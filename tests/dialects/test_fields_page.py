"""``docs/fields.rst`` says what each field does, in the code's own words.

Write it anew with ``CLAUDEMAX_WRITE_DOCS=1 make test ARGS=tests/dialects/test_fields_page.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

from claudeproxy.dialects import anthropic, chat, completions, ollama, responses

PAGE = Path(__file__).parents[2] / "docs" / "fields.rst"
DIALECTS = {
    "POST /v1/chat/completions": chat.FIELDS,
    "POST /v1/responses": responses.FIELDS,
    "POST /v1/messages": anthropic.FIELDS,
    "POST /v1/completions": completions.FIELDS,
    "POST /api/chat": ollama.CHAT_FIELDS,
    "POST /api/generate": ollama.GENERATE_FIELDS,
}
TOP = """\
Request fields
##############

What each field of a request does. *Ignored* fields have no effect and are named in the reply's
``x-claudemax-ignored`` header, as is what the chosen model cannot honour; that is what *named*
means below. Fields that are not listed are accepted silently. This page is generated from the code,
as is ``/openapi.json`` of the daemon.
"""


def page() -> str:
    out = [TOP]
    for title, fields in DIALECTS.items():
        out += ["", title, "=" * len(title), "", ".. list-table::", "   :header-rows: 1", ""]
        out += ["   * - Field", "     - Effect", "     - Note"]
        for name, policy in fields.items():
            note = policy.note.replace("`", "``")
            out += [
                f"   * - ``{name}``",
                f"     - {policy.effect.value}",
                f"     - {note}".rstrip(),
            ]
    return "\n".join(out) + "\n"


def test_the_page_is_what_the_code_says() -> None:
    if os.environ.get("CLAUDEMAX_WRITE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
