"""The problem families: how each words its problems, and how the wording is read back.

A family is a module with two sides that meet only in the wording and in the order of the operations:

    draw(rng, n, limit) -> Problem | None     a random problem with n operations, all numbers and results in 1..limit
    read(prompt) -> operations | None         what the text of a prompt demands; None if it isn't this family's

`draw` returns None where chance led into a dead end (say, a number that no divisor fits); the caller draws again.
Numbers in a prompt have up to nine digits.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from stepwise_dpo.preferences.families import chain, conversion, equation, ordering, percent, shopping
from stepwise_dpo.preferences.families.wording import Ops, Problem


class Family(NamedTuple):
    """The two sides of a family; see the module's docstring."""

    draw: Callable[[random.Random, int, int], Problem | None]
    read: Callable[[str], Ops | None]


MAX_PROMPT_CHARACTERS = 2_000  # no prompt of ours is longer, and reading a longer one could be slow

FAMILIES: dict[str, Family] = {
    "chain": Family(chain.draw, chain.read),
    "shopping": Family(shopping.draw, shopping.read),
    "equation": Family(equation.draw, equation.read),
    "conversion": Family(conversion.draw, conversion.read),
    "percent": Family(percent.draw, percent.read),
    "ordering": Family(ordering.draw, ordering.read),
}


def recover(prompt: str) -> Ops | None:
    """Read what a prompt demands, whichever family it is of; None if it is of none."""
    text = " ".join(prompt.split())
    if len(text) > MAX_PROMPT_CHARACTERS:
        return None
    found = (family.read(text) for family in FAMILIES.values())
    return next((ops for ops in found if ops), None)
