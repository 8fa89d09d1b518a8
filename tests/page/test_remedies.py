"""What to do is known of whatever can go wrong."""

from __future__ import annotations

import re

import pytest

from claudeproxy.messages import Kind
from claudeproxy.options import table
from claudeproxy.page.remedies import remedy

OPTIONS = {f"--{name.replace('_', '-')}" for name, _ in table()}


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_one(kind: Kind) -> None:
    told = remedy(kind.value)
    assert told.endswith(".")
    assert set(re.findall(r"--[a-z-]+", told)) <= OPTIONS


def test_what_is_no_failure_has_none() -> None:
    assert remedy("client left") == remedy("<b>") == ""
