"""Preference pairs from a policy's own mistakes: what it wrote against what would have been right.

A policy learns most from answers that it really gives; a mistake that it would never make teaches it little.
"""

from collections.abc import Collection

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.evaluation import sample_answers
from stepwise_dpo.learning.loading import Policy
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.synthetic import Solution, check_solution, draw_solution, solves

BATCH = 64
MAX_PROBLEMS_PER_PAIR = 100
"""Give up when a policy makes so few mistakes."""


def sample_mistakes(
    policy: Policy,
    n: int,
    seed: int,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 128,
    avoid: Collection[str] = (),
    progress: Progress | None = None,
) -> list[PreferencePair]:
    """Let a policy answer fresh problems once each, and keep the wrong answers beside the right solutions.

    Args:
        policy: answers by sampling.
        n: how many pairs, with different prompts.
        seed: of the problems and the sampling.
        temperature: above 0; what the logits are divided by.
        max_new_tokens: the most tokens of an answer; one that is cut off is left out.
        avoid: prompts that must not occur.
        progress: told how many pairs there are.

    Returns:
        pairs whose chosen side is the right solution and whose rejected side the policy wrote. The labels of both are
        the checker's. `meta` has family, first_error (index from 0), answer (the right one), seed and temperature.

    Raises:
        DataError: the policy makes too few mistakes.
    """
    pairs: list[PreferencePair] = []
    used = set(avoid)
    index = 0
    while len(pairs) < n:
        if index >= n * MAX_PROBLEMS_PER_PAIR:
            raise DataError(
                f"{policy.name} answered {index} problems and got only {len(pairs)} wrong in a usable way; "
                "ask for fewer pairs, or raise the temperature"
            )
        drawn: list[Solution] = []
        while len(drawn) < BATCH:
            solution = draw_solution(seed, index, avoid=used)
            index += 1
            used.add(solution.prompt)
            drawn.append(solution)
        answers = sample_answers(
            policy,
            [solution.prompt for solution in drawn],
            samples=1,
            temperature=temperature,
            seed=seed + index,
            max_new_tokens=max_new_tokens,
        )
        for solution, (answer,) in zip(drawn, answers, strict=True):
            if not answer.complete or not answer.steps or solves(solution.prompt, answer.steps):
                continue
            labels = check_solution(solution.prompt, answer.steps)
            if not all(labels):  # else nothing is wrong but that the answer is missing
                pairs.append(_pair(solution, answer.steps, labels, len(pairs), seed, temperature))
        if progress is not None:
            progress(min(len(pairs), n), n)
    return pairs[:n]


def _pair(
    solution: Solution, answered: list[str], labels: list[bool], index: int, seed: int, temperature: float
) -> PreferencePair:
    return PreferencePair(
        solution.prompt,
        [Step(text, True) for text in solution.steps],
        [Step(text, label) for text, label in zip(answered, labels, strict=True)],
        f"onpolicy-{seed}-{index + 1:04d}",
        {
            "family": solution.family,
            "first_error": labels.index(False),
            "answer": int(solution.steps[-1].split()[-1]),
            "seed": seed,
            "temperature": temperature,
        },
    )
