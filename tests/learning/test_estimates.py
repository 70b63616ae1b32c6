from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.estimates import bootstrap_intervals, pass_at_k


def mean_of(values):
    array = np.array(values, dtype=float)
    return lambda weights: {"mean": float(weights @ array) / float(weights.sum())}


def test_interval_of_a_rate_is_about_the_binomial_one():
    low, high = bootstrap_intervals(400, mean_of([1] * 100 + [0] * 300))["mean"]
    half = 1.96 * sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - half, abs=0.01)
    assert high == pytest.approx(0.25 + half, abs=0.01)


def test_the_seed_decides():
    values = mean_of(range(30))
    assert bootstrap_intervals(30, values, seed=1) == bootstrap_intervals(30, values, seed=1)
    assert bootstrap_intervals(30, values, seed=1) != bootstrap_intervals(30, values, seed=2)


def test_nothing_varies_or_too_little_is_there():
    assert bootstrap_intervals(5, mean_of([1] * 5)) == {"mean": (1, 1)}
    assert bootstrap_intervals(1, mean_of([1])) == {"mean": None}


def test_undefined_resamples_are_left_out_unless_they_are_many():
    def first_unit_drawn(weights):
        return {"often": 0.5 if weights[0] else None, "seldom": 0.5 if weights[0] > 3 else None}

    # The first of two is drawn in 3 of 4 resamples, four times never.
    assert bootstrap_intervals(2, first_unit_drawn) == {"often": (0.5, 0.5), "seldom": None}


def test_pass_at_k_counts_all_draws():
    for n, c in ((5, 2), (6, 0), (4, 4), (7, 1)):
        answers = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            draws = [any(draw) for draw in combinations(answers, k)]
            assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (0, 0, 1)])
def test_impossible_counts(n, c, k):
    with pytest.raises(ConfigError):
        pass_at_k(n, c, k)
