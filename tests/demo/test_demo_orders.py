"""Orders by values."""

import pytest

from claudeproxy.demo.answering.orders import Call, Orders, Text, Thinking, last_user, limit, parse
from claudeproxy.demo.steps import ApiError, Drop, Hang


@pytest.mark.parametrize(
    ("written", "orders"),
    [
        ("hello [[x]] [say]", Orders(rest="hello [[x]] [say]")),
        ("[[say Hi there]]", Orders(blocks=(Text("Hi there"),))),
        ("a [[say  b ]] c", Orders(blocks=(Text(" b "),), rest="a  c")),
        ("[[say a\nb]]", Orders(blocks=(Text("a\nb"),))),
        ("[[raw a]]", Orders(blocks=(Text("a", raw=True),))),
        ("[[repeat 3 ab]]", Orders(blocks=(Text("ab ab ab"),))),
        ("[[think hm]][[say x]]", Orders(blocks=(Thinking("hm"), Text("x")))),
        (
            '[[call add {"a": [1]}]][[call now]]',
            Orders(blocks=(Call("add", '{"a": [1]}'), Call("now", "{}"))),
        ),
        ("[[call add {broken]]", Orders(blocks=(Call("add", "{broken"),))),
        ("[[stop something_new]]", Orders(stop="something_new")),
        ("[[error 529]]", Orders(error=ApiError(529, "Ordered by the prompt"))),
        ("[[error 400 no such luck]]", Orders(error=ApiError(400, "no such luck"))),
        ("[[error-mid 500 oh]]", Orders(ending=ApiError(500, "oh"))),
        ("[[say a]][[drop]][[say b]]", Orders(blocks=(Text("a"),), ending=Drop())),
        ("[[hang]]", Orders(ending=Hang())),
        ("[[wait 0.5]][[pause 1]][[chunk 3]]", Orders(wait=0.5, pause=1.0, chunk=3)),
        ("[[usage a=1 b=2]][[usage b=3]]", Orders(usage={"a": 1, "b": 3})),
        (
            "[[header Retry-After: 7]][[header x: a: b]]",
            Orders(headers=(("retry-after", "7"), ("x", "a: b"))),
        ),
        ("[[limit five_hour 99]]", Orders(error=limit("five_hour", 99))),
    ],
)
def test_parse(written, orders):
    assert parse(written) == orders


@pytest.mark.parametrize(
    "written", ["[[chunk x]]", "[[wait]]", "[[usage a]]", "[[error soon]]", "[[limit five_hour]]"]
)
def test_an_order_that_cannot_be_read_is_named(written):
    with pytest.raises(ValueError, match="bad order"):
        parse(written)


def test_the_limit_of_a_window_names_it_and_its_reset():
    headers = dict(limit("seven_day", 1800000000).headers)
    assert headers["anthropic-ratelimit-unified-representative-claim"] == "seven_day"
    assert headers["anthropic-ratelimit-unified-reset"] == "1800000000"
    assert headers["anthropic-ratelimit-unified-7d-status"] == "rejected"


REMINDER = {"type": "text", "text": "<system-reminder>\nthe date\n</system-reminder>"}


def result(content):
    return {"type": "tool_result", "tool_use_id": "t", "content": content}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a", ("a", None)),
        ([REMINDER, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ("a\nb", None)),
        ([result("a"), result([{"type": "text", "text": "b"}])], ("", "b")),
        ([result("a"), {"type": "text", "text": "c"}], ("c", "a")),
        ([{"type": "tool_result", "tool_use_id": "t"}], ("", "")),
    ],
)
def test_the_last_user_message_without_what_the_cli_adds(content, found):
    messages = [
        {"role": "user", "content": "old"},
        {"role": "user", "content": content},
        {"role": "system", "content": "environment"},
    ]
    assert last_user({"messages": messages}) == found
