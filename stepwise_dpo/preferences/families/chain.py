"""Chains of orders: start with a number and do this, then that."""

import random
import re

from stepwise_dpo.preferences.families.wording import INVERSE, Move, Ops, Problem, draw_move, follow, moved, read_one

_CHAIN_FORMS = (
    "Start with {n}. {rest}. What is the result?",
    "Take the number {n}, then {rest}. What do you get?",
    "A counter shows {n}. Now {rest}. What does it show at the end?",
    "Begin at {n}. First {rest}. Where do you end up?",
    "I think of {n}. I {rest}. Which number do I have now?",
)
_CHAIN_VERBS = {
    "+": ("add {n}", "increase it by {n}", "put {n} on top"),
    "-": ("subtract {n}", "decrease it by {n}", "take away {n}"),
    "*": ("multiply by {n}", "multiply it by {n}"),
    "/": ("divide by {n}", "divide it by {n}"),
}
_CHAIN_WORDS: dict[str, Move] = {"double it": ("*", 2), "triple it": ("*", 3), "halve it": ("/", 2)}


def draw(rng: random.Random, n: int, limit: int) -> Problem | None:
    """Draw a problem with n operations; None in a dead end."""
    start = at = rng.randrange(2, limit + 1)
    moves: list[Move] = []
    for _ in range(n):
        move = draw_move(rng, at, limit)
        if move is None or (moves and move == (INVERSE[moves[-1][0]], moves[-1][1])):
            return None  # no move that takes back the one before it
        moves.append(move)
        at = moved(at, move)
    orders = []
    for move in moves:
        words = [word for word, meaning in _CHAIN_WORDS.items() if meaning == move]
        verb = rng.choice([*_CHAIN_VERBS[move[0]], *words])
        orders.append(verb.format(n=move[1]))
    text = ", ".join(orders[:-1]) + rng.choice((", then ", " and ", ", and then ")) + orders[-1]
    form = rng.choice(_CHAIN_FORMS)
    text = text.capitalize() if ". {rest}" in form else text
    return Problem(form.format(n=start, rest=text), follow(start, moves))


def read(prompt: str) -> Ops | None:
    """Read what a prompt of this family demands; None if it is none."""
    slots = read_one(_CHAIN_FORMS, prompt)
    if slots is None:
        return None
    moves = []
    for order in re.split(r",? and then |, then | and |, ", slots["rest"].lower()):
        move = _CHAIN_WORDS.get(order)
        for symbol, verbs in _CHAIN_VERBS.items():
            if number := read_one(verbs, order):
                move = (symbol, int(number["n"]))
        if move is None:
            return None
        moves.append(move)
    return follow(int(slots["n"]), moves)
