"""What a set of pairs looks like as a whole: how long, where the errors sit, what repeats, what leaks.

Prompts count as the same if they differ only in spacing and capitals.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from stepwise_dpo.preferences.pairs import PreferencePair, Step, first_error


@dataclass(frozen=True)
class Statistics:
    """Counts over a set of pairs.

    Attributes:
        pairs: how many there are.
        chosen_steps: how many chosen sides have how many steps.
        rejected_steps: the same for rejected sides.
        length_gaps: for each pair, characters of chosen minus those of rejected.
        first_errors: how many rejected sides have their first step labelled wrong at which place (from 1).
        without_error: how many rejected sides have no step labelled wrong.
        labelled_steps: steps with a label, of both sides.
        steps: steps of both sides.
        repeated_prompts: pairs whose prompt an earlier pair has.
        repeated_pairs: pairs that an earlier one equals in prompt and in the text of all steps.
    """

    pairs: int
    chosen_steps: dict[int, int]
    rejected_steps: dict[int, int]
    length_gaps: tuple[int, ...]
    first_errors: dict[int, int]
    without_error: int
    labelled_steps: int
    steps: int
    repeated_prompts: int
    repeated_pairs: int


def statistics(pairs: Sequence[PreferencePair]) -> Statistics:
    """Count over a set of pairs, which may be empty."""
    errors = Counter(first_error(pair.rejected) for pair in pairs)
    without_error = errors.pop(None, 0)
    labels = [step.label for pair in pairs for side in (pair.chosen, pair.rejected) for step in side]
    return Statistics(
        pairs=len(pairs),
        chosen_steps=dict(sorted(Counter(len(pair.chosen) for pair in pairs).items())),
        rejected_steps=dict(sorted(Counter(len(pair.rejected) for pair in pairs).items())),
        length_gaps=tuple(_characters(pair.chosen) - _characters(pair.rejected) for pair in pairs),
        first_errors={index + 1: count for index, count in sorted(errors.items()) if index is not None},
        without_error=without_error,
        labelled_steps=sum(label is not None for label in labels),
        steps=len(labels),
        repeated_prompts=sum(number > 0 for number in repetitions(prompt_key(pair.prompt) for pair in pairs)),
        repeated_pairs=sum(number > 0 for number in repetitions(pair_key(pair) for pair in pairs)),
    )


def prompt_key(prompt: str) -> str:
    """Reduce a prompt to what decides whether it is the same as another."""
    return " ".join(prompt.casefold().split())


def pair_key(pair: PreferencePair) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Reduce a pair to what decides whether it repeats another: labels, id and meta don't."""
    chosen, rejected = (tuple(step.text for step in side) for side in (pair.chosen, pair.rejected))
    return prompt_key(pair.prompt), chosen, rejected


ROUNDING = 1e-6
"""A preference nearer to 0 has no sign: rewards are 32-bit floats of up to a few units with errors of some 1e-7 each,
so that a judge may rate the same steps in another batch by that much differently."""


def preference_sign(preference: float) -> int:
    """Say whether a preference is for the chosen side, 1, for the rejected one, -1, or nothing but rounding, 0."""
    return 0 if abs(preference) < ROUNDING else 1 if preference > 0 else -1


def hardly_differ(scores: Sequence[float]) -> bool:
    """Whether a judge's step scores tell nothing apart: at least 95% of four or more lie within 0.02 of their median.

    Their sum over a solution then says little more than how many steps it has.
    """
    if len(scores) < 4:
        return False
    middle = median(scores)
    return sum(abs(score - middle) <= 0.02 for score in scores) >= 0.95 * len(scores)


def repetitions(keys: Iterable[object]) -> list[int]:
    """Count, for each key, how many equal ones stand before it."""
    seen: Counter[object] = Counter()
    before = []
    for key in keys:
        before.append(seen[key])
        seen[key] += 1
    return before


def shared_prompts(pairs: Sequence[PreferencePair], others: Sequence[PreferencePair]) -> list[int]:
    """Find the pairs (indices) whose prompt occurs in another set: training on them spoils measuring on that set."""
    known = {prompt_key(pair.prompt) for pair in others}
    return [index for index, pair in enumerate(pairs) if prompt_key(pair.prompt) in known]


def mean_characters(pairs: Sequence[PreferencePair]) -> float:
    """Characters of a pair, its prompt and both sides, on average over one or more; training takes longer with them."""
    return fmean(len(pair.prompt) + _characters(pair.chosen) + _characters(pair.rejected) for pair in pairs)


def _characters(side: Sequence[Step]) -> int:
    return sum(len(step.text) for step in side)
