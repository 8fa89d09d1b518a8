"""The embedded, strict stand-in for Anthropic's Messages API.

`--demo`, the self-test and the test-suite use it. `rules` says what is refused, `orders` what the
prompt asks the stand-in to do, `answer` what is streamed, and `app` serves it; importing `app`
installs the reactor, the other modules are pure.
"""
