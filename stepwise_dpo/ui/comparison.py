"""Two models on the same examples: what each finds likelier, what it answers, and how sure the difference is.

Nothing here knows Gradio or torch. The two sides are called before and after, as in the records of a run; which two
models they are is chosen elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from stepwise_dpo.learning.estimates import Estimate, paired_means, wilson_interval
from stepwise_dpo.preferences.pairs import PreferencePair


class Likelihood(NamedTuple):
    """What a model makes of one solution.

    Attributes:
        steps: log-probability of each step, summed over its tokens, in nats.
        tokens: how many tokens the whole solution has for this model.
    """

    steps: tuple[float, ...]
    tokens: int

    @property
    def total(self) -> float:
        """Nats of the whole solution."""
        return sum(self.steps)

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.total / self.tokens


def log_ratios(before: Likelihood, after: Likelihood) -> list[float]:
    """How much likelier each step of a solution has become, in nats."""
    return [new - old for old, new in zip(before.steps, after.steps, strict=True)]


class Reply(NamedTuple):
    """What a model answered.

    Attributes:
        steps: of the answer; () when it ended at once.
        complete: False when the limit on tokens cut it off.
        solved: whether the final answer is right; None where no checker knows the problem.
        rewards: process rewards of the steps; None where nobody judged them.
    """

    steps: tuple[str, ...]
    complete: bool
    solved: bool | None
    rewards: tuple[float, ...] | None = None


class Seen(NamedTuple):
    """One model on one example; `reply` is None where it wasn't asked."""

    chosen: Likelihood
    rejected: Likelihood
    reply: Reply | None

    @property
    def margin(self) -> float:
        """Log-likelihood of chosen minus that of rejected, in nats per token."""
        return self.chosen.mean - self.rejected.mean

    @property
    def preferred(self) -> str:
        """Which side is likelier per token: chosen, rejected, or tie."""
        return "chosen" if self.margin > 0 else "rejected" if self.margin < 0 else "tie"

    @property
    def solved(self) -> bool | None:
        """Whether the answer is right; None where there is none, or nobody knows."""
        return self.reply.solved if self.reply else None


class Measured(NamedTuple):
    """One model's side of one example; `trained_on` is None where nobody knows."""

    pair: PreferencePair
    seen: Seen
    trained_on: bool | None


@dataclass(frozen=True)
class Compared:
    """One example with both models' sides."""

    pair: PreferencePair
    before: Seen
    after: Seen
    trained_on: bool | None

    @property
    def change(self) -> float:
        """How much the margin rose, in nats per token."""
        return self.after.margin - self.before.margin

    @property
    def flipped(self) -> bool:
        """Whether the two models prefer different sides."""
        return self.before.preferred != self.after.preferred

    @property
    def same_tokens(self) -> bool:
        """Whether both models cut the two solutions into equally many tokens, so that nats per token compare."""
        return all(getattr(self.before, side).tokens == getattr(self.after, side).tokens for side in SIDES)


SIDES = ("chosen", "rejected")


def key_of(pair: PreferencePair) -> tuple[object, ...]:
    """What makes two examples the same: id, prompt and the texts of all steps."""
    return (pair.id, pair.prompt, tuple(s.text for s in pair.chosen), tuple(s.text for s in pair.rejected))


def side_by_side(before: Sequence[Measured], after: Sequence[Measured]) -> tuple[Compared, ...]:
    """Put both models' sides of the same examples together, in the order of `before`; others are left out."""
    known = {key_of(measured.pair): measured for measured in after}
    found = []
    for one in before:
        other = known.get(key_of(one.pair))
        if other is not None:
            found.append(Compared(one.pair, one.seen, other.seen, _either(one.trained_on, other.trained_on)))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------- figures


class Contrast(NamedTuple):
    """One figure of both models, and the change.

    Attributes:
        key: of the glossary.
        units: how many examples or problems it is about.
        share: whether it is a share of them, 0..1.
        before: the first model's.
        after: the second's.
        change: after minus before, on the same examples.
    """

    key: str
    units: int
    share: bool
    before: Estimate
    after: Estimate
    change: Estimate


def contrasts(compared: Sequence[Compared]) -> list[Contrast]:
    """Measure both models and the change.

    Intervals: of a share Wilson's; of a mean the bootstrap over prompts; of a change the paired bootstrap, which draws
    prompts with both models' values. The solve rate counts each problem once, and only where both models answered it
    and the checker knows it; without any it is left out.

    Args:
        compared: at least one example.
    """
    found = []
    for key, share, values in (
        ("preference_accuracy", True, [[float(seen.preferred == "chosen") for seen in _both(c)] for c in compared]),
        ("mean_margin", False, [[seen.margin for seen in _both(c)] for c in compared]),
        ("logps_chosen", False, [[seen.chosen.total for seen in _both(c)] for c in compared]),
        ("logps_rejected", False, [[seen.rejected.total for seen in _both(c)] for c in compared]),
        ("solve_rate", True, [[float(bool(seen.solved)) for seen in _both(c)] for c in problems(compared)]),
    ):
        if values:
            prompts = [one.pair.prompt for one in (problems(compared) if key == "solve_rate" else compared)]
            found.append(_contrast(key, share, np.array(values), prompts))
    return found


def problems(compared: Sequence[Compared]) -> list[Compared]:
    """The examples that both models answered and the checker knows, each problem once."""
    known: dict[str, Compared] = {}
    for one in compared:
        if one.before.solved is not None and one.after.solved is not None:
            known.setdefault(one.pair.prompt, one)
    return list(known.values())


def _contrast(
    key: str, share: bool, values: "np.ndarray[Any, np.dtype[np.float64]]", prompts: Sequence[str]
) -> Contrast:
    """Contrast two columns of values, (units, 2)."""
    units, estimates = len(values), paired_means(values, prompts)
    if share:
        for column, name in enumerate(("before", "after")):
            interval = wilson_interval(int(values[:, column].sum()), units)
            estimates[name] = estimates[name]._replace(interval=interval)
    return Contrast(key, units, share, **estimates)


# ------------------------------------------------------------------------------------------------------------ table

FILTERS = {
    "all": "All",
    "flipped": "Preference flipped",
    "to_chosen": "Flipped to chosen",
    "to_rejected": "Flipped to rejected",
    "newly_solved": "Newly solved",
    "newly_failed": "Newly failed",
}

SORTS = ("order", "before", "after", "change")

PAGE_SIZE = 15


class Place(NamedTuple):
    """What of the table is shown.

    Attributes:
        only: one of `FILTERS`.
        sort: one of `SORTS`: the order of the set, or the margin before, after, or its change.
        descending: whether the largest comes first.
        page: counted from 0.
    """

    only: str = "all"
    sort: str = "order"
    descending: bool = False
    page: int = 0


def passes(one: Compared, only: str) -> bool:
    """Whether an example belongs to a filter of `FILTERS`."""
    match only:
        case "flipped":
            return one.flipped
        case "to_chosen" | "to_rejected":
            return one.flipped and one.after.preferred == only.removeprefix("to_")
        case "newly_solved":
            return one.after.solved is True and one.before.solved is False
        case "newly_failed":
            return one.after.solved is False and one.before.solved is True
    return True


def arranged(compared: Sequence[Compared], place: Place) -> list[int]:
    """Indices of the examples that pass the filter, in the order asked for."""
    kept = [index for index, one in enumerate(compared) if passes(one, place.only)]
    match place.sort:
        case "before":
            kept.sort(key=lambda i: compared[i].before.margin, reverse=place.descending)
        case "after":
            kept.sort(key=lambda i: compared[i].after.margin, reverse=place.descending)
        case "change":
            kept.sort(key=lambda i: compared[i].change, reverse=place.descending)
        case _ if place.descending:
            kept.reverse()
    return kept


def moved(place: Place, key: str) -> Place:
    """Follow a click on the table's head ("sort:change") or its pager ("page:2"); anything else changes nothing.

    A first click on a number shows the largest first, a second one the smallest.
    """
    kind, _, name = key.partition(":")
    if kind == "sort" and name in SORTS:
        descending = not place.descending if name == place.sort else name != "order"
        return place._replace(sort=name, descending=descending, page=0)
    if kind == "page" and name.isascii() and name.isdigit():
        return place._replace(page=int(name[:9]))
    return place


def _both(one: Compared) -> tuple[Seen, Seen]:
    return one.before, one.after


def _either(one: bool | None, other: bool | None) -> bool | None:
    """Whether one of two models was trained on an example; None if that is open."""
    if one or other:
        return True
    return None if one is None or other is None else False
