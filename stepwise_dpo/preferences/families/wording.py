"""What the families share: sentences with slots that can be written and read, and moves from number to number.

A template such as "{name} has {n} {things}." serves both ways: `str.format` writes it, `read_one` reads it.
"""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

from stepwise_dpo.preferences.programs import Op, Ref

Ops: TypeAlias = tuple[Op, ...]
Move: TypeAlias = tuple[str, int]  # symbol and number
Slots: TypeAlias = dict[str, str]

INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}

NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jon", "Kira", "Leo", "Mia",
    "Nils", "Olga", "Paul", "Quinn", "Rosa", "Sam", "Tara", "Udo", "Vera", "Will", "Xenia", "Yara", "Zoe",
)  # fmt: skip


class Problem(NamedTuple):
    """A worded problem with the operations that solve it; the last one yields the answer."""

    prompt: str
    ops: Ops


@cache
def pattern(template: str) -> re.Pattern[str]:
    """Turn "{name} has {n} {things}." into the expression that reads it; a slot named twice must read the same."""
    number, name = "[0-9]{1,9}", "[A-Z][a-z]+"
    kinds = {"n": number, "price": number, "name": name, "other": name, "rest": ".+"}
    parts = re.split(r"\{(\w+)\}", template)
    seen: set[str] = set()
    pattern = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            pattern += f"(?P<{part}>{kinds.get(part, '[A-Za-z]+')})"
            seen.add(part)
    return re.compile(pattern)


def read_one(templates: Iterable[str], text: str) -> Slots | None:
    """Read a text by the first template that fits it; None if none does."""
    for template in templates:
        if match := pattern(template).fullmatch(text):
            return match.groupdict()
    return None


def read_sentences(prompt: str, table: Mapping[str, Sequence[str]]) -> list[tuple[str, Slots]] | None:
    """Read a prompt sentence by sentence as (kind, slots); None if one is of no kind in the table."""
    read = []
    for sentence in re.split(r"(?<=[.?]) ", prompt):
        found = ((kind, read_one(templates, sentence)) for kind, templates in table.items())
        known = next(((kind, slots) for kind, slots in found if slots is not None), None)
        if known is None:
            return None
        read.append(known)
    return read


def follow(start: int, moves: Sequence[Move]) -> Ops:
    """Operations that take a number through moves one after another."""
    return tuple(Op(symbol, Ref(i - 1) if i else start, n) for i, (symbol, n) in enumerate(moves))


def draw_move(rng: random.Random, at: int, limit: int, symbols: str = "+-*/") -> Move | None:
    """Draw a move from a number to another one in 1..limit."""
    choices = {
        "+": range(2, limit - at + 1),
        "-": range(2, at),
        "*": range(2, min(9, limit // at) + 1),
        "/": [n for n in range(2, 10) if at % n == 0],
    }
    possible = [symbol for symbol in symbols if choices[symbol]]
    if not possible:
        return None
    symbol = rng.choice(possible)
    return symbol, rng.choice(choices[symbol])


def moved(at: int, move: Move) -> int:
    """Return where a move leads from a number."""
    symbol, n = move
    return {"+": at + n, "-": at - n, "*": at * n, "/": at // n}[symbol]
