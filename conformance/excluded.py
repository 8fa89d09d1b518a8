"""Cases of the suites that cannot pass here, and why: a pattern of suite and case, the reason."""

EXCLUDED = (
    (
        r"openai-python, completions, create .*with_all_params",
        "it asks for text between a prompt and a ``suffix``, which no Claude model writes",
    ),
    (
        r"openai-python, responses, create .*with_all_params",
        "it asks for a response in a conversation and after another response at once, which no "
        "server can give, and from a prompt that OpenAI keeps",
    ),
    (
        r"openai-python, responses, create .*_create_overload",
        "it names no ``model`` and sends no input, as to a mock server: nothing to answer",
    ),
    (
        r"anthropic-python, .*create_with_all_params",
        "it asks for a ``container`` to execute code in, which the subscription's CLI has not",
    ),
    (
        r"anthropic-python, .*count_tokens_with_all_params",
        "it offers a tool whose parameters are no JSON schemas, as to a mock server; the API "
        "refuses them",
    ),
)
