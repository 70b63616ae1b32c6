"""Models that the page's own process asks: how much it reads, what it keeps, and who waits for whom."""

import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.judges import Judges
from stepwise_dpo.ui.policies import Policies
from stepwise_dpo.ui.read_limits import MAX_TOKENS

SHORT = PreferencePair("p", [Step("a"), Step("b")], [Step("c")], "short")
LONG = PreferencePair("p", [Step("a")], [Step("b"), Step("x" * 3_000)], "seven")
HUGE = PreferencePair("p", [Step("y" * 60_000), Step("z" * 60_000)], [Step("c")], "eight")


# --------------------------------------------------------------------------------------------- how much it reads

TOO_LONG = r"^example 'seven', rejected: prompt and steps together have 3,0\d\d tokens, .* at most 2,048; shorten"
TOO_MANY_CHARACTERS = r"^example 'eight', chosen: .* have 120,001 characters, .* at most 100,000"


@pytest.mark.parametrize(("pair", "words"), [(LONG, TOO_LONG), (HUGE, TOO_MANY_CHARACTERS)])
def test_no_request_may_take_the_servers_memory(pair, words, monkeypatch):
    """Refused before anything is scored, by number and place; the command line has no such limit."""
    judges, policies = Judges(), Policies()
    assert len(policies.logps("tiny", [SHORT])) == len(judges.score("tiny", [SHORT], "centered")) == 1

    def scored(*args, **named):
        raise AssertionError("scored before all were checked")

    monkeypatch.setattr("stepwise_dpo.learning.evaluation.pair_logps", scored)
    monkeypatch.setattr("stepwise_dpo.learning.rewards.LLMRewardModel.score_pairs", scored)
    with pytest.raises(DataError, match=words):
        policies.logps("tiny", [SHORT, pair])
    with pytest.raises(DataError, match=words):
        judges.score("tiny", [SHORT, pair], "centered")


def test_a_long_solution_and_a_long_prompt_are_refused():
    with pytest.raises(DataError, match=r"^solution 2: prompt and steps together have 3,\d\d\d tokens"):
        Judges().score_solutions("tiny", [("p", ["a"]), ("p" * 3_000, ["a"])], "centered")
    with pytest.raises(DataError, match=r"^prompt 2 has 3,001 tokens, .* at most 2,048"):
        Policies().answers("tiny", ["p", "p" * 3_000])
    with pytest.raises(DataError, match=r"^prompt 1 must have at most 100,000 characters"):
        Policies().answers("tiny", ["p" * 100_001])


def test_what_is_just_short_enough_is_scored():
    ends = 1 + 1  # of the prompt and of the completion
    pair = PreferencePair("p", [Step("x" * (MAX_TOKENS - 1 - ends))], [Step("c")])
    assert Policies().logps("tiny", [pair])[0].chosen.tokens == MAX_TOKENS - 2
