"""The embedded, strict stand-in for Anthropic's Messages API.

`--demo`, the self-test and the test-suite use it. `checking` refuses what the API refuses,
`answering` makes answers by the orders in the prompt, and `app` serves them. Importing `app`
installs the reactor; `checking` and `answering` are pure.
"""
