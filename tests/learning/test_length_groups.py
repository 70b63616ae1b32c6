import random
from itertools import chain, pairwise

import pytest

from stepwise_dpo.learning.length_groups import LengthGroups

LENGTHS = [random.Random(number).randrange(10, 300) for number in range(107)]


def batches(seed: int, epoch: int, size: int = 4) -> list[list[int]]:
    groups = LengthGroups(size, LENGTHS, seed)
    groups.set_epoch(epoch)
    order = list(groups)
    return [order[start : start + size] for start in range(0, len(order), size)]


def spread(batch: list[int]) -> int:
    lengths = [LENGTHS[index] for index in batch]
    return max(lengths) - min(lengths)


@pytest.mark.parametrize("epoch", [0, 3])
def test_every_example_once_among_others_of_its_length(epoch):
    made = batches(1, epoch)
    assert sorted(chain.from_iterable(made)) == list(range(len(LENGTHS)))
    assert [len(batch) for batch in made] == [4] * 26 + [3]
    assert max(map(LENGTHS.__getitem__, made[1])) == max(LENGTHS)
    assert sorted(map(spread, made))[13] < 60  # the median; of four at random it is about 180
    # Not from the longest down, in whatever groups.
    longest = [max(map(LENGTHS.__getitem__, batch)) for batch in made[:-1]]
    assert sum(a < b for a, b in pairwise(longest)) > 6


def test_seed_and_epoch_alone_decide():
    assert batches(1, 2) == batches(1, 2)
    assert len({str(batches(seed, epoch)) for seed in (1, 9) for epoch in (0, 1, 2)}) == 6


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_few_examples(count):
    assert sorted(LengthGroups(4, LENGTHS[:count], 0)) == list(range(count))
