"""How good a process reward model is at finding the wrong step, on pairs whose steps are labelled.

Which of a pair's two sides is right, its labels say: usually the chosen one. In a report per corruption, a corruption's
right solutions are therefore those of the pairs that have it.

Steps after a solution's first error are a matter of definition. ProcessBench doesn't define them; the labels here call
a step that carries the error on wrong, and a judge that looks at a step in its context, as a likelihood does, calls it
right. So the figures over steps come in two kinds: `auroc` and the calibration take each solution up to and including
its first error, where all agree what is right; `auroc_all_steps` and `prm_score` take every labelled step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.estimates import Interval, bootstrap_intervals
from stepwise_dpo.learning.process_metrics import (
    NO_ERROR,
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
from stepwise_dpo.learning.rewards import LLMRewardModel, Progress
from stepwise_dpo.preferences.diagnosis import describe_step
from stepwise_dpo.preferences.pairs import PreferencePair, Step

_UNDEFINED = {
    "acc1": "no labelled solution has a wrong step",
    "acc2": "no labelled solution is right throughout",
    "f1": "needs solutions with a wrong step and solutions that are right throughout",
    "auroc": "needs right and wrong steps among those up to the first errors",
    "auroc_all_steps": "needs right and wrong steps among the labelled ones",
    "prm_score": "needs right and wrong steps among the labelled ones",
    "calibration": "no solution is labelled",
}


@dataclass(frozen=True)
class JudgedSolution:
    """One side of a pair, as a reward model sees it.

    Attributes:
        side: which one.
        steps: with their labels.
        scores: of each step, its probability of being right, 0..1.
    """

    side: Literal["chosen", "rejected"]
    steps: tuple[Step, ...]
    scores: list[float]

    @property
    def first_error(self) -> int | None:
        """As labelled, see `labelled_first_error`."""
        return labelled_first_error([step.label for step in self.steps])


@dataclass(frozen=True)
class JudgedPair:
    """A pair with the scores of its steps."""

    pair: PreferencePair
    chosen: JudgedSolution
    rejected: JudgedSolution

    @property
    def solutions(self) -> tuple[JudgedSolution, JudgedSolution]:
        """Both sides."""
        return self.chosen, self.rejected

    @property
    def preference(self) -> float:
        """Summed centered rewards, 2 * probability - 1, of chosen minus those of rejected."""
        chosen, rejected = (sum(2 * score - 1 for score in solution.scores) for solution in self.solutions)
        return chosen - rejected


class _Steps(NamedTuple):
    """Labelled steps of many pairs: whether each is right, its score, and which pair it belongs to."""

    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    pairs: NDArray[np.int64]


def judge_pairs(
    reward_model: LLMRewardModel, pairs: Sequence[PreferencePair], progress: Progress | None = None
) -> list[JudgedPair]:
    """Score every step of both sides.

    Raises:
        DataError: a solution is longer than the judge can read; the message names its pair.
        ModelError: a score isn't finite.
    """
    log_odds = reward_model.score_pairs(pairs, value="log_odds", progress=progress)
    return [
        JudgedPair(
            pair,
            JudgedSolution("chosen", pair.chosen, probabilities(values.chosen)),
            JudgedSolution("rejected", pair.rejected, probabilities(values.rejected)),
        )
        for pair, values in zip(pairs, log_odds, strict=True)
    ]


def check_labels(pairs: Sequence[PreferencePair], both_kinds: bool = False, source: str = "these pairs") -> None:
    """Find out before anything takes time whether there is something to hold scores against.

    Args:
        pairs: what is to be measured on.
        both_kinds: whether there have to be right solutions and wrong ones.
        source: what the pairs are called.

    Raises:
        DataError: no solution is labelled; or, with `both_kinds`, all are right or all are wrong.
    """
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    errors = [error for side in sides if (error := labelled_first_error([s.label for s in side])) is not None]
    if not errors:
        raise DataError(
            f"no solution in {source} is labelled, so there is nothing to hold the scores against; each step needs "
            'a "label" of true or false, at least up to the first wrong one'
        )
    wrong = sum(error >= 0 for error in errors)
    if both_kinds and wrong in (0, len(errors)):
        raise DataError(
            f"every labelled solution in {source} is {'wrong' if wrong else 'right'}; it takes right ones and wrong "
            "ones to tell them apart"
        )


def tuned_threshold(judged: Sequence[JudgedPair]) -> float:
    """Find the threshold that gives the best F1 on these pairs, see `tune_threshold`.

    Raises:
        DataError: their labelled solutions are all right or all wrong, or they all score the same.
    """
    labelled = _labelled(judged)
    return tune_threshold([error for _, _, error in labelled], [solution.scores for _, solution, _ in labelled])


def reward_report(judged: Sequence[JudgedPair], threshold: float, seed: int = 0) -> dict[str, Any]:
    """Measure a reward model on pairs that it has judged.

    Args:
        judged: at least one solution has to be labelled; unlabelled ones are left out of all figures that need labels,
            and counted.
        threshold: steps scored below it count as called wrong.
        seed: of the bootstrap.

    Returns:
        JSON, with the figures of all pairs at the top, and the same of each `per_family` and `per_corruption`:

        - `process_bench`: acc1, acc2 and f1, and `prm_score`, in percent;
        - `auroc`, `auroc_all_steps`, `preference_accuracy` (fraction of all pairs with a preference above 0): 0..1;
        - `calibration`: `error`, 0..1, and `bins`, see `process_metrics.Calibration`;
        - `counts`: pairs, solutions, right, wrong, unlabelled (solutions) and steps (up to the first errors);
        - `intervals`: [low, high] or null for each figure, 95% by bootstrap over pairs; of `prm_score` and the
          `auroc`s at the top only;
        - `undefined`: for each figure that is null, why.

        At the top also `threshold`, `histogram` (of the steps behind `auroc`) and `mistakes`: every solution whose
        first error isn't the predicted one, with indices from 0, -1 for none, and a `reason` in words.

    Raises:
        DataError: no solution is labelled.
    """
    check_labels([pair.pair for pair in judged])
    early = _steps(judged, up_to_first_error=True)
    return {
        **_figures(judged, threshold, seed, with_step_intervals=True),
        "threshold": threshold,
        "histogram": score_histogram(early.labels.tolist(), early.scores.tolist())._asdict(),
        "per_family": _per_group(judged, "family", threshold, seed),
        "per_corruption": _per_group(judged, "corruption", threshold, seed),
        "mistakes": _mistakes(judged, threshold),
    }


def _figures(
    judged: Sequence[JudgedPair], threshold: float, seed: int, with_step_intervals: bool = False
) -> dict[str, Any]:
    labelled = _labelled(judged)
    owners = np.array([owner for owner, _, _ in labelled], dtype=np.int64)
    true = [error for _, _, error in labelled]
    predicted = [predicted_first_error(solution.scores, threshold) for _, solution, _ in labelled]
    preferred = np.array([pair.preference > 0 for pair in judged], dtype=float)
    early, every = _steps(judged, up_to_first_error=True), _steps(judged)
    called_right = every.scores >= threshold

    def measure(weights: NDArray[np.int64]) -> dict[str, float | None]:
        figures = process_bench(true, predicted, weights[owners])._asdict()
        figures["preference_accuracy"] = float(weights @ preferred) / float(weights.sum())
        if with_step_intervals:
            figures["prm_score"] = prm_score(every.labels.tolist(), called_right.tolist(), weights[every.pairs])
            figures["auroc_all_steps"] = auroc(every.labels.tolist(), every.scores.tolist(), weights[every.pairs])
            figures["auroc"] = auroc(early.labels.tolist(), early.scores.tolist(), weights[early.pairs])
        return figures

    curve = calibration(early.labels.tolist(), early.scores.tolist())
    bench = process_bench(true, predicted)._asdict()
    figures = {
        "process_bench": bench,
        "auroc": auroc(early.labels.tolist(), early.scores.tolist()),
        "auroc_all_steps": auroc(every.labels.tolist(), every.scores.tolist()),
        "prm_score": prm_score(every.labels.tolist(), called_right.tolist()),
        "preference_accuracy": float(preferred.mean()),
        "calibration": curve and {"error": curve.error, "bins": [point._asdict() for point in curve.bins]},
    }
    return {
        **figures,
        "counts": {
            "pairs": len(judged),
            "solutions": len(labelled),
            "right": true.count(NO_ERROR),
            "wrong": len(true) - true.count(NO_ERROR),
            "unlabelled": 2 * len(judged) - len(labelled),
            "steps": len(early.labels),
        },
        "intervals": _as_lists(bootstrap_intervals(len(judged), measure, seed=seed)),
        "undefined": {name: _UNDEFINED[name] for name, value in {**figures, **bench}.items() if value is None},
    }


def _per_group(judged: Sequence[JudgedPair], key: str, threshold: float, seed: int) -> dict[str, Any]:
    """The figures of each value that `meta[key]` has, in order of first appearance; pairs without it are in none."""
    groups: dict[str, list[JudgedPair]] = {}
    for pair in judged:
        if isinstance(name := pair.pair.meta.get(key), str):
            groups.setdefault(name, []).append(pair)
    return {name: _figures(group, threshold, seed) for name, group in groups.items()}


def _mistakes(judged: Sequence[JudgedPair], threshold: float) -> list[dict[str, Any]]:
    mistakes = []
    for owner, solution, true in _labelled(judged):
        predicted = predicted_first_error(solution.scores, threshold)
        if predicted == true:
            continue
        pair = judged[owner].pair
        mistake: dict[str, Any] = {
            "id": pair.id,
            "side": solution.side,
            "kind": _kind(true, predicted),
            "family": pair.meta.get("family"),
            "corruption": pair.meta.get("corruption"),
            "prompt": pair.prompt,
            "true": true,
            "predicted": predicted,
        }
        for name, index in (("true", true), ("predicted", predicted)):
            mistake[f"{name}_step"] = None if index == NO_ERROR else solution.steps[index].text
            mistake[f"{name}_step_score"] = None if index == NO_ERROR else solution.scores[index]
        mistake["reason"] = _reason(pair.prompt, solution, true, predicted, threshold)
        mistakes.append(mistake)
    return mistakes


def _reason(prompt: str, solution: JudgedSolution, true: int, predicted: int, threshold: float) -> str:
    """Say what the step is that the judge took for the other kind, and how sure it was."""
    # Its first slip: up to there it agreed with the labels.
    index = predicted if true == NO_ERROR or NO_ERROR < predicted < true else true
    score = solution.scores[index]
    fact = describe_step(prompt, [step.text for step in solution.steps], index)
    place = "above" if score >= threshold else "below"
    return f"step {index + 1} scores {score:.3g}, {place} the threshold of {threshold:.3g}: {fact}"


def _kind(true: int, predicted: int) -> str:
    if true == NO_ERROR:
        return "false alarm"
    if predicted == NO_ERROR:
        return "missed"
    return "too early" if predicted < true else "too late"


def _labelled(judged: Sequence[JudgedPair]) -> list[tuple[int, JudgedSolution, int]]:
    """Labelled solutions: the index of the pair, the solution, and its first error."""
    return [
        (owner, solution, error)
        for owner, pair in enumerate(judged)
        for solution in pair.solutions
        if (error := solution.first_error) is not None
    ]


def _steps(judged: Sequence[JudgedPair], up_to_first_error: bool = False) -> _Steps:
    """Labelled steps of labelled solutions."""
    found = [
        (step.label, score, owner)
        for owner, solution, error in _labelled(judged)
        for index, (step, score) in enumerate(zip(solution.steps, solution.scores, strict=True))
        if step.label is not None and not (up_to_first_error and error != NO_ERROR and index > error)
    ]
    labels, scores, owners = zip(*found, strict=True) if found else ((), (), ())
    return _Steps(np.array(labels, dtype=bool), np.array(scores, dtype=float), np.array(owners, dtype=np.int64))


def _as_lists(intervals: dict[str, Interval | None]) -> dict[str, list[float] | None]:
    return {name: interval and list(interval) for name, interval in intervals.items()}
