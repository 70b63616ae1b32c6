"""What a sample says about all that could have been drawn: intervals, and pass@k from n samples."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from stepwise_dpo.errors import ConfigError

if TYPE_CHECKING:  # the command line reads and writes estimates, and shall start without numpy
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1_000
LEVEL = 0.95

Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A figure with its 95% interval; None where the sample doesn't say how sure it is."""

    value: float
    interval: Interval | None

    def flat(self, name: str) -> dict[str, float]:
        """Write it as figures of a report: `name`, and with an interval `name/low` and `name/high`."""
        ends = {} if self.interval is None else dict(zip((f"{name}/low", f"{name}/high"), self.interval, strict=True))
        return {name: self.value, **ends}

    @classmethod
    def read(cls, figures: Mapping[str, float | None], name: str) -> "Estimate | None":
        """Read what `flat` wrote; None where there is no such figure."""
        value, low, high = (figures.get(key) for key in (name, f"{name}/low", f"{name}/high"))
        if value is None:
            return None
        return cls(value, None if low is None or high is None else (low, high))


def bootstrap_intervals(
    units: int,
    measure: "Callable[[NDArray[np.int64]], Mapping[str, float | None]]",
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
    import numpy as np

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


def paired_means(values: "NDArray[np.float64]", groups: Sequence[Hashable]) -> dict[str, Estimate]:
    """Contrast two measurements of the same things.

    Args:
        values: before and after of each thing, (things, 2), at least one.
        groups: what each belongs to, such as its prompt: things of a group aren't independent, and are drawn together.

    Returns:
        `before` and `after`, the means over things, and `change`, after minus before. The intervals are of the paired
        bootstrap, which draws groups with all their values. A change that is the same for all has none: that nothing
        varies in a sample doesn't show that nothing would elsewhere.
    """
    import numpy as np

    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros((len(places), 2)), np.zeros(len(places))
    np.add.at(sums, [places[group] for group in groups], values)
    np.add.at(counts, [places[group] for group in groups], 1)

    def measure(weights: "NDArray[np.int64]") -> dict[str, float]:
        before, after = (weights @ sums / (weights @ counts)).tolist()
        return {"before": before, "after": after, "change": after - before}

    intervals = bootstrap_intervals(len(places), measure)
    if np.ptp(values[:, 1] - values[:, 0]) == 0:
        intervals["change"] = None
    once = measure(np.ones(len(places), dtype=np.int64))
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
