"""What a sample says about all that could have been drawn: intervals, and pass@k from n samples."""

from collections.abc import Callable, Mapping
from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepwise_dpo.errors import ConfigError

RESAMPLES = 1_000
LEVEL = 0.95

Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A figure with its 95% interval; None where there are too few units for one."""

    value: float
    interval: Interval | None


def bootstrap_intervals(
    units: int,
    measure: Callable[[NDArray[np.int64]], Mapping[str, float | None]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval | None]:
    """Say how far figures might lie elsewhere on another sample of the same size (Efron's percentile bootstrap).

    Where nothing in the sample varies, the interval is a single point: a rate of 100% on 20 prompts doesn't show that
    there is no problem it would fail on.

    Args:
        units: how many independent things were measured: pairs, prompts.
        measure: computes the figures, given how often each unit was drawn, (units,); always the same figures.
        seed: the same gives the same intervals.
        resamples: how often to draw as many units as there are, with replacement.
        level: what part of the resamples an interval holds.

    Returns:
        (low, high) for each figure. None with fewer than two units, or where a figure was undefined in more than half
        of the resamples; from the others, undefined ones are left out.
    """
    if units < 2:
        return dict.fromkeys(measure(np.ones(units, dtype=np.int64)))
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        weights = np.bincount(generator.integers(units, size=units), minlength=units)
        for name, value in measure(weights).items():
            defined = drawn.setdefault(name, [])
            if value is not None:
                defined.append(value)
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    intervals: dict[str, Interval | None] = dict.fromkeys(drawn)
    for name, values in drawn.items():
        if 2 * len(values) > resamples:
            low, high = np.percentile(values, tails).tolist()
            intervals[name] = (low, high)
    return intervals


def paired_means(values: NDArray[np.float64]) -> dict[str, Estimate]:
    """Contrast two measurements of the same units.

    Args:
        values: before and after of each unit, (units, 2), at least one unit.

    Returns:
        `before` and `after`, the means, and `change`, after minus before; the intervals are of the paired bootstrap,
        which draws units with both values.
    """
    units = len(values)

    def measure(weights: NDArray[np.int64]) -> dict[str, float]:
        before, after = (weights @ values / weights.sum()).tolist()
        return {"before": before, "after": after, "change": after - before}

    intervals = bootstrap_intervals(units, measure)
    once = measure(np.ones(units, dtype=np.int64))
    return {name: Estimate(value, intervals[name]) for name, value in once.items()}


def wilson_interval(hits: int, units: int, level: float = LEVEL) -> Interval:
    """Say where a share may really lie, 0..1, by Wilson's score interval (JASA 22, 1927).

    Unlike a bootstrap it has a width where all or none of the units hit: none of 20 may well be 10 of 100.

    Args:
        hits: how many units have the property.
        units: how many there are, at least 1.
        level: how often such intervals hold the true share.

    Raises:
        ConfigError: hits is out of range, or there are no units.
    """
    if not 0 <= hits <= units or units < 1:
        raise ConfigError(f"{hits} of {units} is no share")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, spread = hits / units, z * z / units
    centre = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # At 0 and at 1 the exact end is the share itself; rounding must not put it beyond.
    return (0.0 if hits == 0 else centre - half, 1.0 if hits == units else centre + half)


def pass_at_k(samples: int, solved: int, k: int) -> float:
    """Probability that one of k answers is right, 0..1, without bias from n samples: 1 - C(n - c, k) / C(n, k).

    From arXiv 2107.03374, equation 1; 1 - (1 - c/n)^k would be too low.

    Args:
        samples: n, the answers drawn.
        solved: c, how many of them are right.
        k: at most n.

    Raises:
        ConfigError: k or c is out of range.
    """
    if not 1 <= k <= samples:
        raise ConfigError(f"pass@{k} needs at least {max(k, 1)} samples, and k at least 1; there are {samples} samples")
    if not 0 <= solved <= samples:
        raise ConfigError(f"{solved} of {samples} samples can't be right")
    return 1 - comb(samples - solved, k) / comb(samples, k)
