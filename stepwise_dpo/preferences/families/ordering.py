"""Ordering: who has how many, from statements in any order, and then the most and the fewest of them."""

import random
from collections.abc import Sequence
from typing import TypeAlias

from stepwise_dpo.preferences.families.wording import NAMES, Ops, Problem, draw_move, moved, read_sentences
from stepwise_dpo.preferences.programs import Extreme, Op, Ref

_ORDERING: dict[str, dict[str, Sequence[str]]] = {
    "count": {
        "base": ("{name} has {n} {things}.", "{name} owns {n} {things}."),
        "+": ("{name} has {n} more {things} than {other}.",),
        "-": ("{name} has {n} fewer {things} than {other}.",),
        "*": ("{name} has {n} times as many {things} as {other}.",),
        "*2": ("{name} has twice as many {things} as {other}.",),
        "/2": ("{name} has half as many {things} as {other}.",),
        "gap": (
            "How many more {things} does the one with the most have than the one with the fewest?",
            "By how many {things} do the largest and the smallest collection differ?",
        ),
        "sum": ("How many {things} do the one with the most and the one with the fewest have together?",),
    },
    "age": {
        "base": ("{name} is {n} years old.",),
        "+": ("{name} is {n} years older than {other}.",),
        "-": ("{name} is {n} years younger than {other}.",),
        "*": ("{name} is {n} times as old as {other}.",),
        "*2": ("{name} is twice as old as {other}.",),
        "/2": ("{name} is half as old as {other}.",),
        "gap": ("How many years apart are the oldest and the youngest?",),
        "sum": ("What do the ages of the oldest and the youngest add up to?",),
    },
    "score": {
        "base": ("{name} scored {n} points.",),
        "+": ("{name} scored {n} points more than {other}.", "{name} beat {other} by {n} points."),
        "-": ("{name} scored {n} points fewer than {other}.", "{name} finished {n} points behind {other}."),
        "*": ("{name} scored {n} times as many points as {other}.",),
        "*2": ("{name} scored twice as many points as {other}.",),
        "/2": ("{name} scored half as many points as {other}.",),
        "gap": ("How many points lie between the best and the worst score?",),
        "sum": ("How many points do the best and the worst score make together?",),
    },
}
_THINGS = ("marbles", "stickers", "stamps", "shells", "cards", "badges", "beads", "postcards")
_Relation: TypeAlias = tuple[str, int, int]  # symbol, number, index of the earlier person it starts from


def _compare(start: int, relations: Sequence[_Relation], symbol: str) -> Ops:
    """Operations for person 0's number, one relation per further person, and the most +/- the fewest."""
    ops = [Op(sign, Ref(other - 1) if other else start, n) for sign, n, other in relations]
    everyone: tuple[int | Ref, ...] = (start, *(Ref(i) for i in range(len(relations))))
    return (*ops, Op(symbol, Extreme(True, everyone), Extreme(False, everyone)))


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    numbers = [rng.randrange(2, limit + 1)]
    relations: list[_Relation] = []
    for _ in range(n - 1):
        other = rng.randrange(len(numbers))
        move = draw_move(rng, numbers[other], limit)
        if move is None or (move[0] == "/" and move[1] != 2):
            return None
        relations.append((*move, other))
        numbers.append(moved(numbers[other], move))
    if len(set(numbers)) < len(numbers) or len(numbers) > len(NAMES):
        return None
    wording = _ORDERING[rng.choice(("count", "score", "age") if limit <= 120 else ("count", "score"))]
    names = list(NAMES)
    rng.shuffle(names)
    things = rng.choice(_THINGS)
    statements = [rng.choice(wording["base"]).format(name=names[0], n=numbers[0], things=things)]
    for i, (symbol, number, other) in enumerate(relations, 1):
        kind = f"{symbol}{number}" if (symbol, number) in (("*", 2), ("/", 2)) else symbol
        statements.append(rng.choice(wording[kind]).format(name=names[i], other=names[other], n=number, things=things))
    rng.shuffle(statements)
    kind = rng.choice(("gap", "sum"))
    question = rng.choice(wording[kind]).format(things=things)
    return Problem(" ".join([*statements, question]), _compare(numbers[0], relations, "-" if kind == "gap" else "+"))


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    for wording in _ORDERING.values():
        sentences = read_sentences(prompt, wording)
        if sentences is None or sentences[-1][0] not in ("gap", "sum"):
            continue
        bases = [slots for kind, slots in sentences[:-1] if kind == "base"]
        waiting = [(kind, slots) for kind, slots in sentences[:-1] if kind != "base"]
        if len(bases) != 1 or any(kind in ("gap", "sum") for kind, _ in waiting):
            continue
        known = {bases[0]["name"]: 0}
        relations: list[_Relation] = []
        while waiting:
            ready = next((w for w in waiting if w[1]["other"] in known and w[1]["name"] not in known), None)
            if ready is None:
                return None
            waiting.remove(ready)
            kind, slots = ready
            known[slots["name"]] = len(known)
            relations.append((kind[0], int(slots.get("n", kind[1:] or 0)), known[slots["other"]]))
        return _compare(int(bases[0]["n"]), relations, "-" if sentences[-1][0] == "gap" else "+")
    return None
