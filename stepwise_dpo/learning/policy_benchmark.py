"""How well a policy solves problems that the checker knows, step by step, and what it prefers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwise_dpo.learning.estimates import bootstrap_intervals, pass_at_k
from stepwise_dpo.learning.evaluation import Answer, PairLogps, answer_prompts, pair_logps, sample_answers
from stepwise_dpo.learning.loading import Policy
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.preferences.synthetic import check_solution, is_known, solves

_NO_STEPS = "the policy wrote no steps"
_NO_PROMPTS = "the checker knows none of these prompts"

Bar = Callable[[str, str], Progress]
"""Makes something that shows progress, given what goes on and what is counted."""


@dataclass(frozen=True)
class Attempt:
    """What a policy made of one problem.

    Attributes:
        pair: the first that asks it.
        answer: the greedy one.
        solved: whether that is right.
        verdicts: of each of its steps, whether it is right.
        samples_solved: how many of the sampled answers are right.
    """

    pair: PreferencePair
    answer: Answer
    solved: bool
    verdicts: list[bool]
    samples_solved: int


@dataclass(frozen=True)
class PolicyResults:
    """Everything that a policy did on a set of pairs.

    Attributes:
        pairs: all of them.
        logps: of each pair.
        attempts: of each different prompt that the checker knows.
        unknown: the pairs whose prompt it doesn't know.
        samples: sampled answers for each attempt.
    """

    pairs: list[PreferencePair]
    logps: list[PairLogps]
    attempts: list[Attempt]
    unknown: list[PreferencePair]
    samples: int


def run_policy(
    policy: Policy,
    pairs: Sequence[PreferencePair],
    *,
    samples: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    bar: Bar | None = None,
) -> PolicyResults:
    """Let a policy score all pairs and answer every different prompt that the checker knows.

    Args:
        policy: the model; it is put into eval mode for the time of the call.
        pairs: what to run it on.
        samples: answers to draw for each prompt besides the greedy one; 0 for none.
        temperature: of the sampling, above 0.
        seed: of the sampling.
        max_new_tokens: the most tokens of an answer.
        batch_size: answers written at the same time, and solutions scored.
        bar: shows progress.

    Raises:
        ConfigError: samples or temperature is out of range.
        DataError: a pair is too long for the model.
    """
    unknown: list[PreferencePair] = []
    first: dict[str, PreferencePair] = {}
    for pair in pairs:
        if is_known(pair.prompt):
            first.setdefault(pair.prompt, pair)
        else:
            unknown.append(pair)
    # Alike lengths side by side: a batch takes as long as its longest answer.
    prompts = sorted(first, key=len)
    show = bar if bar is not None else _no_bar
    model = policy.model
    was_training = model.training
    model.eval()
    try:
        logps = pair_logps(policy, pairs, batch_size=max(1, batch_size // 2), progress=show("Scoring", "pair"))
        answers: list[Answer] = []
        progress = show("Answering", "prompt")
        for start in range(0, len(prompts), batch_size):
            answers += answer_prompts(policy, prompts[start : start + batch_size], max_new_tokens=max_new_tokens)
            progress(len(answers), len(prompts))
        sampled: list[list[Answer]] = [[] for _ in prompts]
        if samples:
            sampled = sample_answers(
                policy,
                prompts,
                samples=samples,
                temperature=temperature,
                seed=seed,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                progress=show("Sampling", "prompt"),
            )
    finally:
        model.train(was_training)
    attempts = {
        prompt: Attempt(
            first[prompt],
            answer,
            solves(prompt, answer.steps),
            check_solution(prompt, answer.steps),
            sum(solves(prompt, sample.steps) for sample in drawn),
        )
        for prompt, answer, drawn in zip(prompts, answers, sampled, strict=True)
    }
    return PolicyResults(list(pairs), logps, [attempts[prompt] for prompt in first], unknown, samples)


def policy_report(results: PolicyResults, ks: Sequence[int] = (), seed: int = 0) -> dict[str, Any]:
    """Measure a policy by what it did.

    Args:
        results: of `run_policy`.
        ks: for which k to estimate pass@k, each at most the number of samples.
        seed: of the bootstrap.

    Returns:
        JSON, with the figures of all pairs at the top, and the same of each family in `per_family`:

        - `solve_rate`: fraction of different prompts whose greedy answer is right;
        - `step_accuracy`: fraction of the greedy answers' steps that are right, see `check_solution`, which doesn't
          know each way to a right answer;
        - `complete`: fraction of greedy answers that ended within the limit on tokens;
        - `pass_at_k`: for each k, as text, the mean over prompts of `estimates.pass_at_k`;
        - `preference_accuracy`: fraction of all pairs whose chosen side is more likely per token; `mean_margin`: by
          how many nats per token;
        - `counts`: prompts, pairs, unknown (pairs whose prompt the checker doesn't know), steps, samples (per prompt);
        - `intervals`: [low, high] or null for each figure, 95% by bootstrap over prompts, or over pairs where a figure
          is one of pairs; those of pass@k are named "pass_at_1" and so on;
        - `undefined`: for each figure that is null, why.

        At the top also `unknown`, the names of those pairs.

    Raises:
        ConfigError: a k is larger than the number of samples.
    """
    for k in ks:
        pass_at_k(results.samples, 0, k)  # refuses a k that the samples don't allow
    families: dict[str, None] = {}
    for pair in results.pairs:
        if isinstance(family := pair.meta.get("family"), str):
            families[family] = None
    return {
        **_figures(results, ks, seed),
        "per_family": {family: _figures(_of_family(results, family), ks, seed) for family in families},
        "unknown": [pair.name for pair in results.unknown],
    }


def _figures(results: PolicyResults, ks: Sequence[int], seed: int) -> dict[str, Any]:
    attempts, samples = results.attempts, results.samples
    preferred = np.array([logps.preferred == "chosen" for logps in results.logps], dtype=float)
    margins = np.array([logps.margin for logps in results.logps])
    rates = {
        "solve_rate": np.array([attempt.solved for attempt in attempts], dtype=float),
        "complete": np.array([attempt.answer.complete for attempt in attempts], dtype=float),
        **{
            f"pass_at_{k}": np.array([pass_at_k(samples, attempt.samples_solved, k) for attempt in attempts])
            for k in ks
        },
    }
    right_steps = np.array([sum(attempt.verdicts) for attempt in attempts], dtype=np.int64)
    steps = np.array([len(attempt.verdicts) for attempt in attempts], dtype=np.int64)

    def over_prompts(weights: NDArray[np.int64]) -> dict[str, float | None]:
        figures = {name: _ratio(weights @ values, weights.sum()) for name, values in rates.items()}
        return figures | {"step_accuracy": _ratio(weights @ right_steps, weights @ steps)}

    def over_pairs(weights: NDArray[np.int64]) -> dict[str, float | None]:
        pairs = weights.sum()
        return {
            "preference_accuracy": _ratio(weights @ preferred, pairs),
            "mean_margin": _ratio(weights @ margins, pairs),
        }

    once = over_prompts(np.ones(len(attempts), dtype=np.int64))
    figures: dict[str, Any] = {
        "solve_rate": once["solve_rate"],
        "step_accuracy": once["step_accuracy"],
        "complete": once["complete"],
        "pass_at_k": {str(k): once[f"pass_at_{k}"] for k in ks},
        "preference_accuracy": float(preferred.mean()),
        "mean_margin": float(margins.mean()),
    }
    intervals = bootstrap_intervals(len(attempts), over_prompts, seed=seed)
    intervals |= bootstrap_intervals(len(preferred), over_pairs, seed=seed)
    return {
        **figures,
        "counts": {
            "prompts": len(attempts),
            "pairs": len(results.pairs),
            "unknown": len(results.unknown),
            "steps": int(steps.sum()),
            "samples": samples,
        },
        "intervals": {name: interval and list(interval) for name, interval in intervals.items()},
        "undefined": {name: _NO_STEPS if attempts else _NO_PROMPTS for name, value in figures.items() if value is None},
    }


def _of_family(results: PolicyResults, family: str) -> PolicyResults:
    chosen = [index for index, pair in enumerate(results.pairs) if pair.meta.get("family") == family]
    return PolicyResults(
        [results.pairs[index] for index in chosen],
        [results.logps[index] for index in chosen],
        [attempt for attempt in results.attempts if attempt.pair.meta.get("family") == family],
        [pair for pair in results.unknown if pair.meta.get("family") == family],
        results.samples,
    )


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None


def _no_bar(description: str, unit: str) -> Progress:
    return lambda done, total: None
