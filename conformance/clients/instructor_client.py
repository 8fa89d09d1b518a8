"""instructor: structured answers by tool and by JSON schema, of two turns, and one in pieces."""

import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel

URL = sys.argv[1]


class Point(BaseModel):
    """A point in the plane."""

    x: float
    y: float


said = [{"role": "user", "content": "A point"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key="none"), mode=mode)
    asked = {"model": "sonnet", "response_model": Point}
    first = client.chat.completions.create(messages=said, **asked)
    assert isinstance(first, Point), first
    turns = [*said, {"role": "assistant", "content": first.model_dump_json()}, *said]
    assert isinstance(client.chat.completions.create(messages=turns, **asked), Point)
    *_, last = client.chat.completions.create_partial(messages=said, **asked)
    assert isinstance(last.x, float), last
