"""Percentages of what is there at that time, mixed with plain increases and decreases."""

import math
import random
from collections.abc import Sequence

from stepwise_dpo.preferences.families.wording import Move, Ops, Problem, draw_move, read_sentences
from stepwise_dpo.preferences.programs import Op, Operand, Ref

_PERCENT = {
    "start": ("A {place} has {n} {things}.",),
    "up": ("The number of {things} grows by {n}%.", "Then the number rises by {n}%.", "An increase of {n}% follows."),
    "down": ("The number of {things} falls by {n}%.", "Then the number drops by {n}%.", "A decrease of {n}% follows."),
    "more": ("Then {n} {things} are added.", "The number goes up by {n} after that."),
    "less": ("Then {n} {things} are taken away.", "The number goes down by {n} after that."),
    "total": ("How many {things} are there now?", "What is the number of {things} now?"),
    "part": ("Of all {things}, {n}% are new; how many is that?", "How many {things} are {n}% of them?"),
}
_PLACES = (
    ("library", "books"), ("club", "members"), ("farm", "sheep"), ("shop", "lamps"), ("park", "trees"),
    ("town", "houses"), ("school", "pupils"), ("museum", "paintings"), ("harbor", "boats"),
)  # fmt: skip
_PERCENTAGES = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)


def _share(percentage: int) -> tuple[int, int]:
    """Return percentage / 100 in lowest terms: 30 gives (3, 10)."""
    divisor = math.gcd(percentage, 100)
    return percentage // divisor, 100 // divisor


def _grow(start: int, events: Sequence[Move]) -> Ops:
    """Operations for a start and events: up, down or part by a percentage; more or less by a number.

    30% of a number are taken as the number / 10, then * 3.
    """
    ops: list[Op] = []
    total: Operand = start
    for kind, n in events:
        amount: Operand = n
        if kind in ("up", "down", "part"):
            times, divisor = _share(n)
            ops.append(Op("/", total, divisor))
            if times > 1:
                ops.append(Op("*", Ref(len(ops) - 1), times))
            amount = Ref(len(ops) - 1)
        if kind != "part":
            ops.append(Op("+" if kind in ("up", "more") else "-", total, amount))
        total = Ref(len(ops) - 1)
    return tuple(ops)


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    start = at = rng.randrange(10, limit + 1)
    events: list[Move] = []
    left = n
    while left > 0:
        kind = rng.choice(("up", "down", "part", "more", "less") if events else ("up", "down", "part"))
        if kind in ("more", "less"):
            move = draw_move(rng, at, limit, "+" if kind == "more" else "-")
            if move is None:
                return None
            number, change, cost = move[1], move[1], 1
        else:
            fitting = [p for p in _PERCENTAGES if at % _share(p)[1] == 0]
            if not fitting:
                return None
            number = rng.choice(fitting)
            change = at * number // 100
            cost = 1 + (_share(number)[0] > 1) + (kind != "part")
        at = change if kind == "part" else at + change if kind in ("up", "more") else at - change
        left -= cost
        events.append((kind, number))
        if not 1 <= at <= limit or left < 0 or (kind == "part" and left > 0):
            return None
    place, things = rng.choice(_PLACES)
    sentences = [rng.choice(_PERCENT["start"]).format(place=place, n=start, things=things)]
    sentences += [rng.choice(_PERCENT[kind]).format(n=number, things=things) for kind, number in events]
    if events[-1][0] != "part":
        sentences.append(rng.choice(_PERCENT["total"]).format(things=things))
    return Problem(" ".join(sentences), _grow(start, events))


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    sentences = read_sentences(prompt, _PERCENT)
    kinds = [kind for kind, _ in sentences or ()]
    if sentences is None or len(kinds) < 2 or kinds[0] != "start" or kinds[-1] not in ("total", "part"):
        return None
    if not all(kind in ("up", "down", "more", "less") for kind in kinds[1:-1]):
        return None
    events = [(kind, int(slots["n"])) for kind, slots in sentences[1:] if kind != "total"]
    if any(kind in ("up", "down", "part") and n not in _PERCENTAGES for kind, n in events):
        return None
    return _grow(int(sentences[0][1]["n"]), events)
