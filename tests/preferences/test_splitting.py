import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.splitting import split_pairs


def pairs(*prompts):
    return [PreferencePair(prompt, [Step("1")], [Step(str(i + 2))]) for i, prompt in enumerate(prompts)]


def test_pairs_of_one_prompt_stay_together_and_in_order():
    some = pairs(*(f"Add {i % 10} and 1" for i in range(40)))
    train, held_out = split_pairs(some, 0.3, seed=4)
    assert {pair.prompt for pair in train} & {pair.prompt for pair in held_out} == set()
    assert (len(train), len(held_out)) == (28, 12)
    assert [pair for pair in some if pair in train] == train
    assert split_pairs(some[::-1], 0.3, seed=4)[1] == held_out[::-1]
    assert any(split_pairs(some, 0.3, seed=seed)[1] != held_out for seed in range(5))


@pytest.mark.parametrize(("share", "sizes"), [(0.01, (2, 1)), (0.5, (1, 2)), (0.99, (1, 2))])
def test_neither_side_is_empty(share, sizes):
    assert tuple(map(len, split_pairs(pairs("a", "b", "c"), share))) == sizes


def test_what_cannot_be_divided():
    with pytest.raises(DataError, match="at least two different prompts"):
        split_pairs(pairs("a", " A "), 0.5)
    for share in (0, 1, float("nan")):
        with pytest.raises(DataError, match="above 0 and below 1"):
            split_pairs(pairs("a", "b"), share)
