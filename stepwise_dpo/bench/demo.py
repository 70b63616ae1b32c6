"""What the demo's training does to the policy: held-out solve rate before and after, for each loss and several seeds.

Before and after are compared on the same fresh problems, so the interval is one of paired differences.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwise_dpo.learning.estimates import Interval, bootstrap_intervals
from stepwise_dpo.learning.evaluation import answer_prompts
from stepwise_dpo.learning.loading import Policy, load_policy
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.preferences.pairs import load_pairs
from stepwise_dpo.preferences.synthetic import Solution, draw_solution, solves
from stepwise_dpo.runs.config import PRESETS, make_config
from stepwise_dpo.runs.training import run

PROBLEM_SEED = -7
BATCH = 150


@dataclass(frozen=True)
class DemoResult:
    """One setting of the demo, trained with several seeds.

    Attributes:
        name: of the setting.
        before: solve rate of the untrained policy, 0..1.
        after: solve rate after training, per seed.
        difference: mean of after minus before over seeds and problems.
        interval: its 95% bootstrap interval over problems.
        seconds: mean length of a run, with the evaluation on the preset's held-out pairs but without answers.
    """

    name: str
    before: float
    after: list[float]
    difference: float
    interval: Interval | None
    seconds: float


def run_demo(
    variants: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], problems: int, progress: Progress | None = None
) -> Iterator[DemoResult]:
    """Train each variant with each seed, and measure on fresh problems.

    Gives each variant's result as soon as it has it: all of them take the better part of an hour.

    Args:
        variants: settings of a run by name, without a seed.
        seeds: of the training.
        problems: how many to answer greedily before and after.
        progress: told runs done and to do.
    """
    trained_on = {pair.prompt for pair in load_pairs(PRESETS["demo"]["data"])}
    fresh = [draw_solution(PROBLEM_SEED, index, avoid=trained_on) for index in range(problems)]
    before = _solved(load_policy(PRESETS["demo"]["model"]), fresh)
    for number, (name, variant) in enumerate(variants.items()):
        gains, rates, seconds = [], [], []
        for count, seed in enumerate(seeds):
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                # The problems that count are answered here; the run's own answers would double its time.
                directory = run(make_config(variant, {"seed": seed, "generate": 0}), Path(folder) / "run")
                seconds.append(time.perf_counter() - started)
                after = _solved(load_policy(str(directory.final)), fresh)
            gains.append(after - before)
            rates.append(float(after.mean()))
            if progress is not None:
                progress(number * len(seeds) + count + 1, len(variants) * len(seeds))
        gain = np.mean(gains, axis=0)  # per problem, over seeds
        yield DemoResult(name, float(before.mean()), rates, float(gain.mean()), _interval(gain), fmean(seconds))


def _interval(gain: NDArray[np.float64]) -> Interval | None:
    intervals = bootstrap_intervals(len(gain), lambda weights: {"gain": float(weights @ gain / weights.sum())})
    return intervals["gain"]


TABLE_HEADER = (
    f"{'':24}{'before':>8}{'after':>8}{'lowest':>8}{'highest':>8}{'change':>9}  {'95% interval':18}{'s/run':>6}"
)


def table_line(result: DemoResult) -> str:
    """Lay one variant's result out under `TABLE_HEADER`."""
    interval = "–" if result.interval is None else "{:+7.1%} to {:+7.1%}".format(*result.interval)
    return (
        f"{result.name:24}{result.before:8.1%}{fmean(result.after):8.1%}{min(result.after):8.1%}"
        f"{max(result.after):8.1%}{result.difference:+9.1%}  {interval:18}{result.seconds:8.1f}"
    )


def _solved(policy: Policy, problems: Sequence[Solution]) -> NDArray[np.float64]:
    """Whether the greedy answer to each problem is right, 1 or 0."""
    solved: list[bool] = []
    for start in range(0, len(problems), BATCH):
        batch = problems[start : start + BATCH]
        answers = answer_prompts(policy, [problem.prompt for problem in batch])
        solved += [solves(problem.prompt, answer.steps) for problem, answer in zip(batch, answers, strict=True)]
    return np.array(solved, dtype=np.float64)
