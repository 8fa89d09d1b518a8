"""The log for machines."""

import io
import json
from datetime import datetime, timedelta

from twisted.logger import Logger, LogLevel

from claudeproxy.json_log import JSONLines


def test_an_event_is_an_object_a_line() -> None:
    file = io.StringIO()
    log = Logger("here", observer=JSONLines(file))
    log.info("{n} of {what}", n=1, what="cats\n", odd=object(), shown="x")
    try:
        raise RuntimeError("it broke")
    except RuntimeError:
        log.failure("badly", level=LogLevel.critical)
    first, second = map(json.loads, file.getvalue().splitlines())
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    assert first == {
        "level": "info",
        "from": "here",
        "message": "1 of cats\n",
        "n": 1,
        "what": "cats\n",
    }
    assert (second["level"], second["message"]) == ("critical", "badly")
    assert "RuntimeError: it broke" in second["traceback"]


def test_fields_that_are_no_json_do_not_stop_it() -> None:
    file = io.StringIO()
    Logger("here", observer=JSONLines(file)).info("{nothing.at.all}", deep={"a": 1}, lone="\ud800")
    assert json.loads(file.getvalue())["lone"] == "\ud800"
