"""Seeded preference pairs from generated multi-step problems whose every step is known to be right or wrong.

A pair's chosen side solves the problem; its rejected side makes one plausible mistake and follows it to a wrong answer.
Both are lists of computations such as "15 + 13 = 28" that end with "Answer: 28". All text is ASCII.

    families      how problems are worded and read back     (families)
    corruptions   how solutions go wrong                    (corruptions)
    checker       what is right, from the prompt's text     (checker)

The truth about the steps (`Step.label`) comes from the way the mistake was made. `check_solution` finds it a second
time from the text; the tests hold the two against each other.

data/README.md names the commands that made the bundled files.
"""

import difflib
import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences import corruptions as mistakes
from stepwise_dpo.preferences import families as problems
from stepwise_dpo.preferences.checker import check_solution, is_known, solves
from stepwise_dpo.preferences.pairs import JSON, PreferencePair, Step
from stepwise_dpo.preferences.programs import Computation, run

__all__ = [
    "CORRUPTIONS",
    "FAMILIES",
    "Solution",
    "check_solution",
    "draw_solution",
    "generate_pairs",
    "is_known",
    "solves",
]

FAMILIES = tuple(problems.FAMILIES)
CORRUPTIONS = mistakes.CORRUPTIONS
MAX_PAIRS = 100_000
STEPS = (2, 6)
STEPS_LIMITS = (2, 12)
MAX_NUMBER = 100
MAX_NUMBER_LIMITS = (20, 1_000_000)
ATTEMPTS = 3_000  # draws for one pair and number of computations; one in a hundred serves in the hardest case


class Solution(NamedTuple):
    """A problem with its right solution."""

    prompt: str
    steps: tuple[str, ...]
    family: str


def draw_solution(
    seed: int,
    index: int,
    *,
    families: Sequence[str] = FAMILIES,
    steps: tuple[int, int] = STEPS,
    max_number: int = MAX_NUMBER,
    avoid: Collection[str] = (),
) -> Solution:
    """Draw the problem of an index and solve it; arguments as in `generate_pairs`.

    The same for the same arguments, whatever was drawn before. Problems of different indices may be equal.

    Raises:
        DataError: an argument is out of range, or nearly all problems of this kind are to be avoided.
    """
    _check_names("families", families, FAMILIES)
    _check_kind(steps, max_number)
    family = families[index % len(families)]
    rng = random.Random(f"{seed}:{index}:{family}")
    count = rng.randint(*steps)
    for _ in range(ATTEMPTS):
        problem = problems.FAMILIES[family].draw(rng, count, max_number)
        correct = run(problem.ops, max_number) if problem and problem.prompt not in avoid else None
        if problem is not None and correct is not None:
            return Solution(problem.prompt, (*map(str, correct), f"Answer: {correct[-1].result}"), family)
    raise DataError(
        f"found no further {family} problem with {count} computations and numbers up to {max_number}; "
        "ask for larger numbers or other steps"
    )


def generate_pairs(
    n: int,
    seed: int,
    *,
    families: Sequence[str] = FAMILIES,
    steps: tuple[int, int] = STEPS,
    max_number: int = MAX_NUMBER,
    corruptions: Sequence[str] = CORRUPTIONS,
    avoid: Collection[str] = (),
) -> list[PreferencePair]:
    """Generate labelled pairs, the same for the same arguments on every machine and Python version.

    Args:
        n: how many pairs, 1 to 100,000. The first pairs of a longer call are those of a shorter one.
        seed: any integer.
        families: which families, in turn.
        steps: the fewest and the most computations in a chosen solution, within 2..12; "Answer: ..." comes on top.
        max_number: 20 to 1,000,000; the largest number in prompts and chosen solutions (and half of the largest
            result in rejected ones).
        corruptions: which mistakes, in turn for each family.
        avoid: prompts that must not occur.

    Returns:
        Pairs with different prompts. `id` is family-seed-number; `meta` has family, corruption, first_error (index
        from 0 in rejected), carried (indices of the steps in rejected that carry the error on faithfully), answer
        (the right one) and seed.

    Raises:
        DataError: an argument is out of range, or there are not enough different prompts.
    """
    _check_range("n", n, 1, MAX_PAIRS)
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise DataError(f"seed must be an integer within 64 bits, not {seed!r}")
    _check_names("families", families, FAMILIES)
    _check_names("corruptions", corruptions, CORRUPTIONS)
    _check_kind(steps, max_number)
    used = set(avoid)
    pairs = []
    for i in range(n):
        family = families[i % len(families)]
        corruption = corruptions[i // len(families) % len(corruptions)]
        # A string seeds through SHA-512 in every Python version; a generator per pair makes pairs independent of n.
        rng = random.Random(f"{seed}:{i}:{family}:{corruption}")
        pair = _draw(rng, family, corruption, steps, max_number, used, f"{family}-{seed}-{i + 1:04d}", seed)
        if pair is None:
            raise DataError(
                f"pair {i + 1} of {n}: found no further {family} problem with {steps[0]} to {steps[1]} computations "
                f"and numbers up to {max_number} for {corruption}; ask for fewer pairs, larger numbers or other steps"
            )
        used.add(pair.prompt)
        pairs.append(pair)
    return pairs


def _draw(
    rng: random.Random,
    family: str,
    corruption: str,
    steps: tuple[int, int],
    max_number: int,
    used: Collection[str],
    id_: str,
    seed: int,
) -> PreferencePair | None:
    counts = list(range(steps[0], steps[1] + 1))
    rng.shuffle(counts)
    for attempt in range(ATTEMPTS * len(counts)):
        count = counts[attempt // ATTEMPTS]
        problem = problems.FAMILIES[family].draw(rng, count, max_number)
        correct = run(problem.ops, max_number) if problem and problem.prompt not in used else None
        if problem is None or correct is None:
            continue
        mistaken = mistakes.corrupt(rng, problem.ops, correct, corruption, 2 * max_number)
        if mistaken is None:
            continue
        answer = correct[-1].result
        meta: dict[str, JSON] = {
            "family": family,
            "corruption": corruption,
            "first_error": mistaken.labels.index(False),
            "carried": list(mistaken.carried),
            "answer": answer,
            "seed": seed,
        }
        chosen = _steps(correct, answer, [True] * (len(correct) + 1))
        rejected = _steps(mistaken.computations, mistaken.answer, mistaken.labels)
        return PreferencePair(problem.prompt, chosen, rejected, id_, meta)
    return None


def _steps(computations: Sequence[Computation], answer: int, labels: Sequence[bool]) -> list[Step]:
    texts = [*map(str, computations), f"Answer: {answer}"]
    return [Step(text, label) for text, label in zip(texts, labels, strict=True)]


def _check_kind(steps: tuple[int, int], max_number: int) -> None:
    if len(steps) != 2 or steps[0] > steps[1]:
        raise DataError(f"steps must be the fewest and the most computations, such as (2, 6), not {steps!r}")
    for bound in steps:
        _check_range("steps", bound, *STEPS_LIMITS)
    _check_range("max_number", max_number, *MAX_NUMBER_LIMITS)


def _check_range(name: str, number: int, lowest: int, highest: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not lowest <= number <= highest:
        raise DataError(f"{name} must be an integer in {lowest:,}..{highest:,}, not {number!r}")


def _check_names(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise DataError(f"{field} must be a list with at least one of {', '.join(known)}, not {names!r}")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise DataError(f"{field}: unknown name {name!r}; {advice}")
    if len(set(names)) < len(names):
        raise DataError(f"{field} names one twice: {', '.join(names)}")
