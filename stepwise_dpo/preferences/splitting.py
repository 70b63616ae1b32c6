"""Some examples are held out: those that training never sees, nor another solution of the same problem."""

import random
from collections.abc import Sequence

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair
from stepwise_dpo.preferences.statistics import prompt_key


def split_pairs(
    pairs: Sequence[PreferencePair], share: float, seed: int = 0
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Divide pairs into training and held-out ones; all pairs of one prompt stay together.

    Args:
        pairs: the examples.
        share: of the examples that is held out, above 0 and below 1; as near as whole prompts allow, and at least one
            prompt on either side.
        seed: of the choice; the same one chooses the same prompts, in whatever order the pairs come.

    Returns:
        The training and the held-out pairs, each in the order in which they came.

    Raises:
        DataError: the share is out of range, or all pairs have the same prompt.
    """
    if not 0 < share < 1:
        raise DataError(f"the held-out share must be above 0 and below 1, not {share}")
    sizes: dict[str, int] = {}
    for pair in pairs:
        key = prompt_key(pair.prompt)
        sizes[key] = sizes.get(key, 0) + 1
    if len(sizes) < 2:
        raise DataError("examples of at least two different prompts are needed to hold some out")
    prompts = sorted(sizes)
    random.Random(seed).shuffle(prompts)
    held_out, count = {prompts[0]}, sizes[prompts[0]]
    for prompt in prompts[1:-1]:
        if count + sizes[prompt] / 2 > share * len(pairs):
            break
        held_out.add(prompt)
        count += sizes[prompt]
    train: list[PreferencePair] = []
    test: list[PreferencePair] = []
    for pair in pairs:
        (test if prompt_key(pair.prompt) in held_out else train).append(pair)
    return train, test
