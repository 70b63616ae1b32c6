"""What a process reward model's scores are worth, once it is known which steps are right: pure functions.

A score is a step's probability of being right, from 0 to 1. Steps count from 0. A figure that the data doesn't define,
such as a rate over no solutions, is None, never a neutral number. `weights` say how often each item counts, as a
bootstrap draws it; without them, once.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from stepwise_dpo.errors import DataError

NO_ERROR = -1
"""In the place of a first error's index: no step is wrong."""

Weights = NDArray[np.int64] | None


class ProcessBench(NamedTuple):
    """ProcessBench's figures (arXiv 2412.06559), in percent.

    Attributes:
        acc1: solutions with an error whose first wrong step was found exactly; None without such solutions.
        acc2: right solutions in which no step was called wrong; None without such solutions.
        f1: harmonic mean of the two; None where one of them is.
    """

    acc1: float | None
    acc2: float | None
    f1: float | None


class CalibrationBin(NamedTuple):
    """Steps with scores in one stretch: their mean score, the fraction that is right, and how many they are."""

    score: float
    right: float
    steps: int


class Calibration(NamedTuple):
    """How far scores can be taken for probabilities.

    Attributes:
        error: the expected calibration error, 0..1: |mean score - fraction right|, averaged over all steps.
        bins: the curve, without empty bins, by rising score.
    """

    error: float
    bins: list[CalibrationBin]


class Histogram(NamedTuple):
    """Numbers of right and wrong steps by score; bin i spans edges[i] to edges[i + 1]."""

    edges: list[float]
    right: list[int]
    wrong: list[int]


def probabilities(log_odds: Sequence[float]) -> list[float]:
    """Turn log-odds, in nats, into scores, in double precision: in single, all beyond 17 nats would be one."""
    scores: list[float] = np.exp(-np.logaddexp(0.0, -np.asarray(log_odds, dtype=np.float64))).tolist()
    return scores


def labelled_first_error(labels: Sequence[bool | None]) -> int | None:
    """Index of the first wrong step, or NO_ERROR; None where an unlabelled step leaves that open.

    What follows the first wrong step doesn't matter: ProcessBench has no labels there.
    """
    right = len(list(takewhile(bool, labels)))
    if right == len(labels):
        return NO_ERROR
    return None if labels[right] is None else right


def predicted_first_error(scores: Sequence[float], threshold: float) -> int:
    """Index of the first step that is right with a probability below the threshold, or NO_ERROR."""
    return next((index for index, score in enumerate(scores) if score < threshold), NO_ERROR)


def process_bench(true: Sequence[int], predicted: Sequence[int], weights: Weights = None) -> ProcessBench:
    """Compare first errors as ProcessBench does.

    Args:
        true: of each solution, the index of its first wrong step, or NO_ERROR.
        predicted: the same as the reward model has it.
        weights: how often each solution counts.
    """
    truth = np.asarray(true, dtype=np.int64)
    hits = truth == np.asarray(predicted, dtype=np.int64)
    counts = np.ones_like(truth) if weights is None else weights
    wrong = truth != NO_ERROR
    acc1, acc2 = (_percent(counts[kind] @ hits[kind], counts[kind].sum()) for kind in (wrong, ~wrong))
    return ProcessBench(acc1, acc2, _harmonic_mean(acc1, acc2))


def tune_threshold(true: Sequence[int], scores: Sequence[Sequence[float]]) -> float:
    """Find the threshold with the highest F1 of ProcessBench, as its authors did on one subset (arXiv 2412.06559).

    Candidates lie midway between neighbouring scores. Of equally good ones the middle one is taken, for it leaves the
    most room to both sides.

    Args:
        true: of each solution, the index of its first wrong step, or NO_ERROR.
        scores: of each solution, its steps' scores.

    Raises:
        DataError: the solutions are all right or all wrong, or all scores are equal.
    """
    # A wrong solution is a hit while the threshold is above its wrong step's score, and not above an earlier step's;
    # a right one while it isn't above any. So hits are intervals, and one pass counts them for all candidates.
    opens, closes, clean = [], [], []
    for first_error, solution in zip(true, scores, strict=True):
        if first_error == NO_ERROR:
            clean.append(min(solution))
            continue
        earlier = min(solution[:first_error], default=float("inf"))
        opens.append(solution[first_error])
        closes.append(max(earlier, solution[first_error]))
    if not clean or not opens:
        raise DataError(
            f"a threshold can't be tuned on {len(clean)} right and {len(opens)} wrong solutions: it needs both kinds; "
            "give other tuning data, or the threshold itself"
        )
    seen = np.unique([score for score in (*opens, *closes, *clean) if score != float("inf")])
    low, high = seen[:-1], seen[1:]
    candidates = (low + high) / 2  # every F1 above 0 occurs between two of these scores
    # Between neighbouring floats there is none, and their middle is rounded to either; only the upper one parts them.
    candidates = np.where(candidates > low, candidates, high)
    if not len(candidates):
        raise DataError(
            f"the reward model scores every step with {seen[0]:.3g}, so no threshold tells right from wrong steps"
        )
    acc1 = (_below(opens, candidates) - _below(closes, candidates)) / len(opens)
    acc2 = 1 - _below(clean, candidates) / len(clean)
    f1 = 2 * acc1 * acc2 / np.maximum(acc1 + acc2, np.finfo(float).tiny)
    # Equal up to rounding: the same hits give the same F1, whatever the order of the sums.
    best = candidates[np.isclose(f1, f1.max(), rtol=1e-9, atol=0)]
    return float(best[(len(best) - 1) // 2])


def prm_score(labels: Sequence[bool], predicted: Sequence[bool], weights: Weights = None) -> float | None:
    """PRMBench's score, 0.5 * F1 + 0.5 * F1_negative, in percent (arXiv 2501.03124).

    F1 is that of finding right steps, F1_negative that of finding wrong ones.

    Args:
        labels: of each step, whether it is right.
        predicted: what the reward model says of it.
        weights: how often each step counts.

    Returns:
        None unless there are right and wrong steps.
    """
    truth, said = np.asarray(labels, dtype=bool), np.asarray(predicted, dtype=bool)
    counts = np.ones(len(truth)) if weights is None else np.asarray(weights)
    if not counts @ truth or not counts @ ~truth:
        return None
    f1 = [
        2 * float(counts @ (of_interest & found)) / float(counts @ of_interest + counts @ found)
        for of_interest, found in ((truth, said), (~truth, ~said))
    ]
    return 100 * sum(f1) / 2


def auroc(labels: Sequence[bool], scores: Sequence[float], weights: Weights = None) -> float | None:
    """Probability that a right step scores higher than a wrong one, 0..1; a tie counts half.

    Args:
        labels: of each step, whether it is right.
        scores: its score.
        weights: how often each step counts.

    Returns:
        None unless there are right and wrong steps.
    """
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    counts = np.ones(len(truth), dtype=np.int64) if weights is None else weights
    if not counts[truth].sum() or not counts[~truth].sum():
        return None
    # As scikit-learn's roc_auc_score, which takes forty times as long: too long for a bootstrap.
    _, ranks = np.unique(values, return_inverse=True)
    right, wrong = (np.bincount(ranks, weights=counts * kind) for kind in (truth, ~truth))
    below = np.cumsum(wrong) - wrong
    return float(right @ (below + wrong / 2) / (right.sum() * wrong.sum()))


def calibration(labels: Sequence[bool], scores: Sequence[float], bins: int = 10) -> Calibration | None:
    """Compare scores with the fraction of right steps, in bins of equal width.

    Args:
        labels: of each step, whether it is right.
        scores: its probability of being right, 0..1.
        bins: how many.

    Returns:
        The curve of scikit-learn's `calibration_curve` and the expected calibration error (arXiv 1706.04599, equation
        3, for the probability of being right); None without steps.
    """
    if not len(labels):
        return None
    right, score = calibration_curve(np.asarray(labels, dtype=bool), scores, n_bins=bins, strategy="uniform")
    # calibration_curve keeps the bins' sizes to itself: the same edges, and the same side of an edge, once more.
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    sizes = np.bincount(np.searchsorted(inner_edges, scores), minlength=bins)
    sizes = sizes[sizes > 0]
    error = float(sizes @ np.abs(right - score)) / len(labels)
    filled = zip(score.tolist(), right.tolist(), sizes.tolist(), strict=True)
    return Calibration(error, [CalibrationBin(*values) for values in filled])


def score_histogram(labels: Sequence[bool], scores: Sequence[float], bins: int = 20) -> Histogram:
    """Count right and wrong steps by score, in bins of equal width from 0 to 1."""
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    edges = np.linspace(0, 1, bins + 1)
    right, wrong = (np.histogram(values[kind], edges)[0].tolist() for kind in (truth, ~truth))
    return Histogram(edges.tolist(), right, wrong)


def _percent(hits: Any, total: Any) -> float | None:
    return 100 * float(hits) / float(total) if total else None


def _harmonic_mean(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0


def _below(values: Sequence[float], candidates: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the values lie below each candidate."""
    return np.searchsorted(np.sort(np.asarray(values, dtype=float)), candidates, side="left")
