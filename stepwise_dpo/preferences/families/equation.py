"""Linear equations with one unknown, solved by undoing their layers from the outside."""

import random
import re
from collections.abc import Sequence

from stepwise_dpo.preferences.families.wording import INVERSE, Move, Ops, Problem, draw_move, follow, moved, read_one

_EQUATION_FORMS = (
    "Solve for {letter}: {rest}",
    "Find {letter} if {rest}.",
    "What value of {letter} makes {rest} true?",
    "Work out {letter} when {rest}.",
    "If {rest}, what is {letter}?",
)


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    letter = text = rng.choice("xyznkt")
    at = rng.randrange(2, limit + 1)
    layers: list[Move] = []
    groups = ("+-", "*/") if rng.randrange(2) else ("*/", "+-")  # taking turns, so that no two layers can be merged
    for i in range(n):
        layer = draw_move(rng, at, limit, groups[i % 2])
        if layer is None:
            return None
        symbol, number = layer
        inner = text if text == letter else f"({text})"
        if symbol in "+-":
            text = f"{text} {symbol} {number}"
        else:
            text = f"{number}{inner}" if symbol == "*" else f"{inner} / {number}"
        layers.append(layer)
        at = moved(at, layer)
    prompt = rng.choice(_EQUATION_FORMS).format(letter=letter, rest=f"{text} = {at}")
    return Problem(prompt, _undo(at, layers))


def _undo(result: int, layers: Sequence[Move]) -> Ops:
    return follow(result, [(INVERSE[symbol], n) for symbol, n in reversed(layers)])


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    slots = read_one(_EQUATION_FORMS, prompt)
    sides = re.fullmatch(r"([^=]+) = ([0-9]{1,9})", slots["rest"]) if slots else None
    if slots is None or sides is None:
        return None
    text, letter = sides[1], slots["letter"]
    layers: list[Move] = []
    while text != letter:  # peel from the outside; a sum below a product must stand in brackets
        if layer := re.fullmatch(r"(.+) ([+-]) ([0-9]{1,9})", text):
            text, symbol, number = layer.groups()
        elif layer := re.fullmatch(rf"({letter}|[0-9]{{1,9}}{letter}|\(.+\)) / ([0-9]{{1,9}})", text):
            (text, number), symbol = layer.groups(), "/"
        elif layer := re.fullmatch(rf"([0-9]{{1,9}})({letter}|\(.+\))", text):
            (number, text), symbol = layer.groups(), "*"
        else:
            return None
        text = text[1:-1] if text.startswith("(") and symbol in "*/" else text
        layers.insert(0, (symbol, int(number)))
    return _undo(int(sides[2]), layers) if layers else None
