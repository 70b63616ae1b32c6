"""How long a run will take, judged by what earlier runs of the same model took here; and how long its steps take."""

from collections.abc import Iterable
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from stepwise_dpo.errors import RunError
from stepwise_dpo.runs.config import RunConfig
from stepwise_dpo.runs.directory import RunDirectory

LEAST_STEPS = 3
"""Fewer say nothing: the first ones are slower than the rest."""

LAST_STEPS = 20

READ_AT_MOST = 50


class Pace(NamedTuple):
    """What an earlier run took.

    Attributes:
        run_id: which run it was.
        per_pair: seconds of an optimiser step for each pair in it, the median over all steps.
        around: seconds that it spent before its first step and after its last one; None if it hasn't ended well, or
            was resumed: its status knows only when it began the last time.
        characters: of one of its training pairs on average; None if it didn't note that, as older runs.
    """

    run_id: str
    per_pair: float
    around: float | None
    characters: float | None = None

    def seconds(self, global_steps: int, pairs: int, characters: float | None = None) -> float:
        """Estimate a run of so many optimiser steps with so many pairs in each, of so many characters on average."""
        longer = characters / self.characters if characters and self.characters else 1.0
        return global_steps * pairs * self.per_pair * longer + (self.around or 0.0)


def pace_of(run: RunDirectory, config: RunConfig) -> Pace | None:
    """Measure a run's pace by its metrics; None while they are too few.

    Raises:
        RunError: its status or environment can't be read.
    """
    steps = _steps(run)
    if len(steps) < LEAST_STEPS:
        return None
    # The median passes over the pauses in which held-out examples were evaluated.
    paces = [(t - s) / max(1, b - a) for (a, s), (b, t) in pairwise(steps)]
    status = run.status()
    around = None
    if status.state in ("finished", "stopped") and 0 < status.started <= steps[0][1]:
        around = max(0.0, (steps[0][1] - status.started) + (status.updated - steps[-1][1]))
    per_pair = median(paces) / (config.batch_size * config.gradient_accumulation)
    return Pace(run.id, per_pair, around, (run.environment() or {}).get("characters"))


def step_seconds(run: RunDirectory) -> float | None:
    """Measure how long a run's optimiser steps take in its present process, in seconds; None before the first one.

    The median over the last ones, which passes over evaluations. The first step counts from the process's beginning.

    Raises:
        RunError: its status can't be read.
    """
    started = run.status().started
    times = [started, *(moment for _, moment in _steps(run) if moment >= started)][-LAST_STEPS:]
    return median(b - a for a, b in pairwise(times)) if len(times) > 1 else None


def _steps(run: RunDirectory) -> list[tuple[int, float]]:
    """The global_step and the time, in seconds since 1970, of each optimiser step."""
    return [(r["global_step"], r["time"]) for r in run.metrics()[0] if {"global_step", "time", "loss"} <= r.keys()]


def known_pace(runs: Iterable[RunDirectory], model: str, loss: str) -> Pace | None:
    """Find the pace of the newest run of a model that is over, if possible with the same loss; None without any.

    Args:
        runs: the newest first.
        model: as the configuration names it.
        loss: "dpo" or "stepwise".
    """
    other: Pace | None = None
    for run, _ in zip(runs, range(READ_AT_MOST), strict=False):
        try:
            config = run.config()
            if config.model != model or (config.loss != loss and other is not None):
                continue
            if run.status().active:  # its first steps are slower, and what is around them isn't known yet
                continue
            pace = pace_of(run, config)
        except RunError:
            continue
        if pace is not None and config.loss == loss:
            return pace
        other = other or pace
    return other
