"""Conversion of units and of times: all to the small unit, then add, take away and divide."""

import random
import re
from collections.abc import Sequence
from typing import TypeAlias

from stepwise_dpo.preferences.families.wording import Ops, Problem, read_sentences
from stepwise_dpo.preferences.programs import Op, Operand, Ref

_UNITS = {
    "length": (("feet", "inches", 12), ("yards", "feet", 3), ("meters", "centimeters", 100)),
    "time": (
        ("weeks", "days", 7), ("days", "hours", 24), ("years", "months", 12),
        ("hours", "minutes", 60), ("minutes", "seconds", 60),
    ),
    "weight": (("pounds", "ounces", 16), ("kilograms", "grams", 1000), ("tons", "kilograms", 1000)),
    "volume": (("gallons", "quarts", 4), ("quarts", "pints", 2), ("liters", "milliliters", 1000)),
}  # fmt: skip
_CONVERSION = {
    "length": {
        "start": ("A rope is {rest} long.", "A ribbon measures {rest}.", "A roll holds {rest} of tape."),
        "+": ("A piece of {rest} is added.", "Then {rest} are sewn on."),
        "-": ("A piece of {rest} is cut off.", "Then {rest} are taken away."),
        "total": ("What is its length in {unit}?", "How many {unit} are there in the end?"),
        "split": ("It is cut into {n} equal pieces; how many {unit} long is each?",),
    },
    "time": {
        "start": ("A course lasts {rest}.", "A repair takes {rest}.", "A voyage is planned for {rest}."),
        "+": ("It is extended by {rest}.", "A delay adds {rest}."),
        "-": ("It is shortened by {rest}.", "Better planning saves {rest}."),
        "total": ("How many {unit} does it take?", "What is its duration in {unit}?"),
        "split": ("It is divided into {n} equal parts; how many {unit} is each?",),
    },
    "weight": {
        "start": ("A sack weighs {rest}.", "A crate holds {rest} of sand."),
        "+": ("Another {rest} are put in.", "A worker adds {rest}."),
        "-": ("Then {rest} are taken out.", "Of this, {rest} are sold."),
        "total": ("How many {unit} is that?", "What is the weight in {unit}?"),
        "split": ("It is shared out into {n} equal bags; how many {unit} are in each?",),
    },
    "volume": {
        "start": ("A barrel holds {rest} of water.", "A cook makes {rest} of soup."),
        "+": ("Another {rest} are poured in.", "Then {rest} are added."),
        "-": ("Then {rest} are poured out.", "Of this, {rest} are used up."),
        "total": ("How many {unit} is that?", "What is the volume in {unit}?"),
        "split": ("It is poured into {n} equal jars; how many {unit} are in each?",),
    },
}
_Amount: TypeAlias = tuple[str, int, bool]  # symbol, number, whether in the big unit


def _convert(factor: int, amounts: Sequence[_Amount], parts: int | None) -> Ops:
    """Operations for amounts, the first of them in the big unit, and a final division into parts."""
    ops: list[Op] = []
    total: Operand | None = None
    for symbol, n, big in amounts:
        amount: Operand = n
        if big:
            ops.append(Op("*", n, factor))
            amount = Ref(len(ops) - 1)
        if total is not None:
            ops.append(Op(symbol, total, amount))
            amount = Ref(len(ops) - 1)
        total = amount
    if parts is not None and total is not None:
        ops.append(Op("/", total, parts))
    return tuple(ops)


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    kind = rng.choice(sorted(_UNITS))
    units = [unit for unit in _UNITS[kind] if 3 * unit[2] <= limit]
    if not units:
        return None
    big_unit, small_unit, factor = rng.choice(units)
    split = rng.randrange(3) == 0
    most = limit // factor
    amounts: list[_Amount] = [("+", rng.randrange(2, most + 1), True)]
    at = amounts[0][1] * factor
    left = n - 1 - split
    with_small = left > 0 and rng.randrange(2) == 0
    while left > 0:
        first_small = with_small and len(amounts) == 1
        big = left > 1 and not first_small and rng.randrange(2) == 0
        left -= 1 + big
        unit = factor if big else 1
        symbol = "+" if first_small else rng.choice("+-")
        highest = min((limit - at) // unit if symbol == "+" else (at - 1) // unit, factor - 1 if first_small else limit)
        if highest < 2:
            return None
        amounts.append((symbol, rng.randrange(2, highest + 1), big))
        at += amounts[-1][1] * unit * (1 if symbol == "+" else -1)
    divisors = [k for k in range(2, 10) if at % k == 0]
    if left < 0 or (split and not divisors):
        return None
    parts = rng.choice(divisors) if split else None
    words = [f"{number} {big_unit if big else small_unit}" for _, number, big in amounts]
    wording = _CONVERSION[kind]
    start, skip = (f"{words[0]} and {words[1]}", 2) if with_small else (words[0], 1)
    sentences = [rng.choice(wording["start"]).format(rest=start)]
    for (symbol, _, _), word in list(zip(amounts, words, strict=True))[skip:]:
        sentences.append(rng.choice(wording[symbol]).format(rest=word))
    sentences.append(rng.choice(wording["split" if split else "total"]).format(n=parts, unit=small_unit))
    return Problem(" ".join(sentences), _convert(factor, amounts, parts))


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    for kind, wording in _CONVERSION.items():
        sentences = read_sentences(prompt, wording)
        kinds = [k for k, _ in sentences or ()]
        if sentences is None or len(kinds) < 2 or kinds[0] != "start" or kinds[-1] not in ("total", "split"):
            continue
        if not all(k in "+-" for k in kinds[1:-1]):
            continue
        end = sentences[-1][1]
        words = [
            (k if k in "+-" else "+", word) for k, slots in sentences[:-1] for word in slots["rest"].split(" and ")
        ]
        for big_unit, small_unit, factor in _UNITS[kind]:
            sizes = {big_unit: True, small_unit: False}
            read = [(symbol, re.fullmatch(r"([0-9]{1,9}) ([a-z]+)", word)) for symbol, word in words]
            amounts = [(symbol, int(m[1]), sizes[m[2]]) for symbol, m in read if m and m[2] in sizes]
            if small_unit == end["unit"] and len(amounts) == len(words) and amounts[0][2]:
                return _convert(factor, amounts, int(end["n"]) if "n" in end else None)
    return None
