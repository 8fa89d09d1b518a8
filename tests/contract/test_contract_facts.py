"""The facts of the self-test, which a user's own CLI is tried on: each holds for these."""

import pytest
from driver import run
from twisted.internet import reactor

from claudeproxy.selftest.facts import FACTS, Bench
from claudeproxy.selftest.run import plant, try_all


@pytest.fixture(scope="module")
def outcomes(stage, mode):
    """What became of each, by name. Where they want a key the mode says what is there."""

    async def play():
        async def start(login):
            login = mode if login == "key" else login
            return await stage(login=login, plant=plant, plain_names=False)

        report = await try_all(reactor, Bench(start))
        return {outcome.fact.name: outcome.lost for outcome in report.outcomes}

    return run(play())


@pytest.mark.parametrize("name", [fact.name for fact in FACTS])
def test_a_fact_of_the_self_test(outcomes, name):
    assert outcomes[name] is None
