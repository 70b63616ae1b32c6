import random
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.process_metrics import (
    NO_ERROR,
    CalibrationBin,
    auroc,
    calibration,
    labelled_first_error,
    predicted_first_error,
    prm_score,
    probabilities,
    process_bench,
    score_histogram,
    tune_threshold,
)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([True, True], NO_ERROR),
        ([True, False, False], 1),
        ([True, False, None, True], 1),  # ProcessBench has no labels after the first error
        ([True, None, False], None),  # the second step might be the first error
        ([True, None], None),
        ([None, None], None),
    ],
)
def test_labelled_first_error(labels, expected):
    assert labelled_first_error(labels) == expected


def test_predicted_first_error_is_the_first_below_the_threshold():
    assert predicted_first_error([0.9, 0.4, 0.1], 0.5) == 1
    assert predicted_first_error([0.9, 0.5], 0.5) == NO_ERROR  # not below
    assert predicted_first_error([0.2], 0.5) == 0


def test_process_bench():
    # Of four wrong solutions three are found exactly, of two right ones one is left alone: 75, 50, 2*75*50/125 = 60.
    true, predicted = [0, 2, 1, 3, NO_ERROR, NO_ERROR], [0, 2, 1, NO_ERROR, NO_ERROR, 2]
    assert process_bench(true, predicted) == pytest.approx((75, 50, 60))
    # Drawn as a bootstrap does: the missed one twice, the false alarm not at all.
    assert process_bench(true, predicted, np.array([1, 1, 0, 2, 1, 0])) == pytest.approx((50, 100, 200 / 3))


def test_process_bench_of_one_kind_only():
    assert process_bench([1, 0], [1, 1]) == (50, None, None)
    assert process_bench([NO_ERROR], [NO_ERROR]) == (None, 100, None)
    assert process_bench([], []) == (None, None, None)
    assert process_bench([0, NO_ERROR], [1, 0]) == (0, 0, 0)  # here 0 is what was measured


def test_threshold_lies_in_the_middle_of_the_best():
    # Wrong at step 1: found for thresholds in (0.2, 0.8]. Right: left alone up to 0.6. So all of (0.2, 0.6] is perfect,
    # and the only candidate in there is (0.2 + 0.6) / 2. What follows the first error doesn't matter.
    true, scores = [1, NO_ERROR], [[0.8, 0.2, 0.5], [0.9, 0.6]]
    assert tune_threshold(true, scores) == pytest.approx(0.4)
    # Right solutions at 0.3, 0.4 and 0.5 cost acc2 one after the other, so the best lies below the first.
    assert tune_threshold([1, *[NO_ERROR] * 3], [[0.8, 0.2], [0.3], [0.4], [0.5]]) == pytest.approx(0.25)


def test_of_equal_thresholds_the_middle_one():
    # Wrong at 0.1 and 0.3, right at 0.2 and 0.4. F1 is 2/3 at 0.15 (acc1 1/2, acc2 1) and at 0.35 (1, 1/2), and 1/2
    # between them: of two, the lower.
    assert tune_threshold([0, 0, NO_ERROR, NO_ERROR], [[0.1], [0.3], [0.2], [0.4]]) == pytest.approx(0.15)
    # Nothing can be won: acc1 is above 0 only where acc2 is 0. Of three candidates, the second.
    assert tune_threshold([NO_ERROR] * 3 + [0], [[0.1], [0.2], [0.4], [0.8]]) == pytest.approx(0.3)


def test_threshold_is_the_best_of_all_by_brute_force():
    generator = random.Random(0)
    for _ in range(20):
        scores = [[generator.random() for _ in range(generator.randint(1, 5))] for _ in range(30)]
        true = [generator.choice([NO_ERROR, generator.randrange(len(solution))]) for solution in scores]
        flat = sorted(score for solution in scores for score in solution)
        candidates = [(low + high) / 2 for low, high in pairwise(flat)]

        def f1(threshold, true=true, scores=scores):
            return process_bench(true, [predicted_first_error(solution, threshold) for solution in scores]).f1

        assert f1(tune_threshold(true, scores)) == pytest.approx(max(map(f1, candidates)))


@pytest.mark.parametrize(("low", "high"), [(0.0, 5e-324), (1 - 2**-52, 1 - 2**-53), (1 - 2**-53, 1.0)])
def test_threshold_parts_neighbouring_floats(low, high):
    assert low < tune_threshold([0, NO_ERROR], [[low], [high]]) <= high


@pytest.mark.parametrize(
    ("true", "scores", "message"),
    [
        ([0, 1], [[0.1], [0.9, 0.1]], "0 right and 2 wrong"),
        ([NO_ERROR], [[0.1]], "1 right and 0 wrong"),
        ([], [], "0 right and 0 wrong"),
        ([0, NO_ERROR], [[0.5], [0.5]], "every step with 0.5"),
    ],
)
def test_thresholds_that_cant_be_tuned(true, scores, message):
    with pytest.raises(DataError, match=message):
        tune_threshold(true, scores)


def test_prm_score():
    # Right steps: 2 of 3 called right, and 1 wrong one too: F1 = 2*2/(3+3) = 2/3. Wrong: 1 of 2, one false: 2*1/(2+2).
    labels, predicted = [True, True, True, False, False], [True, True, False, True, False]
    assert prm_score(labels, predicted) == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    # The wrong step that was missed twice: 2*2/(3+4) and 2*1/(3+2).
    weighted = prm_score(labels, predicted, np.array([1, 1, 1, 2, 1]))
    assert weighted == pytest.approx(100 * (4 / 7 + 2 / 5) / 2)
    assert prm_score([True, True], [True, False]) is None
    assert prm_score([True, False], [True, False], np.array([1, 0])) is None
    assert prm_score([], []) is None


def test_auroc():
    # Right 0.9, 0.5; wrong 0.5, 0.1: of four comparisons three are won and one is a tie.
    assert auroc([True, True, False, False], [0.9, 0.5, 0.5, 0.1]) == pytest.approx(3.5 / 4)
    # The tie's wrong step three times: (0.9 beats all 4) + (0.5: three ties and one win) of 8.
    assert auroc([True, True, False, False], [0.9, 0.5, 0.5, 0.1], np.array([1, 1, 3, 1])) == pytest.approx(6.5 / 8)
    assert auroc([True], [0.5]) is None
    assert auroc([True, False], [0.5, 0.1], np.array([2, 0])) is None


def test_auroc_is_scikit_learns():
    generator = np.random.default_rng(0)
    for _ in range(10):
        labels, scores = generator.random(200) < 0.7, generator.random(200).round(1)  # with many ties
        drawn = generator.integers(0, 3, 200)
        expected = roc_auc_score(labels, scores, sample_weight=drawn)
        assert auroc(labels.tolist(), scores.tolist(), drawn) == pytest.approx(expected)


def test_calibration():
    # Bin 0..0.5: scores 0.1, 0.3 (mean 0.2), one of two right. Bin 0.5..1: 0.8, 0.9, 1.0 (mean 0.9), all right.
    curve = calibration([True, False, True, True, True], [0.1, 0.3, 0.8, 0.9, 1.0], bins=2)
    low, high = curve.bins
    assert low == pytest.approx(CalibrationBin(0.2, 0.5, 2))
    assert high == pytest.approx(CalibrationBin(0.9, 1.0, 3))
    assert curve.error == pytest.approx((2 * 0.3 + 3 * 0.1) / 5)
    assert calibration([], []) is None


def test_calibration_leaves_out_empty_bins_and_knows_the_edges():
    curve = calibration([True, False, True], [0.0, 0.5, 1.0], bins=4)
    assert [point.score for point in curve.bins] == [0.0, 0.5, 1.0]
    assert sum(point.steps for point in curve.bins) == 3
    perfect = calibration([False, True], [0.0, 1.0])
    assert perfect.error == 0


def test_histogram():
    histogram = score_histogram([True, True, False, True], [0.1, 0.5, 0.6, 1.0], bins=2)
    assert histogram.edges == [0, 0.5, 1]
    assert histogram.right == [1, 2]
    assert histogram.wrong == [0, 1]


def test_probabilities_tell_large_log_odds_apart():
    first, second, half, low, lowest = probabilities([17.5, 25.0, 0.0, -800.0, -1e9])
    assert first < second < 1
    assert first == pytest.approx(1 / (1 + np.exp(-17.5)), rel=1e-15)
    assert half == 0.5
    assert low == lowest == 0.0
