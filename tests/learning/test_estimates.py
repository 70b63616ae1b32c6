from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from stepwise_dpo.errors import ConfigError
from stepwise_dpo.learning.estimates import Estimate, bootstrap_intervals, paired_means, pass_at_k, wilson_interval


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


def test_paired_means():
    values = np.array([[0, 1], [1, 1], [0, 0], [1, 0]] * 50, dtype=float)
    found = paired_means(values, range(200))
    assert [found[name].value for name in ("before", "after", "change")] == [0.5, 0.5, 0]
    # Each change is 1, 0, 0 or -1: its variance is 1/2.
    assert found["change"].interval == pytest.approx((-1.96 * sqrt(0.5 / 200), 1.96 * sqrt(0.5 / 200)), abs=0.015)
    # Ten of each group are as one: ten times the variance.
    groups = [4 * (number // 40) + number % 4 for number in range(200)]
    assert found["change"].value == paired_means(values, groups)["change"].value
    assert paired_means(values, groups)["change"].interval[1] > 2.5 * found["change"].interval[1]


def test_a_change_that_is_the_same_for_all_says_nothing_of_its_own_sureness():
    assert paired_means(np.array([[0, 1]] * 8, dtype=float), range(8))["change"] == (1, None)
    assert paired_means(np.array([[0, 1], [0, 1]], dtype=float), "aa")["before"] == (0, None)  # one group


def test_an_estimate_is_written_and_read():
    for estimate in (Estimate(0.5, (0.25, 0.75)), Estimate(0.5, None)):
        assert Estimate.read({"x": 1.0, **estimate.flat("rate")}, "rate") == estimate
    assert Estimate(0.5, (0.25, 0.75)).flat("rate") == {"rate": 0.5, "rate/low": 0.25, "rate/high": 0.75}
    assert Estimate.read({"rate/low": 0.25}, "rate") is None
    assert Estimate.read({"rate": 0.5, "rate/low": 0.25, "rate/high": None}, "rate") == (0.5, None)


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


def test_wilson_interval():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263, 15/148, 0/20, 1/29.
    for hits, units, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(hits, units) == pytest.approx((low, high), abs=5e-5)
        # Hits and misses are mirror images.
        assert wilson_interval(units - hits, units) == pytest.approx((1 - high, 1 - low), abs=5e-5)
    narrow, wide = wilson_interval(3, 10, level=0.5), wilson_interval(3, 10, level=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


@pytest.mark.parametrize(("hits", "units"), [(-1, 5), (6, 5), (0, 0)])
def test_no_share(hits, units):
    with pytest.raises(ConfigError, match="no share"):
        wilson_interval(hits, units)
