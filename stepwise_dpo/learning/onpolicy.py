"""Preference pairs from a policy's own mistakes: what it wrote against what would have been right.

A policy learns most from answers that it really gives; a mistake that it would never make teaches it little.
"""

from collections.abc import Collection, Sequence

from stepwise_dpo.errors import DataError
from stepwise_dpo.learning.evaluation import sample_answers
from stepwise_dpo.learning.loading import Policy
from stepwise_dpo.learning.rewards import Progress
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.preferences.synthetic import Solution, check_solution, draw_solution, solves

BATCH = 64
MAX_PROBLEMS_PER_PAIR = 100
"""Give up when a policy makes so few mistakes."""
MAX_TRIES = 100
"""Answers to a problem in which a mistake is looked for, before giving up."""
WARMER = 1.05
"""For a mistake in each problem, every further try has so many times the temperature of the one before."""


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
        for solution, mistake in zip(
            drawn, _mistakes(policy, drawn, temperature, seed + index, max_new_tokens), strict=True
        ):
            if mistake is not None:
                pairs.append(_pair(solution, *mistake, len(pairs), seed, temperature))
        if progress is not None:
            progress(min(len(pairs), n), n)
    return pairs[:n]


def sample_mistake_in_each(
    policy: Policy,
    n: int,
    seed: int,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 128,
    avoid: Collection[str] = (),
    progress: Progress | None = None,
) -> list[PreferencePair]:
    """Let a policy answer fresh problems until it has made a mistake in each of them, and keep that.

    Problems that it happened to fail at are harder for it than others, and some of them any other policy would solve:
    compared on them, whatever training does looks like progress. Here no problem is left out, so that the share that a
    policy solves is that of all such problems. For a mistake where it makes few, each try is warmer than the last.

    Args:
        policy: answers by sampling.
        n: how many pairs, with different prompts.
        seed: of the problems and the sampling.
        temperature: above 0, of the first try.
        max_new_tokens: the most tokens of an answer.
        avoid: prompts that must not occur.
        progress: told after each batch how many pairs there are.

    Returns:
        as `sample_mistakes`, in the order in which the problems were drawn; `meta["temperature"]` is that of the try.

    Raises:
        DataError: the policy makes no mistake in some problem.
        ConfigError: temperature is out of range.
    """
    drawn: list[Solution] = []
    used = set(avoid)
    for index in range(n):
        drawn.append(draw_solution(seed, index, avoid=used))
        used.add(drawn[-1].prompt)
    found: dict[int, PreferencePair] = {}
    heat = temperature
    left = list(range(n))
    for attempt in range(MAX_TRIES):
        for start in range(0, len(left), BATCH):
            part = left[start : start + BATCH]
            problems = [drawn[index] for index in part]
            mistakes = _mistakes(policy, problems, heat, seed + attempt * n + start, max_new_tokens)
            for index, mistake in zip(part, mistakes, strict=True):
                if mistake is not None:
                    found[index] = _pair(drawn[index], *mistake, index, seed, round(heat, 3))
            if progress is not None:
                progress(len(found), n)
        left = [index for index in left if index not in found]
        if not left:
            return [found[index] for index in range(n)]
        heat *= WARMER
    raise DataError(
        f"{policy.name} made no usable mistake in {MAX_TRIES} answers to {drawn[left[0]].prompt!r}; start at a higher "
        "temperature"
    )


def _mistakes(
    policy: Policy, problems: Sequence[Solution], temperature: float, seed: int, max_new_tokens: int
) -> list[tuple[list[str], list[bool]] | None]:
    """Draw an answer to each problem: (its steps, their labels) where it is wrong in a usable way, else None."""
    prompts = [problem.prompt for problem in problems]
    answers = sample_answers(
        policy, prompts, samples=1, temperature=temperature, seed=seed, max_new_tokens=max_new_tokens
    )
    mistakes: list[tuple[list[str], list[bool]] | None] = []
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        readable = answer.complete and answer.steps and all(step.isprintable() for step in answer.steps)
        usable = readable and not solves(prompt, answer.steps)
        labels = check_solution(prompt, answer.steps) if usable else []
        # Where all are right, nothing is wrong but that the answer is missing.
        mistakes.append((answer.steps, labels) if usable and not all(labels) else None)
    return mistakes


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
